# SPDX-License-Identifier: MIT
"""Cases of open(2): flags on every kind of file, rights, creation modes, what O_TRUNC does."""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import stat

from tests.mount.posix.registry import case, case_for_each, case_of_root
from tests.mount.posix.side import GROUP, MEMBER, OTHER, OWNER, PAST, Side, flag_names

KINDS = ("none", "file", "empty", "full", "symlink", "dirlink", "dangling", "loop", "fifo",
         "socket")
ACCESSES = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
FLAGS = (os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW, os.O_DIRECTORY)


@case_for_each("kind", KINDS)
def every_flag_on(side: Side, kind: str) -> None:
    for access, *chosen in itertools.product(ACCESSES, *((0, flag) for flag in FLAGS)):
        side.make(kind, "x", content=b"content")
        side.opens("x", access | sum(chosen) | os.O_NONBLOCK)
        side.tree("then")
        side.sweep()


@case_for_each("kind", KINDS)
def o_path_on(side: Side, kind: str) -> None:
    side.make(kind, "x", content=b"content")
    for flags in (0, os.O_NOFOLLOW, os.O_DIRECTORY, os.O_CREAT, os.O_TRUNC, os.O_WRONLY):
        fd = side.open("x", os.O_PATH | flags)
        if fd is None:
            continue
        side.note("fstat", os.fstat(fd))
        side.do("read", lambda fd=fd: os.read(fd, 1))
        side.do("fchmod", lambda fd=fd: os.fchmod(fd, 0o600))
        side.do("reopened", lambda fd=fd: os.close(
            os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)))
        os.close(fd)


@case
def names_that_are_special(side: Side) -> None:
    side.make("file", "f", content=b"x")
    side.make("full", "d")
    side.make("loop", "loop")
    for path in ("", ".", "..", "f/", "f/.", "f/..", "f/x", "d/", "d/.", "d/..", "d/none/x", "new/",
                 "loop/x", "./f", "d/../f", "d//inside", "x" * 255, "x" * 256, "x" * 1025,
                 "d/" * 2047 + "f", "./" * 2047 + "f", "./" * 2048 + "f"):
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT,
                      os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDONLY | os.O_DIRECTORY):
            side.opens(path, flags)


@case
def creation_obeys_mode_and_umask(side: Side) -> None:
    for umask in (0o000, 0o022, 0o077, 0o777):
        os.umask(umask)
        for mode in (0o000, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o1777, 0o6777, 0o7777):
            name = f"{umask:o}-{mode:o}"
            fd = side.open(f"file-{name}", os.O_CREAT | os.O_RDWR, mode)
            # The creator's own descriptor does not depend on the mode.
            side.do("write", lambda fd=fd: os.write(fd, b"x"))
            side.do("close", lambda fd=fd: os.close(fd))
            side.mkdir(f"directory-{name}", mode)
            side.mkfifo(f"fifo-{name}", mode)
            for kind in (stat.S_IFREG, stat.S_IFSOCK, 0):
                side.mknod(f"node-{name}-{kind}", kind | mode)
    os.umask(0o022)
    with_stat = sorted(os.listdir("."))
    side.note("made", [(name, side_stat(name)) for name in with_stat])
    for name in with_stat:
        os.chmod(name, 0o755)


def side_stat(name: str) -> tuple[int, int, int]:
    found = os.lstat(name)
    return found.st_mode, found.st_nlink, found.st_size


@case
def reading_only_may_truncate(side: Side) -> None:
    side.make("file", "f", content=b"content")
    fd = side.open("f", os.O_RDONLY | os.O_TRUNC)
    side.note("size", os.fstat(fd or 0).st_size)
    side.do("write", lambda: os.write(fd or 0, b"x"))
    side.do("ftruncate", lambda: os.ftruncate(fd or 0, 3))


