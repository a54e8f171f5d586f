# SPDX-License-Identifier: MIT
"""The kernel module's registry as far as the device backend can tell: names, numbers, events."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator

from mbufffs.backends.registry import RENAME_TREE, AreaAttributes, Kind


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class FakeRegistry:
    """Of somebody who is not told what he does; `others` does the same and it is told."""

    def __init__(self) -> None:
        self.names: dict[int, bytes] = {}
        self.held: set[int] = set()  # in the kernel
        self.events = os.memfd_create("events")
        self.gap = lambda: None  # called before each call that changes something
        self._next = 1

    def close(self) -> None:
        pass

    def tell(self, kind: Kind, area: int = 0, name: bytes = b"", old_name: bytes = b"") -> None:
        data = struct.pack("=IIQQII", -(-(32 + len(name) + len(old_name)) // 8) * 8, kind, area, 0,
                           len(name), len(old_name)) + name + old_name
        os.pwrite(self.events, data.ljust(-(-len(data) // 8) * 8, b"\0"),
                  os.fstat(self.events).st_size)

    def find(self, name: bytes) -> AreaAttributes:
        for area, found in self.names.items():
            if found == name:
                return self.attributes(area)
        raise _error(errno.ENOENT)

    def attributes(self, area: int) -> AreaAttributes:
        if area not in self.names:
            raise _error(errno.ENOENT)
        return AreaAttributes(area, 0, 0, 0, stat.S_IFREG | 0o600, 0, 0, 0, 0, 0,
                              area in self.held, 0, 0, 0, 0, 0)

    def areas(self, after: int = 0, *,
              held: bool = False) -> Iterator[tuple[bytes, AreaAttributes]]:
        for area, name in sorted(self.names.items()):
            if area > after and not held:
                yield name, self.attributes(area)

    def create(self, name: bytes, *, told: bool = False, exclusive: bool = False,
               **_: object) -> int:
        self.gap()
        if name in self.names.values():
            raise _error(errno.EEXIST)
        area, self._next = self._next, self._next + 1
        self.names[area] = name
        if told:
            self.tell(Kind.CREATED, area, name)
        return area

    def remove(self, area: int, *, told: bool = False, hold: bool = False) -> None:
        self.gap()
        if area in self.held:
            raise _error(errno.EBUSY)
        name = self.names.pop(area)
        if told:
            self.tell(Kind.REMOVED, area, name)

    def rename(self, old: bytes, new: bytes, flags: int = 0, *, told: bool = False) -> None:
        self.gap()
        moved = {area: new + name[len(old):] for area, name in self.names.items()
                 if (name.startswith(old + b"/") if flags & RENAME_TREE else name == old)}
        if self.held & moved.keys():
            raise _error(errno.EBUSY)
        for area, name in moved.items():
            if told:
                self.tell(Kind.RENAMED, area, name, self.names[area])
            self.names[area] = name
