# SPDX-License-Identifier: MIT
"""Where an area lies in physical memory, read from a mapping of it (/proc/self/pagemap)."""

from __future__ import annotations

import ctypes
import errno
import io
import mmap
import os
import struct
from typing import NamedTuple

PAGE = mmap.PAGESIZE
_FRAME = (1 << 55) - 1  # bits of an entry: Documentation/admin-guide/mm/pagemap.rst
_PAGES_AT_ONCE = 1 << 16
_FAILED = ctypes.c_void_p(-1).value


class Extent(NamedTuple):
    """Pages that lie one behind the other; all in bytes."""

    offset: int
    physical: int
    length: int


def extents(path: str) -> list[Extent]:
    """The area's pieces in the order of their offsets; the last one ends with a whole page.

    PermissionError without CAP_SYS_ADMIN: the kernel then tells no addresses.
    """
    # Not the mmap module: the address of a mapping is not to be had from it without writing.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                          ctypes.c_int, ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return []
        start = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if start == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    try:
        return _of_pages(start, -(-size // PAGE))
    finally:
        libc.munmap(start, size)


def _secret() -> PermissionError:
    return PermissionError(errno.EPERM, "physical addresses are for root alone")


def _pagemap() -> io.FileIO:
    try:
        return open("/proc/self/pagemap", "rb", buffering=0)
    except PermissionError:
        raise _secret() from None


def _of_pages(start: int, pages: int) -> list[Extent]:
    found: list[Extent] = []
    with _pagemap() as pagemap:
        for first in range(0, pages, _PAGES_AT_ONCE):
            count = min(_PAGES_AT_ONCE, pages - first)
            for page in range(first, first + count):
                ctypes.string_at(start + page * PAGE, 1)  # so that it is mapped
            data = os.pread(pagemap.fileno(), 8 * count, (start // PAGE + first) * 8)
            for page, (entry,) in enumerate(struct.iter_unpack("=Q", data), first):
                if not entry & _FRAME:
                    raise _secret()
                _add(found, page * PAGE, (entry & _FRAME) * PAGE)
    return found


def _add(found: list[Extent], offset: int, physical: int) -> None:
    if found and found[-1].physical + found[-1].length == physical:
        found[-1] = found[-1]._replace(length=found[-1].length + PAGE)
    else:
        found.append(Extent(offset, physical, PAGE))
