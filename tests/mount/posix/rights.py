# SPDX-License-Identifier: MIT
"""Cases of chmod, chown, utimensat and of the set-id bits: who may, and what goes with it."""

from __future__ import annotations

import itertools
import os
import struct

from tests.mount.posix.calls import (
    FALLOC_ZERO_RANGE,
    UTIME_NOW,
    UTIME_OMIT,
    fallocate,
    utimensat,
)
from tests.mount.posix.registry import case, case_for_each, case_of_root
from tests.mount.posix.side import GROUP, MEMBER, OTHER, OWNER, Side

PEOPLE = ((0, ()), (OWNER, (GROUP,)), (MEMBER, (GROUP,)), (OTHER, ()))
KINDS = ("file", "empty", "fifo", "socket")


@case_for_each("kind", KINDS, root=True)
def chmod_of_a(side: Side, kind: str) -> None:
    side.make(kind, "x")
    for group in (OWNER, GROUP, OTHER):
        for who, groups in PEOPLE:
            for mode in (0o000, 0o644, 0o777, 0o1777, 0o2755, 0o2744, 0o4755, 0o7777):
                os.chown("x", OWNER, group)
                os.chmod("x", 0o600)
                with side.user(who, *groups):
                    side.note("who and which group", (who, group))
                    side.chmod("x", mode)
                    side.lstat("x")
    side.chmod("none", 0o600)
    os.chmod("x", 0o777)


@case_for_each("kind", (*KINDS, "symlink"), root=True)
def chown_of_a(side: Side, kind: str) -> None:
    side.make(kind, "x")
    for who, groups in PEOPLE:
        for group, uid, gid in itertools.product((OWNER, OTHER), (-1, OWNER, OTHER),
                                                 (-1, OWNER, GROUP, OTHER)):
            for mode in (0o777, 0o6777, 0o2767, 0o7000):
                if uid == gid == -1:
                    continue
                os.chown("x", OWNER, group, follow_symlinks=False)
                if kind != "symlink":
                    os.chmod("x", mode)
                with side.user(who, *groups):
                    side.note("who, which group, which mode", (who, group, oct(mode)))
                    side.chown("x", uid, gid, follow_symlinks=False)
                    side.lstat("x")
    if kind != "symlink":
        os.chmod("x", 0o777)


@case_for_each("kind", (*KINDS, "symlink"), root=True)
def chown_to_nobody_else_of_a(side: Side, kind: str) -> None:
    side.make(kind, "x")
    for who, groups in PEOPLE[:2]:
        for mode in (0o777, 0o6777, 0o2767, 0o7000):
            os.chown("x", OWNER, OWNER, follow_symlinks=False)
            if kind != "symlink":
                os.chmod("x", mode)
            with side.user(who, *groups):
                side.chown("x", -1, -1, follow_symlinks=False)
                side.lstat("x")
    if kind != "symlink":
        os.chmod("x", 0o777)


@case_of_root
def chown_to_nobody_else_by_a_stranger(side: Side) -> None:
    side.make("file", "x")
    os.chown("x", OWNER, OWNER)
    for mode in (0o777, 0o4777):
        os.chmod("x", mode)
        with side.user(OTHER):
            side.chown("x", -1, -1)
            side.lstat("x")
    os.chmod("x", 0o777)


@case_of_root
def through_a_symbolic_link(side: Side) -> None:
    side.make("symlink", "x")
    for call in (lambda: os.chmod("x", 0o640), lambda: os.chown("x", OWNER, GROUP),
                 lambda: os.utime("x", ns=(1, 2)), lambda: os.lchown("x", OTHER, OTHER),
                 lambda: os.utime("x", ns=(3, 4), follow_symlinks=False)):
        side.do("call", lambda call=call: call())
        side.lstat("x")
        side.lstat("pointed-at")
    side.note("times", (os.lstat("x").st_mtime_ns, os.stat("x").st_mtime_ns))


