# SPDX-License-Identifier: MIT
"""What the figures have to reach, as ratios within one run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from bench.life import Fact
from mbufffs.bench.compare import Result

C_EXAMPLE = "passthrough_ll"
C_EXAMPLE_WITH_RIGHTS = "passthrough_ll, rights"  # as libfuse's passthrough_hp always has them


@dataclass(frozen=True)
class Target:
    """`measure` here, divided by `of` at `peer`, is at most `bound`; for GB/s, at least."""

    measure: str
    peer: str
    bound: float
    of: str = ""  # another measure of ours, if it is not compared with a peer


@dataclass(frozen=True)
class Verdict:
    what: str
    found: float
    wanted: str
    met: bool


SPEED = 0.98
TARGETS = [
    Target("mmap: streaming read", "tmpfs", SPEED),
    Target("mmap: streaming write", "tmpfs", SPEED),
    Target("mmap: random 64 B", "tmpfs", 1 / SPEED),
    Target("mmap: first touch of a page", "tmpfs", 1.1),
    Target("mmap: first touch of a page never written", "tmpfs", 1.1),
    Target("read 4 KiB", "tmpfs", 1 / 0.9),
    Target("read 64 KiB", "tmpfs", 1 / 0.97),
    Target("read 1 MiB", "tmpfs", 1 / 0.97),
    Target("write 4 KiB", "tmpfs", 1 / 0.9),
    Target("write 64 KiB", "tmpfs", 1 / 0.97),
    Target("write 1 MiB", "tmpfs", 1 / 0.97),
    Target("write 4 KiB after stat and getxattr", "tmpfs", 1 / 0.9),
    Target("open + close", C_EXAMPLE, 0.5),
    Target("open + close, 16 processes", "mbufffs", 2.0, of="open + close"),
    Target("create + truncate 4 KiB + close", C_EXAMPLE, 1.25),
    Target("unlink", C_EXAMPLE, 1.5),
    Target("unlink", C_EXAMPLE_WITH_RIGHTS, 1.5),
    Target("ls -l of 10,000, cold", C_EXAMPLE, 1.5),
    Target("ls -l of 10,000, warm", C_EXAMPLE, 1.5),
]
LIMITS = {  # of facts about a mount
    "mount to first answer": 0.5,
    "wake-ups of an idle mount": 0,
    "resident memory, 100,000 areas made": 150,
    "messages to the server for a warm `ls -l` of 100,000": 0,
}


def verdicts(results: Iterable[Result], facts: Iterable[Fact]) -> list[Verdict]:
    by_name = {result.measure: result for result in results}
    found = [_verdict(target, by_name) for target in TARGETS
             if target.measure in by_name and target.peer in by_name[target.measure].figures
             and (not target.of or target.of in by_name)]
    by_fact = {fact.name: fact for fact in facts}
    for name, limit in LIMITS.items():
        if name in by_fact:
            fact = by_fact[name]
            found.append(Verdict(f"{name}, {fact.unit}".rstrip(", "), fact.median,
                                 f"at most {limit}", fact.median <= limit))
    first = by_fact.get("create, the first 1,000")
    last = by_fact.get("create, the last 1,000 of 100,000")
    if first and last:
        ratio = last.median / first.median
        found.append(Verdict("create of the last to the first 1,000 of 100,000", ratio,
                             "at most 1.2", ratio <= 1.2))
    return found


def _verdict(target: Target, results: dict[str, Result]) -> Verdict:
    result = results[target.measure]
    if target.of:
        ratio = result.median("mbufffs") / results[target.of].median("mbufffs")
    else:
        ratio = statistics.median(result.ratios("mbufffs", target.peer))
    more = result.unit == "GB/s"
    return Verdict(f"{target.measure}, to {target.of or target.peer}", ratio,
                   f"at {'least' if more else 'most'} {target.bound:.2f}",
                   ratio >= target.bound if more else ratio <= target.bound)
