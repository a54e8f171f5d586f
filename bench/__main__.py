# SPDX-License-Identifier: MIT
"""Measures a mount beside every alternative that this machine can have, in one run.

`make bench` calls it. It mounts for itself, below the directory for temporary files, and takes
everything away again.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from bench import life, peers, report, targets
from mbufffs.bench import compare, measures
from mbufffs.bench.compare import Result
from mbufffs.bench.places import ours

LIMIT = 4 << 30
COPYING = {"tmpfs.py"}  # its files are values of a database


@click.command()
@click.option("--rounds", type=click.IntRange(min=2), default=15, show_default=True)
@click.option("--only", default="", metavar="TEXT", help="Operations with this in their name.")
@click.option("--quick", is_flag=True, help="What `mbufffs bench` measures, but with all peers.")
@click.option("--vm", is_flag=True, help="What the kernel module has, in a virtual machine.")
@click.option("--directory", type=click.Path(path_type=Path), default=Path(".cache/bench"),
              show_default=True, help="Where results.json, results.md and performance.png go.")
def main(rounds: int, only: str, quick: bool, vm: bool, directory: Path) -> None:
    # So that what is mounted goes, too, when somebody ends this.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if vm:
        from bench.vm import run

        run(rounds, directory / "vm")
        print((directory / "vm/results.md").read_text(), end="")
        return
    wanted = [measure for measure in (measures.QUICK if quick else measures.FULL)
              if only in measure.name]
    about = report.machine()
    results = []
    with ExitStack() as stack:
        places = peers.enter_all(stack)
        places.append(stack.enter_context(ours(LIMIT))[0])
        for number, measure in enumerate(wanted, 1):
            _say(f"{number} of {len(wanted)}: {measure.name}")
            able = [place for place in places if measure.names <= place.names_max
                    and not (measure.large and place.name in COPYING)]
            results.append(compare.run(measure, able, rounds))
    facts = [] if quick or only else _facts(rounds)
    _say("")
    _write(directory, about, results, facts)


def _facts(rounds: int) -> list[life.Fact]:
    _say("a mount's life")
    return [life.mounting(rounds), life.failing_over(rounds), life.idling(),
            *life.working(rounds), *life.carried(rounds), *life.growing(100_000)]


def _say(text: str) -> None:
    if os.isatty(sys.stderr.fileno()):
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def _write(directory: Path, about: dict[str, str], results: list[Result],
           facts: list[life.Fact]) -> None:
    verdicts = targets.verdicts(results, facts)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(report.as_json(about, results, facts, verdicts))
    markdown = report.as_markdown(about, results, facts, verdicts)
    (directory / "results.md").write_text(markdown)
    if results:
        report.plot(results, directory / "performance.png")
    print(markdown, end="")
    print(f"\nall figures: {directory}/results.json; plot: {directory}/performance.png")


if __name__ == "__main__":
    main()