@case
def truncating_keeps_other_descriptors_alive(side: Side) -> None:
    side.make("file", "f", content=b"0123456789")
    first = os.open("f", os.O_RDWR)
    side.note("read", os.read(first, 5))
    second = os.open("f", os.O_RDWR | os.O_TRUNC)
    side.note("read behind the end", os.read(first, 5))
    side.note("write", os.write(first, b"ab"))
    side.note("the other reads", os.read(second, 100))
    side.note("size", os.fstat(second).st_size)


@case_of_root
def rights_by_mode(side: Side) -> None:
    accesses = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC,
                os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_CREAT,
                os.O_RDWR | os.O_CREAT | os.O_EXCL)
    side.make("file", "f")
    side.make("empty", "d")
    os.chmod(".", 0o777)
    for name in ("f", "d"):
        os.chown(name, OWNER, GROUP)
    for uid, groups in ((OWNER, ()), (MEMBER, (GROUP,)), (OTHER, ())):
        for mode in (0o000, 0o400, 0o200, 0o100, 0o040, 0o020, 0o010, 0o004, 0o002, 0o001, 0o077,
                     0o707, 0o770, 0o644, 0o600):
            for name in ("f", "d"):
                os.chmod(name, mode)
            with side.user(uid, *groups):
                side.note("who and which mode", (uid, oct(mode)))
                for flags in accesses:
                    side.opens("f", flags)
                for bits in range(8):
                    side.access("f", bits, effective_ids=True)
                    side.access("d", bits, effective_ids=True)
                side.do("listdir", os.listdir, "d")
                side.opens("d/inside", os.O_RDWR | os.O_CREAT)
                side.lstat("d/inside")
                side.do("unlink", os.unlink, "d/inside")
                side.truncate("f", 0)
            if os.path.exists("d/inside"):
                os.unlink("d/inside")


@case_of_root
def the_creators_descriptor_works_whatever_the_mode(side: Side) -> None:
    os.chmod(".", 0o777)
    with side.user(OTHER):
        fd = side.open("f", os.O_CREAT | os.O_RDWR, 0)
        assert fd is not None
        side.do("write", os.write, fd, b"content")
        side.do("pread", os.pread, fd, 10, 0)
        side.do("ftruncate", os.ftruncate, fd, 3)
        side.do("posix_fallocate", os.posix_fallocate, fd, 0, 100)
        side.do("fsync", os.fsync, fd)
        side.do("fchmod", os.fchmod, fd, 0o200)
        side.do("again", os.open, "f", os.O_RDONLY)
        side.do("ftruncate", os.ftruncate, fd, 5000)
        side.do("fstat", os.fstat, fd)
    os.chown("f", 0, 0)
    with side.user(OTHER):
        side.do("write of what is not mine any more", os.pwrite, fd, b"more", 4096)
        side.do("ftruncate", os.ftruncate, fd, 4100)
        side.do("fallocate", os.posix_fallocate, fd, 0, 9000)
        side.do("fchmod", os.fchmod, fd, 0o777)
        with mmap.mmap(fd, 4096) as mapped:
            mapped[0] = 65
    side.note("bytes", os.pread(fd, 10, 0))


@case
def descriptors_can_be_opened_again_through_proc(side: Side) -> None:
    side.make("file", "f", content=b"content")
    fd = os.open("f", os.O_RDWR)
    os.unlink("f")
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_TRUNC,
                  os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_EXCL):
        again = side.open(f"/proc/self/fd/{fd}", flags)
        if again is not None:
            side.do("write", lambda again=again: os.write(again, b"new"))
            side.note("seen by the first", os.pread(fd, 20, 0))
            side.note("fstat", os.fstat(again))
            os.close(again)
    side.do("stat", lambda: os.stat(f"/proc/self/fd/{fd}"))
    side.do("chmod", lambda: os.chmod(f"/proc/self/fd/{fd}", 0o600))
    side.do("truncate", lambda: os.truncate(f"/proc/self/fd/{fd}", 1))
    side.note("fstat", os.fstat(fd))
    side.do("link", lambda: os.link(f"/proc/self/fd/{fd}", "back", follow_symlinks=True))


