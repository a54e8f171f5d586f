# SPDX-License-Identifier: MIT
"""Which processes hold an area or a mount, from /proc alone; it ends none of them.

Nothing here follows a path into the mount of another process: a mount whose keeper is dead or
stopped would let us wait for ever. What a descriptor refers to is told by its fdinfo (mount id and
inode) and mountinfo (device of that mount); a mapping by its line in maps. With FUSE passthrough
both tell the FUSE file, not the backing file. O_PATH on cwd and root asks the file system nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

_MAP = re.compile(
    rb"^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([1-9][0-9]*) *([^\n]*)$", re.MULTILINE)
_DELETED = " (deleted)"


@dataclass(frozen=True)
class Holder:
    """One way in which one process holds something."""

    pid: int
    command: str
    how: str  # "open", "mapped", "cwd" or "root"


@dataclass(frozen=True)
class _Place:
    """What a process refers to; None where the kernel does not tell."""

    device: int | None
    inode: int | None
    path: str


@dataclass(frozen=True)
class _Wanted:
    """The mount on `device`, seen here at `path`; or, with an inode, one area of it."""

    device: int | None
    path: str
    inode: int | None = None
    whole: bool = False

    def is_at(self, place: _Place) -> bool:
        if place.device is not None and self.device is not None:
            if place.device != self.device:
                return False
            return self.whole or place.inode == self.inode or place.path == self.path
        # A mount that was detached lazily has no line in mountinfo any more.
        path = place.path.removesuffix(_DELETED)
        return path == self.path or (self.whole and path.startswith(self.path.rstrip("/") + "/"))


_Mounts = list[tuple[int, int, str]]  # id, device and mount point, in the order of mounting


def _mounts(pid: int | str) -> _Mounts:
    # Read here and not by mounts.py: ids are needed, and the view of another process.
    found: _Mounts = []
    # Of all white space the kernel escapes blank, tab and newline; a mount point may hold the rest.
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape",
              newline="\n") as lines:
        for line in lines:
            fields = line.split(" ")
            major, minor = fields[2].split(":")
            mountpoint = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4])
            found.append((int(fields[0]), os.makedev(int(major), int(minor)), mountpoint))
    return found


def _device_below(path: str) -> int | None:
    """The device of the mount that `path` is on, without touching it."""
    best, device = -1, None
    for _, candidate, mountpoint in _mounts("self"):
        root = mountpoint.rstrip("/")
        if (path == mountpoint or path.startswith(root + "/")) and len(root) >= best:
            best, device = len(root), candidate
    return device


def _described(fdinfo: str, path: str, mounts: dict[int, int]) -> _Place:
    device = inode = None
    with open(fdinfo, encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("mnt_id:"):
                device = mounts.get(int(line.split()[1]))
            elif line.startswith("ino:"):  # since Linux 5.14
                inode = int(line.split()[1])
    return _Place(device, inode, path)


def _opened(pid: int, mounts: dict[int, int]) -> Iterator[tuple[str, _Place]]:
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed in the meantime
            path = os.readlink(f"/proc/{pid}/fd/{number}")
            if path.startswith("/"):  # not socket:[1], pipe:[2], anon_inode:[eventpoll]
                yield "open", _described(f"/proc/{pid}/fdinfo/{number}", path, mounts)


def _mapped(pid: int) -> Iterator[tuple[str, _Place]]:
    with open(f"/proc/{pid}/maps", "rb") as maps:
        for major, minor, inode, path in _MAP.findall(maps.read()):
            device = os.makedev(int(major, 16), int(minor, 16))
            yield "mapped", _Place(device, int(inode), os.fsdecode(path.replace(b"\\012", b"\n")))


def _stood_in(pid: int, mounts: dict[int, int]) -> Iterator[tuple[str, _Place]]:
    for how in ("cwd", "root"):
        path = os.readlink(f"/proc/{pid}/{how}")
        fd = os.open(f"/proc/{pid}/{how}", os.O_PATH | os.O_CLOEXEC)
        try:
            yield how, _described(f"/proc/self/fdinfo/{fd}", path, mounts)
        finally:
            os.close(fd)


def _command(pid: int) -> str:
    # comm and not cmdline: the latter reads the memory of the process, which may have to wait.
    with open(f"/proc/{pid}/comm", "rb") as comm:
        return os.fsdecode(comm.read().rstrip(b"\n"))


def _holders(wanted: _Wanted) -> list[Holder]:
    found: dict[Holder, None] = {}
    namespaces: dict[str, dict[int, int]] = {}
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        # Gone in the meantime, or somebody else's, which only root may look at.
        with contextlib.suppress(OSError):
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in namespaces:
                namespaces[namespace] = {number: device for number, device, _ in _mounts(pid)}
            mounts = namespaces[namespace]
            command = _command(pid)
            for places in (_opened(pid, mounts), _mapped(pid), _stood_in(pid, mounts)):
                with contextlib.suppress(OSError):
                    for how, place in places:
                        if wanted.is_at(place):
                            found[Holder(pid, command, how)] = None
    return list(found)


def holders_of_mount(mountpoint: str) -> list[Holder]:
    """Who keeps the mount at `mountpoint` (absolute) busy, as far as this user may see."""
    device = next(
        (device for _, device, path in reversed(_mounts("self")) if path == mountpoint), None)
    return _holders(_Wanted(device, mountpoint, whole=True))


def holders_of_area(path: str) -> list[Holder]:
    """Who has the area at `path` (absolute) open or mapped, under whichever of its names.

    It stats the area itself, so ask for areas of a live mount only.
    """
    inode = os.stat(path).st_ino
    return _holders(_Wanted(_device_below(path), path, inode))
