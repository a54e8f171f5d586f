# SPDX-License-Identifier: MIT
"""Cases of the three times: which call moves which of them, on the file and on its directory."""

from __future__ import annotations

import mmap
import os
import stat

from tests.mount.posix.calls import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    RENAME_EXCHANGE,
    fallocate,
    renameat2,
)
from tests.mount.posix.registry import case
from tests.mount.posix.side import Side


def _made(side: Side) -> None:
    side.sweep()
    os.mkdir("d")
    os.mkdir("e")
    side.make("file", "d/f", content=b"content")
    side.make("empty", "d/sub")
    side.make("dangling", "d/l")
    side.make("fifo", "d/p")


MAKING = {
    "creat": lambda: os.close(os.open("d/new", os.O_CREAT | os.O_RDWR)),
    "mkdir": lambda: os.mkdir("d/new"),
    "symlink": lambda: os.symlink("x", "d/new"),
    "mkfifo": lambda: os.mkfifo("d/new"),
    "mknod": lambda: os.mknod("d/new", stat.S_IFREG | 0o600),
    "link": lambda: os.link("d/f", "d/new"),
    "unlink": lambda: os.unlink("d/f"),
    "rmdir": lambda: os.rmdir("d/sub"),
    "rename within": lambda: os.rename("d/f", "d/new"),
    "rename away": lambda: os.rename("d/f", "e/new"),
    "rename a directory away": lambda: os.rename("d/sub", "e/new"),
    "rename over": lambda: os.rename("d/l", "d/f"),
    "exchange": lambda: renameat2("d/f", "e", RENAME_EXCHANGE),
    "creat of what is there": lambda: os.close(os.open("d/f", os.O_CREAT | os.O_RDWR)),
    "mkdir of what is there": lambda: os.mkdir("d/f"),
    "unlink of nothing": lambda: os.unlink("d/none"),
    "rename onto itself": lambda: os.rename("d/f", "d/f"),
}


@case
def of_directories(side: Side) -> None:
    for what, way in MAKING.items():
        _made(side)
        with side.times(".", "d", "e"):
            side.do(what, way)


@case
def of_what_is_named(side: Side) -> None:
    moved = {"rename within": "d/new", "rename away": "e/new", "exchange": "e"}
    for what, way in MAKING.items():
        _made(side)
        os.link("d/f", "d/second")
        with side.times("d/f", "d/sub", "d/l", "d/second", **{"d/f": moved.get(what, "d/f")}):
            side.do(what, way)


@case
def of_new_things_are_those_of_now(side: Side) -> None:
    for what in ("creat", "mkdir", "symlink", "mkfifo", "mknod"):
        _made(side)
        directory = os.stat("d").st_mtime_ns
        MAKING[what]()
        found = os.lstat("d/new")
        side.note(what, (found.st_atime_ns == found.st_mtime_ns,
                         found.st_mtime_ns >= directory, found.st_ctime_ns >= found.st_mtime_ns,
                         os.stat("d").st_mtime_ns >= found.st_mtime_ns,
                         found.st_ctime_ns - directory < 5 * 10**9))


CHANGING = {
    "chmod": lambda: os.chmod("d/f", 0o600),
    "chmod to the same": lambda: os.chmod("d/f", 0o644),
    "chown": lambda: os.chown("d/f", os.getuid(), os.getgid()),
    "chown to the same": lambda: os.chown("d/f", os.getuid(), -1),
    "utime": lambda: os.utime("d/f"),
    "truncate shorter": lambda: os.truncate("d/f", 3),
    "truncate longer": lambda: os.truncate("d/f", 5000),
    "truncate to the same": lambda: os.truncate("d/f", 7),
    "stat": lambda: os.stat("d/f"),
    "access": lambda: os.access("d/f", os.R_OK),
    "open": lambda: os.close(os.open("d/f", os.O_RDWR)),
    "open and truncate": lambda: os.close(os.open("d/f", os.O_RDWR | os.O_TRUNC)),
    "creat": lambda: os.close(os.open("d/f", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)),
}


@case
def of_what_is_changed_by_path(side: Side) -> None:
    for what, way in CHANGING.items():
        _made(side)
        with side.times("d/f", "d"):
            side.do(what, way)
    _made(side)
    os.truncate("d/f", 0)
    with side.times("d/f"):
        side.do("open and truncate an empty one", CHANGING["open and truncate"])


