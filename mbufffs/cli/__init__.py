# SPDX-License-Identifier: MIT
"""The command line: the group of commands, and nothing that a command does."""

from __future__ import annotations

import importlib

import click

from mbufffs import __version__
from mbufffs.cli.edge import Edge
from mbufffs.errors import Exit

NAMES = ("bench", "create", "doctor", "info", "ls", "mount", "rm", "umount")


class Commands(Edge):
    """Each is imported when it is wanted: half of a command's time would go by for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in NAMES:
            return None
        module = importlib.import_module(f"mbufffs.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(
    cls=Commands, invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]})
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


def main() -> None:
    """The entry point of the program `mbufffs`."""
    commands(prog_name="mbufffs")
