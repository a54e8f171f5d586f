# SPDX-License-Identifier: MIT
"""Cases of locks, leases, notification and handles: what the kernel keeps beside a file."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Callable

from tests.mount.posix.calls import handle_of, open_by_handle
from tests.mount.posix.registry import case, case_of_root
from tests.mount.posix.side import Side

F_OFD_SETLK, F_OFD_GETLK = 37, 36


def in_child(body: Callable[[], object]) -> str:
    """What `body` comes to in another process: the name of its error, or what it returns."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            answer = str(body())
        except OSError as error:
            answer = str(error.errno)
        os.write(writer, answer.encode())
        os._exit(0)
    os.wait()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return pipe.read()


@case
def flock_between_descriptors(side: Side) -> None:
    side.make("file", "f")
    one, two = os.open("f", os.O_RDWR), os.open("f", os.O_RDONLY)
    now = fcntl.LOCK_NB
    for fd, how in ((one, fcntl.LOCK_SH), (two, fcntl.LOCK_SH), (one, fcntl.LOCK_EX),
                    (two, fcntl.LOCK_UN), (one, fcntl.LOCK_EX), (two, fcntl.LOCK_SH),
                    (two, fcntl.LOCK_EX)):
        side.do(f"flock {fd == one} {how}", lambda fd=fd, how=how: fcntl.flock(fd, how | now))
    side.note("a child", in_child(lambda: fcntl.flock(os.open("f", os.O_RDWR),
                                                      fcntl.LOCK_EX | now)))
    os.unlink("f")
    side.do("after unlink", lambda: fcntl.flock(two, fcntl.LOCK_SH | now))
    os.close(one)
    side.do("after close", lambda: fcntl.flock(two, fcntl.LOCK_EX | now))


@case
def record_locks_between_processes(side: Side) -> None:
    side.make("file", "f", content=b"x" * 100)
    fd = os.open("f", os.O_RDWR)

    def lock(kind: int, start: int, length: int) -> Callable[[], object]:
        return lambda: fcntl.lockf(os.open("f", os.O_RDWR), kind | fcntl.LOCK_NB, length, start)

    side.do("mine", lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 20))
    for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
        for start, length in ((0, 0), (20, 5), (29, 1), (30, 5), (0, 20), (15, 6)):
            side.note(f"child {kind} {start} {length}", in_child(lock(kind, start, length)))
    side.do("again, in the same process", lock(fcntl.LOCK_EX, 20, 5))
    # Closing any descriptor of the file drops a process's locks.
    os.close(os.open("f", os.O_RDONLY))
    side.note("after a close", in_child(lock(fcntl.LOCK_EX, 20, 5)))
    reader = os.open("f", os.O_RDONLY)
    side.do("exclusive by a reader", lambda: fcntl.lockf(reader, fcntl.LOCK_EX | fcntl.LOCK_NB))
    side.do("shared by a reader", lambda: fcntl.lockf(reader, fcntl.LOCK_SH | fcntl.LOCK_NB))


@case
def locks_of_open_files(side: Side) -> None:
    side.make("file", "f", content=b"x" * 100)
    one, two = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR)

    def lock(fd: int, kind: int, start: int, length: int, command: int = F_OFD_SETLK) -> object:
        got = fcntl.fcntl(fd, command, struct.pack("=hhxxxxqqixxxx", kind, 0, start, length, 0))
        return struct.unpack("=hhxxxxqqixxxx", got)

    for fd, kind, start, length in ((one, fcntl.F_WRLCK, 0, 10), (two, fcntl.F_RDLCK, 5, 10),
                                    (two, fcntl.F_RDLCK, 10, 10), (one, fcntl.F_RDLCK, 15, 1),
                                    (one, fcntl.F_WRLCK, 15, 1), (one, fcntl.F_UNLCK, 0, 0),
                                    (two, fcntl.F_WRLCK, 0, 0)):
        side.do(f"lock {fd == one} {kind} {start} {length}",
                lambda f=fd, k=kind, s=start, n=length: lock(f, k, s, n) and None)
    side.do("who has it", lambda: lock(one, fcntl.F_RDLCK, 3, 1, F_OFD_GETLK))
    os.close(two)
    side.do("free again", lambda: lock(one, fcntl.F_WRLCK, 0, 0) and None)


