# SPDX-License-Identifier: MIT
"""Cases of bytes and sizes: read, write, truncate, fallocate, seek, copy, and their bounds."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import resource
import select
import signal
import termios

from tests.mount.posix.calls import (
    FALLOC_COLLAPSE_RANGE,
    FALLOC_INSERT_RANGE,
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    FALLOC_UNSHARE_RANGE,
    FALLOC_ZERO_RANGE,
    fallocate,
    sync_file_range,
)
from tests.mount.posix.registry import case, case_for_each
from tests.mount.posix.side import Side, hash_of

PAGE = 4096


@case
def truncate_to_every_size(side: Side) -> None:
    side.make("file", "f", content=bytes(range(256)) * 40)
    fd = os.open("f", os.O_RDWR)
    for size in (10240, 10000, 8192, 8191, 20000, 1, 0, 4096, 4097, 4095, 1 << 20, 5, 0):
        side.truncate("f", size)
        side.note("bytes", hash_of(os.pread(fd, 1 << 21, 0)))
        side.do("ftruncate", lambda size=size: os.ftruncate(fd, size + 3))
        side.note("bytes", hash_of(os.pread(fd, 1 << 21, 0)))
        side.note("size", os.lseek(fd, 0, os.SEEK_END))
        os.pwrite(fd, b"mark", max(0, size - 2))


@case_for_each("kind", ("none", "file", "empty", "symlink", "dirlink", "dangling", "loop", "fifo",
                        "socket"))
def truncate_a(side: Side, kind: str) -> None:
    side.make(kind, "x", content=b"content")
    for path in ("x", "x/", "x/y"):
        for size in (-1, -(1 << 63), 0, 5, 4096):
            side.truncate(path, size)


@case
def truncate_through_descriptors(side: Side) -> None:
    side.make("file", "f", content=b"content")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_PATH):
        fd = os.open("f", flags)
        for size in (-1, 3, 3, 10):
            side.do(f"ftruncate {size}", lambda size=size, fd=fd: os.ftruncate(fd, size))
        side.note("fstat", os.fstat(fd))
        os.close(fd)
    fd = os.open(".", os.O_RDONLY)
    side.do("ftruncate of a directory", lambda: os.ftruncate(fd, 0))


@case
def writing_and_reading_anywhere(side: Side) -> None:
    dice = random.Random(1)
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    for _ in range(300):
        offset, length = dice.randrange(40_000), dice.choice((0, 1, 100, 4096, 9000))
        match dice.randrange(7):
            case 0 | 1:
                side.note("pwrite", os.pwrite(fd, dice.randbytes(length), offset))
            case 2:
                side.note("pread", hash_of(os.pread(fd, length, offset)))
            case 3:
                side.note("seek", os.lseek(fd, offset, os.SEEK_SET))
                side.note("write", os.write(fd, dice.randbytes(length)))
                side.note("position", os.lseek(fd, 0, os.SEEK_CUR))
            case 4:
                os.ftruncate(fd, offset)
            case 5:
                side.note("writev", os.writev(fd, [b"a" * length, b"", b"b" * 10]))
            case 6:
                into = [bytearray(100), bytearray(length)]
                side.note("preadv", os.preadv(fd, into, offset))
                side.note("into", hash_of(b"".join(into)))
        side.note("size", os.fstat(fd).st_size)


@case
def appending(side: Side) -> None:
    side.make("file", "f", content=b"start")
    one, two = (os.open("f", os.O_RDWR | os.O_APPEND) for _ in "ab")
    plain = os.open("f", os.O_RDWR)
    for fd in (one, two, plain, one, two):
        side.do("write", lambda fd=fd: os.write(fd, b"-%d" % (fd == plain)))
        side.note("position", os.lseek(fd, 0, os.SEEK_CUR))
    # On Linux O_APPEND wins over the offset of pwrite(2).
    side.do("pwrite", lambda: os.pwrite(one, b"end", 0))
    os.ftruncate(one, 3)
    side.do("write", lambda: os.write(two, b"again"))
    side.do("pwritev2", lambda: os.pwritev(plain, [b"flagged"], 0, os.RWF_APPEND))
    side.do("preadv2", lambda: os.preadv(plain, [bytearray(5)], 0, os.RWF_NOWAIT))
    side.do("preadv2", lambda: os.preadv(plain, [bytearray(5)], 0, os.RWF_HIPRI))
    side.do("pwritev2", lambda: os.pwritev(plain, [b"synced"], 2, os.RWF_DSYNC))


@case
def many_append_at_once(side: Side) -> None:
    children = []
    for number in range(4):
        if (pid := os.fork()) == 0:
            fd = os.open("f", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for _ in range(200):
                os.write(fd, bytes([65 + number]) * 10)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    with open("f", "rb") as file:
        content = file.read()
    os.unlink("f")
    side.note("each whole", sorted(content[at:at + 10] for at in range(0, len(content), 10)))


@case
def wrong_descriptors_and_offsets(side: Side) -> None:
    side.make("file", "f", content=b"content")
    side.make("empty", "d")
    for path, flags in (("f", os.O_RDONLY), ("f", os.O_WRONLY), ("f", os.O_RDWR),
                        ("f", os.O_PATH), ("d", os.O_RDONLY)):
        fd = os.open(path, flags)
        for what, call in {
            "read": lambda fd: os.read(fd, 10), "write": lambda fd: os.write(fd, b"x"),
            "pread": lambda fd: os.pread(fd, 1, -1), "pwrite": lambda fd: os.pwrite(fd, b"x", -1),
            "far": lambda fd: os.pread(fd, 1, (1 << 63) - 1),
            "lseek": lambda fd: os.lseek(fd, -1, os.SEEK_SET),
            "fsync": os.fsync, "fdatasync": os.fdatasync,
            "fallocate": lambda fd: fallocate(fd, 0, 0, 10),
            "fadvise": lambda fd: os.posix_fadvise(fd, 0, 10, os.POSIX_FADV_DONTNEED),
            "readahead": lambda fd: os.posix_fadvise(fd, 0, 10, os.POSIX_FADV_WILLNEED),
            "sync_file_range": lambda fd: sync_file_range(fd, 0, 10, 2),
            "poll": lambda fd: select.select([fd], [fd], [], 0) and None,
            "unknown ioctl": lambda fd: fcntl.ioctl(fd, 0x1234, 0),
            "TCGETS": os.isatty,
        }.items():
            side.do(f"{what} {path} {flags}", lambda call=call, fd=fd: call(fd))
        os.close(fd)


@case
def how_much_could_be_read(side: Side) -> None:
    side.make("file", "f", content=b"content")
    fd = os.open("f", os.O_RDONLY)
    os.lseek(fd, 3, os.SEEK_SET)
    side.do("FIONREAD", lambda: int.from_bytes(
        fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little"))


@case
def seeking(side: Side) -> None:
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"x" * 100, 3 * PAGE)
    for whence, offset in itertools.product(
            (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 9),
            (0, 1, -1, 5000, -5000, 1 << 40, (1 << 63) - 1, -(1 << 63))):
        side.do(f"lseek {whence} {offset}",
                lambda whence=whence, offset=offset: os.lseek(fd, offset, whence))
        side.note("position", os.lseek(fd, 0, os.SEEK_CUR))
    side.do("read at the end of all", lambda: os.read(fd, 1))
    side.do("write at the end of all", lambda: os.pwrite(fd, b"x", (1 << 63) - 1))


@case
def seeking_data_in_a_full_file(side: Side) -> None:
    side.make("file", "f", content=b"x" * 10_000)
    fd = os.open("f", os.O_RDWR)
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        for offset in (0, 1, 5000, 9999, 10_000, 10_001, -1, 1 << 40):
            side.do(f"lseek {whence} {offset}",
                    lambda whence=whence, offset=offset: os.lseek(fd, offset, whence))


@case
def seeking_holes(side: Side) -> None:
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"x", 3 * PAGE)
    os.pwrite(fd, b"x", 9 * PAGE)
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        for offset in (0, 3 * PAGE, 4 * PAGE, 9 * PAGE):
            side.do(f"lseek {whence} {offset}",
                    lambda whence=whence, offset=offset: os.lseek(fd, offset, whence))


@case
def fallocate_in_every_mode(side: Side) -> None:
    for mode in (0, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE,
                 FALLOC_ZERO_RANGE, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, FALLOC_COLLAPSE_RANGE,
                 FALLOC_INSERT_RANGE, FALLOC_UNSHARE_RANGE, 1 << 20):
        side.make("file", "f", content=b"x" * 10_000)
        fd = os.open("f", os.O_RDWR)
        for offset, length in ((0, 0), (-1, 5), (5, -1), (0, PAGE), (100, 50), (5000, 10_000),
                               (20_000, 100), (1 << 62, 1 << 62), ((1 << 63) - 1, 2)):
            side.do(f"fallocate {mode} {offset} {length}",
                    lambda d=fd, m=mode, o=offset, n=length: fallocate(d, m, o, n))
            side.note("size", os.fstat(fd).st_size)
            side.note("bytes", hash_of(os.pread(fd, 100_000, 0)))
        os.close(fd)
        os.unlink("f")
    for kind, flags in (("file", os.O_RDONLY), ("file", os.O_RDWR | os.O_APPEND),
                        ("empty", os.O_RDONLY), ("fifo", os.O_RDWR)):
        side.make(kind, "x")
        fd = os.open("x", flags)
        side.do(f"fallocate {kind}", lambda fd=fd: fallocate(fd, 0, 0, 10))
        os.close(fd)
        side.sweep()


@case
def copying_between_descriptors(side: Side) -> None:
    side.make("file", "a", content=bytes(range(256)) * 100)
    source, target = os.open("a", os.O_RDONLY), os.open("b", os.O_CREAT | os.O_RDWR)
    for what, call in {
        "copy_file_range": lambda n, o: os.copy_file_range(source, target, n, o, o),
        "copy_file_range on": lambda n, o: os.copy_file_range(source, target, n),
        "sendfile": lambda n, o: os.sendfile(target, source, o, n),
        "to itself": lambda n, o: os.copy_file_range(target, target, n, o, o + 30_000),
        "onto itself": lambda n, o: os.copy_file_range(target, target, n, o, o + 1),
    }.items():
        for length in (0, 1, 100, 5000, 30_000):
            for offset in (0, 10, 25_500, 40_000):
                side.do(f"{what} {length} {offset}",
                        lambda c=call, n=length, o=offset: c(n, o))
                side.note("size", os.fstat(target).st_size)
                side.note("bytes", hash_of(os.pread(target, 1 << 20, 0)))
    side.note("positions", [os.lseek(fd, 0, os.SEEK_CUR) for fd in (source, target)])
    side.do("into a reader", lambda: os.copy_file_range(target, source, 10))
    fd = os.open(".", os.O_RDONLY)
    side.do("from a directory", lambda: os.copy_file_range(fd, target, 10))
    appending = os.open("b", os.O_RDWR | os.O_APPEND)
    side.do("into an appender", lambda: os.copy_file_range(source, appending, 10, 0))
    side.do("clone", lambda: fcntl.ioctl(target, 0x40049409, source))


@case
def splicing(side: Side) -> None:
    side.make("file", "a", content=bytes(range(256)) * 100)
    source, target = os.open("a", os.O_RDONLY), os.open("b", os.O_CREAT | os.O_RDWR)
    reader, writer = os.pipe()
    for length, offset in ((10, 0), (5000, 3), (100, 25_590), (100, 30_000)):
        got = side.do("out", lambda n=length, o=offset: os.splice(source, writer, n, o))
        if got:
            side.do("in", lambda got=got, o=offset: os.splice(reader, target, got, None, o))
        side.note("bytes", hash_of(os.pread(target, 1 << 20, 0)))
    os.write(writer, b"abc")
    side.do("beyond", lambda: os.splice(reader, target, 3, None, 60_000))
    appending = os.open("b", os.O_RDWR | os.O_APPEND)
    side.do("into an appender", lambda: os.splice(reader, appending, 3))


@case
def the_process_limit_of_size(side: Side) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    for what, call in {
        "within": lambda: os.pwrite(fd, b"x" * 9000, 0),
        "across": lambda: os.pwrite(fd, b"x" * 2000, 9000),
        "beyond": lambda: os.pwrite(fd, b"x", 10_000),
        "truncate": lambda: os.truncate("f", 10_001),
        "ftruncate": lambda: os.ftruncate(fd, 20_000),
        "fallocate": lambda: fallocate(fd, 0, 0, 10_001),
        "exactly": lambda: os.ftruncate(fd, 10_000),
    }.items():
        side.do(what, call)
        side.note("size", os.fstat(fd).st_size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os.ftruncate(fd, 20_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    side.do("shorter, still above", lambda: os.ftruncate(fd, 15_000))
    side.do("in place above", lambda: os.pwrite(fd, b"x", 12_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@case
def sizes_beyond_all_memory(side: Side) -> None:
    side.make("file", "f", content=b"content")
    fd = os.open("f", os.O_RDWR)
    for size in (1 << 45, (1 << 63) - 1):
        side.truncate("f", size)
        side.note("size", os.fstat(fd).st_size)
        os.ftruncate(fd, 7)


@case
def direct_io(side: Side) -> None:
    import mmap

    fd = side.open("f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    assert fd is not None
    with mmap.mmap(-1, 4 * PAGE) as buffer:
        buffer[:] = b"d" * len(buffer)
        side.do("aligned", lambda: os.pwritev(fd, [buffer], 0))
        side.do("unaligned length", lambda: os.pwrite(fd, b"xyz", 0))
        side.do("unaligned offset", lambda: os.pwrite(fd, b"x" * PAGE, 77))
        side.do("read", lambda: os.preadv(fd, [buffer], 0))
        side.note("bytes", hash_of(buffer[:]))
        side.do("read at the end", lambda: os.preadv(fd, [buffer], 4 * PAGE - 10))
    side.do("odd", lambda: os.pread(fd, 13, 5))
