# SPDX-License-Identifier: MIT
"""Runs measures over places in turns, and tells what came of it."""

from __future__ import annotations

import errno
import statistics
from collections.abc import Iterable, Mapping, Sequence
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


def in_turns(measure: str, unit: str, places: Mapping[str, Once], rounds: int) -> Result:
    """Each round visits all places, beginning with another one each time."""
    figures: dict[str, list[float]] = {name: [] for name in places}
    names = list(places)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figures[name].append(places[name]())
    return Result(measure, unit, figures)


def run(measure: Measure, places: Iterable[Place], rounds: int) -> Result:
    """A place that cannot do it at all, fallocate(2) say, is left out."""
    ready = {}
    with ExitStack() as stack:
        for place in places:
            if place.directory or not measure.named:
                try:
                    ready[place.name] = stack.enter_context(measure.prepare(place))
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                        raise
        return in_turns(measure.name, measure.unit, ready, rounds)


def row(result: Result, peer: str) -> tuple[str, ...]:
    """Cells for a table: what, unit, the peer's median, ours, the ratio, its middle half."""
    low, middle, high = statistics.quantiles(result.ratios("mbufffs", peer), n=4)
    return (result.measure, result.unit, f"{result.median(peer):.2f}",
            f"{result.median('mbufffs'):.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}")
