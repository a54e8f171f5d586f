# SPDX-License-Identifier: MIT
"""What came of a run: JSON with every figure, a table in Markdown, a plot."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.life import Fact
from bench.targets import Verdict
from mbufffs.bench.compare import Result

_ROOT = Path(__file__).parents[1]


def machine() -> dict[str, str]:
    """What the figures depend on; no name of the machine."""
    processors = [line.partition(":")[2].strip()
                  for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=_ROOT,
                            capture_output=True, text=True, check=False).stdout.strip()
    return {
        "processors": f"{os.cpu_count()} x {processors[0] if processors else platform.machine()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit or "unknown",
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def as_json(about: dict[str, str], results: Sequence[Result], facts: Sequence[Fact],
            verdicts: Sequence[Verdict]) -> str:
    return json.dumps({
        "machine": about,
        "results": [dataclasses.asdict(result) for result in results],
        "facts": [dataclasses.asdict(fact) for fact in facts],
        "targets": [dataclasses.asdict(verdict) for verdict in verdicts],
    }, indent=1)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(peer: str, results: Sequence[Result]) -> Iterator[str]:
    places = list(dict.fromkeys(place for result in results for place in result.figures))
    yield _line(["operation", "unit", *places, f"ratio to {peer}", "middle half"])
    yield _line(["---", "---", *["--:"] * (len(places) + 2)])
    for result in results:
        low, middle, high = statistics.quantiles(result.ratios("mbufffs", peer), n=4)
        yield _line([
            result.measure, result.unit,
            *(_figure(result.median(place)) if place in result.figures else "" for place in places),
            f"{middle:.2f}", f"{low:.2f} to {high:.2f}"])


def as_markdown(about: dict[str, str], results: Sequence[Result], facts: Sequence[Fact],
                verdicts: Sequence[Verdict]) -> str:
    """Medians; the ratio, to the place that stands first, is the median of those of the rounds."""
    text = [", ".join(f"{key}: {value}" for key, value in about.items())]
    for peer, group in itertools.groupby(results, lambda result: next(iter(result.figures))):
        text += ["", *_table(peer, list(group))]
    if facts:
        text += ["", _line(["of a mount", "unit", "median", "all figures"]),
                 _line(["---", "---", "--:", "---"])]
        text += [_line([fact.name, fact.unit, _figure(fact.median),
                        " ".join(map(_figure, fact.figures))]) for fact in facts]
    if verdicts:
        text += ["", _line(["target", "wanted", "found", ""]), _line(["---", "---", "--:", "---"])]
        text += [_line([verdict.what, verdict.wanted, _figure(verdict.found),
                        "met" if verdict.met else "**missed**"]) for verdict in verdicts]
    return "\n".join(text) + "\n"


def plot(results: Sequence[Result], path: Path) -> None:
    """Each place's time as a multiple of tmpfs's; GB/s turned round, so that less is better."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places = [place for place in dict.fromkeys(
        place for result in results for place in result.figures) if place != "tmpfs"]
    figure, axes = pyplot.subplots(figsize=(9, 0.3 * len(results) + 1.5), layout="constrained")
    for place in places:
        rows, values = [], []
        for row, result in enumerate(results):
            if place in result.figures:
                ratio = statistics.median(result.ratios(place, "tmpfs"))
                rows.append(row)
                values.append(1 / ratio if result.unit == "GB/s" else ratio)
        own = place == "mbufffs"
        axes.plot(values, rows, "o" if own else "|", markersize=7 if own else 10,
                  markeredgewidth=2, label=place, zorder=3 if own else 2,
                  color="black" if own else None)
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(results)), [result.measure for result in results])
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("time as a multiple of tmpfs's in the same run, median; less is better")
    figure.legend(loc="outside upper center", ncols=5)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
