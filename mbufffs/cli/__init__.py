# SPDX-License-Identifier: MIT
"""The command line: the group of commands, and nothing that a command does."""

from __future__ import annotations

import click

from mbufffs import __version__
from mbufffs.cli.bench import bench
from mbufffs.cli.create import create
from mbufffs.cli.doctor import doctor
from mbufffs.cli.edge import Edge
from mbufffs.cli.info import info
from mbufffs.cli.ls import ls
from mbufffs.cli.mount import mount
from mbufffs.cli.rm import rm
from mbufffs.cli.umount import umount
from mbufffs.errors import Exit


@click.group(
    cls=Edge, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="mbufffs")
@click.pass_context
def commands(context: click.Context) -> int | None:
    """Named memory areas as files: create allocates, rm frees, mmap is the memory itself.

    \b
    A first tour:
      mbufffs doctor                     what this machine offers
      mbufffs mount                      areas appear at /mnt/mbuff
      mbufffs create frame 4M            or: truncate -s 4M /mnt/mbuff/frame
      mbufffs ls -l
      mbufffs info frame
      mbufffs rm frame
      mbufffs umount                     areas survive; --discard frees them

    \b
    Names are completed by the shell after one of these (for ever: in its start file):
      bash   eval "$(_MBUFFFS_COMPLETE=bash_source mbufffs)"
      zsh    eval "$(_MBUFFFS_COMPLETE=zsh_source mbufffs)"
      fish   _MBUFFFS_COMPLETE=fish_source mbufffs | source

    \b
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not mounted, 4 busy,
    5 not permitted, 6 not found, 7 exists, 8 no space, 9 unavailable here.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        return Exit.USAGE
    return None


for _command in (mount, umount, ls, create, rm, info, doctor, bench):
    commands.add_command(_command)


def main() -> None:
    """The entry point of the program `mbufffs`."""
    commands(prog_name="mbufffs")
