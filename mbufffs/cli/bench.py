# SPDX-License-Identifier: MIT
"""`mbufffs bench`: how fast areas are on this machine, beside files on tmpfs."""

from __future__ import annotations

import dataclasses
import json

import click

from mbufffs.cli import table

LIMIT = 1 << 30


@click.command(short_help="Measure areas beside files on tmpfs.")
@click.option("--rounds", type=click.IntRange(min=2), default=9, show_default=True,
              help="Figures of each operation and place.")
@click.option("--backend", type=click.Choice(["shmem", "device"]), default="shmem",
              show_default=True, help="Who has the memory.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array with all figures.")
def bench(rounds: int, backend: str, as_json: bool) -> None:
    """Measure areas beside files on tmpfs, in turns, in half a minute.

    It mounts for itself and needs a quarter of a GiB of free memory; no mount that is there is
    touched. Figures are medians. The ratio is mbufffs to tmpfs within one round, its median and
    the middle half: with GB/s more is better, else less.

    \b
    Examples:
      mbufffs bench
      mbufffs bench --json | jq -r '.[] | [.measure, .figures.mbufffs[]] | @tsv'
    """
    from mbufffs.bench import compare, measures, places

    with places.tmpfs() as plain, places.ours(LIMIT, backend) as (ours, _):
        results = [compare.run(measure, (plain, ours), rounds) for measure in measures.QUICK]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(result) for result in results], indent=2))
        return
    numbers = ("tmpfs", "mbufffs", "ratio", "middle half")
    table.show(("operation", "unit", *numbers),
               [compare.row(result, "tmpfs") for result in results], numbers)
