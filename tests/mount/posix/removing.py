# SPDX-License-Identifier: MIT
"""Cases of unlink, rmdir, and of what goes on without a name."""

from __future__ import annotations

import os
import stat

from tests.mount.posix.registry import case, case_for_each, case_of_root
from tests.mount.posix.side import MEMBER, OTHER, OWNER, Side

KINDS = ("none", "file", "empty", "full", "symlink", "dirlink", "dangling", "loop", "fifo",
         "socket")


@case_for_each("kind", KINDS)
def removing_a(side: Side, kind: str) -> None:
    for remove in ("unlink", "rmdir"):
        for path in ("x", "x/", "x/.", "x/.."):
            side.make(kind, "x")
            side.do(remove, getattr(os, remove), path)
            side.tree("then")
            side.sweep()


@case
def special_names(side: Side) -> None:
    side.make("file", "f")
    side.make("full", "d")
    for path in ("", ".", "..", "./", "d/..", "f/x", "f/", "/", "x" * 255, "x" * 256):
        side.unlink(path)
        side.rmdir(path)


@case
def an_open_file_lives_on(side: Side) -> None:
    side.make("file", "f", content=b"content")
    os.link("f", "g")
    fd = os.open("f", os.O_RDWR)
    side.unlink("f")
    side.note("fstat", os.fstat(fd))
    side.lstat("g")
    side.unlink("g")
    side.note("fstat", os.fstat(fd))
    side.do("write", lambda: os.write(fd, b"C"))
    side.do("pread", lambda: os.pread(fd, 10, 0))
    side.do("ftruncate", lambda: os.ftruncate(fd, 8192))
    side.do("fchmod", lambda: os.fchmod(fd, 0o640))
    side.do("utime", lambda: os.utime(fd, ns=(5, 6)))
    side.note("times", (os.fstat(fd).st_atime_ns, os.fstat(fd).st_mtime_ns))
    side.do("fallocate", lambda: os.posix_fallocate(fd, 0, 20000))
    side.do("fsync", lambda: os.fsync(fd))
    side.note("fstat", os.fstat(fd))
    side.make("file", "f", content=b"another")
    side.note("fstat", os.fstat(fd))
    side.do("pread", lambda: os.pread(fd, 10, 0))


@case
def a_removed_file_can_be_made_again_and_again(side: Side) -> None:
    held = []
    for number in range(20):
        fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_EXCL)
        os.write(fd, b"%d" % number)
        side.unlink("f")
        held.append(fd)
    side.note("all are different", [os.pread(fd, 10, 0) for fd in held])
    side.note("all are nameless", {os.fstat(fd).st_nlink for fd in held})


@case_for_each("kind", ("file", "empty", "symlink", "fifo", "socket"))
def a_path_descriptor_outlives_the_name(side: Side, kind: str) -> None:
    side.make(kind, "x")
    fd = os.open("x", os.O_PATH | os.O_NOFOLLOW)
    side.do("remove", os.rmdir if kind == "empty" else os.unlink, "x")
    side.do("fstat", lambda: os.fstat(fd))
    side.do("open again", lambda: os.close(os.open(f"/proc/self/fd/{fd}",
                                                   os.O_RDONLY | os.O_NONBLOCK)))
    side.do("chmod", lambda: os.chmod(f"/proc/self/fd/{fd}", 0o700))
    side.do("chown", lambda: os.chown(f"/proc/self/fd/{fd}", os.getuid(), os.getgid()))
    side.do("utime", lambda: os.utime(f"/proc/self/fd/{fd}", ns=(1, 2)))
    side.do("fstat", lambda: os.fstat(fd))
    side.do("readlink", lambda: os.readlink("", dir_fd=fd))


