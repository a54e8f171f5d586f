# SPDX-License-Identifier: MIT
"""`mbufffs umount`: ends a mount, waits for its keeper, and frees the areas if told to."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator

import click

from mbufffs import client, holders, mounts
from mbufffs import state as states
from mbufffs import store as store_of_areas
from mbufffs.cli import mountpoint as mountpoints
from mbufffs.cli.mount import store_name
from mbufffs.cli.names import shown
from mbufffs.errors import NotMounted
from mbufffs.state import State

PATIENCE = 10.0
_POLL = 0.02
_SHOWN = 10


@click.command(short_help="End a mount; areas survive.")
@mountpoints.argument
@click.option("--lazy", "-l", is_flag=True,
              help="Take the name away now and let programs that use it finish.")
@click.option("--discard", is_flag=True, help="Free the areas too: their bytes are lost.")
@click.option("--store", metavar="NAME",
              help="The store to discard, if it was named by mount -o store=NAME.")
def umount(mountpoint: str, lazy: bool, discard: bool, store: str | None) -> None:
    """End the mount at MOUNTPOINT; a dead one too.

    Without --discard all areas survive, with bytes, modes and owners, and the next mount has
    them again. --discard frees them, also when the mount has gone before. A mount in use is
    left alone, exit code 4, with the processes that use it on stderr.

    \b
    Examples:
      mbufffs umount
      mbufffs umount --lazy /mnt/mbuff
      mbufffs umount --discard
    """
    path = mounts.resolved(mountpoint)
    os.chdir("/")  # our own working directory must not be what keeps the mount busy
    end_mount(path, lazy=lazy, discard=discard, store=store)


def end_mount(path: str, *, lazy: bool, discard: bool, store: str | None = None) -> None:
    """What the command does; `path` is resolved."""
    state = _state(path, store)
    mount = mounts.mount_at(path)
    if mount is not None and mount.fstype != mounts.FSTYPE:
        raise NotMounted(
            f"what is mounted at {path} is of type {mount.fstype}, not {mounts.FSTYPE}")
    if mount is None and not (discard and state.directory.exists()):
        raise client.not_mounted(path)
    users = _detached(path, lazy) if mount is not None else ""
    if users and not discard:
        return
    with _keeper_ended(state, users):
        if discard and state.directory.exists():
            store_of_areas.discard(state)


def _state(path: str, store: str | None) -> State:
    if store is not None:
        return states.state_of(path, store_name(store))
    # root must not take another user's word for which directory to remove: own keepers only.
    with contextlib.suppress(OSError):
        return client.served(path, own=True)[0]
    return states.state_of(path)


def _detached(path: str, lazy: bool) -> str:
    """Unmounts; with `lazy`, who goes on using what was mounted, "" for nobody."""
    try:
        mounts.unmount(path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        users = _users(path)
        if not lazy:
            raise OSError(errno.EBUSY, f"is in use by {users}", path) from None
        mounts.unmount(path, lazy=True)
        return users
    return ""


def _users(path: str) -> str:
    ways: dict[str, list[str]] = {}
    for holder in holders.holders_of_mount(path):
        if holder.pid == os.getpid():  # a descriptor that we inherited; it goes with us
            continue
        ways.setdefault(f"{holder.pid} ({shown(holder.command)}", []).append(holder.how)
    found = [f"{who}: {', '.join(how)})" for who, how in ways.items()]
    found += [f"the mount at {shown(mount.mountpoint)}" for mount in mounts.mount_table()
              if mount.mountpoint.startswith(path.rstrip("/") + "/")]
    if len(found) > _SHOWN:
        found[_SHOWN:] = [f"{len(found) - _SHOWN} more"]
    return ", ".join(found) or "processes that this user may not see"


@contextlib.contextmanager
def _keeper_ended(state: State, users: str) -> Iterator[None]:
    """Waits for the lock that keeper and server hold, and holds it while the caller discards.

    With lazy `users` there is no end to wait for.
    """
    try:
        fd = os.open(state.directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):  # there was never a keeper of ours
        yield
        return
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if users:
                    raise OSError(
                        errno.EBUSY, f"is unmounted, but its areas are kept: in use by {users}",
                        state.mountpoint) from None
                if time.monotonic() > deadline:
                    raise OSError(
                        errno.EBUSY, f"has a keeper that has not ended for {PATIENCE:.0f} s, or "
                        "serves another mount; its areas are kept", state.mountpoint) from None
                time.sleep(_POLL)
        yield
    finally:
        os.close(fd)
