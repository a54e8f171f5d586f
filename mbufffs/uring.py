# SPDX-License-Identifier: MIT
"""The kernel's switch for FUSE over io_uring, which most machines have off.

It is for all file systems at once, but a connection keeps what it was given when it began: so a
mount turns it on for the moment of its own beginning, and leaves the machine as it found it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mbufffs.state import locked

SWITCH = Path("/sys/module/fuse/parameters/enable_uring")
LOCK = Path("/run/mbufffs.io_uring")
PATIENCE = 1.0  # seconds to wait for another mount that is just beginning


class Permission:
    """Held from before mount(2) until INIT has been answered."""

    def __init__(self) -> None:
        self._lock: int | None = None  # while the switch is to be put back

    def take(self) -> bool:
        """Whether a mount may ask for it now. False: an older kernel, or not ours to say."""
        if not SWITCH.exists():
            return False
        with contextlib.suppress(OSError):
            # Not the switch itself, which anybody may lock. It is empty but while a mount has the
            # switch on that was off: also after a keeper that was killed meanwhile.
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if not locked(lock, PATIENCE):
                    return False
                if SWITCH.read_bytes()[:1] == b"Y" and not os.pread(lock, 1, 0):
                    return True
                os.pwrite(lock, b"N", 0)
                try:
                    _write(b"Y")
                except OSError:
                    os.ftruncate(lock, 0)
                    return False
                self._lock = lock
                return True
            finally:
                if self._lock is None:
                    os.close(lock)
        return False

    def give_back(self) -> None:
        if self._lock is not None:
            lock, self._lock = self._lock, None
            with contextlib.suppress(OSError):
                _write(b"N")
                os.ftruncate(lock, 0)
            os.close(lock)


def _write(value: bytes) -> None:
    fd = os.open(SWITCH, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)
