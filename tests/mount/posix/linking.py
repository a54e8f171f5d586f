# SPDX-License-Identifier: MIT
"""Cases of link, symlink, readlink and mkdir."""

from __future__ import annotations

import os
import stat

from tests.mount.posix.calls import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, linkat
from tests.mount.posix.registry import case, case_for_each, case_of_root
from tests.mount.posix.side import GROUP, MEMBER, OTHER, OWNER, Side

KINDS = ("none", "file", "empty", "symlink", "dirlink", "dangling", "loop", "fifo", "socket")


@case_for_each("kind", KINDS)
def a_second_name_for_a(side: Side, kind: str) -> None:
    for other in KINDS:
        for flags in (0, AT_SYMLINK_FOLLOW):
            side.make(kind, "x")
            side.make(other, "y")
            side.do(f"linkat over {other}", linkat, AT_FDCWD, "x", "y", flags)
            side.tree("then")
            side.sweep()


@case
def special_names(side: Side) -> None:
    side.make("file", "f")
    side.make("empty", "d")
    for old, new in (("f", ""), ("", "f"), ("f", "."), ("f", ".."), ("f", "d/."), ("f", "d/.."),
                     ("f/", "g"), ("f", "g/"), ("f", "none/g"), ("f", "f/g"), ("f/g", "h"),
                     (".", "g"), ("d", "g"), ("d", "d/g"), ("f", "x" * 256), ("x" * 256, "g")):
        side.link(old, new)
        side.symlink(old, new)


@case
def all_names_are_one_file(side: Side) -> None:
    side.make("file", "f", content=b"content")
    os.mkdir("d")
    for number in range(30):
        os.link("f", f"d/{number}")
    side.lstat("f")
    os.chmod("d/3", 0o600)
    os.truncate("d/4", 3)
    side.lstat("d/29")
    side.note("one inode", len({os.stat(f"d/{n}").st_ino for n in range(30)}))
    for number in range(30):
        os.unlink(f"d/{number}")
        if number % 10 == 0:
            side.lstat("f")


@case
def descriptors_get_names(side: Side) -> None:
    side.make("file", "f", content=b"content")
    fd = os.open("f", os.O_RDWR)
    path = os.open("f", os.O_PATH)
    for name, descriptor in (("file", fd), ("path", path)):
        side.do(f"AT_EMPTY_PATH {name}",
                lambda d=descriptor, n=name: linkat(d, "", n, AT_EMPTY_PATH))
        side.do(f"proc {name}", lambda d=descriptor, n=name: linkat(
            AT_FDCWD, f"/proc/self/fd/{d}", n + "-proc", AT_SYMLINK_FOLLOW))
    side.sweep()
    side.do("a nameless one", lambda: linkat(
        AT_FDCWD, f"/proc/self/fd/{fd}", "back", AT_SYMLINK_FOLLOW))
    side.do("a nameless one", lambda: linkat(fd, "", "back", AT_EMPTY_PATH))
    side.note("fstat", os.fstat(fd))


@case_of_root
def others_files(side: Side) -> None:
    os.chmod(".", 0o777)
    for name, mode in (("open", 0o666), ("closed", 0o600), ("setuid", 0o4777), ("setgid", 0o2777)):
        side.make("file", name)
        os.chown(name, OWNER, GROUP)
        os.chmod(name, mode)
        for who, groups in ((OWNER, ()), (MEMBER, (GROUP,)), (OTHER, ())):
            with side.user(who, *groups):
                side.link(name, f"{name}-of-{who}")
                side.symlink(name, f"symlink-to-{name}-of-{who}")


@case
def symbolic_links_hold_any_text(side: Side) -> None:
    for number, target in enumerate((
            "x", "/", ".", "..", "a/b/c", "/absolute/path", "\xe4\u20ac", "x\ny", " ", "x" * 255,
            "x" * 256, "x" * 1000, "y/" * 2000, "x" * 4094, "x" * 4095, "x" * 4096, "x" * 5000, "",
            os.fsdecode(b"\xff\xfe"))):
        side.do("symlink", os.symlink, target, f"l{number}")
        side.readlink(f"l{number}")
        side.lstat(f"l{number}")
    side.do("readlink of a directory", os.readlink, ".")
    side.make("file", "f")
    side.readlink("f")
    side.readlink("none")