@case
def unnamed_files(side: Side) -> None:
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_EXCL):
        side.opens(".", flags | os.O_TMPFILE)
    side.make("file", "f")
    side.opens("f", os.O_RDWR | os.O_TMPFILE)
    side.opens("none", os.O_RDWR | os.O_TMPFILE)


@case
def flags_change_after_opening(side: Side) -> None:
    side.make("file", "f", content=b"content")
    fd = os.open("f", os.O_RDWR)
    side.note("flags", flag_names(fcntl.fcntl(fd, fcntl.F_GETFL)))
    for flags in (os.O_APPEND, os.O_NONBLOCK, os.O_DIRECT, os.O_NOATIME, 0):
        side.do(f"F_SETFL {flag_names(flags)}", fcntl.fcntl, fd, fcntl.F_SETFL, flags)
        side.note("flags", flag_names(fcntl.fcntl(fd, fcntl.F_GETFL)))
        side.do("lseek", os.lseek, fd, 0, os.SEEK_SET)
        side.do("write", lambda: os.write(fd, b"x"))
        os.lseek(fd, 0, os.SEEK_SET)
        side.do("read", os.read, fd, 100)


@case_of_root
def o_noatime_is_the_owners(side: Side) -> None:
    side.make("file", "f", content=b"content")
    os.chown("f", OWNER, OWNER)
    for uid in (OWNER, OTHER):
        with side.user(uid):
            side.opens("f", os.O_RDONLY | os.O_NOATIME)
    os.utime("f", ns=(PAST, PAST))
    fd = os.open("f", os.O_RDONLY | os.O_NOATIME)
    os.read(fd, 10)
    side.note("atime stays", os.stat("f").st_atime_ns == PAST)


@case
def special_files_open_as_themselves(side: Side) -> None:
    os.mkfifo("fifo")
    reader = side.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = side.open("fifo", os.O_WRONLY | os.O_NONBLOCK)
    side.do("write", lambda: os.write(writer or 0, b"through"))
    side.do("read", lambda: os.read(reader or 0, 20))
    side.note("fstat", os.fstat(reader or 0))
    os.unlink("fifo")
    side.note("fstat", os.fstat(reader or 0))
    side.do("write", lambda: os.write(writer or 0, b"through"))
    side.do("read", lambda: os.read(reader or 0, 20))


@case_of_root
def devices_do_not_open(side: Side) -> None:
    for name, kind in (("char", stat.S_IFCHR), ("block", stat.S_IFBLK)):
        for device in (os.makedev(1, 3), os.makedev(4095, 70000), 0):
            os.mknod(f"{name}{device}", kind | 0o666, device)
            side.opens(f"{name}{device}", os.O_RDWR)
            side.lstat(f"{name}{device}")


@case
def programs_run_and_cannot_be_written_meanwhile(side: Side) -> None:
    import shutil
    import subprocess

    shutil.copy("/bin/cat", "cat")
    os.chmod("cat", 0o755)
    with subprocess.Popen(["./cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin and running.stdout
        running.stdin.write(b"x")
        running.stdin.flush()
        side.note("it runs", running.stdout.read(1))
        side.opens("cat", os.O_RDWR)
        side.opens("cat", os.O_RDONLY | os.O_TRUNC)
        side.truncate("cat", 10)
        side.rename("cat", "dog")
        side.unlink("dog")
    writer = os.open("script", os.O_CREAT | os.O_WRONLY, 0o755)
    os.write(writer, b"#!/bin/sh\nexit 3\n")
    side.do("while it is written", lambda: subprocess.run("./script", check=False).returncode)
    os.close(writer)
    side.note("afterwards", subprocess.run("./script", check=False).returncode)
    os.chmod("script", 0o644)
    side.do("without x", lambda: subprocess.run("./script", check=False).returncode)
