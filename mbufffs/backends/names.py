# SPDX-License-Identifier: MIT
"""Which areas of the kernel module are in which directory: names alone, nothing of the areas."""

from __future__ import annotations

import bisect
from collections.abc import Iterator


def split(name: bytes) -> tuple[bytes, bytes]:
    """Directory and last component; the directory of the root's own entries is b""."""
    directory, _, last = name.rpartition(b"/")
    return directory, last


class Names:
    """Which areas there are, by number and by directory; as the events told."""

    def __init__(self) -> None:
        self.of: dict[int, bytes] = {}
        self._in: dict[bytes, dict[bytes, int]] = {}
        self._order: dict[bytes, list[int]] = {}  # the areas of each directory by number
        self._below: dict[bytes, int] = {}  # areas below a directory, at any depth

    def __contains__(self, area: int) -> bool:
        return area in self.of

    def at(self, name: bytes) -> int | None:
        directory, last = split(name)
        return self._in.get(directory, {}).get(last)

    def next_in(self, directory: bytes, after: int) -> Iterator[int]:
        """The areas in a directory with numbers above `after`; names stay as they are meanwhile."""
        order = self._order.get(directory, [])
        for at in range(bisect.bisect_right(order, after), len(order)):
            yield order[at]

    def any_below(self, directory: bytes) -> bool:
        return self._below.get(directory, 0) > 0

    def _count(self, name: bytes, by: int) -> None:
        directory = split(name)[0]
        while directory:
            self._below[directory] = self._below.get(directory, 0) + by
            if not self._below[directory]:
                del self._below[directory]
            directory = split(directory)[0]

    def put(self, area: int, name: bytes) -> None:
        self.drop(area)
        directory, last = split(name)
        other = self._in.setdefault(directory, {}).get(last)
        if other is not None:
            # Events of a while ago: the one that had this name has lost it since.
            self.drop(other)
        self.of[area] = name
        self._in.setdefault(directory, {})[last] = area
        bisect.insort(self._order.setdefault(directory, []), area)  # mostly at the end
        self._count(name, 1)

    def drop(self, area: int) -> bytes:
        """Returns the name that it had, b"" if none."""
        name = self.of.pop(area, b"")
        if name:
            directory, last = split(name)
            del self._in[directory][last]
            order = self._order[directory]
            del order[bisect.bisect_left(order, area)]
            if not order:
                del self._in[directory], self._order[directory]
            self._count(name, -1)
        return name