@case_of_root
def set_id_bits_go_when_somebody_else_changes_it(side: Side) -> None:
    ways = {
        "write": lambda: _with("f", os.O_WRONLY, lambda fd: os.write(fd, b"x")),
        "write nothing": lambda: _with("f", os.O_WRONLY, lambda fd: os.write(fd, b"")),
        "append": lambda: _with("f", os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"x")),
        "pwritev": lambda: _with("f", os.O_WRONLY, lambda fd: os.pwritev(fd, [b"a", b"b"], 3)),
        "splice": lambda: _with("f", os.O_WRONLY, _splice_into),
        "copy_file_range": lambda: _with("f", os.O_WRONLY, _copy_into),
        "sendfile": lambda: _with("f", os.O_WRONLY, _send_into),
        "truncate": lambda: os.truncate("f", 3),
        "truncate to the same": lambda: os.truncate("f", 7),
        "ftruncate": lambda: _with("f", os.O_WRONLY, lambda fd: os.ftruncate(fd, 20)),
        "O_TRUNC": lambda: _with("f", os.O_WRONLY | os.O_TRUNC, lambda fd: None),
        "O_CREAT and O_TRUNC": lambda: _with(
            "f", os.O_WRONLY | os.O_TRUNC | os.O_CREAT, lambda fd: None),
        "fallocate": lambda: _with("f", os.O_RDWR, lambda fd: fallocate(fd, 0, 0, 100)),
        "punch": lambda: _with("f", os.O_RDWR, lambda fd: fallocate(fd, 3, 0, 4096)),
        "read": lambda: _with("f", os.O_RDONLY, lambda fd: os.read(fd, 3)),
        "link": lambda: os.link("f", "g"),
        "rename": lambda: os.rename("f", "h"),
    }
    os.chmod(".", 0o777)
    for what, way in ways.items():
        for mode in (0o6777, 0o4777, 0o2777, 0o2767, 0o6766, 0o1777):
            for who, groups in PEOPLE:
                side.make("file", "f", content=b"content")
                side.make("file", "source", content=b"source")
                os.chown("f", OWNER, GROUP)
                os.chmod("f", mode)
                with side.user(who, *groups):
                    side.note("who and which mode", (who, oct(mode)))
                    side.do(what, lambda way=way: way())
                side.tree("then")
                side.sweep()


def _with(path, flags, body):
    fd = os.open(path, flags)
    try:
        body(fd)
    finally:
        os.close(fd)


def _splice_into(fd):
    reader, writer = os.pipe()
    os.write(writer, b"spliced")
    try:
        os.splice(reader, fd, 7)
    finally:
        os.close(reader)
        os.close(writer)


def _copy_into(fd):
    _with("source", os.O_RDONLY, lambda source: os.copy_file_range(source, fd, 6))


def _send_into(fd):
    _with("source", os.O_RDONLY, lambda source: os.sendfile(fd, source, 0, 6))


@case_of_root
def set_id_bits_and_a_change_that_fails(side: Side) -> None:
    side.make("file", "f", content=b"content", mode=0o4777)
    with side.user(OTHER):
        fd = os.open("f", os.O_RDWR)
        side.do("fallocate", fallocate, fd, FALLOC_ZERO_RANGE, 0, 5)
        side.lstat("f")


@case_of_root
def set_id_bits_go_while_a_descriptor_is_open(side: Side) -> None:
    side.make("file", "f", content=b"content")
    os.chmod("f", 0o666)
    with side.user(OTHER):
        fd = os.open("f", os.O_RDWR)
        for _ in range(3):
            side.do("write", os.write, fd, b"x")
    for mode in (0o6777, 0o2777, 0o4711):
        os.chmod("f", mode)
        side.lstat("f")
        with side.user(OTHER):
            side.do("write", os.write, fd, b"x")
            side.lstat("f")
            os.close(os.open("f", os.O_RDONLY)) if mode & 4 else None
    os.close(fd)


