# SPDX-License-Identifier: MIT
"""`mbufffs mount`: from options to the keeper's settings; mounting itself is the keeper's."""

from __future__ import annotations

import errno
import os
from typing import Any

import click

from mbufffs import mounts
from mbufffs.area import parse_size
from mbufffs.cli import mountpoint as mountpoints

_FLAGS = {
    "nopassthrough": ("passthrough", False),
    "nohuge": ("huge", False),
    "noio_uring": ("io_uring", False),
    "nonempty": ("nonempty", True),
    "allow_other": ("allow_other", True),
    "noallow_other": ("allow_other", False),
}
_VALID = "nopassthrough, nohuge, noio_uring, nonempty, allow_other, noallow_other and store=NAME"


def store_name(name: str) -> str:
    """A store is named by one component of a path, because that is what it becomes."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise click.UsageError(f"store {name!r} is not one file name; write it as in store=cameras")
    return name


def _options(given: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "store": None, "passthrough": True, "huge": True, "io_uring": True, "nonempty": False,
        "allow_other": os.geteuid() == 0}
    for word in ",".join(given).split(","):
        if word in _FLAGS:
            key, value = _FLAGS[word]
            options[key] = value
        elif word.startswith("store="):
            options["store"] = store_name(word.removeprefix("store="))
        elif word:
            raise click.UsageError(f"unknown option {word!r} after -o; valid are {_VALID}")
    return options


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    limit = parse_size(text)
    if limit == 0:
        # tmpfs takes 0 for no limit at all.
        raise OSError(errno.EINVAL, "a limit of 0 leaves no room for areas; write one as in 512M")
    return limit


@click.command(short_help="Mount areas, with all that an earlier mount there has left.")
@mountpoints.argument
@click.option("--backend", type=click.Choice(["auto", "shmem", "device"]), default="auto",
              show_default=True,
              help="Who keeps the areas: the kernel module (device), or this program (shmem).")
@click.option("--size", metavar="LIMIT",
              help="Limit of all areas together, as in 512M; half of the memory without it.")
@click.option("-o", "options", metavar="OPTIONS", multiple=True,
              help="Comma-separated mount options, see above.")
@click.option("--foreground", "-f", is_flag=True,
              help="Stay until the mount ends, for service managers and debugging.")
def mount(
    mountpoint: str, backend: str, size: str | None, options: tuple[str, ...], foreground: bool
) -> int | None:
    """Mount areas at MOUNTPOINT, with all that an earlier mount there has left.

    Returns when the mount answers. The directory is made if it is missing; a dead mount of
    mbufffs is cleared away; a live one, or a directory with files, is refused.

    \b
    Mount options:
      nopassthrough    serve through the page cache, as kernels before 6.9 do
      nohuge           small pages only, however large an area
      noio_uring       take the kernel's messages from /dev/fuse alone, as before Linux 6.18
      nonempty         mount over a directory that has files
      allow_other      let other users in, as their rights say (root: default)
      noallow_other    keep other users out
      store=NAME       keep areas under NAME instead of the mount point's name

    \b
    Examples:
      mbufffs mount
      mbufffs mount --size 512M /mnt/mbuff
      mbufffs mount -o noallow_other,store=cameras ~/cameras
    """
    from mbufffs import keeper

    settings = keeper.Settings(
        mountpoint=mounts.resolved(mountpoint), backend=backend, limit=_limit(size),
        **_options(options))
    if foreground:
        return keeper.run(settings)
    keeper.start(settings)
    return None
