# SPDX-License-Identifier: MIT
"""How figures are taken and judged; what they are is for `make bench`."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.life import Fact
from bench.targets import verdicts
from mbufffs.bench import compare, loops
from mbufffs.bench.compare import Result
from mbufffs.bench.measures import Measure, Once
from mbufffs.bench.places import Place


def test_rounds_visit_all_places_and_begin_with_another_each_time() -> None:
    visited = []

    @contextlib.contextmanager
    def prepare(place: Place) -> Iterator[Once]:
        def once() -> float:
            visited.append(place.name)
            return float(len(visited))
        yield once

    places = [Place(name, Path("/")) for name in "abc"]
    result = compare.run(Measure("m", "us", prepare), [*places, Place("no directory")], 3)
    assert "".join(visited) == "abcbcacab"
    assert result.figures == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_a_place_that_cannot_do_it_is_left_out() -> None:
    @contextlib.contextmanager
    def prepare(place: Place) -> Iterator[Once]:
        if place.name == "b":
            raise OSError(errno.EOPNOTSUPP, "not here")
        if place.name == "c":
            raise OSError(errno.ENOSPC, "no room")
        yield lambda: 1.0

    measure = Measure("m", "us", prepare)
    a, b, c = (Place(name, Path("/")) for name in "abc")
    assert compare.run(measure, [a, b], 2).figures == {"a": [1, 1]}
    with pytest.raises(OSError, match="no room"):
        compare.run(measure, [a, c], 2)


def test_ratios_are_of_figures_of_one_round() -> None:
    result = Result("m", "us", {"tmpfs": [1.0, 2.0, 4.0], "mbufffs": [3.0, 2.0, 2.0]})
    assert result.ratios("mbufffs", "tmpfs") == [0.5, 1.0, 3.0]


@pytest.mark.parametrize(("unit", "ours", "met"), [
    ("us", 1.25, True), ("us", 1.26, False), ("GB/s", 1.24, False), ("GB/s", 1.26, True)])
def test_a_target_is_met_from_its_side(unit: str, ours: float, met: bool) -> None:
    result = Result("create + truncate 4 KiB + close", unit,
                    {"passthrough_ll": [1.0, 1.0], "mbufffs": [ours, ours]})
    verdict, = verdicts([result], [])
    assert verdict.met is met


def test_what_was_not_measured_is_not_judged() -> None:
    result = Result("open + close", "us", {"mbufffs": [1.0, 1.0], "tmpfs": [1.0, 1.0]})
    assert verdicts([result], [Fact("another", "s", [9.0])]) == []
    slow, = verdicts([], [Fact("mount to first answer", "s", [0.4, 0.6, 0.7])])
    assert not slow.met and slow.found == 0.6


def test_loops_do_what_they_say(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    assert loops.create(directory, 3, 4, 8192, True) > 0
    assert sorted(os.listdir(tmp_path)) == ["3", "4", "5", "6"]
    assert all((tmp_path / name).stat().st_blocks >= 16 for name in "3456")
    assert loops.listing(os.fsencode(tmp_path), True)[1] == 4
    assert loops.unlink(directory, 4, 3) > 0
    os.rename(tmp_path / "3", tmp_path / "0")
    assert loops.rename(directory, 3) > 0
    assert os.listdir(tmp_path) == ["1"]
    with (tmp_path / "1").open("r+b") as file:
        os.truncate(file.fileno(), 1 << 20)
        assert loops.touch(file.fileno(), 1 << 20, False) > 0
        assert os.pread(file.fileno(), 2, (1 << 20) - 4096) == b"\1\0"
        assert loops.transfer(file.fileno(), 4096, 1 << 20, 2, True) > 0
        assert os.pread(file.fileno(), 8193, 0) == bytes(8192) + b"\1"
        assert loops.stream(file.fileno(), 1 << 20, 1, True) > 0
        assert os.pread(file.fileno(), 1 << 20, 0) == bytes(1 << 20)
        assert loops.reach(file.fileno(), 1 << 20, 10) > 0
    os.close(directory)


def test_loops_that_fail_say_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="loop_open_close"):
        loops.open_close(os.fsencode(tmp_path / "none"), 1)
    with pytest.raises(NotADirectoryError):
        loops.listing(b"/dev/null", False)
    fd = os.memfd_create("short")
    with pytest.raises(OSError, match=r"\[Errno 5\]"):
        loops.transfer(fd, 4096, 4096, 1, False)
    os.close(fd)


def test_waking_is_measured_from_another_thread() -> None:
    fd = os.eventfd(0)
    took = loops.wake(fd, fd, 0, b"", 5, True)
    assert 0 < took < 5
    assert select.select([fd], [], [], 0)[0] == []
    os.close(fd)


def test_a_descriptor_that_cannot_wake_is_an_error() -> None:
    waited = os.eventfd(0)
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        loops.wake(waited, reader, 0, b"", 1, True)
    assert raised.value.errno == errno.EBADF
    for fd in (waited, reader, writer):
        os.close(fd)