@case_of_root
def who_may_set_times(side: Side) -> None:
    now, omit, some = (0, UTIME_NOW), (0, UTIME_OMIT), (1_000_000_000, 123_456_789)
    for mode in (0o600, 0o666, 0o444):
        for who, groups in PEOPLE:
            for atime in (now, omit, some):
                for mtime in (now, omit, some):
                    side.make("file", "f")
                    os.chown("f", OWNER, OWNER)
                    os.chmod("f", mode)
                    with side.times("f"), side.user(who, *groups):
                        side.note("who and which mode", (who, oct(mode)))
                        side.do("utimensat", utimensat, "f", atime, mtime)
                    os.unlink("f")


@case
def times_are_kept_to_the_nanosecond(side: Side) -> None:
    side.make("file", "f")
    side.make("empty", "d")
    side.make("dangling", "l")
    moments = (0, 1, 999_999_999, 10**9, 1_234_567_890_123_456_789, -1, -10**9, -2**31 * 10**9,
               2**31 * 10**9, 2**32 * 10**9 + 1, 2**34 * 10**9, 253_402_300_800 * 10**9)
    for path in ("f", "d", "l"):
        for moment in moments:
            side.utime(path, ns=(moment, moment + 1), follow_symlinks=False)
            found = os.lstat(path)
            side.note("times", (found.st_atime_ns, found.st_mtime_ns))
    for times in ((10**9, 0), (-1, 0), (UTIME_OMIT + 5, 0)):
        side.do("utimensat", utimensat, "f", (0, times[0]), (0, times[1]))
    fd = os.open("f", os.O_RDONLY)
    side.do("futimens", utimensat, fd, (7, 8), (9, 10))
    side.note("times", (os.fstat(fd).st_atime_ns, os.fstat(fd).st_mtime_ns))


@case
def extended_attributes_that_are_not_there(side: Side) -> None:
    for kind in ("file", "empty", "dangling", "fifo", "none"):
        side.make(kind, "x")
        for name in ("user.none", "security.capability", "security.none", "user." + "x" * 250):
            side.getxattr("x", name, follow_symlinks=False)
            side.removexattr("x", name, follow_symlinks=False)
        side.getxattr("x", "user." + "x" * 251, follow_symlinks=False)
        side.getxattr("x", "", follow_symlinks=False)
        side.sweep()
    side.make("empty", "d")
    side.make("dangling", "l")
    side.listxattr("d")
    side.listxattr("l", follow_symlinks=False)
    side.listxattr("none")


@case
def extended_attributes_of_the_mount(side: Side) -> None:
    side.make("file", "f")
    side.do("listxattr", lambda: sorted(os.listxattr("f")))


@case
def extended_attributes_without_a_kind(side: Side) -> None:
    side.make("file", "f")
    for name in ("none", "user."):
        side.getxattr("f", name)
        side.removexattr("f", name)


@case
def extended_attributes_of_ones_own(side: Side) -> None:
    side.make("file", "f")
    side.setxattr("f", "user.comment", b"value")
    side.getxattr("f", "user.comment")
    side.removexattr("f", "user.comment")


@case_of_root
def extended_attributes_of_roots(side: Side) -> None:
    side.make("file", "f")
    for name in ("trusted.comment", "security.comment"):
        side.setxattr("f", name, b"value")


@case
def access_control_lists(side: Side) -> None:
    side.make("file", "f")
    side.make("empty", "d")
    for path, name in (("f", "system.posix_acl_access"), ("d", "system.posix_acl_default")):
        side.getxattr(path, name)
        side.removexattr(path, name)
    # A user with a right of his own, and the mask that this takes.
    entries = ((1, 6, -1), (2, 4, OTHER), (4, 4, -1), (16, 6, -1), (32, 0, -1))
    side.setxattr("f", "system.posix_acl_access", b"\2\0\0\0" + b"".join(
        struct.pack("=HHi", *entry) for entry in entries))
