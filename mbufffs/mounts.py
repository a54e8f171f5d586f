# SPDX-License-Identifier: MIT
"""Mounting and unmounting: the mount table, mount(2) for root and fusermount3 for others."""

from __future__ import annotations

import array
import ctypes
import errno
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mbufffs.errors import Unavailable

FSTYPE = "fuse.mbufffs"
SOURCE = "mbufffs"

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo, as far as it matters here."""

    mountpoint: str
    fstype: str
    source: str
    device: int  # st_dev of the files below it
    options: str  # of the file system, comma separated


def _unescaped(field: str) -> str:
    # The kernel writes blank, tab, newline and backslash in octal.
    return field.encode("utf-8", "surrogateescape").decode("unicode_escape").encode(
        "latin-1").decode("utf-8", "surrogateescape") if "\\" in field else field


def mount_table() -> Iterator[Mount]:
    # Of all white space the kernel escapes blank, tab and newline; a mount point may hold the rest.
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape",
              newline="\n") as lines:
        for line in lines:
            fields = line.rstrip("\n").split(" ")
            dash = fields.index("-", 6)
            major, minor = fields[2].split(":")
            yield Mount(_unescaped(fields[4]), fields[dash + 1], _unescaped(fields[dash + 2]),
                        os.makedev(int(major), int(minor)), fields[dash + 3])


def mount_at(path: str) -> Mount | None:
    """The topmost mount whose mount point is exactly `path`, or None.

    It reads a table and never touches `path`, so it answers for a dead mount too.
    """
    found = None
    for mount in mount_table():
        if mount.mountpoint == path:
            found = mount
    return found


def resolved(path: str) -> str:
    """`path` absolute and without symbolic links, without touching what is mounted there.

    A dead FUSE mount answers ENOTCONN to everything, even to the lstat of realpath(3).
    """
    head, tail = os.path.split(os.path.abspath(path))
    path = os.path.join(os.path.realpath(head), tail)
    return os.path.realpath(path) if mount_at(path) is None else path


def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    """mount(2). OSError with the kernel's errno."""
    if _libc.mount(source.encode(), os.fsencode(target), fstype.encode(),
                   ctypes.c_ulong(flags), data.encode()):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def unmount(target: str, *, lazy: bool = False) -> None:
    """umount2(2) as root, `fusermount3 -u` otherwise. EBUSY while anybody uses it, unless lazy."""
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(target), MNT_DETACH if lazy else 0):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), target)
        return
    done = subprocess.run(
        ["fusermount3", "-u", *(["-z"] if lazy else []), "--", target],
        capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        code = errno.EBUSY if "busy" in done.stderr.lower() else errno.EPERM
        raise OSError(code, done.stderr.strip().removeprefix("fusermount3: "), target)


def is_dead(path: str) -> bool:
    """Whether a FUSE mount at `path` has lost the process that served it.

    statfs(2) and nothing else: attributes may come from the kernel's cache, and look alive.
    """
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def prepare_mountpoint(path: str, *, nonempty: bool = False) -> None:
    """Makes `path` a directory that can be mounted on, or says why not.

    A dead mount of ours is taken away first. FileExistsError for a live mount,
    NotADirectoryError for a file, OSError ENOTEMPTY for a directory in use.
    """
    for _ in range(64):  # dead mounts may be stacked
        found = mount_at(path)
        if found is None or not found.fstype.startswith("fuse") or not is_dead(path):
            break
        if found.fstype != FSTYPE:
            raise FileExistsError(
                errno.EEXIST, f"has a dead mount of type {found.fstype}; take it away with: "
                "umount -l", path)
        unmount(path, lazy=True)
    if found is not None and found.fstype == FSTYPE:
        raise FileExistsError(errno.EEXIST, "is already mounted", path)
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", path) from None
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", path)
    if not nonempty and os.listdir(path):
        raise OSError(errno.ENOTEMPTY,
                      "is not empty; choose another directory, or mount over it with -o nonempty",
                      path)


def open_fuse_device() -> int:
    """A new connection: a descriptor of /dev/fuse, not yet mounted anywhere."""
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unavailable("/dev/fuse is missing; load the kernel's FUSE with: modprobe fuse"
                          ) from None


def mount_fuse(mountpoint: str, options: list[str]) -> int:
    """Mounts a new FUSE connection at `mountpoint` and returns its /dev/fuse descriptor.

    Root calls mount(2) itself; others go through fusermount3, which hands the descriptor back
    over a socket (its environment variable _FUSE_COMMFD; util/fusermount.c of libfuse).
    """
    if os.geteuid() == 0:
        fd = open_fuse_device()
        try:
            data = [f"fd={fd}", "rootmode=40000", "user_id=0", "group_id=0",
                    "default_permissions", *options]
            mount(SOURCE, mountpoint, FSTYPE, MS_NOSUID | MS_NODEV, ",".join(data))
        except OSError:
            os.close(fd)
            raise
        return fd
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        try:
            done = subprocess.run(
                ["fusermount3", "-o",
                 ",".join([f"fsname={SOURCE}", "subtype=mbufffs", "nosuid", "nodev",
                           "default_permissions", *options]),
                 "--", mountpoint],
                pass_fds=[theirs.fileno()], capture_output=True, text=True, check=False,
                env={**os.environ, "LC_ALL": "C", "_FUSE_COMMFD": str(theirs.fileno())})
        except FileNotFoundError:
            raise Unavailable("fusermount3 is missing; install it with: apt-get install fuse3"
                              ) from None
        if done.returncode:
            text = done.stderr.strip().removeprefix("fusermount3: ")
            raise PermissionError(errno.EPERM, text or "fusermount3 refused", mountpoint)
        fds = array.array("i", bytes(array.array("i").itemsize))
        _, control, _, _ = ours.recvmsg(1, socket.CMSG_LEN(fds.itemsize), socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i", control[0][2])
        return fds[0]


def _tmpfs_options(limit: int | None, huge: bool) -> list[str]:
    options = [f"size={limit}"] if limit is not None else []
    # Kernels that cannot have huge pages refuse the option.
    if Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled").exists():
        options.append("huge=within_size" if huge else "huge=never")
    return options


def mount_tmpfs(target: Path, limit: int | None, *, huge: bool = True) -> bool:
    """Mounts the private tmpfs of the areas; returns whether its pages are locked to memory.

    `limit` in bytes, None for the kernel's default, half of the memory. `huge`: huge pages, where
    an area fills them and the kernel has them. noswap came with kernel 6.4; inode numbers of 32
    bits leave the upper half of a node id to the inode's generation (backends/nodes.py).
    """
    base = ",".join(["mode=0700", "nr_inodes=0", "inode32", *_tmpfs_options(limit, huge)])
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    try:
        mount(SOURCE, str(target), "tmpfs", flags, base + ",noswap")
        return True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    mount(SOURCE, str(target), "tmpfs", flags, base)
    return False


def change_tmpfs(target: Path, limit: int | None, *, huge: bool) -> None:
    """Gives the tmpfs another limit in bytes, None for the one it has, and what comes other pages.

    OSError EINVAL when more than the limit is in use.
    """
    try:
        mount(SOURCE, str(target), "tmpfs", MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              ",".join(_tmpfs_options(limit, huge)))
    except OSError as error:
        if error.errno != errno.EINVAL or limit is None:
            raise
        raise OSError(errno.EINVAL, f"more than {limit} bytes are in use; remove areas first"
                      ) from None
