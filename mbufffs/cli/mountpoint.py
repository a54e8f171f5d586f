# SPDX-License-Identifier: MIT
"""Which mount a command means, and whether it is there; mounting itself is mbufffs/mounts.py's."""

from __future__ import annotations

import os

import click

from mbufffs import mounts
from mbufffs.area import name_below
from mbufffs.client import not_mounted
from mbufffs.errors import NotMounted
from mbufffs.state import DEFAULT_MOUNTPOINT

VARIABLE = "MBUFFFS_MOUNT"

option = click.option(
    "--mountpoint", "-m", metavar="PATH", default=DEFAULT_MOUNTPOINT, show_default=True,
    envvar=VARIABLE, show_envvar=True, help="The mount to use.")

argument = click.argument(
    "mountpoint", metavar=f"[MOUNTPOINT={DEFAULT_MOUNTPOINT}]", default=DEFAULT_MOUNTPOINT,
    envvar=VARIABLE)


def live(given: str) -> str:
    """The mount point without symbolic links; NotMounted unless a mount of ours answers there.

    Without this check a file made "in the mount" would land in the empty directory below it.
    """
    path = mounts.resolved(given)
    mount = mounts.mount_at(path)
    if mount is None:
        raise not_mounted(path)
    if mount.fstype != mounts.FSTYPE:
        raise NotMounted(
            f"what is mounted at {path} is of type {mount.fstype}, not {mounts.FSTYPE}")
    if mounts.is_dead(path):
        raise NotMounted(
            f"the keeper of {path} has died; mount again, with all areas: mbufffs mount {path}")
    return path


def name_of(given_mountpoint: str, mountpoint: str, given: str) -> str:
    """The name of the area that was `given`, be it a name or a path by either mount point."""
    alias = os.path.abspath(given_mountpoint)
    below = alias if given.startswith(alias.rstrip("/") + "/") else mountpoint
    return name_below(below, given)
