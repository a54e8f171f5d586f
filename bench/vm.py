# SPDX-License-Identifier: MIT
"""Boots Debian's kernel with the module, and measures there (inside.py).

The processor is emulated: its times mean nothing, the ratios within a run do.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import click

from tests.kernel import inside, machine, modules
from tests.kernel.kernels import Unavailable, fetch

KERNEL = "6.12"
MEMORY = "3G"
SECONDS = 1800


def run(rounds: int, directory: Path) -> None:
    """Leaves results.json and results.md in `directory`."""
    machine.clear_leftovers()
    try:
        kernel = fetch(KERNEL)
        modules.build(kernel)
    except (Unavailable, modules.BuildFailed) as error:
        raise click.ClickException(str(error)) from None
    command = shlex.join([sys.executable, "-m", "bench.inside", str(rounds)])
    done = machine.run(kernel, f'{inside.environment(kernel)}\n{command} "$MBUFF_RUN_DIRECTORY"',
                       seconds=SECONDS, memory=MEMORY)
    if done.status or done.wrong:
        raise click.ClickException("\n".join([done.output[-2000:], *done.wrong]))
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "results.md"):
        shutil.copy(done.directory / name, directory)
    shutil.rmtree(done.directory)
