# SPDX-License-Identifier: MIT
"""What belongs to a mount and not to one operation: how fast it comes, what it costs, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mbufffs.bench import loops
from mbufffs.bench.places import Place, ours, temporary
from mbufffs.client import ask
from mbufffs.state import State

KIB, MIB = 1 << 10, 1 << 20
IDLE_SECONDS = 10.0


@dataclass(frozen=True)
class Fact:
    name: str
    unit: str
    figures: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.figures)


def _messages(state: State) -> dict[str, dict[str, int]]:
    told: dict[str, dict[str, int]] = ask(state, {"ask": "info"})["messages"]
    return told


def to_server(state: State) -> int:
    """Messages so far that needed the server: those that the channel did not answer itself."""
    return sum(told["received"] - told["answered"] for told in _messages(state).values())


def _processes(state: State) -> list[int]:
    told: dict[str, Any] = ask(state, {"ask": "info"})
    return [told["keeper"], told["server"]]


def _resident(state: State) -> float:
    """MiB of private memory and the share of what is shared (PSS), of keeper and server."""
    kib = 0
    for pid in _processes(state):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kib += int(line.split()[1])
    return kib / 1024


def _wakes(processes: list[int]) -> int:
    """How often the threads of these have begun to run."""
    count = 0
    for pid in processes:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    count += int(line.split()[1])
    return count


def _on_processor(pid: int) -> float:
    """Microseconds that its threads have run."""
    return sum(int((task / "schedstat").read_text().split()[0])
               for task in Path(f"/proc/{pid}/task").iterdir()) / 1e3


def _life_of(directory: int, count: int) -> dict[str, Callable[[], float]]:
    """Loops over so many areas: the first makes them, the last removes them."""
    return {"create + truncate 4 KiB + close":
                partial(loops.create, directory, 0, count, 4 * KIB, False),
            "unlink": partial(loops.unlink, directory, 0, count)}


def working(rounds: int) -> list[Fact]:
    """Of the keeper and the server, for one of each: unlike a time, it does not depend on wakes."""
    count = 1000
    facts: dict[str, list[float]] = {}
    with ours(64 * MIB) as (place, state):
        assert place.directory
        directory = os.open(place.directory, os.O_RDONLY)
        try:
            loops_of = _life_of(directory, count)
            for _ in range(rounds):
                for name, loop in loops_of.items():
                    before = [_on_processor(pid) for pid in _processes(state)]
                    loop()
                    time.sleep(0.1)  # what is told later belongs to it
                    for who, pid, was in zip(("keeper", "server"), _processes(state), before,
                                             strict=True):
                        facts.setdefault(f"processor time of the {who}, {name}", []).append(
                            (_on_processor(pid) - was) / count)
        finally:
            os.close(directory)
    return [Fact(name, "us", figures) for name, figures in facts.items()]


def carried(rounds: int) -> list[Fact]:
    """The kernel's messages by io_uring, where it has it, and by /dev/fuse alone.

    Also where other programs want the processors, twice as many of them as there are.
    """
    count = 1000
    facts: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        mounts: list[tuple[str, dict[str, Callable[[], float]]]] = []
        for io_uring in (True, False):
            place, state = stack.enter_context(ours(64 * MIB, io_uring=io_uring))
            assert place.directory
            if io_uring and not ask(state, {"ask": "info"})["io_uring"]:
                return []
            directory = os.open(place.directory, os.O_RDONLY)
            stack.callback(os.close, directory)
            (place.directory / "open").touch()
            mounts.append(("io_uring" if io_uring else "/dev/fuse", {
                "open + close": partial(loops.open_close, os.fsencode(place.directory / "open"),
                                        count),
                **_life_of(directory, count)}))
        for others, number in ("", 0), (" beside busy programs", 2 * (os.cpu_count() or 1)):
            with _busy(number):
                for _ in range(rounds):
                    for way, loops_of in mounts:
                        for name, loop in loops_of.items():
                            facts.setdefault(f"{name}{others}, by {way}", []).append(
                                loop() * 1e6 / count)
    return [Fact(name, "us", figures) for name, figures in facts.items()]


@contextlib.contextmanager
def _busy(number: int) -> Iterator[None]:
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"])
                for _ in range(number)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _thousand(directory: int, number: int) -> list[float]:
    """Five times; they are there in the end."""
    figures: list[float] = []
    for _ in range(5):
        if figures:
            loops.unlink(directory, number, 1000)
        figures.append(loops.create(directory, number, 1000, 0, False) * 1e3)
    return figures


@contextlib.contextmanager
def _many(place: Place, count: int) -> Iterator[tuple[list[float], list[float]]]:
    """So many areas; microseconds for each of the first and of the last thousand, made again."""
    assert place.directory
    directory = os.open(place.directory, os.O_RDONLY)
    try:
        first = _thousand(directory, 0)
        loops.create(directory, 1000, count - 2000, 0, False)
        yield first, _thousand(directory, count - 1000)
        loops.unlink(directory, 0, count)
    finally:
        os.close(directory)


def mounting(rounds: int) -> Fact:
    """From the command to the first answer, with the command's own start."""
    figures = []
    command = Path(sys.executable).with_name("mbufffs")
    for _ in range(rounds):
        with temporary() as mountpoint:
            begun = time.perf_counter()
            subprocess.run([command, "mount", mountpoint, "--size", "64M"], check=True)
            os.stat(mountpoint / ".")
            with contextlib.suppress(FileNotFoundError):
                os.stat(mountpoint / "none")
            figures.append(time.perf_counter() - begun)
            subprocess.run([command, "umount", mountpoint, "--discard"], check=True)
    return Fact("mount to first answer", "s", figures)


def failing_over(rounds: int) -> Fact:
    """From the death of the server to the answer of what was asked then."""
    figures = []
    with ours(64 * MIB) as (place, state):
        assert place.directory
        for number in range(rounds):
            os.kill(_processes(state)[1], signal.SIGKILL)
            begun = time.perf_counter()
            os.mkdir(place.directory / str(number))  # which no channel does by itself
            figures.append((time.perf_counter() - begun) * 1e3)
            time.sleep(0.2)
    return Fact("failover of the server", "ms", figures)


def idling() -> Fact:
    with ours(64 * MIB) as (_, state):
        processes = _processes(state)
        time.sleep(1)
        before = _wakes(processes)
        time.sleep(IDLE_SECONDS)
        woken = _wakes(processes) - before
        return Fact("wake-ups of an idle mount", "/s", [woken / IDLE_SECONDS])


def growing(count: int) -> list[Fact]:
    """What so many areas cost, and whether the last come as fast as the first."""
    with ours(4 << 30) as (place, state):
        assert place.directory
        empty = _resident(state)
        with _many(place, count) as (first, last):
            full = _resident(state)
            listed = [loops.listing(os.fsencode(place.directory), True)[0] for _ in range(2)]
            before = to_server(state)
            loops.listing(os.fsencode(place.directory), True)
            asked = to_server(state) - before
            after = _resident(state)
    return [
        Fact("resident memory, empty", "MiB", [empty]),
        Fact(f"resident memory, {count:,} areas made", "MiB", [full]),
        Fact(f"resident memory, {count:,} areas listed with `ls -l`", "MiB", [after]),
        Fact(f"resident memory of an area, of {count:,}", "B", [(full - empty) * MIB / count]),
        Fact("create, the first 1,000", "us", first),
        Fact(f"create, the last 1,000 of {count:,}", "us", last),
        Fact(f"ls -l of {count:,}, first and second time", "s", listed),
        Fact(f"messages to the server for a warm `ls -l` of {count:,}", "", [asked]),
    ]
