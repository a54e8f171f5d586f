# SPDX-License-Identifier: MIT
"""Areas as files of a tmpfs: the backend that needs no kernel module.

The store has three parts. areas/ is the tree that clients see. hidden/NODE is a removed area or
directory that the kernel still knows: it is renamed there, and goes when the kernel forgets it.
notes/ holds what must be known before an exchange of two names is repeated.

All methods but resize and allocate run in the server's one event loop without an await, so each
of them is a critical section.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mbufffs.backends import ROOT, Attributes, Caller, Change, listing
from mbufffs.backends._store import allocate, rename_at
from mbufffs.backends.descriptors import Descriptors
from mbufffs.backends.nodes import HandleNodes, Nodes, PathNodes
from mbufffs.backends.notes import Notes

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

PAGE = os.sysconf("SC_PAGESIZE")
LARGE = 1 << 20  # bytes from which allocating is worth a look at free memory, and a thread
RESERVE = 64 << 20  # bytes of memory that an area never takes from the rest of the system

_PARTS = ("areas", "hidden", "notes")
_AT = os.O_PATH | os.O_DIRECTORY  # to open a directory for the sake of names in it


def prepare_store(store: Path, root_mode: int) -> None:
    """Makes the parts of the store; drops what only a kernel that is gone could ask for."""
    for part in _PARTS:
        directory = store / part
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            continue
        if part == "areas":
            directory.chmod(root_mode)
    for part in ("hidden", "notes"):
        for left in (store / part).iterdir():
            if stat.S_ISDIR(left.lstat().st_mode):
                left.rmdir()
            else:
                left.unlink()


def memory_available() -> int:
    """Bytes that can be allocated without swapping: MemAvailable of /proc/meminfo."""
    with open("/proc/meminfo", "rb") as lines:
        for line in lines:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024
    return RESERVE


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class ShmemBackend:
    name = "shmem"
    page_cache = True

    def __init__(self, store: Path, *, locked: bool, handles: bool = True) -> None:
        """Without `handles` a node id is the inode number alone."""
        self.locked = locked
        self.events: int | None = None  # all changes come through the mount
        self.on_change: Callable[[Change], None] = lambda change: None  # noqa: ARG005
        self.on_hidden: Callable[[int, int], None] = lambda node, size: None  # noqa: ARG005
        self._areas, self._hidden_directory, notes = (
            os.open(store / part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for part in _PARTS)
        self._notes = Notes(notes)
        self._privileged = os.geteuid() == 0
        self.granted = 0
        self._nodes: Nodes
        try:
            if not handles:
                raise _error(errno.EOPNOTSUPP)
            self._nodes = HandleNodes(self._areas)
            self.granted = LARGE
        except OSError:
            self._nodes = PathNodes(self._areas, self._hidden_directory)
        self._stable_offsets = listing.offsets_are_stable(notes)
        self._hidden = {int(name) for name in os.listdir(self._hidden_directory)}
        self._emptied: set[int] = set()  # hidden, and without their bytes already
        self._descriptors = Descriptors(self._nodes.open)

    def close(self) -> None:
        self._descriptors.close()
        for fd in (self._areas, self._hidden_directory):
            os.close(fd)
        self._notes.close()

    def refresh(self) -> bool:
        return False

    def notified(self, node: int) -> int | None:  # noqa: ARG002
        return None

    def path(self, node: int) -> bytes:
        """Of a directory, below the root; ENOENT if it has been removed. Not with handles."""
        assert isinstance(self._nodes, PathNodes)
        path = self._nodes.path(node)
        if path is None:
            raise _error(errno.ENOENT)
        return path

    # Names

    def _directory(self, node: int) -> int:
        return self._descriptors.get(node, _AT)

    def _at(self, parent: int, directory: int, name: bytes) -> Attributes:
        if name == b".." and parent == ROOT:
            name = b"."
        node = self._nodes.node_at(parent, directory, name)
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return self._attributes(node, found)

    def _attributes(self, node: int, found: os.stat_result) -> Attributes:
        links = found.st_nlink
        if node in self._hidden:
            # The hidden name counts for nobody, and neither does a directory's own ".".
            links = 0 if stat.S_ISDIR(found.st_mode) else links - 1
        return Attributes(node, found, links)

    def _find(self, parent: int, directory: int, name: bytes) -> Attributes | None:
        try:
            return self._at(parent, directory, name)
        except FileNotFoundError:
            return None

    def lookup(self, parent: int, name: bytes) -> Attributes:
        if name == b".":  # a file handle that is opened: the node may be of any kind
            return self.attributes(parent)
        directory = self._directory(parent)
        return self._at(parent, directory, name)

    def _owned(self, parent: int, directory: int, name: bytes, mode: int,
               caller: Caller) -> Attributes:
        """Gives what was just made to its owner; the tmpfs has seen to set-group-id parents."""
        if self._privileged:
            inherits = os.fstat(directory).st_mode & stat.S_ISGID
            os.chown(name, caller.uid, -1 if inherits else caller.gid, dir_fd=directory,
                     follow_symlinks=False)
            # chown(2) takes these bits from files, even from root's.
            if mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(mode):
                made = os.stat(name, dir_fd=directory, follow_symlinks=False)
                os.chmod(name, stat.S_IMODE(mode) | (made.st_mode & stat.S_ISGID),
                         dir_fd=directory)
        return self._at(parent, directory, name)

    def _is_callers(self, directory: int, name: bytes, mode: int, caller: Caller) -> bool:
        """Whether the server that died made it for this request, or was about to own it to him."""
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return found.st_uid == caller.uid or (
            found.st_uid == os.geteuid() and not found.st_size and stat.S_ISREG(found.st_mode)
            and stat.S_IMODE(found.st_mode) == stat.S_IMODE(mode))

    def create(self, parent: int, name: bytes, mode: int, caller: Caller, *,
               exclusive: bool) -> tuple[Attributes, bool]:
        directory = self._directory(parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(name, flags, stat.S_IMODE(mode), dir_fd=directory))
        except FileExistsError:
            if caller.again and self._is_callers(directory, name, mode, caller):
                return self._owned(parent, directory, name, mode, caller), True
            if exclusive:
                raise
            return self._at(parent, directory, name), False
        return self._owned(parent, directory, name, mode, caller), True

    def _made(self, parent: int, name: bytes, mode: int, caller: Caller,
              make: Callable[[int], None], matches: Callable[[int, os.stat_result], bool]
              ) -> Attributes:
        directory = self._directory(parent)
        try:
            make(directory)
        except FileExistsError:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not caller.again or not matches(directory, found):
                raise
        return self._owned(parent, directory, name, mode, caller)

    def mknod(self, parent: int, name: bytes, mode: int, device: int,
              caller: Caller) -> Attributes:
        return self._made(
            parent, name, mode, caller,
            lambda directory: os.mknod(name, mode, device, dir_fd=directory),
            lambda _, found: stat.S_IFMT(found.st_mode) == (stat.S_IFMT(mode) or stat.S_IFREG)
            and found.st_rdev == device)

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        return self._made(
            parent, name, stat.S_IMODE(mode), caller,
            lambda directory: os.mkdir(name, stat.S_IMODE(mode), dir_fd=directory),
            lambda _, found: stat.S_ISDIR(found.st_mode))

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        return self._made(
            parent, name, stat.S_IFLNK, caller,
            lambda directory: os.symlink(target, name, dir_fd=directory),
            lambda directory, found: stat.S_ISLNK(found.st_mode)
            and os.readlink(name, dir_fd=directory) == target)

    def link(self, node: int, parent: int, name: bytes, caller: Caller) -> Attributes:
        if node in self._hidden:
            raise _error(errno.ENOENT)
        directory = self._directory(parent)
        source = self._nodes.open(node, os.O_PATH)
        try:
            os.link(b"/proc/self/fd/%d" % source, name, dst_dir_fd=directory,
                    follow_symlinks=True)
        except FileExistsError:
            found = self._at(parent, directory, name)
            if not caller.again or found.node != node:
                raise
        finally:
            os.close(source)
        return self._at(parent, directory, name)

    def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        directory = self._directory(parent)
        found = self._find(parent, directory, name)
        if found is None:
            if caller.again:
                return
            raise _error(errno.ENOENT)
        if stat.S_ISDIR(found.stat.st_mode):
            raise _error(errno.EISDIR)
        if found.stat.st_nlink > 1:
            os.unlink(name, dir_fd=directory)
            return
        rename_at(directory, name, self._hidden_directory, b"%d" % found.node, 0)
        self._hide(found)

    def _hide(self, removed: Attributes) -> None:
        self._descriptors.drop(removed.node)
        self._hidden.add(removed.node)
        self.on_hidden(removed.node, removed.stat.st_blocks * 512)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        directory = self._directory(parent)
        found = self._find(parent, directory, name)
        if found is None:
            if caller.again:
                return
            raise _error(errno.ENOENT)
        if self._hide_directory(found.node, directory, name):
            self._hide(found)
        else:
            os.rmdir(name, dir_fd=directory)
            self._descriptors.drop(found.node)
            self._nodes.forget(found.node)

    def _hide_directory(self, node: int, parent: int, name: bytes) -> bool:
        """Takes an empty directory out of the tree; False where only removing it does."""
        fd = self._nodes.open(node, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
        try:
            if not listing.is_empty(fd):
                raise _error(errno.ENOTEMPTY)
        finally:
            os.close(fd)
        try:
            rename_at(parent, name, self._hidden_directory, b"%d" % node, 0)
        except PermissionError:
            # Without root one may remove what one must not write to, but not give it another "..".
            return False
        return True

    def rename(self, parent: int, name: bytes, newparent: int, newname: bytes, flags: int,
               tag: int, caller: Caller) -> None:
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise _error(errno.EINVAL)
        old = self._directory(parent)
        new = self._directory(newparent)
        source = self._find(parent, old, name)
        if source is None:
            if caller.again and not flags & RENAME_EXCHANGE:
                return
            raise _error(errno.ENOENT)
        target = self._find(newparent, new, newname)
        if flags & RENAME_EXCHANGE:
            self._exchange(old, name, new, newname, source, target, tag, caller)
        elif target is None or flags & RENAME_NOREPLACE:
            rename_at(old, name, new, newname, flags)
        else:
            self._replace(old, name, new, newname, source, target)

    def _replace(self, old: int, name: bytes, new: int, newname: bytes, source: Attributes,
                 target: Attributes) -> None:
        hidden = b"%d" % target.node
        if target.node != source.node and all(
                stat.S_ISDIR(found.stat.st_mode) for found in (source, target)):
            # A server that dies between these two is asked again, and finds the place free.
            moved = self._hide_directory(target.node, new, newname)
            try:
                rename_at(old, name, new, newname, 0)
            except OSError:
                if moved:
                    rename_at(self._hidden_directory, hidden, new, newname, 0)
                raise
            if moved:
                self._hide(target)
            return
        if (stat.S_ISDIR(target.stat.st_mode) or target.links > 1
                or target.node == source.node):
            rename_at(old, name, new, newname, 0)
            return
        # Hide the target by a second name first: renaming over its only one would free it while
        # a client may have it open.
        if target.node not in self._hidden:
            os.link(newname, hidden, src_dir_fd=new, dst_dir_fd=self._hidden_directory,
                    follow_symlinks=False)
        try:
            rename_at(old, name, new, newname, 0)
        except OSError:
            os.unlink(hidden, dir_fd=self._hidden_directory)
            self._hidden.discard(target.node)
            raise
        self._hide(target)

    def _exchange(self, old: int, name: bytes, new: int, newname: bytes, source: Attributes,
                  target: Attributes | None, tag: int, caller: Caller) -> None:
        if target is None:
            raise _error(errno.ENOENT)
        if self._notes.begun(tag, source.node, target.node, again=caller.again):
            return
        rename_at(old, name, new, newname, RENAME_EXCHANGE)

    def entries(self, node: int, offset: int) -> Iterator[tuple[bytes, Attributes, int]]:
        directory = self._nodes.open(node, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name, at in listing.names(directory, offset, stable=self._stable_offsets):
                if found := self._find(node, directory, name):
                    yield name, found, at
        finally:
            os.close(directory)

    # Nodes

    def attributes(self, node: int) -> Attributes:
        kept = self._descriptors.kept(node, _AT)
        if kept is not None:
            return self._attributes(node, os.fstat(kept))
        fd = self._nodes.open(node, os.O_PATH)
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        return self._attributes(node, found)

    def change(self, node: int, *, mode: int | None = None, uid: int = -1, gid: int = -1,
               atime_ns: int | None = None, mtime_ns: int | None = None) -> Attributes:
        fd = self._nodes.open(node, os.O_PATH)
        try:
            path = b"/proc/self/fd/%d" % fd
            # Owner before mode: chown(2) clears set-user-id.
            if uid != -1 or gid != -1:
                os.chown(path, uid, gid)
            if mode is not None:
                os.chmod(path, stat.S_IMODE(mode))
            if atime_ns is not None or mtime_ns is not None:
                now = os.fstat(fd)
                os.utime(path, ns=(now.st_atime_ns if atime_ns is None else atime_ns,
                                   now.st_mtime_ns if mtime_ns is None else mtime_ns))
            found = os.fstat(fd)
        finally:
            os.close(fd)
        return self._attributes(node, found)

    def readlink(self, node: int) -> bytes:
        fd = self._nodes.open(node, os.O_PATH)
        try:
            return os.readlink(b"", dir_fd=fd)
        finally:
            os.close(fd)

    def set_kind(self, node: int, kind: str) -> None:  # noqa: ARG002
        if kind == "contiguous":
            raise OSError(errno.EOPNOTSUPP, "only the kernel module has contiguous memory")
        if kind != "pages":
            raise OSError(errno.EINVAL, "the kind is pages or contiguous")

    def is_fixed(self, node: int) -> bool:  # noqa: ARG002
        return False

    def facts(self, node: int) -> dict[str, str]:  # noqa: ARG002
        return {"backend": self.name, "kind": "pages", "locked": str(int(self.locked)),
                "owners": "[]"}

    def forget(self, node: int) -> int | None:
        if node not in self._hidden:
            return None
        self._descriptors.drop(node)
        self._hidden.discard(node)
        self._emptied.discard(node)
        name = b"%d" % node
        try:
            last = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC,
                           dir_fd=self._hidden_directory)
        except FileNotFoundError:
            return None  # an earlier server has done it
        if stat.S_ISDIR(os.fstat(last).st_mode):
            os.rmdir(name, dir_fd=self._hidden_directory)
        else:
            os.unlink(name, dir_fd=self._hidden_directory)
        self._nodes.forget(node)
        return last

    def empty(self, node: int) -> int | None:
        fd = os.open(b"%d" % node, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC,
                     dir_fd=self._hidden_directory)
        try:
            # A mapping with passthrough holds this file and no file of the mount. The kernel
            # grants this lease only to who has the one open file; it ends when it is closed.
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            os.close(fd)
            return None
        self._emptied.add(node)
        return fd

    def hidden(self) -> list[int]:
        return sorted(self._hidden)

    # Descriptors and bytes

    def open(self, node: int, flags: int) -> int:
        if node in self._emptied:
            # Looked up before it was removed, opened after: the kernel looks it up again.
            raise _error(errno.ESTALE)
        return self._nodes.open(node, flags)

    def _require(self, need: int) -> None:
        """Refuses at once what would fail after a long time, or call the OOM killer."""
        if need < LARGE:
            return
        store = os.fstatvfs(self._areas)
        if need > store.f_bavail * store.f_frsize:
            raise _error(errno.ENOSPC)
        if need + RESERVE > memory_available():
            raise _error(errno.ENOMEM)

    def resize(self, fd: int, size: int) -> None:
        now = os.fstat(fd).st_size
        if size > now:
            self._require(size - now)
            start = now - now % PAGE
            allocate(fd, 0, start, size - start)
        # Also where it changes no size: it sets the times as POSIX says.
        os.ftruncate(fd, size)

    def allocate(self, fd: int, mode: int, offset: int, length: int) -> None:
        found = os.fstat(fd)
        self._require(offset + length - max(found.st_size, found.st_blocks * 512))
        allocate(fd, mode, offset, length)

    def read(self, node: int, offset: int, size: int) -> bytes:
        return os.pread(self._descriptors.get(node, os.O_RDWR), size, offset)

    def write(self, node: int, offset: int, data: bytes) -> int:
        return os.pwrite(self._descriptors.get(node, os.O_RDWR), data, offset)

    def statvfs(self) -> os.statvfs_result:
        return os.fstatvfs(self._areas)
