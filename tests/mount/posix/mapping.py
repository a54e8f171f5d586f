# SPDX-License-Identifier: MIT
"""Cases of mmap(2): who sees which bytes, where it ends, and what stays mapped."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Callable

from tests.mount.posix.registry import case
from tests.mount.posix.side import Side

PAGE = mmap.PAGESIZE


def ends_with(body: Callable[[], object]) -> str:
    """How a child process ends that runs `body`."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        try:
            body()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "ends"


@case
def every_protection_on_every_access(side: Side) -> None:
    side.make("file", "f", content=b"x" * PAGE)
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_PATH):
        fd = os.open("f", flags)
        for kind in (mmap.MAP_SHARED, mmap.MAP_PRIVATE, 3, 0):
            for protection in (0, mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_READ | mmap.PROT_WRITE,
                               mmap.PROT_READ | mmap.PROT_EXEC):
                side.do(f"mmap {flags} {kind} {protection}", _mapped, fd, kind, protection)
        os.close(fd)
    fd = os.open(".", os.O_RDONLY)
    side.do("mmap of a directory", _mapped, fd, mmap.MAP_SHARED, mmap.PROT_READ)


def _mapped(fd: int, kind: int, protection: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    where = libc.mmap(None, ctypes.c_size_t(PAGE), protection, kind, fd, ctypes.c_long(0))
    if where == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    libc.munmap(ctypes.c_void_p(where), ctypes.c_size_t(PAGE))


@case
def stores_and_writes_are_one(side: Side) -> None:
    side.make("file", "f", content=b"." * 3 * PAGE)
    fd, other = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)
    one, two = mmap.mmap(fd, 3 * PAGE), mmap.mmap(other, 3 * PAGE)
    one[5] = 65
    two[PAGE + 5] = 66
    os.pwrite(fd, b"C", 2 * PAGE + 5)
    side.note("one", (one[5], one[PAGE + 5], one[2 * PAGE + 5]))
    side.note("two", (two[5], two[PAGE + 5], two[2 * PAGE + 5]))
    side.note("read", [os.pread(other, 1, at * PAGE + 5) for at in range(3)])
    if os.fork() == 0:
        one[6] = 70
        os._exit(0)
    os.wait()
    side.note("a child's", two[6])


@case
def private_stores_stay_private(side: Side) -> None:
    side.make("file", "f", content=b"." * PAGE)
    fd = os.open("f", os.O_RDWR)
    private = mmap.mmap(fd, PAGE, mmap.MAP_PRIVATE)
    private[0] = 65
    side.note("file", os.pread(fd, 1, 0))
    os.pwrite(fd, b"B", 0)
    side.note("private", private[0])
    os.unlink("f")
    os.ftruncate(fd, 0)
    side.note("beyond the end", ends_with(lambda: private[0]))


@case
def behind_the_end_is_sigbus(side: Side) -> None:
    side.make("file", "f", content=b"x" * 100)
    fd = os.open("f", os.O_RDWR)
    os.ftruncate(fd, 4 * PAGE)
    mapped = mmap.mmap(fd, 4 * PAGE)
    os.ftruncate(fd, 100)
    side.note("rest of the page", ends_with(lambda: mapped[PAGE - 1]))
    side.note("zeros", mapped[100:PAGE] == bytes(PAGE - 100))
    side.note("next page", ends_with(lambda: mapped[PAGE]))
    side.note("store", ends_with(lambda: mapped.__setitem__(2 * PAGE, 1)))
    os.ftruncate(fd, 3 * PAGE)
    side.note("after growing", ends_with(lambda: mapped[2 * PAGE]))
    side.note("and behind", ends_with(lambda: mapped[3 * PAGE]))
    # What is stored behind the end in the last page must not come to light when it grows.
    os.ftruncate(fd, 100)
    mapped[200] = 65
    os.ftruncate(fd, 4 * PAGE)
    side.note("old bytes", mapped[200])


@case
def a_mapping_outlives_descriptor_and_name(side: Side) -> None:
    side.make("file", "f", content=b"." * PAGE)
    fd = os.open("f", os.O_RDWR)
    mapped = mmap.mmap(fd, PAGE)
    os.close(fd)
    mapped[0] = 65
    with open("f", "rb") as file:
        side.note("after close", file.read(1))
    side.unlink("f")
    mapped[1] = 66
    side.note("after unlink", mapped[:2])
    side.make("file", "f", content=b"another")
    side.note("after another came", mapped[:2])
    mapped.flush()


@case
def over_what_is_mapped_another_is_renamed(side: Side) -> None:
    side.make("file", "f", content=b"f" * PAGE)
    side.make("file", "g", content=b"g" * PAGE)
    fd = os.open("f", os.O_RDWR)
    mapped = mmap.mmap(fd, PAGE)
    side.rename("g", "f")
    mapped[0] = 65
    side.note("old", mapped[:2])
    with open("f", "rb") as file:
        side.note("new", file.read(2))


@case
def holes_fill_by_touching(side: Side) -> None:
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"end", 1 << 20)
    mapped = mmap.mmap(fd, 1 << 20)
    side.note("hole", mapped[500_000])
    mapped[500_000] = 65
    side.note("read", os.pread(fd, 2, 499_999))
    side.do("MADV_DONTNEED", mapped.madvise, mmap.MADV_DONTNEED)
    side.note("kept", mapped[500_000])
    side.do("MADV_REMOVE", mapped.madvise, mmap.MADV_REMOVE)
    side.note("gone", mapped[500_000])
    side.note("end", os.pread(fd, 10, 1 << 20))


@case
def an_empty_file_maps_and_has_nothing(side: Side) -> None:
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    _mapped(fd, mmap.MAP_SHARED, mmap.PROT_READ)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    where = libc.mmap(None, ctypes.c_size_t(PAGE), 3, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    side.note("touch", ends_with(lambda: ctypes.c_char.from_address(where).value))
    os.ftruncate(fd, 10)
    side.note("touch", ends_with(lambda: ctypes.c_char.from_address(where).value))
    side.do("mincore and mlock", lambda: libc.mlock(ctypes.c_void_p(where), PAGE))
