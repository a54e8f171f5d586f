# SPDX-License-Identifier: MIT
"""What the facts about a machine mean for a mount, and what would change that; it looks nowhere."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mbufffs import area
from mbufffs.machine import Machine, version

_LITTLE = 64 << 20
_NEW_KERNEL = "apt-get install -t bookworm-backports linux-image-amd64"


@dataclass(frozen=True)
class Check:
    """One line of the doctor. False: no mount without it; "warn": a mount that lacks something."""

    check: str
    ok: bool | Literal["warn"]
    found: str
    needed: str
    fix: str = ""


def _passthrough(machine: Machine) -> Check:
    needed = "Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH, for passthrough"
    if machine.kernel < (6, 9):
        return Check("kernel", "warn", f"Linux {machine.release}", needed, _NEW_KERNEL)
    configured = {True: "CONFIG_FUSE_PASSTHROUGH=y", False: "CONFIG_FUSE_PASSTHROUGH is not set",
                  None: "its configuration is not told"}[machine.passthrough_configured]
    found = f"Linux {machine.release}, {configured}"
    if machine.passthrough_configured is False:
        return Check("kernel", "warn", found, needed,
                     "boot a kernel with CONFIG_FUSE_PASSTHROUGH=y")
    return Check("kernel", True, found, needed)


def _uring(machine: Machine) -> Check:
    """Not having it is no fault: everything works without it, and most of it as fast."""
    name = "io_uring"
    needed = "Linux 6.18 with CONFIG_FUSE_IO_URING, for quicker open and create"
    if machine.kernel < (6, 18) or not machine.uring:
        return Check(name, True, "not for FUSE; messages go by /dev/fuse", needed)
    return Check(name, True, "the kernel has FUSE over it", needed)


def _device(machine: Machine) -> Check:
    name, needed = "/dev/fuse", "a device that can be opened"
    if machine.fuse_device in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return Check(name, False, "missing", needed, "modprobe fuse")
    if machine.fuse_device == errno.EACCES and machine.user != 0:
        # fusermount3 opens it with the rights of its caller too.
        return Check(name, False, "not open to ordinary users", needed, "chmod 666 /dev/fuse")
    if machine.fuse_device:
        return Check(name, False, os.strerror(machine.fuse_device), needed,
                     "give the container the device: docker run --device /dev/fuse")
    return Check(name, True, "present, can be opened", needed)


def _capability(machine: Machine) -> Check:
    name, needed = "CAP_SYS_ADMIN", "root's capability, for passthrough"
    if machine.sys_admin and machine.user_namespace:
        return Check(name, "warn", "only within a user namespace", needed,
                     "mount outside of the user namespace, as root")
    if machine.sys_admin:
        return Check(name, True, "present", needed)
    if machine.user == 0:
        return Check(name, False, "missing, though the user is root", needed,
                     "docker run --cap-add SYS_ADMIN")
    return Check(name, "warn", "missing, as for every ordinary user", needed,
                 "mount as root: sudo mbufffs mount")


def _helper(machine: Machine) -> Check:
    name, needed = "fusermount3", "for mounts by ordinary users: installed, setuid root"
    if not machine.fusermount:
        return Check(name, machine.sys_admin, "missing", needed, "apt-get install fuse3")
    if not machine.fusermount_setuid:
        return Check(name, True if machine.sys_admin else "warn",
                     f"{machine.fusermount}, not setuid root", needed,
                     "apt-get install --reinstall fuse3")
    return Check(name, True, machine.fusermount, needed)


def _packages(machine: Machine) -> Iterator[Check]:
    for name, found, least, fix in (
            ("libfuse", machine.libfuse, "3.3", "apt-get install fuse3 libfuse3-dev"),
            ("pyfuse3", machine.pyfuse3, "3.5", "pip install 'pyfuse3>=3.5.0'")):
        good = bool(found) and version(found) >= version(least)
        yield Check(name, good, found or "missing", f"{least} or later", "" if good else fix)


def _swap_lock(machine: Machine) -> Check:
    name, needed = "swap lock", "Linux 6.4 or later and root (noswap), or a machine without swap"
    if machine.swaps == 0:
        return Check(name, True, "no swap is in use", needed)
    if machine.kernel >= (6, 4) and machine.sys_admin:
        return Check(name, True, f"Linux {machine.release} has noswap", needed)
    return Check(name, "warn", f"{machine.swaps} swap files or partitions in use", needed,
                 "swapoff -a")


def _other_users(machine: Machine) -> Check:
    name, needed = "user_allow_other", "for areas of ordinary users that others are to share"
    if machine.user == 0:
        return Check(name, True, "not needed for root", needed)
    if machine.user_allow_other:
        return Check(name, True, "set in /etc/fuse.conf", needed)
    return Check(name, "warn", "not set", needed, "echo user_allow_other >> /etc/fuse.conf")


def _memory(machine: Machine) -> Check:
    limit = (f"{machine.memory_total >> 21} MiB unless --size says otherwise"
             if machine.user == 0 else "that of /dev/shm")
    found = (f"{machine.memory_available >> 20} MiB free of {machine.memory_total >> 20} MiB; "
             f"the limit of areas is {limit}")
    needed = f"{area.format_size(_LITTLE)} free"
    if machine.memory_available < _LITTLE:
        return Check("memory", "warn", found, needed, "end programs that use much memory")
    return Check("memory", True, found, needed)


def _place(machine: Machine) -> Check:
    needed = "a writable /run as root, a writable tmpfs at /dev/shm for others"
    if machine.store:
        return Check("store", False, machine.store, needed, "mount -t tmpfs tmpfs /dev/shm")
    return Check("store", True, "areas can be kept", needed)


def _module(machine: Machine) -> Check:
    """Not having it is no fault: areas are then this program's own, and the kernel has no part."""
    name, needed = "kernel module", "mbuff.ko, for areas that kernel modules share"
    if isinstance(machine.module, str):
        return Check(name, True, f"mbuff {machine.module}", needed)
    if machine.module in (errno.EACCES, errno.EPERM):
        return Check(name, "warn", "loaded, but /dev/mbuff is not open to this user", needed,
                     "usermod -a -G mbuff USER, and log in again")
    if machine.module == errno.EPROTO:
        return Check(name, "warn", "of another version than this program", needed,
                     "make kmod-install, and load it again")
    return Check(name, True, "not loaded; areas are kept without it", needed,
                 "modprobe mbuff, after make kmod-install")


