# SPDX-License-Identifier: MIT
"""Cases of rename(2) and renameat2(2): every pair of kinds, every flag, and what it moves over."""

from __future__ import annotations

import os

from tests.mount.posix.calls import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    renameat2,
)
from tests.mount.posix.registry import case, case_for_each, case_of_root
from tests.mount.posix.side import MEMBER, OTHER, OWNER, Side

KINDS = ("none", "file", "empty", "full", "symlink", "dirlink", "dangling", "fifo", "socket")
FLAGS = (0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_NOREPLACE | RENAME_EXCHANGE, 8)


@case_for_each("kind", KINDS)
def every_pair_from(side: Side, kind: str) -> None:
    for other in KINDS:
        for flags in FLAGS:
            side.make(kind, "x")
            side.make(other, "y")
            side.do(f"renameat2 {other}", renameat2, "x", "y", flags)
            side.tree("then")
            side.sweep()


@case_for_each("kind", ("file", "empty", "full", "symlink"))
def into_another_directory(side: Side, kind: str) -> None:
    for other in ("none", "file", "empty", "full"):
        for flags in FLAGS[:3]:
            os.makedirs("from")
            os.makedirs("to")
            side.make(kind, "from/x")
            side.make(other, "to/y")
            side.do(f"renameat2 {other}", renameat2, "from/x", "to/y", flags)
            side.tree("then")
            side.sweep()


@case
def into_itself_and_below(side: Side) -> None:
    os.makedirs("d/e/f")
    for old, new in (("d", "d"), ("d", "d/x"), ("d", "d/e"), ("d", "d/e/f"), ("d/e", "d"),
                     ("d/e/f", "d"), ("d/e/f", "d/e"), (".", "x"), ("..", "x"), ("d", "."),
                     ("d", ".."), ("d/.", "x"), ("d/..", "x"), ("d", "x/."), ("d/e", "d/e/."),
                     ("", "x"), ("d", "")):
        for flags in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
            side.do("renameat2", renameat2, old, new, flags)
    side.tree("then")


@case
def slashes_behind_names(side: Side) -> None:
    for kind in ("file", "empty", "symlink", "dirlink"):
        for old, new in (("x/", "y"), ("x", "y/"), ("x/", "y/"), ("x//", "y")):
            side.make(kind, "x")
            side.rename(old, new)
            side.tree("then")
            side.sweep()


@case
def names_of_one_file(side: Side) -> None:
    side.make("file", "f", content=b"content")
    os.link("f", "g")
    os.mkdir("d")
    os.link("f", "d/h")
    for old, new, flags in (("f", "f", 0), ("f", "g", 0), ("f", "d/h", 0), ("f", "g",
                            RENAME_NOREPLACE), ("f", "f", RENAME_NOREPLACE),
                            ("f", "g", RENAME_EXCHANGE), ("f", "f", RENAME_EXCHANGE)):
        side.do("renameat2", renameat2, old, new, flags)
        side.tree("then")


@case
def over_a_file_with_other_names_or_users(side: Side) -> None:
    side.make("file", "target", content=b"old")
    os.link("target", "second")
    side.make("file", "new", content=b"new")
    fd = os.open("target", os.O_RDWR)
    side.rename("new", "target")
    side.tree("then")
    side.note("fstat", os.fstat(fd))
    side.make("file", "newer", content=b"newer")
    side.rename("newer", "second")
    side.note("fstat", os.fstat(fd))
    side.do("pread", lambda: os.pread(fd, 10, 0))
    side.do("write", lambda: os.write(fd, b"still writable"))
    side.tree("then")


@case
def open_files_keep_their_identity(side: Side) -> None:
    side.make("file", "a", content=b"a")
    side.make("file", "b", content=b"b")
    first, second = os.open("a", os.O_RDWR), os.open("b", os.O_RDWR)
    side.do("exchange", renameat2, "a", "b", RENAME_EXCHANGE)
    side.note("first", (os.pread(first, 10, 0), os.fstat(first).st_ino == os.stat("b").st_ino))
    side.rename("a", "b")
    side.note("first", (os.pread(first, 10, 0), os.fstat(first).st_nlink))
    side.note("second", (os.pread(second, 10, 0), os.fstat(second).st_nlink))
    os.pwrite(second, b"changed", 0)
    side.tree("then")


@case
def a_rename_that_fails_changes_nothing(side: Side) -> None:
    side.make("full", "full")
    side.make("empty", "empty")
    side.make("file", "f", content=b"content")
    fd = os.open("f", os.O_RDWR)
    for old, new in (("empty", "full"), ("f", "empty"), ("empty", "f"), ("f", "x" * 256),
                     ("x" * 256, "f"), ("f", "none/x"), ("none/x", "f"), ("f/x", "y"),
                     ("empty", "f/x"), ("full", "full/inside")):
        side.rename(old, new)
    side.note("fstat", os.fstat(fd))


@case
def many_times_over_the_same(side: Side) -> None:
    for number in range(50):
        side.make("file", "new", content=b"%d" % number)
        os.replace("new", "f")
    side.make("empty", "d")
    for _ in range(20):
        os.mkdir("new")
        os.rename("new", "d")
    for number in range(20):
        os.symlink(f"{number}", "new")
        os.rename("new", "link")


@case_of_root
def across_owners(side: Side) -> None:
    for sticky in (0, 0o1000):
        for who in (OWNER, MEMBER, OTHER):
            for flags in (0, RENAME_NOREPLACE, RENAME_EXCHANGE):
                os.mkdir("d")
                os.mkdir("e")
                for directory, owner in (("d", OWNER), ("e", MEMBER)):
                    os.chown(directory, owner, owner)
                    os.chmod(directory, 0o777 | sticky)
                    side.make("empty", f"{directory}/sub")
                    side.make("file", f"{directory}/f", content=directory.encode())
                    os.chown(f"{directory}/f", OTHER, OTHER)
                    os.chown(f"{directory}/sub", OTHER, OTHER)
                with side.user(who):
                    side.note("who and how", (who, sticky, flags))
                    side.do("renameat2", renameat2, "d/f", "e/f", flags)
                    side.do("renameat2", renameat2, "d/f", "e/g", flags)
                    # A directory that is not mine cannot get another "..".
                    side.do("renameat2", renameat2, "d/sub", "e/sub", flags)
                    side.do("renameat2", renameat2, "d/sub", "e/sub2", flags)
                    side.do("renameat2", renameat2, "e", "d/e", flags)
                side.tree("then")
                side.sweep()


@case_of_root
def whiteouts(side: Side) -> None:
    side.make("file", "f")
    side.do("whiteout", renameat2, "f", "g", RENAME_WHITEOUT)
