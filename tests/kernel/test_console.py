# SPDX-License-Identifier: MIT
"""Which words of a kernel fail a run: as kernels print them, among what they print at each boot."""

from __future__ import annotations

import pytest

from tests.kernel.console import complaints, taints


@pytest.mark.parametrize("line", [
    "BUG: kernel NULL pointer dereference, address: 0000000000000010",
    "BUG: scheduling while atomic: swapper/1/0/0x00010002",
    "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:283",
    "BUG: KASAN: slab-use-after-free in registry_find+0x12/0x40 [mbuff]",
    "BUG: Bad page state in process rmmod  pfn:3e1c2",
    "BUG mbuff_area (Tainted: G           O      ): Objects remaining in mbuff_area on shutdown",
    "Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "Oops: general protection fault, probably for non-canonical address 0xdead000000000122",
    "WARNING: CPU: 1 PID: 217 at fs/dcache.c:1676 umount_check+0x60/0x70",
    "WARNING: possible recursive locking detected",
    "WARNING: possible circular locking dependency detected",
    "WARNING: suspicious RCU usage",
    "Call Trace:",
    "INFO: task python3:312 blocked for more than 120 seconds.",
    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [rmmod:411]",
    "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    "UBSAN: array-index-out-of-bounds in area.c:41:9",
    "sysfs: cannot create duplicate filename '/devices/virtual/misc/mbuff'",
    "proc_dir_entry '/proc/mbuff' already registered",
    "VFS: Busy inodes after unmount of mbuff (mbuff)",
    "list_del corruption. prev->next should be ffff888, but was ffff889",
    "refcount_t: underflow; use-after-free.",
    "remove_proc_entry: removing non-empty directory 'proc/mbuff', leaking at least 'areas'",
    "Kernel panic - not syncing: Fatal exception",
    "python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
    "insmod: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL)",
    "ODEBUG: free active (active state 0) object: 000 object type: timer_list hint: 0x0",
])
@pytest.mark.parametrize("before", ["", "[   12.345678] ", "[    0.000001][    T1] ", "<4>[1.2] "])
def test_a_fault_is_found(before: str, line: str) -> None:
    quiet = "[   12.0] virtme-ng-init: starting script\r\n"
    assert complaints(f"{quiet}{before}{line}\r\n{quiet}") == [f"{before}{line}"]


@pytest.mark.parametrize("line", [
    "mbuff: loading out-of-tree module taints kernel.",
    "mbuff: module verification failed: signature and/or required key missing - tainting kernel",
    "Invalid ELF header magic: != ELF",
    "evm: overlay not supported",
    "virtme-ng-init: unable to find udevd, skip udev.",
    "fuse: init (API version 7.41)",
    "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
    "rcu: \tRCU callback double-/use-after-free debug is enabled.",
    "rcu: \tRCU lockdep checking is enabled.",
    "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on, data leaks possible",
    "clocksource: tsc: mask: 0xffffffffffffffff max_cycles: 0x2, max_idle_ns: 440795301549 ns",
    "kasan: KernelAddressSanitizer initialized",
    "kmemleak: Kernel memory leak detector initialized (mem pool available: 39103)",
    "Freeing unused kernel image (initmem) memory: 1272K",
    "Kernel command line: oops=panic slub_debug=FZPU memmap=16M$0x30000000 BUG",
])
def test_what_a_good_kernel_prints_is_no_fault(line: str) -> None:
    assert complaints(f"[    1.234567] {line}\n") == []


def test_only_taints_that_mean_a_fault_count() -> None:
    assert taints(1 << 12 | 1 << 13) == []  # not Debian's, not signed
    assert taints(1 << 12 | 1 << 9 | 1 << 7) == ["oops", "warning"]
