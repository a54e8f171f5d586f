# SPDX-License-Identifier: MIT
"""Tables on standard output: for people on a terminal, one line a row for programs elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

import click


def on_terminal() -> bool:
    return sys.stdout.isatty()


def show(
    columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str] = ()
) -> None:
    """Writes `rows`; the cells have no control characters. `numbers` are columns set to the right.

    Not on a terminal there is no heading and one blank between columns, so that the last column
    may hold blanks of its own.
    """
    if not on_terminal():
        click.echo("".join(" ".join(row) + "\n" for row in rows), nl=False)
        return
    # Imported here: rich takes longer than most commands do.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="right" if column in numbers else "left", overflow="fold",
            no_wrap=column is not columns[-1])
    for row in rows:
        # Text, because a str may hold what rich takes for markup, like [bold].
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)
