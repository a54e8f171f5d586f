# SPDX-License-Identifier: MIT
"""The directories of the kernel module's areas, whose names are paths: the module knows none.

They are kept in a tree on a tmpfs that holds nothing else: made by mkdir(2), or implied by the name
of an area and gone with its last one. Nothing of the areas is here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from mbufffs.backends import ROOT, Attributes, Caller, Change
from mbufffs.backends.names import Names, split
from mbufffs.backends.shmem import ShmemBackend, prepare_store


def prepare_directories(store: Path, root_mode: int) -> None:
    """Makes what the backend keeps beside the module's areas."""
    prepare_store(store, root_mode)
    (store / "implied").mkdir(mode=0o700, exist_ok=True)


class Directories:
    def __init__(self, tree: ShmemBackend, implied: Path, names: Names,
                 on_change: Callable[[Change], None]) -> None:
        """`implied`: a directory with a file for each that is implied, named by its node."""
        self._tree = tree
        self._names = names
        self._on_change = on_change
        self._implied_at = os.open(implied, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._implied = {int(name) for name in os.listdir(self._implied_at)}

    def close(self) -> None:
        os.close(self._implied_at)

    def make_room(self, name: bytes) -> int:
        """The node of its directory, which is made; one that has the name itself goes."""
        directory, last = split(name)
        parent = self.imply(directory)
        self.give_way(parent, last)
        return parent

    def node_of(self, directory: bytes) -> int | None:
        node = ROOT
        for part in directory.split(b"/") if directory else ():
            try:
                node = self._tree.lookup(node, part).node
            except OSError:
                return None
        return node

    def imply(self, directory: bytes) -> int:
        """The node of `directory`; what is missing of it is made."""
        node = ROOT
        for part in directory.split(b"/") if directory else ():
            try:
                node = self._tree.lookup(node, part).node
                continue
            except FileNotFoundError:
                pass
            made = self._tree.mkdir(node, part, 0o755, Caller(os.geteuid(), os.getegid())).node
            self._implied.add(made)
            os.close(os.open(b"%d" % made, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600,
                             dir_fd=self._implied_at))
            self._on_change(Change(parent=node, name=part))
            node = made
        return node

    def keep(self, node: int) -> None:
        """From now on the directory stays without areas: somebody has worked in it by path."""
        if node in self._implied:
            self._implied.discard(node)
            os.unlink(b"%d" % node, dir_fd=self._implied_at)

    def prune(self, directory: bytes) -> None:
        """Removes `directory` and those above it, as far as nothing but a name implied them."""
        while directory and not self._names.any_below(directory):
            node = self.node_of(directory)
            above, last = split(directory)
            parent = self.node_of(above)
            if node is None or parent is None or node not in self._implied:
                return
            try:
                self._tree.rmdir(parent, last, Caller(0, 0))
            except OSError:  # a directory that somebody made is in it
                return
            # A server that dies here leaves the mark of a directory that has gone.
            self.keep(node)
            self._on_change(Change(parent=parent, name=last, node=node))
            directory = above

    def prune_all(self) -> None:
        paths = []
        for node in list(self._implied):
            try:
                path = self._tree.path(node)
            except OSError:
                path = None
            if path:
                paths.append(path)
            else:
                self.keep(node)
        for path in sorted(paths, reverse=True):
            self.prune(path)

    def give_way(self, parent: int, name: bytes) -> None:
        """An area got the name of a directory that has no areas: only the area is real."""
        try:
            found = self._tree.lookup(parent, name)
        except FileNotFoundError:
            return
        above = [(parent, name, found.node)]
        for _, _, node in above:  # which grows: those inside come behind
            above += [(node, inner, inside.node) for inner, inside in self.inside(node)]
        for directory, last, node in reversed(above):
            self._tree.rmdir(directory, last, Caller(0, 0))
            self.keep(node)
            self._on_change(Change(parent=directory, name=last, node=node))

    def inside(self, node: int) -> list[tuple[bytes, Attributes]]:
        return [(name, found) for name, found, _ in self._tree.entries(node, 0)
                if name not in (b".", b"..") and stat.S_ISDIR(found.stat.st_mode)]
