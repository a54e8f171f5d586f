# SPDX-License-Identifier: MIT
"""The measures: each prepares a place once, and then gives a figure as often as it is asked."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mbufffs.bench import loops
from mbufffs.bench.places import Place

KIB, MIB = 1 << 10, 1 << 20
FIGURE_SECONDS = 0.05  # how long one figure shall take
COUNT_MAX = 20000

Once = Callable[[], float]
Prepare = Callable[[Place], AbstractContextManager[Once]]


@dataclass(frozen=True)
class Measure:
    name: str
    unit: str  # GB/s is better when it is more, all others when they are less
    prepare: Prepare
    named: bool = True  # needs a directory
    names: int = 0  # that it makes at least
    large: bool = False  # not for those that copy a file with each write to it


def _count(loop: Callable[[int], float]) -> int:
    """How often a loop has to go round for one figure; also warms up what it goes over."""
    count = 8
    while (took := loop(count)) < FIGURE_SECONDS / 4 and count < COUNT_MAX:
        count *= 4
    return max(1, min(COUNT_MAX, int(count * FIGURE_SECONDS / max(took, 1e-9))))


def _repeated(loop: Callable[[int], float], scale: float = 1e6) -> Once:
    """Microseconds of one round of a loop that takes its number of rounds."""
    count = _count(loop)
    return lambda: loop(count) / count * scale


def _on_file(size: int, figure: Callable[[int], float], *, filled: bool = True) -> Prepare:
    """A new file for each figure: which pages it gets makes a difference."""
    @contextlib.contextmanager
    def prepare(place: Place) -> Iterator[Once]:
        def once() -> float:
            with place.file(size, filled=filled) as fd:
                return figure(fd)
        yield once
    return prepare


# The memory


def _streaming(writes: bool, size: int = 64 * MIB) -> Prepare:
    return _on_file(size, lambda fd: 4 * size / loops.stream(fd, size, 4, writes) / 1e9)


def _random(size: int = 64 * MIB) -> Prepare:
    return _on_file(size, lambda fd: _repeated(lambda count: loops.reach(fd, size, count), 1e9)())


def _touching(populate: bool, *, filled: bool = True, size: int = 16 * MIB) -> Prepare:
    return _on_file(size, lambda fd: loops.touch(fd, size, populate) / (size >> 12) * 1e6,
                    filled=filled)


def _transferring(size: int, writes: bool) -> Prepare:
    span = max(MIB, size)
    return _on_file(span, lambda fd: _repeated(
        lambda count: loops.transfer(fd, size, span, count, writes))())


@contextlib.contextmanager
def _writing_after_stat(place: Place) -> Iterator[Once]:
    """Writes of 4 KiB, a thousand after each question for attributes, plain and extended."""
    assert place.directory
    with place.file(MIB) as fd:
        path = place.directory / "file"

        def once() -> float:
            os.stat(path)
            with contextlib.suppress(OSError):  # user.* on tmpfs: from Linux 6.6 on
                os.getxattr(path, "user.mbuff.kind")
            return loops.transfer(fd, 4 * KIB, MIB, 1000, True) * 1e3

        yield once


# The names


def _by_path(loop: Callable[[bytes, int], float]) -> Prepare:
    """Of a loop over one path."""
    @contextlib.contextmanager
    def prepare(place: Place) -> Iterator[Once]:
        assert place.directory
        with place.file(4 * KIB):
            path = os.fsencode(place.directory / "file")
            yield _repeated(lambda count: loop(path, count))
    return prepare


@contextlib.contextmanager
def _directory(place: Place) -> Iterator[int]:
    assert place.directory
    fd = os.open(place.directory, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _opening_by(processes: int) -> Prepare:
    @contextlib.contextmanager
    def prepare(place: Place) -> Iterator[Once]:
        assert place.directory
        with _directory(place) as directory:
            loops.create(directory, 0, processes, 4 * KIB, False)
            paths = [os.fsencode(place.directory / str(number)) for number in range(processes)]
            count = max(1, _count(lambda count: loops.open_close(paths[0], count)) // processes)
            yield lambda: _at_once(paths, count)
            loops.unlink(directory, 0, processes)
    return prepare


def _at_once(paths: list[bytes], count: int) -> float:
    """Microseconds for one open and close, of many processes together that begin together."""
    starting, begin = os.pipe()
    done, ending = os.pipe()
    children = []
    for path in paths:
        child = os.fork()
        if not child:
            os.close(begin)
            os.read(starting, 1)  # ends for all when the parent closes the other end
            took = loops.open_close(path, count)
            os.write(ending, took.hex().encode().ljust(32))
            os._exit(0)
        children.append(child)
    os.close(starting)
    os.close(ending)
    os.close(begin)
    with os.fdopen(done, "rb") as results:
        times = [float.fromhex(results.read(32).decode().strip()) for _ in children]
    for child in children:
        os.waitpid(child, 0)
    # They all run for about the same time, so the longest is the time of all.
    return max(times) / (count * len(paths)) * 1e6


def _creating(size: int, fill: bool, most: int) -> Prepare:
    @contextlib.contextmanager
    def prepare(place: Place) -> Iterator[Once]:
        with _directory(place) as directory:
            def loop(count: int) -> float:
                took = loops.create(directory, 0, count, size, fill)
                loops.unlink(directory, 0, count)
                return took
            count = min(most, _count(lambda count: loop(min(count, most))))
            yield lambda: loop(count) / count * 1e6
    return prepare


@contextlib.contextmanager
def _removing(place: Place) -> Iterator[Once]:
    with _directory(place) as directory:
        def loop(count: int) -> float:
            loops.create(directory, 0, count, 4 * KIB, False)
            return loops.unlink(directory, 0, count)
        yield _repeated(loop)


@contextlib.contextmanager
def _renaming(place: Place) -> Iterator[Once]:
    with _directory(place) as directory:
        loops.create(directory, 0, 1, 4 * KIB, False)
        yield _repeated(lambda count: loops.rename(directory, 2 * count) / 2)
        loops.unlink(directory, 0, 1)


# Directories


def drop_caches() -> None:
    """Makes the kernel forget names, attributes and directories, if the caller may."""
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")


def _listing(number: int, attributes: bool, cold: bool) -> Prepare:
    @contextlib.contextmanager
    def prepare(place: Place) -> Iterator[Once]:
        assert place.directory
        path = place.directory / "many"
        path.mkdir()
        directory = os.open(path, os.O_RDONLY)

        def once() -> float:
            if cold:
                drop_caches()
            took, found = loops.listing(os.fsencode(path), attributes)
            assert found == number, f"{found} names of {number} in {path}"
            return took * 1e3

        try:
            loops.create(directory, 0, number, 0, False)
            once()
            yield once
        finally:
            os.close(directory)
            shutil.rmtree(path)
    return prepare


@contextlib.contextmanager
def _looking_cold(place: Place) -> Iterator[Once]:
    """The first stat of each of 1,000 names that the kernel has forgotten."""
    assert place.directory
    with _directory(place) as directory:
        loops.create(directory, 0, 1000, 0, False)
        paths = [os.fsencode(place.directory / str(number)) for number in range(1000)]

        def once() -> float:
            drop_caches()
            return sum(loops.look(path, 1) for path in paths) / len(paths) * 1e6

        yield once
        loops.unlink(directory, 0, 1000)


def listings(number: int) -> list[Measure]:
    return [
        Measure(f"{command} of {number:,}, {'cold' if cold else 'warm'}", "ms",
                _listing(number, command == "ls -l", cold), names=number)
        for command in ("ls", "ls -l") for cold in (True, False)]


QUICK = [
    Measure("mmap: streaming read", "GB/s", _streaming(False), named=False, large=True),
    Measure("mmap: streaming write", "GB/s", _streaming(True), named=False, large=True),
    Measure("mmap: random 64 B", "ns", _random(), named=False, large=True),
    Measure("mmap: first touch of a page", "us", _touching(False), named=False,
            large=True),
    Measure("mmap: first touch of a page never written", "us", _touching(False, filled=False),
            named=False, large=True),
    Measure("mmap: a page by MAP_POPULATE", "us", _touching(True), named=False,
            large=True),
    *(Measure(f"{'write' if writes else 'read'} {label}", "us", _transferring(size, writes),
              named=False)
      for writes in (False, True)
      for label, size in (("64 B", 64), ("4 KiB", 4 * KIB), ("64 KiB", 64 * KIB), ("1 MiB", MIB))),
    Measure("write 4 KiB after stat and getxattr", "us", _writing_after_stat),
    Measure("open + close", "us", _by_path(loops.open_close)),
    Measure("stat", "us", _by_path(loops.look)),
    Measure("create + truncate 4 KiB + close", "us", _creating(4 * KIB, False, COUNT_MAX)),
    Measure("unlink", "us", _removing),
    Measure("rename", "us", _renaming),
]

FULL = [
    *QUICK,
    Measure("open + close, 4 processes", "us", _opening_by(4)),
    Measure("open + close, 16 processes", "us", _opening_by(16)),
    Measure("stat, cold", "us", _looking_cold),
    Measure("create + truncate 64 MiB + close", "us", _creating(64 * MIB, False, 8),
            large=True),
    Measure("create + allocate 64 MiB + close", "us", _creating(64 * MIB, True, 8),
            large=True),
    *listings(100),
    *listings(10000),
    *listings(100000),
]
