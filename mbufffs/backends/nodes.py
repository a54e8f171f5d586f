# SPDX-License-Identifier: MIT
"""From a node id to its file in the store: by file handle as root, by remembered path otherwise.

Neither keeps anything that a new server would have to be told.
"""

from __future__ import annotations

import errno
import os
from typing import Protocol

from mbufffs.backends import ROOT
from mbufffs.backends._store import node_at, open_node

_PATH_MAX = 4095  # bytes of a path in one call


class Nodes(Protocol):
    """`open` follows no symbolic link; ESTALE for a node that is in the store no more."""

    def node_at(self, parent: int, directory: int, name: bytes) -> int: ...
    def open(self, node: int, flags: int) -> int: ...
    def forget(self, node: int) -> None: ...  # it has gone for good


def _stale() -> OSError:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))


class HandleNodes:
    """A node id is inode number and generation, and these two are tmpfs's file handle.

    So open_by_handle_at(2) finds any node without a table, whatever its names are now. It needs
    CAP_DAC_READ_SEARCH, and a tmpfs mounted with inode32.
    """

    def __init__(self, areas: int) -> None:
        """`areas`: a descriptor of the root directory. OSError where handles do not work."""
        self._areas = areas
        self._root = node_at(areas, b"")
        os.close(open_node(areas, self._root, os.O_PATH))

    def node_at(self, parent: int, directory: int, name: bytes) -> int:  # noqa: ARG002
        node = node_at(directory, name)
        return ROOT if node == self._root else node

    def open(self, node: int, flags: int) -> int:
        return open_node(self._areas, self._root if node == ROOT else node,
                         flags | os.O_NOFOLLOW)

    def forget(self, node: int) -> None:
        pass


class PathNodes:
    """A node id is the inode number; where it was seen last is a hint that is checked at use.

    A hint that is wrong, or missing because another server had it, costs one walk of the store.
    """

    def __init__(self, areas: int, hidden: int) -> None:
        self._areas = areas
        self._hidden = hidden
        self._seen: dict[int, tuple[int, bytes]] = {}
        self._root = os.fstat(areas).st_ino

    def node_at(self, parent: int, directory: int, name: bytes) -> int:
        node = os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino
        if node == self._root:
            return ROOT
        if name not in (b".", b".."):
            self._seen[node] = (parent, name)
        return node

    def forget(self, node: int) -> None:
        self._seen.pop(node, None)

    def open(self, node: int, flags: int) -> int:
        if node == ROOT:
            return os.open(b".", flags | os.O_CLOEXEC, dir_fd=self._areas)
        found = self._at_hint(node)
        if found is None:
            found = self._checked(b"%d" % node, self._hidden, node)
        if found is None:
            self._walk()
            found = self._at_hint(node)
        if found is None:
            raise _stale()
        if flags & os.O_PATH:
            return found
        try:
            return _reopened(found, flags)
        finally:
            os.close(found)

    def path(self, node: int) -> bytes | None:
        """The path of a node below the root; None for one that has been removed."""
        if node == ROOT:
            return b""
        os.close(self.open(node, os.O_PATH))  # the hint is right now, or there is none
        found = self._at_hint(node)
        if found is None:
            return None
        os.close(found)
        return self._hint(node)

    def _hint(self, node: int) -> bytes | None:
        parts: list[bytes] = []
        while node != ROOT:
            if node not in self._seen or len(parts) > len(self._seen):  # a circle of old hints
                return None
            node, name = self._seen[node]
            parts.append(name)
        return b"/".join(reversed(parts))

    def _at_hint(self, node: int) -> int | None:
        path = self._hint(node)
        return None if path is None else self._checked(path, self._areas, node)

    @staticmethod
    def _checked(path: bytes, directory: int, node: int) -> int | None:
        try:
            fd = _open_far(path, directory, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return None
        if os.fstat(fd).st_ino == node:
            return fd
        os.close(fd)
        return None

    def _walk(self) -> None:
        self._seen.clear()
        todo = [(ROOT, b".")]
        while todo:
            parent, path = todo.pop()
            try:
                fd = _open_far(path, self._areas, os.O_RDONLY | os.O_DIRECTORY)
            except PermissionError:
                continue  # its mode forbids clients to look inside, and us too
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        self._seen[entry.inode()] = (parent, name)
                        if entry.is_dir(follow_symlinks=False):
                            todo.append((entry.inode(), path + b"/" + name))
            finally:
                os.close(fd)


def _open_far(path: bytes, directory: int, flags: int) -> int:
    """open(2) of a path that may be longer than it takes at once."""
    at = directory
    try:
        while len(path) > _PATH_MAX:
            cut = path.rindex(b"/", 0, _PATH_MAX)
            further = os.open(path[:cut], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=at)
            if at != directory:
                os.close(at)
            at, path = further, path[cut + 1:]
        return os.open(path, flags | os.O_CLOEXEC, dir_fd=at)
    finally:
        if at != directory:
            os.close(at)


def _reopened(found: int, flags: int) -> int:
    path = b"/proc/self/fd/%d" % found
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except PermissionError:
        # A client may hold a file open for writing whose mode forbids that to later openers. The
        # store's own user is not bound by the modes it keeps for others.
        mode = os.fstat(found).st_mode & 0o7777
        os.chmod(path, mode | 0o600)
        try:
            return os.open(path, flags | os.O_CLOEXEC)
        finally:
            os.chmod(path, mode)
