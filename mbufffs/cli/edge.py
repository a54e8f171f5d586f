# SPDX-License-Identifier: MIT
"""The edge of the command line: here an OSError becomes one line and an exit code, only here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

import click

from mbufffs.errors import Exit, exit_code, one_line

INTERRUPTED = 130  # what a shell reports for a process that SIGINT ended


def told(error: OSError) -> int:
    """Writes the one line about `error` to stderr; the exit code that stands for it."""
    click.echo(f"mbufffs: {one_line(error)}", err=True)
    return exit_code(error)


def first_failure(codes: Iterable[int]) -> int:
    """Exit code of a command that went on after an error: that of the first one."""
    return next((code for code in codes if code != Exit.OK), Exit.OK)


class Edge(click.Group):
    """A group whose commands return their exit code, or None for OK.

    Exceptions other than OSError and those of click are bugs and leave with their traceback.
    """

    def main(self, *args: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except click.Abort:
            code = INTERRUPTED
        except click.ClickException as error:
            code = _usage(error)
        except OSError as error:
            code = told(error)
        _settle()
        sys.exit(int(code or Exit.OK))


def _usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    where = f" (see: {context.command_path} --help)" if context is not None else ""
    # An argument may hold any character, and the line is to stay one line.
    return_code = error.exit_code
    told(OSError(None, " ".join(error.format_message().split()) + where))
    return return_code


def _settle() -> None:
    # What a full disk or an ended reader did not take would fail a second time, and with a
    # traceback, when the interpreter flushes at its end.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