@case
def a_removed_directory_that_is_in_use(side: Side) -> None:
    top = os.getcwd()
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    os.chdir("d")
    side.rmdir("../d")
    side.do("stat", os.stat, ".")
    side.do("stat ..", lambda: os.stat("..") and None)
    side.do("fstat", lambda: os.fstat(fd))
    side.listdir(".")
    side.do("listdir", lambda: os.listdir(fd))
    side.do("getcwd", os.getcwd)
    side.opens("f", os.O_CREAT | os.O_RDWR)
    side.mkdir("sub")
    side.symlink("x", "y")
    side.mkfifo("fifo")
    side.mknod("node", stat.S_IFREG)
    side.link("../f", "g")
    side.lstat("f")
    side.rename("f", "g")
    side.rmdir(".")
    side.do("fchmod", lambda: os.fchmod(fd, 0o700))
    side.do("utime", lambda: os.utime(fd, ns=(1, 2)))
    side.do("fsync", lambda: os.fsync(fd))
    side.do("fstat", lambda: os.fstat(fd))
    side.access(".", os.R_OK)
    side.do("chdir", lambda: os.fchdir(fd))
    os.chdir("/")
    side.do("mkdir", lambda: os.mkdir(top + "/d"))
    side.do("the new one is another", lambda: os.stat(top + "/d").st_ino != os.fstat(fd).st_ino)
    side.do("listdir of the old one", lambda: os.listdir(fd))


@case
def a_replaced_directory_that_is_in_use(side: Side) -> None:
    os.mkdir("d")
    os.mkdir("e")
    fd = os.open("d", os.O_RDONLY)
    side.rename("e", "d")
    side.do("fstat", lambda: os.fstat(fd))
    side.do("listdir", lambda: os.listdir(fd))
    side.do("open", lambda: os.open("f", os.O_CREAT | os.O_RDWR, dir_fd=fd))


@case
def a_directory_moves_under_its_user(side: Side) -> None:
    os.makedirs("d/e")
    os.chdir("d/e")
    fd = os.open(".", os.O_RDONLY)
    os.mkdir("../../other")
    side.rename("../../d", "../../other/d2")
    side.do("listdir", os.listdir, "../..")
    side.opens("f", os.O_CREAT | os.O_RDWR)
    side.do("listdir", lambda: os.listdir(fd))
    side.do("getcwd", lambda: os.getcwd().split("/")[-3:])


@case_of_root
def sticky_directories(side: Side) -> None:
    for mode in (0o777, 0o1777):
        for who in (OWNER, MEMBER, OTHER):
            os.mkdir("d")
            os.chown("d", OWNER, OWNER)
            os.chmod("d", mode)
            for name in ("file", "empty", "fifo", "symlink"):
                side.make(name, f"d/{name}")
                os.chown(f"d/{name}", MEMBER, MEMBER, follow_symlinks=False)
            side.make("file", "d/target")
            os.chown("d/target", MEMBER, MEMBER)
            with side.user(who):
                side.note("who and which mode", (who, oct(mode)))
                side.opens("d/own", os.O_CREAT | os.O_RDWR)
                side.rename("d/own", "d/target")
                side.rename("d/file", "d/moved")
                side.rename("d/empty", "d/moved-directory")
                for name in ("file", "moved", "fifo", "symlink"):
                    side.unlink(f"d/{name}")
                side.rmdir("d/empty")
                side.rmdir("d/moved-directory")
            side.tree("then")
            side.sweep()


@case_of_root
def directories_without_rights(side: Side) -> None:
    top = os.getcwd()
    for bits in range(8):
        os.mkdir("d")
        side.make("file", "d/f", content=b"content")
        side.make("empty", "d/e")
        side.make("file", "f", content=b"content")
        for path in ("d", "d/f", "d/e", "f", "."):
            os.chown(path, OWNER, OWNER)
        os.chmod("d", bits << 6)
        with side.user(OWNER):
            side.note("mode", oct(bits << 6))
            side.do("listdir", lambda: sorted(os.listdir("d")))
            side.lstat("d/f")
            side.lstat("d/none")
            side.opens("d/f", os.O_RDONLY)
            side.opens("d/new", os.O_CREAT | os.O_RDWR)
            side.mkdir("d/sub")
            side.symlink("x", "d/symlink")
            side.mkfifo("d/fifo")
            side.link("f", "d/linked")
            side.link("d/f", "linked")
            side.rename("f", "d/moved")
            side.rename("d/f", "moved")
            side.unlink("d/f")
            side.rmdir("d/e")
            side.truncate("d/f", 1)
            side.chmod("d/f", 0o600)
            side.utime("d/f", ns=(1, 2))
            side.readlink("d/symlink")
            side.chdir("d")
        os.chdir(top)
        os.chmod("d", 0o700)
        side.tree("then")
        side.sweep()