@case
def loops_and_long_chains(side: Side) -> None:
    os.symlink("b", "a")
    os.symlink("a", "b")
    os.mkdir("d")
    os.symlink("../d", "d/self")
    side.make("file", "d/f", content=b"content")
    for path in ("a", "a/x", "d/self/f", "d/" + "self/" * 40 + "f", "d/" + "self/" * 41 + "f"):
        side.opens(path, os.O_RDONLY)
        side.opens(path, os.O_RDWR | os.O_CREAT)
        side.stat(path)
        side.truncate(path, 3)
        side.chmod(path, 0o600)
    for number in range(45):
        os.symlink("d/f" if number == 0 else f"chain{number - 1}", f"chain{number}")
    for number in (38, 39, 40, 44):
        side.stat(f"chain{number}")
        side.rename(f"chain{number}", f"chain-{number}")
        side.rename(f"chain-{number}", f"chain{number}")


@case
def through_symbolic_links(side: Side) -> None:
    side.make("dangling", "dangling")
    side.opens("dangling", os.O_CREAT | os.O_EXCL | os.O_RDWR)
    side.mkdir("dangling")
    side.mkfifo("dangling")
    side.opens("dangling", os.O_CREAT | os.O_RDWR)
    side.stat("points-nowhere")
    side.make("dirlink", "dirlink")
    side.opens("dirlink/f", os.O_CREAT | os.O_RDWR)
    side.rmdir("dirlink")
    side.rename("dirlink", "moved")
    side.do("listdir", os.listdir, "moved")
    side.unlink("moved/")
    side.unlink("moved")


@case_for_each("kind", KINDS)
def a_directory_where_there_is_a(side: Side, kind: str) -> None:
    for path in ("x", "x/", "x/.", "x/.."):
        side.make(kind, "x")
        side.mkdir(path, 0o750)
        side.tree("then")
        side.sweep()


@case
def directories_count_their_children(side: Side) -> None:
    os.mkdir("d")
    side.stat("d")
    for number in range(10):
        os.mkdir(f"d/{number}")
        side.opens(f"d/file{number}", os.O_CREAT | os.O_RDWR)
        side.stat("d")
    os.rename("d/3", "e")
    side.stat("d")
    os.rename("e", "d/4")
    side.stat("d")
    os.rmdir("d/5")
    side.stat("d")
    side.stat(".")


@case_of_root
def set_group_id_directories(side: Side) -> None:
    os.mkdir("d")
    os.chown("d", OWNER, GROUP)
    for mode in (0o2777, 0o777, 0o3777):
        os.chmod("d", mode)
        for who, groups in ((0, ()), (OWNER, ()), (MEMBER, (GROUP,)), (OTHER, ())):
            with side.user(who, *groups):
                side.note("who and which mode", (who, oct(mode)))
                name = f"d/{mode:o}-{who}"
                for bits in (0o755, 0o2755, 0o2745, 0o4755, 0o6777, 0o1777):
                    side.opens(f"{name}-{bits:o}-file", os.O_CREAT | os.O_RDWR, bits)
                    side.mkdir(f"{name}-{bits:o}-directory", bits)
                    side.mkfifo(f"{name}-{bits:o}-fifo", bits)
                    side.mknod(f"{name}-{bits:o}-socket", stat.S_IFSOCK | bits)
                side.symlink("x", f"{name}-symlink")


@case_of_root
def new_files_belong_to_the_effective_user(side: Side) -> None:
    os.chmod(".", 0o777)
    for who, groups in ((OWNER, (GROUP,)), (OTHER, ())):
        with side.user(who, *groups):
            side.opens(f"file-{who}", os.O_CREAT | os.O_RDWR)
            side.mkdir(f"directory-{who}")
            side.mkfifo(f"fifo-{who}")
            side.symlink("x", f"symlink-{who}")
            side.mknod(f"char-{who}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            side.mknod(f"node-{who}", stat.S_IFREG | 0o666)