def _contiguous(machine: Machine) -> Check:
    """What there can be, not what there is: that changes from moment to moment."""
    name, needed = "contiguous memory", "for areas of kind contiguous, by the kernel module"
    block = f"up to {area.format_size(machine.contiguous.block)} in one piece"
    if not machine.contiguous.cma_total:
        return Check(name, True, f"{block}; more needs CMA, which this kernel has not", needed,
                     "a kernel with CONFIG_DMA_CMA, and cma=SIZE at boot")
    return Check(name, True, f"{block}; more from CMA, "
                 f"{machine.contiguous.cma_free >> 20} of {machine.contiguous.cma_total >> 20} MiB "
                 "free", needed)


def checks(machine: Machine) -> list[Check]:
    """Every check, in the order in which a person would put things right."""
    return [
        _device(machine), _passthrough(machine), _uring(machine), _capability(machine),
        _helper(machine),
        *_packages(machine), _module(machine), _contiguous(machine), _place(machine),
        _memory(machine), _swap_lock(machine), _other_users(machine)]


def mountable(found: list[Check]) -> bool:
    return all(check.ok is not False for check in found)


def verdict(found: list[Check]) -> tuple[str | None, str]:
    """The mode that a mount would have, None for no mount, and a sentence on what changes it."""
    blocking = [check for check in found if check.ok is False]
    if blocking:
        return None, "No mount is possible here. First: " + "; then: ".join(
            check.fix or check.needed for check in blocking)
    lacking = [check for check in found
               if check.check in ("kernel", "CAP_SYS_ADMIN") and check.ok is not True]
    if lacking:
        return "page cache", "A mount works here through the page cache. For passthrough: " + (
            "; then: ".join(check.fix for check in lacking))
    return "passthrough", "A mount works here with passthrough: programs use the memory itself."
