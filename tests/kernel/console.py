# SPDX-License-Identifier: MIT
"""What a kernel's console must not say. Only the console: the words of tests go into a file."""

from __future__ import annotations

import re

_COMPLAINTS = re.compile("|".join((
    # Faults, and what the kernel prints with each of them.
    r"BUG\b", r"\bOops\b", r"WARNING\b", r"Call Trace", r"Kernel panic", r"cut here",
    r"general protection fault", r"[Uu]nable to handle", r"stack segment", r"invalid opcode",
    r"divide error", r"Modules linked in", r"nobody cared", r"[Cc]orrupt",
    # Locks, and sleeping where nobody may.
    r"possible (recursive|circular|irq)", r"inconsistent lock state", r"bad unlock balance",
    r"lock held when returning", r"still has locks held", r"suspicious RCU", r"held lock freed",
    r"turning off the locking correctness", r"while atomic", r"invalid context",
    # Waiting without end.
    r"blocked for more than", r"\bstall(s|ed)?\b", r"soft lockup", r"hard LOCKUP",
    r"pool .* hung", r"RCU used illegally",
    # Memory.
    r"KASAN", r"UBSAN", r"KFENCE", r"kmemleak: \d+ new", r"unreferenced object", r"Bad page",
    r"Bad rss-counter", r"bad page map", r"Objects remaining", r"refcount_t", r"ODEBUG",
    r"invoked oom-killer", r"Out of memory", r"page allocation failure", r"still in use",
    r"[Uu]se.after.free", r"Busy inodes", r"[Uu]nregister.*leaked", r"\bleaked\b",
    # Names and registrations that were there already, or are still there.
    r"cannot create duplicate", r"already registered", r"kobject_add", r"remove_proc_entry",
    r"Trying to vfree",
)))

# Lines that are right, each with its reason. A whole line has to match.
_ALLOWED = [re.compile(pattern) for pattern in (
    # Printed at boot by kernels that look at a processor which nobody has mended: the emulated one.
    r".*(Spectre|RETBleed|MDS|TAA|MMIO Stale Data|SRSO|ITS|TSA|VMSCAPE)\b.*: .*",
    # What the kernel says of its own means, at boot.
    r"rcu: .*(lockdep checking|debug) is enabled\.",
    r"rcu: .*RCU CPU stall warnings timeout set to.*",
    r"Kernel command line: .*", r"Command line: .*", r"Unknown kernel command line.*",
    r"kasan: KernelAddressSanitizer initialized.*",
    r"(kfence|kmemleak|UBSAN|KASAN): .*(initialized|enabled).*",
)]
_TIME = re.compile(r"^(<\d+>)?\[ *\d+\.\d+\](\[ *[TC]\d+\])? ?")


def complaints(console: str) -> list[str]:
    """The lines that say that something is wrong in the kernel."""
    found = []
    for line in console.splitlines():
        text = _TIME.sub("", line.strip())
        if _COMPLAINTS.search(text) and not any(fine.fullmatch(text) for fine in _ALLOWED):
            found.append(line.rstrip())
    return found


def excerpt(console: str, complaint: str, before: int = 5, after: int = 60) -> str:
    """What the kernel said around a complaint."""
    lines = [line.rstrip() for line in console.splitlines()]
    at = lines.index(complaint)
    return "\n".join(["around the first of these:", *lines[max(0, at - before):at + after]])


# The bits of /proc/sys/kernel/tainted that stand for a fault; others tell that a module is not
# Debian's (O, E) or what it is licensed under (P).
_TAINTS = {4: "machine check", 5: "bad page", 7: "oops", 9: "warning", 14: "soft lockup"}


def taints(value: int) -> list[str]:
    """The faults that the kernel remembers, even if their lines never reached the console."""
    return [what for bit, what in _TAINTS.items() if value >> bit & 1]
