# SPDX-License-Identifier: MIT
"""Measures a mount beside tmpfs in one run: medians of alternating rounds, and their ratio.

`python -m bench` mounts for itself, on a directory and a store that it takes away again.
"""

from __future__ import annotations

import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mbufffs.cli.umount import umount
from mbufffs.client import ask
from mbufffs.keeper import Settings, start
from mbufffs.state import state_of

ROUNDS = 9
MIB = 1 << 20


def per_operation(count: int, operation: Callable[[int], object]) -> float:
    """Microseconds of one of `count` operations."""
    begun = time.perf_counter()
    for number in range(count):
        operation(number)
    return (time.perf_counter() - begun) / count * 1e6


def _with_area(directory: Path, size: int, measure: Callable[[int, Path], float]) -> float:
    path = directory / "area"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, size)
        os.pwrite(fd, b"x" * min(size, MIB), 0)
        return measure(fd, path)
    finally:
        os.close(fd)
        os.unlink(path)


def reading(size: int) -> Callable[[Path], float]:
    return lambda directory: _with_area(
        directory, MIB, lambda fd, _: per_operation(2000, lambda _: os.pread(fd, size, 0)))


def writing(size: int) -> Callable[[Path], float]:
    data = b"y" * size
    return lambda directory: _with_area(
        directory, MIB, lambda fd, _: per_operation(2000, lambda _: os.pwrite(fd, data, 0)))


def streaming(directory: Path) -> float:
    def measure(fd: int, _: Path) -> float:
        with mmap.mmap(fd, 0) as mapped:
            data = bytes(MIB)

            def copy(number: int) -> None:
                offset = number % 64 * MIB
                mapped[offset:offset + MIB] = data

            return per_operation(256, copy)

    return _with_area(directory, 64 * MIB, measure)


def faulting(directory: Path) -> float:
    def measure(fd: int, _: Path) -> float:
        with mmap.mmap(fd, 0) as mapped:
            return per_operation(4096, lambda number: mapped[number * 4096])

    return _with_area(directory, 16 * MIB, measure)


def opening(directory: Path) -> float:
    return _with_area(directory, 4096, lambda _, path: per_operation(
        1000, lambda _: os.close(os.open(path, os.O_RDWR))))


def asking(directory: Path) -> float:
    return _with_area(directory, 4096, lambda _, path: per_operation(2000, lambda _: os.stat(path)))


def creating(directory: Path) -> float:
    def create(number: int) -> None:
        fd = os.open(directory / str(number), os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 4096)
        os.close(fd)

    try:
        return per_operation(300, create)
    finally:
        for number in range(300):
            os.unlink(directory / str(number))


def removing(directory: Path) -> float:
    for number in range(300):
        os.close(os.open(directory / str(number), os.O_RDWR | os.O_CREAT))
    return per_operation(300, lambda number: os.unlink(directory / str(number)))


MEASURES: dict[str, Callable[[Path], float]] = {
    "read 4 KiB": reading(4096),
    "read 64 KiB": reading(65536),
    "write 4 KiB": writing(4096),
    "write 64 KiB": writing(65536),
    "mmap: write 1 MiB": streaming,
    "mmap: first touch of a page": faulting,
    "open + close": opening,
    "stat": asking,
    "create + truncate 4 KiB + close": creating,
    "unlink": removing,
}


def main() -> None:
    mountpoint = os.path.realpath(tempfile.mkdtemp(prefix="mbufffs-bench-"))
    start(Settings(mountpoint, limit=1 << 30))
    state = state_of(mountpoint)
    plain = Path(tempfile.mkdtemp(prefix="mbufffs-bench-", dir="/dev/shm"))
    table = Table(title="microseconds, median of alternating rounds")
    for heading in ("operation", "tmpfs", "mbufffs", "ratio", "spread of the ratio"):
        table.add_column(heading, justify="left" if heading == "operation" else "right")
    try:
        for name, measure in MEASURES.items():
            pairs = [(measure(plain), measure(Path(mountpoint))) for _ in range(ROUNDS)]
            ratios = sorted(ours / theirs for theirs, ours in pairs)
            table.add_row(
                name, f"{statistics.median(pair[0] for pair in pairs):.2f}",
                f"{statistics.median(pair[1] for pair in pairs):.2f}",
                f"{statistics.median(ratios):.2f}", f"{ratios[1]:.2f} to {ratios[-2]:.2f}")
        Console(width=100).print(table)
        messages = ask(state, {"ask": "info"})["messages"]
        print(f"READ and WRITE messages to the daemon: {messages['READ']['received']} and "
              f"{messages['WRITE']['received']}")
    finally:
        umount.main([mountpoint, "--lazy", "--discard"], standalone_mode=False)
        os.rmdir(plain)
        os.rmdir(mountpoint)


if __name__ == "__main__":
    main()
