# SPDX-License-Identifier: MIT
"""Calls by chance: what Hypothesis may put together, and how a side does it."""

from __future__ import annotations

import mmap
import os
import stat
from typing import Any

from hypothesis import strategies as st

from tests.mount.posix.calls import fallocate, renameat2
from tests.mount.posix.side import OTHER, OWNER, Side, await_tick, hash_of

# The names that a call may mean: few, so that calls meet.
PATHS = ("a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "s", "s/a", ".", "d/.", "nowhere/a")
SLOTS = 4  # descriptors that are open at the same time

path = st.sampled_from(PATHS)
slot = st.integers(0, SLOTS - 1)
size = st.one_of(st.sampled_from((0, 1, 4095, 4096, 4097, 8192)), st.integers(0, 20_000))
mode = st.sampled_from((0o644, 0o600, 0o666, 0o444, 0o000, 0o755, 0o777, 0o1777,
                        # Without root a mapped store takes these, a known difference.
                        *((0o4755, 0o6777, 0o2767) if os.geteuid() == 0 else ())))
owner = st.sampled_from((-1, 0, OWNER, OTHER))
flags = st.builds(
    lambda access, *chosen: access | os.O_NONBLOCK | sum(set(chosen)),
    st.sampled_from((os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR)),
    *[st.sampled_from((0, 0, 0, os.O_CREAT, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND,
                       os.O_NOFOLLOW, os.O_DIRECTORY, os.O_PATH))] * 3)

CALL = st.one_of(
    st.tuples(st.just("open"), slot, path, flags, mode),
    st.tuples(st.just("open"), slot, path, st.just(os.O_RDWR | os.O_CREAT), st.just(0o666)),
    st.tuples(st.just("close"), slot),
    st.tuples(st.just("pwrite"), slot, size, size, st.integers(65, 90)),
    st.tuples(st.just("write"), slot, size, st.integers(65, 90)),
    st.tuples(st.just("pread"), slot, size, size),
    st.tuples(st.just("read"), slot, size),
    st.tuples(st.just("seek"), slot, size, st.sampled_from((0, 1, 2))),
    st.tuples(st.just("ftruncate"), slot, size),
    st.tuples(st.just("fallocate"), slot, st.sampled_from((0, 1, 3)), size, size),
    st.tuples(st.just("fstat"), slot),
    st.tuples(st.just("fchmod"), slot, mode),
    st.tuples(st.just("copy"), slot, slot, size, size, size),
    st.tuples(st.just("again"), slot, slot, flags),
    st.tuples(st.just("store"), slot, size, st.integers(65, 90)),
    st.tuples(st.just("truncate"), path, size),
    st.tuples(st.just("mkdir"), path, mode),
    st.tuples(st.just("mkdir"), st.sampled_from(("d", "d/e")), st.just(0o777)),
    st.tuples(st.just("mkfifo"), path, mode),
    st.tuples(st.just("rmdir"), path),
    st.tuples(st.just("unlink"), path),
    st.tuples(st.just("rename"), path, path, st.sampled_from((0, 0, 0, 1, 2))),
    st.tuples(st.just("link"), path, path),
    st.tuples(st.just("symlink"), path, path),
    st.tuples(st.just("symlink"), st.just("d"), st.just("s")),
    st.tuples(st.just("readlink"), path),
    st.tuples(st.just("stat"), path),
    st.tuples(st.just("chmod"), path, mode),
    st.tuples(st.just("chown"), path, owner, owner),
    st.tuples(st.just("utime"), path, st.integers(0, 2**31), st.integers(0, 2**31)),
    st.tuples(st.just("listdir"), path),
    st.tuples(st.just("access"), path, st.integers(0, 7)),
)

# Each call by root or somebody else; and whether times are looked at, which takes a tick of the
# clock a call and forbids stores. Without root, ctime moves where the daemon must change a mode.
who, with_times = st.just(0), st.just(False)
if os.geteuid() == 0:
    who = st.sampled_from((0, 0, 0, OWNER, OTHER))
    with_times = st.sampled_from((False, False, False, True))
CALLS = st.tuples(with_times, st.lists(st.tuples(who, CALL), min_size=5, max_size=60))


class Player:
    """Does such calls on one side."""

    def __init__(self, side: Side, *, with_times: bool) -> None:
        self.side = side
        self.with_times = with_times
        self.fds: list[int] = []

    def play(self, calls: list[tuple[int, tuple[Any, ...]]]) -> None:
        # Slots hold something from the start, so that few calls meet a closed one.
        self.fds = [os.open("a", os.O_CREAT | os.O_RDWR) for _ in range(SLOTS)]
        os.chmod(".", 0o777)
        for uid, (name, *arguments) in calls:
            before = self._times()
            await_tick(moment for times in before.values() for moment in times)
            if uid:
                with self.side.user(uid):
                    self._one(name, arguments)
            else:
                self._one(name, arguments)
            after = self._times()
            self.side.note(f"which times moved in {name} {arguments}", sorted(
                (where.split()[0], [a != b for a, b in zip(before[where], after[where],
                                                           strict=True)])
                for where in before.keys() & after.keys()))
        for fd in self.fds:
            self.side.do("fstat at the end", lambda fd=fd: os.fstat(fd))

    def _times(self) -> dict[str, tuple[int, ...]]:
        """mtime and ctime of what each name means; the inode too: another file is no change."""
        found = {}
        for where in PATHS if self.with_times else ():
            try:
                at = os.lstat(where)
            except OSError:
                continue
            found[f"{where} {at.st_ino}"] = (at.st_mtime_ns, at.st_ctime_ns)
        return found

    def _one(self, name: str, arguments: list[Any]) -> None:
        if name == "store" and self.with_times:
            return
        self.side.do(f"{name} {arguments}", getattr(self, f"_{name}", None) or getattr(os, name),
                     *arguments)

    def _open(self, slot: int, where: str, flags: int, mode: int) -> None:
        fd = os.open(where, flags, mode)
        os.close(self.fds[slot])
        self.fds[slot] = fd

    def _again(self, slot: int, other: int, flags: int) -> None:
        self._open(slot, f"/proc/self/fd/{self.fds[other]}", flags, 0o644)

    def _close(self, slot: int) -> None:
        self._open(slot, ".", os.O_RDONLY, 0)

    def _pwrite(self, slot: int, length: int, offset: int, letter: int) -> int:
        return os.pwrite(self.fds[slot], bytes([letter]) * length, offset)

    def _write(self, slot: int, length: int, letter: int) -> int:
        return os.write(self.fds[slot], bytes([letter]) * length)

    def _pread(self, slot: int, length: int, offset: int) -> str:
        return hash_of(os.pread(self.fds[slot], length, offset))

    def _read(self, slot: int, length: int) -> str:
        return hash_of(os.read(self.fds[slot], length))

    def _seek(self, slot: int, offset: int, whence: int) -> int:
        # Where a directory's entries are is the file system's own business.
        if os.path.isdir(f"/proc/self/fd/{self.fds[slot]}"):
            return 0
        return os.lseek(self.fds[slot], offset, whence)

    def _ftruncate(self, slot: int, length: int) -> None:
        os.ftruncate(self.fds[slot], length)

    def _fallocate(self, slot: int, mode: int, offset: int, length: int) -> None:
        fallocate(self.fds[slot], mode, offset, length)

    def _fstat(self, slot: int) -> os.stat_result:
        return os.fstat(self.fds[slot])

    def _fchmod(self, slot: int, mode: int) -> None:
        os.fchmod(self.fds[slot], self._open_to_us(os.fstat(self.fds[slot]), mode))

    def _chmod(self, where: str, mode: int) -> None:
        os.chmod(where, self._open_to_us(os.stat(where), mode))

    def _mkdir(self, where: str, mode: int) -> None:
        os.mkdir(where, self._open_to_us(None, mode))

    @staticmethod
    def _open_to_us(found: os.stat_result | None, mode: int) -> int:
        """Without root, a directory that its owner cannot enter is a known difference."""
        if os.getuid() == 0 or (found is not None and not stat.S_ISDIR(found.st_mode)):
            return mode
        return mode | 0o700

    def _copy(self, slot: int, other: int, length: int, here: int, there: int) -> int:
        return os.copy_file_range(self.fds[slot], self.fds[other], length, here, there)

    def _store(self, slot: int, offset: int, letter: int) -> None:
        end = os.fstat(self.fds[slot]).st_size
        if not end:
            return
        with mmap.mmap(self.fds[slot], 0) as mapped:
            mapped[offset % end] = letter

    def _truncate(self, where: str, length: int) -> None:
        if length or os.stat(where).st_size:  # else a known difference
            os.truncate(where, length)

    def _rename(self, old: str, new: str, flags: int) -> None:
        renameat2(old, new, flags)

    def _chown(self, where: str, uid: int, gid: int) -> None:
        if uid == gid == -1:  # a known difference
            uid = os.geteuid()
        os.chown(where, uid, gid)

    def _utime(self, where: str, atime: int, mtime: int) -> None:
        os.utime(where, (atime, mtime))

    def _listdir(self, where: str) -> list[str]:
        return sorted(os.listdir(where))
