# SPDX-License-Identifier: MIT
"""What only the kernel module has, measured in the virtual machine that vm.py boots.

`python -m bench.inside ROUNDS DIRECTORY` leaves results.json and results.md there.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench import report
from mbufffs.backends.registry import DEVICE, Registry
from mbufffs.bench import compare, loops, measures
from mbufffs.bench.compare import Result
from mbufffs.bench.places import Place, ours, tmpfs
from tests.kernel.inside import raw_ioctl
from tests.kernel.inside.conftest import Module
from tests.kernel.inside.old_ioctl import ALLOCATE, DEALLOCATE, SELECT, old

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
LIMIT = 5 * GIB // 4
AREA = b"bench"
WAKES = 50  # for one figure
SIZES = {"4 KiB": 4 * KIB, "64 KiB": 64 * KIB, "1 MiB": MIB, "16 MiB": 16 * MIB,
         "256 MiB": 256 * MIB, "1 GiB": GIB}
ONCE = 64 * MIB  # bytes to allocate for one figure of small sizes
PARAMETERS = Path("/sys/module/mbuff_bench/parameters")


@contextlib.contextmanager
def _loaded(path: Path, *parameters: str) -> Iterator[None]:
    module = Module(path)
    module.insmod(*parameters)
    try:
        yield
    finally:
        module.unload()


@contextlib.contextmanager
def _device() -> Iterator[Place]:
    """/dev/mbuff after SELECT, as programs of the old interface read and map it."""
    with contextlib.closing(Registry.open()) as registry, ExitStack() as allocated:
        def memory(size: int) -> int:
            allocated.close()  # the one before, which nobody has open any more
            old(registry, ALLOCATE, AREA, size)
            allocated.callback(old, registry, DEALLOCATE, AREA)
            fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
            with contextlib.closing(Registry(os.dup(fd))) as selecting:
                old(selecting, SELECT, AREA)
            return fd

        yield Place("/dev/mbuff", memory=memory)


def _bytes(rounds: int) -> list[Result]:
    with ExitStack() as stack:
        places = [stack.enter_context(place) for place in (tmpfs(), _device())]
        places.append(stack.enter_context(ours(None, "device"))[0])
        return [compare.run(measure, places, rounds)
                for measure in measures.QUICK if not measure.named]


def _waking(rounds: int) -> Result:
    """From mbuff_notify() to the return of poll(2), of an eventfd beside it.

    An ioctl notifies here as a module does: it calls mbuff_notify().
    """
    with ExitStack() as stack:
        place, _ = stack.enter_context(ours(None, "device"))
        assert place.directory
        registry = stack.enter_context(contextlib.closing(Registry.open()))
        area = registry.create(AREA, size=4 * KIB)
        stack.callback(registry.remove, area)
        events = registry.events()
        path = os.open(place.directory / os.fsdecode(AREA), os.O_RDONLY)
        eventfd = os.eventfd(0)
        for fd in (events, path, eventfd):
            stack.callback(os.close, fd)
        notify = (registry.fd, raw_ioctl.COMMANDS["notify"], raw_ioctl.which(area), WAKES)
        return compare.in_turns("notify to wake", "us", {
            "eventfd": lambda: loops.wake(eventfd, eventfd, 0, b"", WAKES, True) / WAKES * 1e6,
            "events of /dev/mbuff": lambda: loops.wake(events, *notify, True) / WAKES * 1e6,
            "mbufffs": lambda: loops.wake(path, *notify, False) / WAKES * 1e6,
        }, rounds)


def _allocating(rounds: int) -> Iterator[Result]:
    def once(what: str, size: int) -> float:
        count = max(1, min(1000, ONCE // size))
        (PARAMETERS / "run").write_text(f"{what} {size} {count}")
        return int((PARAMETERS / "result").read_text()) / count / 1e3

    for name, size in SIZES.items():
        yield compare.in_turns(f"mbuff_make + mbuff_put, {name}", "us", {
            "vmalloc": lambda size=size: once("vmalloc", size),  # type: ignore[misc]
            "mbufffs": lambda size=size: once("area", size),  # type: ignore[misc]
        }, rounds)


def main() -> None:
    rounds, directory = int(sys.argv[1]), Path(sys.argv[2])
    about = report.machine()
    with _loaded(Path(os.environ["MBUFF_MODULE"]), f"max_bytes={LIMIT}"):
        results = [*_bytes(rounds), _waking(rounds)]
        with _loaded(Path(os.environ["MBUFF_BUILD"], "bench/kernel/mbuff_bench.ko")):
            results += _allocating(rounds)
    (directory / "results.json").write_text(report.as_json(about, results, [], []))
    (directory / "results.md").write_text(report.as_markdown(about, results, [], []))


if __name__ == "__main__":
    main()
