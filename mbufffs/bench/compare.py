# SPDX-License-Identifier: MIT
"""Runs measures over places in turns, and tells what came of it."""

from __future__ import annotations

import contextlib
import errno
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from mbufffs.bench.measures import Measure, Once
from mbufffs.bench.places import Place


@dataclass(frozen=True)
class Result:
    """All figures of one measure, by place, in the order of the rounds."""

    measure: str
    unit: str
    figures: Mapping[str, Sequence[float]]

    def median(self, place: str) -> float:
        return statistics.median(self.figures[place])

    def ratios(self, place: str, peer: str) -> list[float]:
        """Of each round, smallest first: only what ran side by side can be compared."""
        return sorted(one / other for one, other in
                      zip(self.figures[place], self.figures[peer], strict=True))


class _Unsupported(Exception):
    pass


@contextlib.contextmanager
def _prepared(measure: Measure, place: Place) -> Iterator[Once]:
    with ExitStack() as stack:
        try:
            once = stack.enter_context(measure.prepare(place))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            raise _Unsupported from error
        yield once


def run(measure: Measure, places: Iterable[Place], rounds: int) -> Result:
    """Each round visits all places, beginning with another one each time.

    A place that cannot do it at all, fallocate(2) say, is left out.
    """
    ready = []
    with ExitStack() as stack:
        for place in places:
            if place.directory or not measure.named:
                with contextlib.suppress(_Unsupported):
                    ready.append((place.name, stack.enter_context(_prepared(measure, place))))
        figures: dict[str, list[float]] = {name: [] for name, _ in ready}
        for number in range(rounds):
            first = number % len(ready)
            for name, once in ready[first:] + ready[:first]:
                figures[name].append(once())
    return Result(measure.name, measure.unit, figures)


def row(result: Result, peer: str) -> tuple[str, ...]:
    """Cells for a table: what, unit, the peer's median, ours, the ratio, its middle half."""
    low, middle, high = statistics.quantiles(result.ratios("mbufffs", peer), n=4)
    return (result.measure, result.unit, f"{result.median(peer):.2f}",
            f"{result.median('mbufffs'):.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}")
