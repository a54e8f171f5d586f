# SPDX-License-Identifier: MIT
"""Where is measured: a directory of some file system, or memory that has no name in one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mbufffs.cli.umount import end_mount
from mbufffs.keeper import Settings, start
from mbufffs.state import State, state_of


@dataclass(frozen=True)
class Place:
    """`directory` is None for memory that is had only as a descriptor: `memory` gives one.

    It takes the size in bytes.
    """

    name: str
    directory: Path | None = None
    memory: Callable[[int], int] | None = None
    names_max: int = 1 << 30  # it has no time or room for more

    @contextlib.contextmanager
    def file(self, size: int, *, filled: bool = True) -> Iterator[int]:
        """A descriptor of a new file of `size` bytes; `filled`: all were written."""
        if self.directory:
            fd = os.open(self.directory / "file", os.O_RDWR | os.O_CREAT, 0o600)
        else:
            assert self.memory
            fd = self.memory(size)
        try:
            if self.directory:
                os.ftruncate(fd, size)
            if filled:
                _fill(fd, size)
            yield fd
        finally:
            os.close(fd)
            if self.directory:
                (self.directory / "file").unlink()


def _fill(fd: int, size: int) -> None:
    # Written too, so that no file system has less to do because its pages are known to be empty.
    block = b"\1" * min(size, 1 << 20)
    for offset in range(0, size, len(block)):
        os.pwrite(fd, block[:size - offset], offset)


@contextlib.contextmanager
def temporary(parent: str | None = None) -> Iterator[Path]:
    path = Path(os.path.realpath(tempfile.mkdtemp(prefix="mbufffs-bench-", dir=parent)))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def tmpfs() -> Iterator[Place]:
    with temporary("/dev/shm") as directory:
        yield Place("tmpfs", directory)


@contextlib.contextmanager
def ours(limit: int | None, backend: str = "shmem", *,
         io_uring: bool = True) -> Iterator[tuple[Place, State]]:
    """A mount of this package for the time of the measurement; all as in Settings."""
    with temporary() as mountpoint:
        start(Settings(str(mountpoint), backend=backend, limit=limit, io_uring=io_uring,
                       allow_other=False))
        try:
            yield Place("mbufffs", mountpoint), state_of(str(mountpoint))
        finally:
            end_mount(str(mountpoint), lazy=True, discard=backend != "device")
