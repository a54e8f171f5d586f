# SPDX-License-Identifier: MIT
"""System calls that Python's os module lacks. OSError with the kernel's errno."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE_RANGE = 1, 2, 8
FALLOC_ZERO_RANGE, FALLOC_INSERT_RANGE, FALLOC_UNSHARE_RANGE = 16, 32, 64
AT_FDCWD, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x400, 0x1000
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fdopendir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
_libc.readdir64.restype = ctypes.c_void_p


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def renameat2(old: str, new: str, flags: int) -> None:
    _checked(_libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    _checked(_libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def linkat(directory: int, old: str, new: str, flags: int) -> None:
    _checked(_libc.linkat(directory, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def utimensat(path: str | int, atime: tuple[int, int], mtime: tuple[int, int],
              flags: int = 0) -> None:
    """`path` may be a descriptor: futimens(3)."""
    times = struct.pack("=4q", *atime, *mtime)
    if isinstance(path, int):
        _checked(_libc.utimensat(path, None, times, flags))
    else:
        _checked(_libc.utimensat(AT_FDCWD, os.fsencode(path), times, flags))


def setxattr_raw(path: str, name: bytes, value: bytes) -> None:
    """Like os.setxattr, also for names that Python would refuse."""
    _checked(_libc.setxattr(os.fsencode(path), name, value, len(value), 0))


def sync_file_range(fd: int, offset: int, length: int, flags: int) -> None:
    _checked(_libc.sync_file_range(fd, ctypes.c_long(offset), ctypes.c_long(length), flags))


def handle_of(path: str) -> bytes:
    """name_to_handle_at(2): a struct file_handle."""
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
    mount = ctypes.c_int()
    _checked(_libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), handle, ctypes.byref(mount), 0))
    return handle.raw


def open_by_handle(mount: int, handle: bytes, flags: int) -> int:
    return _checked(_libc.open_by_handle_at(mount, handle, flags))


class Directory:
    """A DIR stream of the C library, whose positions can be told and sought."""

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._stream = ctypes.c_void_p(_libc.fdopendir(fd))

    def read(self) -> str | None:
        ctypes.set_errno(0)
        entry = _libc.readdir64(self._stream)
        if not entry:
            if code := ctypes.get_errno():
                raise OSError(code, os.strerror(code))
            return None
        # d_ino, d_off, d_reclen and d_type come before the name.
        return os.fsdecode(ctypes.string_at(entry + 19))

    def rest(self) -> list[str]:
        names = []
        while (name := self.read()) is not None:
            names.append(name)
        return names

    def tell(self) -> int:
        return int(_libc.telldir(self._stream))

    def seek(self, position: int) -> None:
        _libc.seekdir(self._stream, ctypes.c_long(position))

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def close(self) -> None:
        if _libc.closedir(self._stream):
            raise OSError(errno.EBADF, "closedir")