WORKING = {
    "read": lambda fd: os.read(fd, 10),
    "pread": lambda fd: os.pread(fd, 3, 2),
    "write": lambda fd: os.write(fd, b"new"),
    "write nothing": lambda fd: os.write(fd, b""),
    "write longer": lambda fd: os.pwrite(fd, b"new", 100),
    "ftruncate shorter": lambda fd: os.ftruncate(fd, 3),
    "ftruncate longer": lambda fd: os.ftruncate(fd, 5000),
    "ftruncate to the same": lambda fd: os.ftruncate(fd, 7),
    "posix_fallocate": lambda fd: os.posix_fallocate(fd, 0, 5000),
    "posix_fallocate within": lambda fd: os.posix_fallocate(fd, 0, 5),
    "fallocate, size kept": lambda fd: fallocate(fd, FALLOC_KEEP_SIZE, 0, 5000),
    "punch": lambda fd: fallocate(fd, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, 0, 5),
    "fchmod": lambda fd: os.fchmod(fd, 0o600),
    "fsync": os.fsync,
    "lseek": lambda fd: os.lseek(fd, 3, os.SEEK_SET),
    "sendfile from": lambda fd: _with_pipe(lambda _, writer: os.sendfile(writer, fd, 0, 5)),
    "splice from": lambda fd: _with_pipe(lambda _, writer: os.splice(fd, writer, 5)),
    "splice to": lambda fd: _with_pipe(
        lambda reader, writer: (os.write(writer, b"x"), os.splice(reader, fd, 1))),
    "dup and close": lambda fd: os.close(os.dup(fd)),
}


def _with_pipe(body):
    reader, writer = os.pipe()
    try:
        body(reader, writer)
    finally:
        os.close(reader)
        os.close(writer)


@case
def of_what_is_worked_on(side: Side) -> None:
    for what, way in WORKING.items():
        _made(side)
        fd = os.open("d/f", os.O_RDWR)
        with side.times("d/f"):
            side.do(what, lambda way=way, fd=fd: way(fd) and None)
        side.note("by descriptor and by path", [
            (a - b) for a, b in zip(_times(os.fstat(fd)), _times(os.stat("d/f")), strict=True)])
        os.close(fd)


def _times(found: os.stat_result) -> tuple[int, ...]:
    return found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns


@case
def of_what_has_no_name(side: Side) -> None:
    for what, way in WORKING.items():
        _made(side)
        fd = os.open("d/f", os.O_RDWR)
        os.unlink("d/f")
        os.utime(fd, ns=(5, 5))
        side.do(what, lambda way=way, fd=fd: way(fd) and None)
        found = os.fstat(fd)
        side.note("moved", (found.st_atime_ns != 5, found.st_mtime_ns != 5))
        os.close(fd)


@case
def of_what_is_read_first(side: Side) -> None:
    _made(side)
    with side.times("d"):
        os.listdir("d")
    with side.times("d/sub"):
        os.listdir("d/sub")
    with side.times("d/l"):
        os.readlink("d/l")
    with side.times("d/f", "d"):
        os.lstat("d/f")


@case
def of_a_directory_that_is_read_again(side: Side) -> None:
    _made(side)
    os.listdir("d")
    with side.times("d"):
        os.listdir("d")


@case
def of_a_symbolic_link_that_is_read_again(side: Side) -> None:
    _made(side)
    os.readlink("d/l")
    with side.times("d/l"):
        os.readlink("d/l")


@case
def of_a_file_that_is_read_again(side: Side) -> None:
    _made(side)
    for _ in range(2):
        with side.times("d/f"), open("d/f", "rb") as file:
            file.read()


@case
def of_reading_what_is_not_there(side: Side) -> None:
    _made(side)
    with open("d/f", "rb") as file:
        with side.times("d/f"):
            os.pread(file.fileno(), 10, 100)
        with side.times("d/f"):
            os.read(file.fileno(), 0)


@case
def of_reading_through_a_mapping(side: Side) -> None:
    _made(side)
    with open("d/f", "rb") as file, side.times("d/f"):
        mmap.mmap(file.fileno(), 7, mmap.MAP_SHARED, mmap.PROT_READ).read(1)


@case
def of_chown_to_nobody_else(side: Side) -> None:
    _made(side)
    with side.times("d/f"):
        os.chown("d/f", -1, -1)


@case
def of_an_empty_file_that_is_truncated(side: Side) -> None:
    side.make("file", "f")
    with side.times("f"):
        os.truncate("f", 0)


@case
def atime_moves_relatively(side: Side) -> None:
    """It stays while it is younger than the others and than a day."""
    side.make("file", "f", content=b"content")
    fd = os.open("f", os.O_RDONLY)
    now = os.stat("f").st_ctime_ns
    hour = 3600 * 10**9
    for atime, mtime in ((-2, -3), (-30, -31), (10, 5), (5, 10)):
        os.utime("f", ns=(now + atime * hour, now + mtime * hour))
        os.pread(fd, 1, 0)
        side.note(f"{atime} {mtime}", os.stat("f").st_atime_ns == now + atime * hour)


@case
def of_storing_through_a_mapping(side: Side) -> None:
    side.make("file", "f", content=b"x" * 4096)
    with open("f", "r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
        with side.times("f"):
            mapped[100] = 65
        with side.times("f"):
            mapped.flush()
