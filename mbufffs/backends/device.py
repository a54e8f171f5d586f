# SPDX-License-Identifier: MIT
"""Areas of the kernel module: the backend over /dev/mbuff.

The module knows names that are paths, and no directories: those are in directories.py. An area's
node id is its number in the module, which is never used again; a directory's is its inode number.

What others do to areas comes as events. They are taken in before each question about names, so the
answers are those of the moment; `on_change` says what the kernel may still have cached. It is
called while they are taken in, because only the next read of events lets go of them: a server that
is killed over them leaves them to the next one.

All methods but resize and allocate run in the server's one event loop without an await, so each
of them is a critical section.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mbufffs.backends import AREA, Attributes, Caller, Change
from mbufffs.backends._store import allocate
from mbufffs.backends.descriptors import Descriptors
from mbufffs.backends.directories import Directories
from mbufffs.backends.names import Names, split
from mbufffs.backends.notes import Notes
from mbufffs.backends.registry import (
    IS_REMOVED,
    KINDS,
    RENAME_EXCHANGE,
    RENAME_HOLD,
    RENAME_NOREPLACE,
    RENAME_TREE,
    AreaAttributes,
    Event,
    Kind,
    Registry,
    read_events,
)
from mbufffs.backends.shmem import ShmemBackend

log = logging.getLogger(__name__)

PAGE = os.sysconf("SC_PAGESIZE")
_READS = 8  # of events before somebody else has his turn
_DOUBTS = 4096  # areas that are told of at once after events were lost
_TRIES = 100  # to make or find an area that others make and free all the time


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class DeviceBackend:
    name = "device"
    locked = True
    page_cache = False  # others write too: kernel modules through the areas' address
    granted = 0  # areas come and go by kernel modules, too

    def __init__(self, registry: Registry, events: int, store: Path) -> None:
        """`events`: of the same open /dev/mbuff, with what an earlier server has not taken in."""
        self.on_hidden: Callable[[int, int], None] = lambda node, size: None  # noqa: ARG005
        self.on_change: Callable[[Change], None] = lambda change: None  # noqa: ARG005
        self.events: int | None = events
        self._events = events
        self._registry = registry
        self._weak = os.geteuid() == 0
        self._tree = ShmemBackend(store, locked=True, handles=False)
        self._tree.on_hidden = self._on_hidden_directory
        self._notes = Notes(os.open(store / "notes", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        self._names = Names()
        self._directories = Directories(self._tree, store / "implied", self._names,
                                        self._tell_change)
        self._emptied: set[int] = set()
        self._descriptors = Descriptors(self.open)
        self._doubtful: list[int] = []
        self._begun = False
        os.set_blocking(events, False)
        os.lseek(events, 0, os.SEEK_SET)
        for name, attributes in registry.areas():
            self._names.put(attributes.id, name)

    def _tell_change(self, change: Change) -> None:
        self.on_change(change)

    def _on_hidden_directory(self, node: int, size: int) -> None:
        self.on_hidden(node, size)

    def close(self) -> None:
        os.close(self._events)
        self._descriptors.close()
        self._directories.close()
        self._notes.close()
        self._tree.close()
        self._registry.close()

    # What others have done

    def refresh(self) -> bool:
        """Takes in the events that are there, or many of them; whether there is more to do."""
        if not self._begun:  # not in __init__: nobody was told yet what changes by this
            self._begun = True
            for name in list(self._names.of.values()):
                self._tried(self._directories.make_room, name)
            self._directories.prune_all()
        more = False
        for _ in range(_READS):
            events, more = read_events(self._events)
            for event in events:
                self._tried(self._take_in, event)
            if not more:
                break
        for node in self._doubtful[-_DOUBTS:]:
            self.on_change(Change(node=node))
        del self._doubtful[-_DOUBTS:]
        return more or bool(self._doubtful)

    @staticmethod
    def _tried(function: Callable[[Any], object], what: Event | bytes) -> None:
        """One area whose directory cannot be made must not keep others from being shown."""
        try:
            function(what)
        except OSError as error:
            log.warning("cannot show what the kernel has: %s: %s", what, error)

    def _take_in(self, event: Event) -> None:
        node = AREA | event.id
        if event.kind is Kind.LOST:
            self._list()
        elif event.kind in (Kind.CREATED, Kind.RENAMED):
            if self._has_name(event.id, event.name):
                self._appeared(event.id, event.name, event.old_name)
            else:
                # It has lost the name since, maybe by ourselves, of which no event tells: then
                # the one that we know is its own.
                known = self._names.of.get(event.id, b"")
                if known in (b"", event.name) or not self._has_name(event.id, known):
                    known = self._names.drop(event.id)
                    lost = {event.name, event.old_name, known}
                else:
                    lost = {event.name, event.old_name} - {known}
                for name in lost - {b""}:
                    self._lost(name)
        elif event.kind is Kind.REMOVED:
            if node in self._descriptors:
                self.on_hidden(node, 0)  # who has it open goes on; then it is forgotten
            known = self._names.drop(event.id)
            self._lost(event.name, node)
            if known not in (b"", event.name):
                self._lost(known, node)
        elif event.kind is Kind.NOTIFIED:
            self.on_change(Change(node=node, notified=True))
        else:
            self.on_change(Change(node=node))

    def _has_name(self, area: int, name: bytes) -> bool:
        try:
            return self._registry.find(name).id == area
        except FileNotFoundError:
            return False

    def _list(self) -> None:
        found = {attributes.id: name for name, attributes in self._registry.areas()}
        for area in self._names.of.keys() - found.keys():
            self._lost(self._names.drop(area), AREA | area)
        for area, name in found.items():
            if self._names.of.get(area) != name:
                self._appeared(area, name)
        self._doubtful = [AREA | area for area in found]
        self._directories.prune_all()

    def _appeared(self, area: int, name: bytes, old_name: bytes = b"") -> None:
        """`old_name`: perhaps only an earlier server has shown it."""
        known = self._names.of.get(area, b"")
        self._names.put(area, name)
        self.on_change(Change(parent=self._directories.make_room(name), name=split(name)[1]))
        for lost in {known, old_name} - {b"", name}:
            self._lost(lost)

    def _lost(self, name: bytes, removed: int = 0) -> None:
        """No area has this name any more; `removed`: the node that had it, if that has gone."""
        directory, last = split(name)
        parent = self._directories.node_of(directory)
        if parent is not None:
            self.on_change(Change(parent=parent, name=last, node=removed))
        self._directories.prune(directory)

    # Names

    def _path(self, parent: int, name: bytes) -> bytes:
        """The whole name of what is, or would be, `name` in the directory `parent`."""
        if parent & AREA:
            raise _error(errno.ENOTDIR)
        directory = self._tree.path(parent)
        return directory + b"/" + name if directory else name

    def _area_attributes(self, found: AreaAttributes) -> Attributes:
        node = AREA | found.id
        links = 0 if found.flags & IS_REMOVED else 1
        seconds = [ns // 10**9 for ns in (found.atime_ns, found.mtime_ns, found.ctime_ns)]
        status = os.stat_result(
            (found.mode, node, 0, links, found.uid, found.gid, found.size, *seconds),
            {"st_blocks": found.allocated // 512, "st_blksize": PAGE, "st_rdev": 0,
             "st_atime_ns": found.atime_ns, "st_mtime_ns": found.mtime_ns,
             "st_ctime_ns": found.ctime_ns})
        return Attributes(node, status, links)

    def _area(self, parent: int, name: bytes) -> int | None:
        return self._names.at(self._path(parent, name))

    def lookup(self, parent: int, name: bytes) -> Attributes:
        self.refresh()
        if name == b"." or parent & AREA:
            return self.attributes(parent)
        area = None if name == b".." else self._area(parent, name)
        if area is None:
            return self._tree.lookup(parent, name)
        return self._area_attributes(self._registry.attributes(area))

    def _has_directory(self, parent: int, name: bytes) -> bool:
        try:
            self._tree.lookup(parent, name)
        except FileNotFoundError:
            return False
        return True

    def create(self, parent: int, name: bytes, mode: int, caller: Caller, *,
               exclusive: bool) -> tuple[Attributes, bool]:
        self.refresh()
        path = self._path(parent, name)
        if self._has_directory(parent, name):
            if exclusive and not caller.again:
                raise _error(errno.EEXIST)
            return self._tree.lookup(parent, name), False
        uid, gid = (caller.uid, caller.gid) if self._weak else (None, None)
        within = self._tree.attributes(parent).stat
        if within.st_mode & stat.S_ISGID:
            gid = within.st_gid
        area, made = self._made_or_found(path, stat.S_IMODE(mode), uid, gid,
                                         exclusive=exclusive and not caller.again)
        self._names.put(area, path)
        self._directories.keep(parent)
        found = self._registry.attributes(area)
        # Made by the server that died, for this request.
        made |= caller.again and (not self._weak or found.uid == caller.uid)
        return self._area_attributes(found), made

    def _made_or_found(self, path: bytes, mode: int, uid: int | None, gid: int | None, *,
                       exclusive: bool) -> tuple[int, bool]:
        for _ in range(_TRIES):
            try:
                return self._registry.create(path, mode=mode, uid=uid, gid=gid,
                                             exclusive=True), True
            except FileExistsError:
                if exclusive:
                    raise
            try:
                return self._registry.find(path).id, False
            except FileNotFoundError:  # it has gone meanwhile
                continue
        raise _error(errno.EAGAIN)

    def mknod(self, parent: int, name: bytes, mode: int, device: int,  # noqa: ARG002
              caller: Caller) -> Attributes:
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise _error(errno.EPERM)
        return self.create(parent, name, mode, caller, exclusive=True)[0]

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        self.refresh()
        if self._area(parent, name) is not None:
            raise _error(errno.EEXIST)
        self._directories.keep(parent)
        return self._tree.mkdir(parent, name, mode, caller)

    def symlink(self, *_: object) -> Attributes:
        raise _error(errno.EPERM)

    def link(self, *_: object) -> Attributes:
        raise _error(errno.EPERM)

    def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        self.refresh()
        area = self._area(parent, name)
        if area is None:
            if self._has_directory(parent, name):
                raise _error(errno.EISDIR)
            if caller.again:
                return
            raise _error(errno.ENOENT)
        self._descriptors.drop(AREA | area)
        self._registry.remove(area, hold=True)
        self._names.drop(area)
        self._directories.keep(parent)
        self._hidden(area)

    def _hidden(self, area: int) -> None:
        size = 0
        with contextlib.suppress(OSError):  # it is removed, whatever may be known of it
            size = self.attributes(AREA | area).stat.st_blocks * 512
        self.on_hidden(AREA | area, size)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        self.refresh()
        if self._area(parent, name) is not None:
            raise _error(errno.ENOTDIR)
        if self._names.any_below(self._path(parent, name)):
            raise _error(errno.ENOTEMPTY)
        found = self._tree.lookup(parent, name) if self._has_directory(parent, name) else None
        self._tree.rmdir(parent, name, caller)
        if found:
            self._directories.keep(found.node)
        self._directories.keep(parent)

    def rename(self, parent: int, name: bytes, newparent: int, newname: bytes, flags: int,
               tag: int, caller: Caller) -> None:
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise _error(errno.EINVAL)
        self.refresh()
        old, new = self._path(parent, name), self._path(newparent, newname)
        area = self._names.at(old)
        if area is not None:
            self._rename_area(area, old, new, flags, tag, caller,
                              onto_directory=self._has_directory(newparent, newname))
        elif self._has_directory(parent, name):
            self._rename_directory(parent, name, newparent, newname, flags, caller)
        elif not caller.again or flags & RENAME_EXCHANGE:
            raise _error(errno.ENOENT)
        self._directories.keep(parent)
        self._directories.keep(newparent)

    def _rename_area(self, area: int, old: bytes, new: bytes, flags: int, tag: int,
                     caller: Caller, *, onto_directory: bool) -> None:
        target = self._names.at(new)
        if onto_directory:
            # The module knows no directories, so it cannot exchange one with an area at once.
            raise _error(errno.EEXIST if flags & RENAME_NOREPLACE else
                         errno.EINVAL if flags & RENAME_EXCHANGE else errno.EISDIR)
        if flags & RENAME_EXCHANGE:
            if target is None:
                raise _error(errno.ENOENT)
            if self._notes.begun(tag, area, target, again=caller.again):
                return
            self._registry.rename(old, new, RENAME_EXCHANGE)
            self._names.drop(area)
            self._names.drop(target)
            self._names.put(target, old)
            self._names.put(area, new)
            return
        if target == area:
            return
        if target is not None:
            self._descriptors.drop(AREA | target)
        self._registry.rename(old, new, flags & RENAME_NOREPLACE | RENAME_HOLD)
        self._names.put(area, new)
        with contextlib.suppress(FileNotFoundError):
            moved = self._registry.find(new).id
            if moved != area:  # another one that had got the name: the kernel knows the first
                self._appeared(moved, new)
        if target is not None:
            self._hidden(target)

    def _rename_directory(self, parent: int, name: bytes, newparent: int, newname: bytes,
                          flags: int, caller: Caller) -> None:
        old, new = self._path(parent, name), self._path(newparent, newname)
        if flags & RENAME_EXCHANGE or ((new + b"/").startswith(old + b"/") and old != new):
            raise _error(errno.EINVAL)
        if old == new:
            return
        moves = self._names.any_below(old)
        if caller.again and self._names.any_below(new) and not moves:
            # An earlier server died when the areas had moved, but not yet their directory: what
            # their names have implied since gives way to it.
            self._directories.give_way(newparent, newname)
        self._check_target(newparent, newname, new, flags)
        if moves:
            self._registry.rename(old, new, RENAME_TREE)
        try:
            self._tree.rename(parent, name, newparent, newname, 0, 0, caller)
        finally:
            for area, path in list(self._names.of.items()) if moves else ():
                if path.startswith(old + b"/"):
                    self._names.put(area, new + path[len(old):])

    def _check_target(self, parent: int, name: bytes, path: bytes, flags: int) -> None:
        """Before anything moves: what the tree would refuse must not be half done."""
        taken = errno.EEXIST if flags & RENAME_NOREPLACE else 0
        if self._names.at(path) is not None:
            raise _error(taken or errno.ENOTDIR)
        if self._has_directory(parent, name):
            inside = self._directories.inside(self._tree.lookup(parent, name).node)
            if taken or inside or self._names.any_below(path):
                raise _error(taken or errno.ENOTEMPTY)

    def names(self, node: int, most: int) -> list[bytes] | None:  # noqa: ARG002
        return None

    def entries(self, node: int, offset: int) -> Iterator[tuple[bytes, Attributes, int]]:
        """Directories first, at the offsets of the tree; then areas, at their numbers."""
        self.refresh()
        if not offset & AREA:
            for name, found, at in self._tree.entries(node, offset):
                if stat.S_ISDIR(found.stat.st_mode):
                    yield name, found, at
            offset = AREA
        path = self._tree.path(node)
        if path is None:
            return
        for area in self._names.next_in(path, offset & ~AREA):
            try:
                found = self._area_attributes(self._registry.attributes(area))
            except FileNotFoundError:  # since we took in the events
                continue
            yield split(self._names.of[area])[1], found, AREA | area

    # Nodes

    def attributes(self, node: int) -> Attributes:
        if not node & AREA:
            return self._tree.attributes(node)
        try:
            return self._area_attributes(self._registry.attributes(node & ~AREA))
        except FileNotFoundError:
            raise _error(errno.ESTALE) from None

    def change(self, node: int, *, mode: int | None = None, uid: int = -1, gid: int = -1,
               atime_ns: int | None = None, mtime_ns: int | None = None) -> Attributes:
        if not node & AREA:
            if mode is not None or uid != -1 or gid != -1:
                self._directories.keep(node)  # who may enter is not forgotten with the last area
            return self._tree.change(node, mode=mode, uid=uid, gid=gid, atime_ns=atime_ns,
                                     mtime_ns=mtime_ns)
        area = node & ~AREA
        # Owner before mode: changing it clears set-user-id.
        if uid != -1 or gid != -1:
            self._registry.change(area, uid=None if uid == -1 else uid,
                                  gid=None if gid == -1 else gid)
        if mode is not None or atime_ns is not None or mtime_ns is not None:
            self._registry.change(area, mode=None if mode is None else stat.S_IMODE(mode),
                                  atime_ns=atime_ns, mtime_ns=mtime_ns)
        return self.attributes(node)

    def readlink(self, node: int) -> bytes:  # noqa: ARG002
        raise _error(errno.EINVAL)

    def facts(self, node: int) -> dict[str, str]:
        owners = [{"kind": owner.kind, "name": owner.name, "pid": owner.pid or None,
                   "count": owner.count} for owner in self._registry.owners(node & ~AREA)]
        found = self._registry.attributes(node & ~AREA)
        return {"backend": self.name, "kind": KINDS[found.kind], "locked": "1",
                "owners": json.dumps(owners), "phys": hex(found.physical)}

    def set_kind(self, node: int, kind: str) -> None:
        if kind not in KINDS[:2]:
            raise OSError(errno.EINVAL, "the kind is pages or contiguous")
        self._registry.set_kind(node & ~AREA, kind)

    def is_fixed(self, node: int) -> bool:
        return bool(node & AREA) and self._registry.attributes(node & ~AREA).kind > 0

    def notified(self, node: int) -> int | None:
        return self._registry.attributes(node & ~AREA).notified if node & AREA else None

    def forget(self, node: int) -> int | None:
        if not node & AREA:
            return self._tree.forget(node)
        area = node & ~AREA
        self._descriptors.drop(node)
        self._emptied.discard(area)
        last = None
        try:
            with contextlib.suppress(PermissionError):  # a mode that forbids its owner to read
                # Weak, so that it is no user; then its closing is what frees the memory.
                last = self._registry.open_area(area, os.O_RDONLY, weak=self._weak)
            self._registry.forget(area)
        except OSError as error:
            if last is not None:
                os.close(last)
            if not isinstance(error, FileNotFoundError):
                raise
            return None  # it was not removed by us, or an earlier server has done it
        return last

    def empty(self, node: int) -> int | None:
        if not node & AREA:
            return None
        area = node & ~AREA
        if self._registry.attributes(area).open_cnt:
            return None
        try:
            fd = self._registry.open_area(area, os.O_RDWR, weak=self._weak)
        except PermissionError:  # its mode forbids it; the memory goes when it is forgotten
            return None
        self._emptied.add(area)
        return fd

    def hidden(self) -> list[int]:
        held = (AREA | found.id for _, found in self._registry.areas(held=True))
        return sorted([*self._tree.hidden(), *held])

    # Descriptors and bytes

    def open(self, node: int, flags: int) -> int:
        if not node & AREA:
            return self._tree.open(node, flags)
        if node & ~AREA in self._emptied:
            # Looked up before it was removed, opened after: the kernel looks it up again.
            raise _error(errno.ESTALE)
        # A backing file is opened anew by the kernel, so this one's rights do not matter.
        ways = os.O_RDWR if flags & os.O_PATH else flags & os.O_ACCMODE
        try:
            return self._registry.open_area(node & ~AREA, ways, weak=self._weak)
        except FileNotFoundError:
            raise _error(errno.ESTALE) from None

    def resize(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def allocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        allocate(fd, mode, offset, length)

    # The kernel has asked for the client's right to read or write, and it may have no other.

    def read(self, node: int, offset: int, size: int) -> bytes:
        return os.pread(self._descriptors.get(node, os.O_RDONLY), size, offset)

    def write(self, node: int, offset: int, data: bytes) -> int:
        return os.pwrite(self._descriptors.get(node, os.O_WRONLY), data, offset)

    def statvfs(self) -> os.statvfs_result:
        usage = self._registry.usage()
        blocks = usage.max_bytes // PAGE
        free = max(0, blocks - usage.used_bytes // PAGE)
        files = max(0, usage.max_areas - usage.areas)
        # f_bsize, f_frsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_favail, f_flag,
        # f_namemax
        return os.statvfs_result((PAGE, PAGE, blocks, free, free, usage.max_areas, files, files,
                                  0, 255))
