# SPDX-License-Identifier: MIT
"""The kernel's registry of areas: the ioctls of /dev/mbuff (kmod/uapi/linux/mbuff.h), one a method.

It knows no directories and no mount; a name is a whole path. All errors are OSError with the
module's errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

DEVICE = "/dev/mbuff"
ABI = 1  # MBUFF_ABI that this file speaks

CREATE_EXCL = 1
CREATE_CONTIGUOUS = 2
OPEN_WEAK = 1
OPEN_SEALED = 2
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_TREE = 4
RENAME_HOLD = 8
REMOVE_HOLD = 1
LIST_HELD = 1
IS_KEPT = 1
IS_REMOVED = 2
KINDS = ("pages", "contiguous", "reserved")  # by their numbers

_MAGIC = 0xBE
_NOBODY = 0xFFFFFFFF  # the caller's own uid or gid
_OWNERS_MAX = 64  # asked for at once; more are asked for again
_LIST_BYTES = 1 << 18
_EVENT_BYTES = 1 << 16
_EVENT_BYTES_MAX = 8224  # of one

_WHICH = struct.Struct("=QQII")
_VERSION = struct.Struct("=II")
_CREATE = struct.Struct("=QIIQIIIIQ")
_OPEN = struct.Struct("=QQIIII")
_RESIZE = struct.Struct("=QQIIQ")
_CHANGE = struct.Struct("=QQIIIIIIqq")
_RENAME = struct.Struct("=QQIIII")
_REMOVE = struct.Struct("=QQIIII")
_STAT_HEAD = struct.Struct("=QQIIQII")
_ATTRIBUTES = struct.Struct("=QQQQIIIIIIIIQqqq")
_OWNER = struct.Struct("=IIQ64s")
_LIST = struct.Struct("=QQII")
_ENTRY_HEAD = struct.Struct("=II")
_USAGE = struct.Struct("=QQQQ")
_KIND = struct.Struct("=QQIIII")
_EVENT = struct.Struct("=IIQQII")


def _number(way: int, number: int, size: int) -> int:
    """_IOC of asm-generic/ioctl.h, which x86-64 and arm64 share; 1 writes, 2 reads."""
    return way << 30 | size << 16 | _MAGIC << 8 | number


_IOC_VERSION = _number(2, 0x00, _VERSION.size)
_IOC_CREATE = _number(3, 0x01, _CREATE.size)
_IOC_OPEN = _number(1, 0x02, _OPEN.size)
_IOC_RESIZE = _number(1, 0x03, _RESIZE.size)
_IOC_CHANGE = _number(1, 0x04, _CHANGE.size)
_IOC_RENAME = _number(1, 0x05, _RENAME.size)
_IOC_REMOVE = _number(1, 0x06, _REMOVE.size)
_IOC_STAT = _number(3, 0x07, _STAT_HEAD.size + _ATTRIBUTES.size)
_IOC_LIST = _number(1, 0x08, _LIST.size)
_IOC_EVENTS = _number(0, 0x09, 0)
_IOC_USAGE = _number(2, 0x0A, _USAGE.size)
_IOC_NOTIFY = _number(1, 0x0B, _WHICH.size)
_IOC_FORGET = _number(1, 0x0C, _WHICH.size)
_IOC_KIND = _number(1, 0x0D, _KIND.size)


@dataclass(frozen=True, slots=True)
class AreaAttributes:
    """struct mbuff_attributes: sizes in bytes, times in nanoseconds since 1970.

    `kind` is an index of KINDS; `physical` the address of contiguous or reserved memory, 0 without
    CAP_SYS_ADMIN.
    """

    id: int
    size: int
    allocated: int
    notified: int
    mode: int
    uid: int
    gid: int
    flags: int
    count: int
    kcount: int
    open_cnt: int
    kind: int
    physical: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Owner:
    """One counted holder: a kernel module, or a process that called mbuff_alloc."""

    kind: str  # "module" or "process"
    name: str
    pid: int  # 0 for a module, or where it is not of this pid namespace
    count: int


@dataclass(frozen=True, slots=True)
class Usage:
    max_bytes: int
    used_bytes: int
    max_areas: int
    areas: int


class Kind(IntEnum):
    CREATED = 1
    REMOVED = 2
    RENAMED = 3
    RESIZED = 4
    CHANGED = 5
    NOTIFIED = 6
    LOST = 7


@dataclass(frozen=True, slots=True)
class Event:
    kind: Kind
    id: int
    notified: int
    name: bytes
    old_name: bytes = b""  # of a rename


def _name(name: bytes) -> tuple[ctypes.Array[ctypes.c_char], int, int]:
    """A buffer, which must live during the call, its address, and its length."""
    buffer = ctypes.create_string_buffer(name, len(name) or 1)
    return buffer, ctypes.addressof(buffer), len(name)


class Registry:
    """An open /dev/mbuff. Areas removed with `hold` stay until forget(), or until it is closed."""

    def __init__(self, fd: int) -> None:
        """Takes over `fd`, an open descriptor of /dev/mbuff."""
        self.fd = fd

    @classmethod
    def open(cls, path: str = DEVICE) -> Registry:
        registry = cls(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        try:
            found = registry.version()
            if found != ABI:
                raise OSError(errno.EPROTO, f"the module speaks ABI {found} of {path}, this "
                              f"mbufffs {ABI}; install both from one version")
        except BaseException:
            registry.close()
            raise
        return registry

    def close(self) -> None:
        os.close(self.fd)

    def _call(self, number: int, argument: bytes) -> tuple[int, bytearray]:
        data = bytearray(argument)
        return fcntl.ioctl(self.fd, number, data, True), data

    def version(self) -> int:
        _, data = self._call(_IOC_VERSION, bytes(_VERSION.size))
        return int(_VERSION.unpack(data)[0])

    def usage(self) -> Usage:
        _, data = self._call(_IOC_USAGE, bytes(_USAGE.size))
        return Usage(*_USAGE.unpack(data))

    def create(self, name: bytes, *, size: int = 0, mode: int = 0o660, uid: int | None = None,
               gid: int | None = None, exclusive: bool = False, contiguous: bool = False) -> int:
        """Makes an area with all its memory, or finds it; returns its number."""
        _buffer, address, length = _name(name)
        flags = CREATE_EXCL * exclusive | CREATE_CONTIGUOUS * contiguous
        _, data = self._call(_IOC_CREATE, _CREATE.pack(
            address, length, flags, size, mode,
            _NOBODY if uid is None else uid, _NOBODY if gid is None else gid, 0, 0))
        return int(_CREATE.unpack(data)[-1])

    def open_area(self, area: int, flags: int, *, weak: bool = False,
                  sealed: bool = False) -> int:
        """A descriptor of the area's memory; the caller closes it."""
        how = OPEN_WEAK * weak | OPEN_SEALED * sealed
        return self._call(_IOC_OPEN, _OPEN.pack(area, 0, 0, 0, flags, how))[0]

    def resize(self, area: int, size: int) -> None:
        self._call(_IOC_RESIZE, _RESIZE.pack(area, 0, 0, 0, size))

    def change(self, area: int, *, mode: int | None = None, uid: int | None = None,
               gid: int | None = None, atime_ns: int | None = None,
               mtime_ns: int | None = None) -> None:
        # Up to the year 2262; later times become the last of these, as any file system does.
        times = (time if time is None else max(-(1 << 63), min(time, (1 << 63) - 1))
                 for time in (atime_ns, mtime_ns))
        values = (mode, uid, gid, *times)
        valid = sum(1 << bit for bit, value in enumerate(values) if value is not None)
        self._call(_IOC_CHANGE, _CHANGE.pack(area, 0, 0, 0, valid,
                                             *(value or 0 for value in values)))

    def rename(self, old: bytes, new: bytes, flags: int = 0) -> None:
        _old, old_address, old_length = _name(old)
        _new, new_address, new_length = _name(new)
        self._call(_IOC_RENAME, _RENAME.pack(old_address, new_address, old_length, new_length,
                                             flags, 0))

    def remove(self, area: int, *, hold: bool = False) -> None:
        self._call(_IOC_REMOVE, _REMOVE.pack(area, 0, 0, 0, REMOVE_HOLD * hold, 0))

    def forget(self, area: int) -> None:
        self._call(_IOC_FORGET, _WHICH.pack(area, 0, 0, 0))

    def set_kind(self, area: int, kind: str) -> None:
        self._call(_IOC_KIND, _KIND.pack(area, 0, 0, 0, KINDS.index(kind), 0))

    def notify(self, area: int) -> None:
        self._call(_IOC_NOTIFY, _WHICH.pack(area, 0, 0, 0))

    def find(self, name: bytes) -> AreaAttributes:
        _buffer, address, length = _name(name)
        return self._stat(0, address, length)

    def attributes(self, area: int) -> AreaAttributes:
        return self._stat(area, 0, 0)

    def _stat(self, area: int, address: int, length: int) -> AreaAttributes:
        _, data = self._call(_IOC_STAT, _STAT_HEAD.pack(area, address, length, 0, 0, 0, 0)
                             + bytes(_ATTRIBUTES.size))
        return AreaAttributes(*_ATTRIBUTES.unpack_from(data, _STAT_HEAD.size))

    def owners(self, area: int) -> list[Owner]:
        room = _OWNERS_MAX
        while True:
            buffer = ctypes.create_string_buffer(room * _OWNER.size)
            _, data = self._call(_IOC_STAT, _STAT_HEAD.pack(
                area, 0, 0, 0, ctypes.addressof(buffer), room, 0) + bytes(_ATTRIBUTES.size))
            count = _STAT_HEAD.unpack_from(data)[-1]
            if count <= room:
                break
            room = count
        return [Owner(kind="module" if kind == 1 else "process",
                      name=os.fsdecode(name.rstrip(b"\0")), pid=pid, count=held)
                for kind, pid, held, name in _OWNER.iter_unpack(buffer.raw[:count * _OWNER.size])]

    def areas(self, after: int = 0, *,
              held: bool = False) -> Iterator[tuple[bytes, AreaAttributes]]:
        """All areas with a number above `after`, in that order; or those that are held here."""
        buffer = ctypes.create_string_buffer(_LIST_BYTES)
        while True:
            filled, _ = self._call(_IOC_LIST, _LIST.pack(after, ctypes.addressof(buffer),
                                                         _LIST_BYTES, LIST_HELD * held))
            if not filled:
                return
            data = buffer.raw[:filled]
            at = 0
            while at < filled:
                entry_length, name_length = _ENTRY_HEAD.unpack_from(data, at)
                found = AreaAttributes(*_ATTRIBUTES.unpack_from(data, at + _ENTRY_HEAD.size))
                name = at + _ENTRY_HEAD.size + _ATTRIBUTES.size
                yield data[name:name + name_length], found
                after = found.id
                at += entry_length

    def events(self) -> int:
        """A descriptor, without O_NONBLOCK, for read_events; the caller closes it."""
        return fcntl.ioctl(self.fd, _IOC_EVENTS, 0)


def read_events(fd: int) -> tuple[list[Event], bool]:
    """What has happened since, and whether there can be more; with O_NONBLOCK maybe nothing.

    Each read lets go of what the one before gave, so after the last one none is made for nothing.
    Notifications come a few at a time: for those that are left the descriptor stays readable.
    """
    try:
        data = os.read(fd, _EVENT_BYTES)
    except BlockingIOError:
        return [], False
    events = []
    at = 0
    while at < len(data):
        length, kind, area, notified, name_length, old_length = _EVENT.unpack_from(data, at)
        name = at + _EVENT.size
        old = name + name_length
        events.append(Event(Kind(kind), area, notified, data[name:old],
                            data[old:old + old_length]))
        at += length
    return events, len(data) > _EVENT_BYTES - _EVENT_BYTES_MAX