@case
def a_waiter_gets_the_lock_or_the_signal(side: Side) -> None:
    side.make("file", "f")
    fd = os.open("f", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    pid = os.fork()
    if pid == 0:
        other = os.open("f", os.O_RDWR)
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            fcntl.flock(other, fcntl.LOCK_EX)
            os._exit(1)
        except InterruptedError:
            os._exit(2)
    side.note("interrupted", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    pid = os.fork()
    if pid == 0:
        fcntl.flock(os.open("f", os.O_RDWR), fcntl.LOCK_EX)
        os._exit(3)
    fcntl.flock(fd, fcntl.LOCK_UN)
    side.note("granted", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


@case
def locking_other_kinds(side: Side) -> None:
    side.make("empty", "d")
    side.make("fifo", "p")
    for path, flags in (("d", os.O_RDONLY), ("p", os.O_RDWR)):
        fd = os.open(path, flags)
        side.do(f"flock {path}",
                lambda fd=fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
        os.close(fd)


@case
def leases(side: Side) -> None:
    side.make("file", "f")
    fd = os.open("f", os.O_RDONLY)
    side.do("lease", lambda: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK))
    side.do("which", lambda: fcntl.fcntl(fd, fcntl.F_GETLEASE))
    side.do("none", lambda: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK))


@case
def seals(side: Side) -> None:
    side.make("file", "f")
    fd = os.open("f", os.O_RDWR)
    side.do("which", lambda: fcntl.fcntl(fd, 1034))
    side.do("add", lambda: fcntl.fcntl(fd, 1033, 2))


@case
def changes_are_notified(side: Side) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    libc.inotify_add_watch(watch, b".", 0xFFF)
    fd = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"content")
    os.pread(fd, 3, 0)
    os.ftruncate(fd, 3)
    os.close(fd)
    os.chmod("f", 0o600)
    os.rename("f", "g")
    os.mkdir("d")
    os.link("g", "h")
    os.symlink("g", "l")
    os.truncate("g", 0)
    os.utime("g", ns=(1, 2))
    os.unlink("g")
    os.rmdir("d")
    os.unlink("h")
    os.unlink("l")
    events = []
    while select.select([watch], [], [], 0)[0]:
        data = os.read(watch, 1 << 16)
        while data:
            _, mask, _, length = struct.unpack_from("=iIII", data)
            events.append((hex(mask), data[16:16 + length].rstrip(b"\0")))
            data = data[16 + length:]
    side.note("events", events)


@case
def sockets_have_names(side: Side) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("s")
        side.lstat("s")
        side.do("bind again", lambda: socket.socket(socket.AF_UNIX).bind("s"))
        server.listen()
        os.rename("s", "t")
        client.connect("t")
        client.sendall(b"through")
        side.note("received", server.accept()[0].recv(20))
        os.unlink("t")
        side.do("connect to what is gone", lambda: socket.socket(socket.AF_UNIX).connect("t"))
    side.make("socket", "dead")
    side.do("connect to the dead", lambda: socket.socket(socket.AF_UNIX).connect("dead"))


def _stat_by(mount: int, handle: bytes) -> os.stat_result:
    fd = open_by_handle(mount, handle, os.O_RDONLY)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


@case_of_root
def files_are_found_by_handle(side: Side) -> None:
    side.make("file", "f", content=b"content")
    side.make("full", "d")
    mount = os.open(".", os.O_RDONLY)
    handles = {name: handle_of(name) for name in ("f", "d", "d/inside")}
    for _ in range(2):
        for name, handle in handles.items():
            side.do(f"by the handle of {name}",
                    lambda handle=handle: _stat_by(mount, handle))
        for _ in range(2):  # the first time spares what was used lately
            with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
                file.write("2")
    os.unlink("f")
    side.do("of what is gone", lambda: _stat_by(mount, handles["f"]))


@case
def flags_of_the_inode(side: Side) -> None:
    side.make("file", "f")
    fd = os.open("f", os.O_RDWR)
    side.do("FS_IOC_GETFLAGS", lambda: fcntl.ioctl(fd, 0x80086601, bytes(8)))


@case
def birth(side: Side) -> None:
    side.make("file", "f")
    side.note("has a time", subprocess.run(
        ["stat", "-c", "%W", "f"], stdout=subprocess.PIPE, check=True).stdout != b"0\n")
