# SPDX-License-Identifier: MIT
"""Which verdict and which advice the facts about a machine lead to."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from mbufffs import machine
from mbufffs.diagnosis import Check, checks, mountable, verdict
from mbufffs.machine import Machine
from mbufffs.memory import Contiguous, contiguous

ROOT = Machine(
    release="6.12.9-amd64", passthrough_configured=True, uring=False, fuse_device=0, user=0,
    sys_admin=True,
    user_namespace=False, fusermount="3.14.0", fusermount_setuid=True, libfuse="3.14.0",
    pyfuse3="3.5.0", swaps=0, user_allow_other=False, memory_total=2 << 30,
    memory_available=1 << 30, store="", contiguous=Contiguous(4 << 20, 0, 0),
    module=errno.ENOENT)
USER = replace(ROOT, user=1000, sys_admin=False)


def found(name: str, facts: Machine) -> Check:
    return next(check for check in checks(facts) if check.check == name)


def test_root_on_a_new_kernel_gets_passthrough_without_a_complaint() -> None:
    assert [check.ok for check in checks(ROOT)] == [True] * len(checks(ROOT))
    assert verdict(checks(ROOT))[0] == "passthrough"


@pytest.mark.parametrize(("facts", "advice"), [
    (USER, "sudo mbufffs mount"), (replace(ROOT, release="6.1.0-31-amd64"), "linux-image"),
    (replace(ROOT, passthrough_configured=False), "CONFIG_FUSE_PASSTHROUGH=y"),
    (replace(ROOT, user_namespace=True), "outside of the user namespace")])
def test_what_stands_against_passthrough_is_named_and_a_mount_still_works(
    facts: Machine, advice: str
) -> None:
    mode, said = verdict(checks(facts))
    assert mode == "page cache"
    assert advice in said
    assert mountable(checks(facts))


@pytest.mark.parametrize(("facts", "said"), [
    (replace(ROOT, release="6.18.2", uring=True), "the kernel has"),
    (replace(ROOT, release="6.18.2"), "by /dev/fuse"),
    (replace(ROOT, release="6.17.9", uring=True), "by /dev/fuse")])
def test_io_uring_is_told_and_not_missed(facts: Machine, said: str) -> None:
    assert said in found("io_uring", facts).found
    assert found("io_uring", facts).ok is True


def test_a_kernel_that_does_not_tell_its_configuration_is_believed() -> None:
    assert verdict(checks(replace(ROOT, passthrough_configured=None)))[0] == "passthrough"


@pytest.mark.parametrize(("facts", "advice"), [
    (replace(ROOT, fuse_device=errno.ENOENT), "modprobe fuse"),
    (replace(ROOT, fuse_device=errno.EPERM), "--device /dev/fuse"),
    (replace(USER, fuse_device=errno.EACCES), "chmod 666 /dev/fuse"),
    (replace(ROOT, sys_admin=False), "--cap-add SYS_ADMIN"),
    (replace(USER, fusermount=""), "apt-get install fuse3"),
    (replace(ROOT, libfuse=""), "libfuse3-dev"),
    (replace(ROOT, pyfuse3=""), "pyfuse3>=3.5.0"),
    (replace(ROOT, pyfuse3="3.4.2"), "pyfuse3>=3.5.0"),
    (replace(USER, store="/dev/shm is missing or not writable"), "mount -t tmpfs")])
def test_without_what_every_mount_needs_the_verdict_names_the_command(
    facts: Machine, advice: str
) -> None:
    mode, said = verdict(checks(facts))
    assert mode is None
    assert advice in said
    assert not mountable(checks(facts))


def test_root_needs_no_fusermount3() -> None:
    assert mountable(checks(replace(ROOT, fusermount="", fusermount_setuid=False)))


@pytest.mark.parametrize(("facts", "ok"), [
    (replace(ROOT, swaps=1), True), (replace(USER, swaps=1), "warn"),
    (replace(ROOT, swaps=1, release="6.1.0"), "warn"), (replace(USER, swaps=0), True)])
def test_memory_is_locked_by_noswap_or_by_having_no_swap(facts: Machine, ok: object) -> None:
    assert found("swap lock", facts).ok == ok


def test_little_memory_is_a_warning() -> None:
    assert found("memory", replace(ROOT, memory_available=1 << 20)).ok == "warn"


def test_user_allow_other_matters_to_ordinary_users_only() -> None:
    assert found("user_allow_other", ROOT).ok is True
    assert found("user_allow_other", USER).ok == "warn"
    assert found("user_allow_other", replace(USER, user_allow_other=True)).ok is True


def test_every_check_that_is_not_ok_says_what_to_do() -> None:
    nothing = Machine(
        release="5.10.0", passthrough_configured=None, uring=False, fuse_device=errno.ENOENT,
        user=1000,
        sys_admin=False, user_namespace=False, fusermount="", fusermount_setuid=False, libfuse="",
        pyfuse3="", swaps=2, user_allow_other=False, memory_total=1 << 20, memory_available=0,
        store="/dev/shm is missing or not writable", contiguous=Contiguous(4 << 20, 0, 0),
        module=errno.EPROTO)
    assert all(check.fix and check.ok is not True for check in checks(nothing)
               if check.check not in ("contiguous memory", "io_uring"))  # no fault


def test_this_machine_can_be_looked_at() -> None:
    here = machine.look()
    assert here.kernel >= (3, 0)
    assert here.memory_total >= here.memory_available > 0
    assert here.swaps >= 0


def test_how_much_there_is_in_one_piece_is_told() -> None:
    without = found("contiguous memory", ROOT)
    assert without.found.startswith("up to 4M in one piece; more needs CMA")
    assert "CONFIG_DMA_CMA" in without.fix
    with_cma = replace(ROOT, contiguous=Contiguous(4 << 20, 128 << 20, 100 << 20))
    assert "100 of 128 MiB free" in found("contiguous memory", with_cma).found
    assert contiguous().block >= 1 << 20


@pytest.mark.parametrize(("module", "ok", "found"), [
    ("0.1.0", True, "mbuff 0.1.0"),
    (errno.ENOENT, True, "not loaded"),
    (errno.EACCES, "warn", "not open to this user"),
    (errno.EPROTO, "warn", "another version")])
def test_the_module_is_told_and_never_in_the_way(
        module: int | str, ok: bool | str, found: str) -> None:
    told = [check for check in checks(replace(ROOT, module=module))
            if check.check == "kernel module"]
    assert [check.ok for check in told] == [ok]
    assert found in told[0].found
    assert mountable(told)
