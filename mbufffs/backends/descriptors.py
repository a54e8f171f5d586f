# SPDX-License-Identifier: MIT
"""Descriptors of the nodes that were used last: to open a node costs more than most of its uses."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable

_MOST = 64


class Descriptors:
    def __init__(self, open_node: Callable[[int, int], int]) -> None:
        """`open_node` takes a node id and flags of open(2)."""
        self._open_node = open_node
        self._kept: OrderedDict[tuple[int, int], int] = OrderedDict()  # by node and flags
        self._flags: set[int] = set()

    def get(self, node: int, flags: int) -> int:
        """Stays open until many others have been used, or the node is dropped."""
        fd = self._kept.get((node, flags))
        if fd is not None:
            self._kept.move_to_end((node, flags))
            return fd
        fd = self._kept[node, flags] = self._open_node(node, flags)
        self._flags.add(flags)
        if len(self._kept) > _MOST:
            os.close(self._kept.popitem(last=False)[1])
        return fd

    def kept(self, node: int, flags: int) -> int | None:
        return self._kept.get((node, flags))

    def __contains__(self, node: int) -> bool:
        return any((node, flags) in self._kept for flags in self._flags)

    def drop(self, node: int) -> None:
        """What is removed must go when the kernel forgets it, not when this one does."""
        for flags in self._flags:
            fd = self._kept.pop((node, flags), None)
            if fd is not None:
                os.close(fd)

    def close(self) -> None:
        while self._kept:
            os.close(self._kept.popitem()[1])
