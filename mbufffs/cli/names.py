# SPDX-License-Identifier: MIT
"""How the names of areas are found, shown and completed; what a name may be is area.py's."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from mbufffs.cli import mountpoint as mountpoints

_LETTERS = {"\\": "\\\\", "\a": "\\a", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\v": "\\v",
            "\f": "\\f", "\r": "\\r"}
_COMPLETIONS_MAX = 1000

Command = TypeVar("Command", bound=Callable[..., Any])


def shown(text: str) -> str:
    """`text` on one line and printable, with the escapes of `ls -b`; blanks stay blanks."""
    return "".join(
        _LETTERS.get(char) or (char if char.isprintable() else "".join(
            f"\\{byte:03o}" for byte in char.encode("utf-8", "surrogateescape")))
        for char in text)


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_json(name: str) -> dict[str, str]:
    """The keys that name an area; JSON knows no bytes, so a name out of UTF-8 takes two of them."""
    if is_utf8(name):
        return {"name": name}
    return {"name": shown(name), "name_bytes": base64.b64encode(os.fsencode(name)).decode()}


def areas(
    mountpoint: str, below: str, failed: Callable[[OSError], object]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every area in the directory `below` (a name, or "" for the mount) and in those under it.

    In no order. A directory that cannot be read goes to `failed` and is left out; one that was
    removed in the meantime is only left out.
    """
    waiting = [below]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(os.path.join(mountpoint, directory)) as entries:
                for entry in entries:
                    name = os.path.join(directory, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    elif entry.is_file(follow_symlinks=False):
                        yield name, entry
        except FileNotFoundError:
            continue
        except OSError as error:
            failed(error)


def complete(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of areas for the shell; the lines it reads carry only names that need no escape."""
    def ignored(_error: OSError) -> None:
        pass

    try:
        mountpoint = mountpoints.live(context.params["mountpoint"])
    except OSError:
        return []
    fitting = (name for name, _ in areas(mountpoint, "", ignored)
               if name.startswith(incomplete) and shown(name) == name)
    return [CompletionItem(name) for name in sorted(islice(fitting, _COMPLETIONS_MAX))]


def argument(metavar: str, *, required: bool) -> Callable[[Command], Command]:
    """click.argument for any number of names of areas, completed by the shell."""
    return click.argument(
        "names", nargs=-1, metavar=metavar, required=required, shell_complete=complete)
