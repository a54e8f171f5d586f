# SPDX-License-Identifier: MIT
"""`mbufffs rm`: takes names away; the memory goes when the last program has let go of it."""

from __future__ import annotations

import errno
import os

import click

from mbufffs.cli import mountpoint as mountpoints
from mbufffs.cli import names as area_names
from mbufffs.cli.edge import first_failure, told


@click.command(short_help="Remove areas.")
@mountpoints.option
@area_names.argument("NAME...", required=True)
def rm(names: tuple[str, ...], mountpoint: str) -> int:
    """Remove each area NAME.

    The name goes at once, the memory when the last descriptor and mapping are gone. After an
    error the other names are still removed; the exit code is that of the first error.

    \b
    Examples:
      mbufffs rm frame cam0/frame
      mbufffs rm -- -odd-name
    """
    root = mountpoints.live(mountpoint)
    codes = []
    for given in names:
        try:
            path = os.path.join(root, mountpoints.name_of(mountpoint, root, given))
            try:
                os.unlink(path)
            except IsADirectoryError:
                raise OSError(
                    errno.EISDIR, "is a directory; remove it with: rmdir", path) from None
        except OSError as error:
            codes.append(told(error))
    return first_failure(codes)
