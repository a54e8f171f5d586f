# SPDX-License-Identifier: MIT
"""The store of a mount: made before it, and freed when the areas are to go."""

from __future__ import annotations

import errno
import os
import shutil
import stat

from mbufffs import mounts
from mbufffs.backends.shmem import prepare_store
from mbufffs.state import State


def prepare(state: State, limit: int | None) -> bool:
    """The store, mounted and swept; whether its pages are locked to memory."""
    root = os.geteuid() == 0
    state.store.mkdir(mode=0o700, exist_ok=True)
    locked = False
    if root:
        found = mounts.mount_at(str(state.store))
        if found is None:
            locked = mounts.mount_tmpfs(state.store, limit)
        else:
            locked = "noswap" in found.options.split(",")
            if limit is not None:
                mounts.resize_tmpfs(state.store, limit)
    elif limit is not None:
        raise PermissionError(
            errno.EPERM, "a limit needs root: without it areas share the limit of /dev/shm")
    # Like /dev/shm: everybody makes areas, and only their owners remove them.
    prepare_store(state.store, 0o1777 if root else 0o700)
    return locked


def discard(state: State) -> None:
    """Frees the areas and removes all state; the caller has seen to it that nobody uses them."""
    for directory in (state.directory.parent, state.directory):
        found = directory.lstat()
        # In a directory that everybody may write, a link could lead to anything of ours.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "belongs to somebody else", str(directory))
    store = mounts.resolved(str(state.store))
    while (mount := mounts.mount_at(store)) is not None:
        if mount.fstype != "tmpfs":
            raise OSError(errno.EBUSY, f"has a {mount.fstype} mounted on it, not ours", store)
        mounts.unmount(store)
    shutil.rmtree(state.directory)
