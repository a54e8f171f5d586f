# SPDX-License-Identifier: MIT
"""The kernel's switch for FUSE over io_uring, which most machines have off.

It is for all file systems at once, but a connection keeps what it was given when it began: so a
mount turns it on for the moment of its own beginning, and leaves the machine as it found it.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from pathlib import Path
from typing import IO

SWITCH = Path("/sys/module/fuse/parameters/enable_uring")
PATIENCE = 1.0  # seconds to wait for another mount that is just beginning


class Permission:
    """Held from before mount(2) until INIT has been answered."""

    def __init__(self) -> None:
        self._switch: IO[str] | None = None  # open while it is to be put back

    def take(self) -> bool:
        """Whether a mount may ask for it now. False: an older kernel, or not ours to say."""
        with contextlib.ExitStack() as closing:
            try:
                switch = closing.enter_context(SWITCH.open("r+", encoding="ascii"))
            except OSError:
                return False
            if not _locked(switch):
                return False
            if switch.read().strip() == "Y":
                return True
            try:
                _set(switch, "Y")
            except OSError:
                return False
            closing.pop_all()
            self._switch = switch
            return True

    def give_back(self) -> None:
        if self._switch is not None:
            with self._switch as switch:
                self._switch = None
                _set(switch, "N")


def _set(switch: IO[str], value: str) -> None:
    switch.seek(0)
    switch.write(value)
    switch.flush()


def _locked(switch: IO[str]) -> bool:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(switch, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
