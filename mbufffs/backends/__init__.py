# SPDX-License-Identifier: MIT
"""What a backend is: it keeps areas, and speaks of nodes, names and descriptors only.

Node ids come from the backend and mean the same to every server that runs on it, so a server can
be replaced under a live mount. A backend never imports pyfuse3; all its errors are OSError.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

SECRETS = frozenset({"phys"})  # facts that would help who attacks the machine
ROOT = 1  # the node id of the mount's root directory (FUSE_ROOT_ID)
AREA = 1 << 62  # bit of the node ids that are a number of the kernel module's registry


@dataclass(slots=True)
class Attributes:
    """A node and what stat(2) says of it; `links` without names that clients cannot see."""

    node: int
    stat: os.stat_result
    links: int


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf something is made, and whether the request may have been done already.

    `again`: the request was sent to an earlier server, which died before its reply came. What
    it asks for is then a success if it is already so.
    """

    uid: int
    gid: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was not done through the mount, and that the kernel may have cached.

    With `name`: the entry of that name in the directory `parent` is new, or gone if `node` says
    whose it was. Else the attributes of `node`, or with `notified` those who wait for it.
    """

    node: int = 0
    parent: int = 0
    name: bytes | None = None
    notified: bool = False


class Backend(Protocol):
    """Who keeps areas. Methods are synchronous and quick but for resize and allocate."""

    name: str
    locked: bool  # whether pages are never swapped out
    page_cache: bool  # whether the mount may keep copies of bytes, without passthrough
    granted: int  # bytes that plain areas have less of which the channel may change; 0: it asks

    # Names. FileNotFoundError, FileExistsError and so on as open(2) and its kin.
    def lookup(self, parent: int, name: bytes) -> Attributes: ...
    def create(self, parent: int, name: bytes, mode: int, caller: Caller, *,
               exclusive: bool) -> tuple[Attributes, bool]:
        """Makes an area of size 0, or finds it; the flag says whether it was made for this request.

        Of one that was found, nobody has looked at the rights.
        """
        ...
    def mknod(self, parent: int, name: bytes, mode: int, device: int,
              caller: Caller) -> Attributes: ...
    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes: ...
    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes: ...
    def link(self, node: int, parent: int, name: bytes, caller: Caller) -> Attributes: ...
    def unlink(self, parent: int, name: bytes, caller: Caller) -> None: ...
    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None: ...
    def rename(self, parent: int, name: bytes, newparent: int, newname: bytes, flags: int,
               tag: int, caller: Caller) -> None:
        """`tag`: the number by which an exchange that is asked again is known."""
        ...
    def entries(self, node: int, offset: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """Names from `offset` on, "." and ".." among them, with the offset behind each."""
        ...

    # Nodes. ESTALE for one that does not exist.
    def attributes(self, node: int) -> Attributes: ...
    def change(self, node: int, *, mode: int | None = None, uid: int = -1, gid: int = -1,
               atime_ns: int | None = None, mtime_ns: int | None = None) -> Attributes: ...
    def readlink(self, node: int) -> bytes: ...
    def facts(self, node: int) -> dict[str, str]:
        """The area's attributes user.mbuff.*, without that prefix.

        What is in SECRETS only the privileged are told; it is 0x0 for others.
        """
        ...
    def set_kind(self, node: int, kind: str) -> None:
        """What memory an area will get: "pages" or "contiguous". EBUSY if it has some."""
        ...
    def is_fixed(self, node: int) -> bool:
        """Whether O_TRUNC leaves the area its size, because its memory could not be had again."""
        ...
    def forget(self, node: int) -> int | None:
        """The kernel knows `node` no more: a removed area can go.

        Returns a descriptor whose closing frees the memory, which may take long.
        """
        ...
    def empty(self, node: int) -> int | None:
        """A descriptor to free a removed area's memory through, after which nobody can open it.

        None where somebody has it mapped, which needs no open file.
        """
        ...
    def hidden(self) -> list[int]:
        """Removed areas that the kernel may still know."""
        ...

    # Descriptors and bytes. The caller closes what open returns.
    def open(self, node: int, flags: int) -> int: ...
    def resize(self, fd: int, size: int) -> None:
        """Sets the size; all memory is there when it returns, or ENOSPC or ENOMEM and no change.

        May take long; safe in a thread beside the other methods.
        """
        ...
    def allocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2), with the promise of resize."""
        ...
    def read(self, node: int, offset: int, size: int) -> bytes: ...
    def write(self, node: int, offset: int, data: bytes) -> int: ...
    def statvfs(self) -> os.statvfs_result: ...

    # Changes from outside; a backend where there are none has no descriptor for them.
    events: int | None  # readable when something has happened
    on_change: Callable[[Change], None]

    def refresh(self) -> bool:
        """Takes in what has happened, and tells on_change; whether there is more to take in."""
        ...
    def notified(self, node: int) -> int | None:
        """How many notifications the area has had; None where nobody can notify."""
        ...

    # Called when a removed area, or directory, is kept until it is forgotten, with the bytes of
    # memory that it has.
    on_hidden: Callable[[int, int], None]
