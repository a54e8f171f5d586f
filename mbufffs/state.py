# SPDX-License-Identifier: MIT
"""Where a mount keeps what outlives its processes: store, lock, control socket and log.

One directory a mount point, below /run/mbufffs for root and on the tmpfs at /dev/shm for
others, who cannot mount one of their own. Nothing is written anywhere else.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from mbufffs.errors import StoreInUse

DEFAULT_MOUNTPOINT = "/mnt/mbuff"
DYING = 1.0  # seconds that a server may outlive its keeper


def runtime_directory() -> Path:
    """The directory of all state of this user's mounts: areas of users are in it too."""
    if os.geteuid() == 0:
        return Path("/run/mbufffs")
    return Path(f"/dev/shm/mbufffs-{os.geteuid()}")


def locked(fd: int, patience: float) -> bool:
    """flock(2) for this descriptor alone; False when others have it for so many seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
        time.sleep(0.02)


def escaped(mountpoint: str) -> str:
    """A mount point as one file name: /mnt/mbuff is mnt-mbuff, and a "-" of its own is \\x2d."""
    return mountpoint.strip("/").replace("-", "\\x2d").replace("/", "-") or "-"


@dataclass(frozen=True)
class State:
    """The paths of one mount's state; `mountpoint` is absolute and free of symbolic links."""

    mountpoint: str
    directory: Path

    @property
    def store(self) -> Path:
        """Directory that holds the areas; for root the mount point of a private tmpfs."""
        return self.directory / "store"

    @property
    def directories(self) -> Path:
        """What stands in place of the store where areas are the kernel module's."""
        return self.directory / "directories"

    @property
    def control(self) -> Path:
        """Socket on which the keeper answers questions (mbufffs/client.py asks)."""
        return self.directory / "control"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def make(self) -> None:
        """Creates the directories; refuses any that another user could have planted."""
        for directory in (runtime_directory(), self.directory):
            directory.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700, exist_ok=True)
            found = directory.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise PermissionError(
                    1, "belongs to somebody else; remove it first", str(directory))

    def lock(self) -> int:
        """Takes the store for this process and returns the descriptor that holds the lock.

        The lock is flock(2)'s, so it is held until keeper *and* server, which inherits the
        descriptor, have ended: no second writer beside a server that is still dying, for which
        it waits a moment.
        """
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if locked(fd, DYING):
            return fd
        os.close(fd)
        raise StoreInUse(f"the store of {self.mountpoint} is in use by another keeper; "
                         f"end it with: mbufffs umount {self.mountpoint}")


def state_of(mountpoint: str, store: str | None = None) -> State:
    """The state of the mount at `mountpoint`; `store` names another mount's state to share.

    Two mount points with one store exclude each other by its lock.
    """
    resolved = os.path.realpath(mountpoint)
    return State(resolved, runtime_directory() / (store or escaped(resolved)))
