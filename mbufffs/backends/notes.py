# SPDX-License-Identifier: MIT
"""Notes on exchanges of two names: repeated after a server has died, one would undo itself."""

from __future__ import annotations

import json
import os

_NOTES = 256  # more exchanges are never under way at once: each holds its directories


class Notes:
    def __init__(self, directory: int) -> None:
        """Takes over `directory`, an open descriptor."""
        self._directory = directory

    def close(self) -> None:
        os.close(self._directory)

    def begun(self, tag: int, source: int, target: int, *, again: bool) -> bool:
        """Notes what stands where before an exchange; True if the one with this tag is done.

        `source` and `target` are the nodes that now have the names to be exchanged.
        """
        name = b"%d" % (tag % _NOTES)
        if again:
            try:
                fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
            except FileNotFoundError:
                pass
            else:
                with open(fd, "rb") as noted:
                    if noted.read() == json.dumps([tag, target, source]).encode():
                        return True
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600,
                     dir_fd=self._directory)
        with open(fd, "wb") as noted:
            noted.write(json.dumps([tag, source, target]).encode())
        return False
