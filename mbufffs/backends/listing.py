# SPDX-License-Identifier: MIT
"""Reads a directory of the store from any offset on, so that any server can go on with a listing.

Since kernel 6.6 the offsets of tmpfs belong to the entries. Before, an offset is a position, and
what was removed meanwhile shifts all that come behind: a listing would skip them. There the inode
number is the offset, and each read sorts the whole directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from mbufffs.backends._store import entries

_BATCH = 1024  # bytes of names; one page of replies holds about as many
_RANK_BITS = 20  # of an offset: which of several names of one inode


def offsets_are_stable(scratch: int) -> bool:
    """Tries it out in `scratch`, a directory of nobody else."""
    names = [b"offset-%d" % number for number in range(3)]
    try:
        for name in names:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600,
                             dir_fd=scratch))
        listed = entries(scratch, 0, _BATCH)
        first = next(at for at, (name, _) in enumerate(listed) if name in names)
        os.unlink(listed[first][0], dir_fd=scratch)
        left = [name for name, _ in listed[first + 1:]]
        return [name for name, _ in entries(scratch, listed[first][1], _BATCH)] == left
    finally:
        for name in names:
            try:
                os.unlink(name, dir_fd=scratch)
            except FileNotFoundError:
                continue


def names(directory: int, offset: int, *, stable: bool) -> Iterator[tuple[bytes, int]]:
    """Names behind `offset`, "." and ".." among them, each with the offset behind it."""
    if not stable:
        yield from ((name, at) for at, name in _by_inode(directory) if at > offset)
        return
    while batch := entries(directory, offset, _BATCH):
        yield from batch
        offset = batch[-1][1]


def is_empty(directory: int) -> bool:
    return len(entries(directory, 0, _BATCH)) <= len((b".", b".."))


def _by_inode(directory: int) -> Iterator[tuple[int, bytes]]:
    yield 1, b"."
    yield 2, b".."
    with os.scandir(directory) as found:
        listed = sorted((entry.inode(), os.fsencode(entry.name)) for entry in found)
    last, rank = -1, 0
    for inode, name in listed:
        rank = rank + 1 if inode == last else 0
        last = inode
        yield (inode + 1 << _RANK_BITS) + rank, name
