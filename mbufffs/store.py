# SPDX-License-Identifier: MIT
"""The store of a mount: made before it, and freed when the areas are to go.

Where areas are the kernel module's it holds their directories alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from pathlib import Path

from mbufffs import mounts
from mbufffs.backends.directories import prepare_directories
from mbufffs.backends.registry import DEVICE, Registry
from mbufffs.backends.shmem import prepare_store
from mbufffs.state import State

DYING = 2.0  # seconds
DIRECTORIES_LIMIT = 256 << 20  # bytes: a tmpfs charges a page and less for a directory


def prepare(state: State, limit: int | None, *, huge: bool) -> bool:
    """The store, mounted and swept; whether its pages are locked to memory."""
    if os.geteuid() != 0 and limit is not None:
        raise PermissionError(
            errno.EPERM, "a limit needs root: without it areas share the limit of /dev/shm")
    locked = _mounted(state.store, limit, huge=huge)
    prepare_store(state.store, _root_mode())
    return locked


def prepare_for_device(state: State, limit: int | None) -> None:
    """The directories of the kernel module's areas, mounted and swept."""
    if limit is not None:
        raise OSError(errno.EINVAL, "the limit of the kernel's areas is the module's: "
                      f"echo {limit} > /sys/module/mbuff/parameters/max_bytes")
    _mounted(state.directories, DIRECTORIES_LIMIT if os.geteuid() == 0 else None, huge=False)
    prepare_directories(state.directories, _root_mode())


def _root_mode() -> int:
    # Like /dev/shm: everybody makes areas, and only their owners remove them.
    return 0o1777 if os.geteuid() == 0 else 0o700


def _mounted(store: Path, limit: int | None, *, huge: bool) -> bool:
    store.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() != 0:
        return False
    found = mounts.mount_at(str(store))
    if found is None:
        return mounts.mount_tmpfs(store, limit, huge=huge)
    mounts.change_tmpfs(store, limit, huge=huge)
    return "noswap" in found.options.split(",")


def discard(state: State, *, areas: bool = True) -> None:
    """Frees the areas and removes all state; the caller has seen to it that nobody uses them.

    Without `areas` those of the kernel module stay: they may be there for others.
    """
    for directory in (state.directory.parent, state.directory):
        found = directory.lstat()
        # In a directory that everybody may write, a link could lead to anything of ours.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "belongs to somebody else", str(directory))
    if areas and state.directories.exists() and os.path.exists(DEVICE):
        _discard_areas()
    for part in (state.store, state.directories):
        store = mounts.resolved(str(part))
        while (mount := mounts.mount_at(store)) is not None:
            if mount.fstype != "tmpfs":
                raise OSError(errno.EBUSY, f"has a {mount.fstype} mounted on it, not ours", store)
            _unmount(store)
    shutil.rmtree(state.directory)


def _unmount(store: str) -> None:
    """The kernel may have files of a keeper that was killed for a moment more, by its rings."""
    end = time.monotonic() + DYING
    while True:
        try:
            mounts.unmount(store)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _discard_areas() -> None:
    """Removes the kernel module's areas, but for those that are held or somebody else's."""
    with contextlib.closing(Registry.open()) as registry:
        for _, found in list(registry.areas()):
            try:
                registry.remove(found.id)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EBUSY, errno.EPERM, errno.EACCES):
                    raise
