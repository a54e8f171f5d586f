# SPDX-License-Identifier: MIT
"""Translates between pyfuse3 and a backend, and does nothing else.

Handlers without an await are critical sections of the event loop. Only a change of size awaits: it
runs in a thread when it is large, and areas in _turns have one under way.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
import math
import os
import stat
import struct
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext, SetattrFields

from mbufffs.backends import SECRETS, Attributes, Backend, Caller, Change
from mbufffs.backends.shmem import LARGE
from mbufffs.channel import (
    FALLOCATE_NAME,
    FALLOCATE_WORDS,
    FORGET_DONE,
    FORGET_OPEN,
    FORGET_UNOPENED,
    ask_message,
    split_exchange,
    watch_message,
)
from mbufffs.privileges import has_cap_sys_admin
from mbufffs.waiters import Waiters

log = logging.getLogger(__name__)

FOREVER = 3600.0  # seconds; all changes come through the mount, so the kernel may believe its cache
PREFIX = b"user.mbuff."
KIND_NAME = PREFIX + b"kind"
ASKING = 1.0  # seconds within which the channel tells whether a removed area is open
FREEING = 2.0  # seconds after a removal in which a lack of memory may still mend itself
FREEING_STEP = 0.05  # seconds in which some of it must have come back
FREEING_RATE = 1 << 30  # bytes a second that are freed at least; the store shows it at the end only
BACKING_OPEN = 0x4010E501  # _IOW(229, 1, struct fuse_backing_map)
BACKING_CLOSE = 0x4004E502  # _IOW(229, 2, u32)

_seen_bugs: set[str] = set()

_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])


def _log_bug(where: str) -> None:
    text = traceback.format_exc()
    if text not in _seen_bugs:
        _seen_bugs.add(text)
        log.error("a bug in %s; a client that asked got EIO:\n%s", where, text)


def handler(function: _Handler) -> _Handler:
    """The one place where errors become FUSEError: anything else would end the mount."""

    @functools.wraps(function)
    async def handled(*args: Any) -> Any:
        try:
            return await function(*args)
        except FUSEError:
            raise
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        except Exception:
            _log_bug(function.__name__)
            raise FUSEError(errno.EIO) from None

    return handled  # type: ignore[return-value]


def _caller(context: RequestContext) -> Caller:
    # Bit 31 of the pid is the channel's mark: sent to an earlier server before.
    return Caller(context.uid, context.gid, context.pid < 0)


def _is_member(context: RequestContext, group: int) -> bool:
    if context.uid == 0 or context.gid == group:
        return True
    try:
        return group in pyfuse3.get_sup_groups(context.pid & 0x7FFFFFFF)
    except OSError:  # it has ended, or is of another pid namespace
        return False


def _may_see(context: RequestContext) -> bool:
    return context.uid == 0 and has_cap_sys_admin(context.pid & 0x7FFFFFFF)


def _fill(entry: EntryAttributes, attributes: Attributes) -> EntryAttributes:
    found = attributes.stat
    entry.st_ino = attributes.node
    entry.st_mode = found.st_mode
    entry.st_nlink = attributes.links
    entry.st_uid = found.st_uid
    entry.st_gid = found.st_gid
    entry.st_rdev = found.st_rdev
    entry.st_size = found.st_size
    entry.st_blocks = found.st_blocks
    entry.st_atime_ns = found.st_atime_ns
    entry.st_mtime_ns = found.st_mtime_ns
    entry.st_ctime_ns = found.st_ctime_ns
    entry.entry_timeout = FOREVER
    entry.attr_timeout = FOREVER
    return entry


def _entry(attributes: Attributes) -> EntryAttributes:
    return _fill(EntryAttributes(), attributes)


class _Removal:
    """A removed area of which the channel was asked whether it is open."""

    def __init__(self) -> None:
        self.answer = FORGET_OPEN
        self.answered = trio.Event()
        self.settled = trio.Event()  # it has been emptied, or it is left as it is


class Operations(pyfuse3.Operations):
    def __init__(self, backend: Backend, tell: Callable[[bytes], None],
                 device: int | None) -> None:
        """`tell` sends the channel a message; `device` is a descriptor of the connection, for
        passthrough, None to do without.
        """
        super().__init__()
        self._backend = backend
        self._tell = tell
        self._hidden_large: int | None = None  # by the removal under way
        backend.on_hidden = self._on_hidden
        self._begun = trio.Event()
        backend.on_change = self._on_change
        self._waiters = Waiters(backend.notified)
        self._removals: dict[int, _Removal] = {}
        self._device = device
        self._turns: dict[int, tuple[trio.Lock, list[None]]] = {}
        self._removed = -math.inf  # when an area was removed last, in trio's time
        self._freed = -math.inf  # when the memory of all forgotten areas is back

    # Names

    @handler
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        try:
            found = self._backend.lookup(parent_inode, name)
            # By a file handle the kernel asks only for what it does not know: what is removed it
            # has forgotten, and that message is still on its way.
            if name == b"." and not found.links:
                raise FUSEError(errno.ESTALE)
            return _entry(found)
        except FileNotFoundError:
            # Node 0: the kernel remembers that there is no such name.
            missing = EntryAttributes()
            missing.st_ino = 0
            missing.entry_timeout = FOREVER
            return missing

    @handler
    async def create(self, parent_inode: int, name: bytes, mode: int, flags: int,
                     ctx: RequestContext) -> tuple[FileInfo, EntryAttributes]:
        found, made = self._backend.create(parent_inode, name, mode, _caller(ctx),
                                           exclusive=bool(flags & os.O_EXCL))
        if not made:
            # The kernel asks no rights of whom it takes for the maker; so it looks up again.
            raise FUSEError(errno.ESTALE)
        return self._opened(found.node), _entry(found)

    @handler
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int,
                    ctx: RequestContext) -> EntryAttributes:
        return _entry(self._backend.mknod(parent_inode, name, mode, rdev, _caller(ctx)))

    @handler
    async def mkdir(self, parent_inode: int, name: bytes, mode: int,
                    ctx: RequestContext) -> EntryAttributes:
        return _entry(self._backend.mkdir(parent_inode, name, mode, _caller(ctx)))

    @handler
    async def symlink(self, parent_inode: int, name: bytes, target: bytes,
                      ctx: RequestContext) -> EntryAttributes:
        return _entry(self._backend.symlink(parent_inode, name, target, _caller(ctx)))

    @handler
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes,
                   ctx: RequestContext) -> EntryAttributes:
        return _entry(self._backend.link(inode, new_parent_inode, new_name, _caller(ctx)))

    @handler
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self._removed = trio.current_time()
        self._hidden_large = None
        self._backend.unlink(parent_inode, name, _caller(ctx))
        await self._give_back()

    @handler
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self._backend.rmdir(parent_inode, name, _caller(ctx))

    @handler
    async def rename(self, parent_inode_old: int, name_old: bytes, parent_inode_new: int,
                     name_new: bytes, flags: int, ctx: RequestContext) -> None:
        self._removed = trio.current_time()  # maybe: of what is replaced
        self._hidden_large = None
        flags, tag = split_exchange(flags & 0xFFFFFFFF)
        self._backend.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags,
                             tag, _caller(ctx))
        await self._give_back()

    # What is not done through the mount: the kernel is told to ask again.

    async def watch(self) -> None:
        """Follows the backend's events, for as long as the mount lives."""
        # libfuse passes nothing on before it has seen INIT.
        await self._begun.wait()
        while self._backend.events is not None:
            try:
                more = self._backend.refresh()
            except Exception:
                _log_bug("watch")
                more = False
            if more:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._backend.events)

    def init(self) -> None:
        self._begun.set()

    def _on_change(self, change: Change) -> None:
        try:
            self._tell_change(change)
        except OSError as error:
            # The kernel does not know it, which is as good.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                log.warning("cannot tell the kernel of a change: %s", error)

    def _tell_change(self, change: Change) -> None:
        # Not in a thread: these go to the channel, which always reads.
        if change.name is not None:
            pyfuse3.invalidate_entry(change.parent, change.name, change.node)
            if change.node:
                self._waiters.wake(change.node)  # who waits for what has gone; also, its handles go
        elif not change.notified:
            pyfuse3.invalidate_inode(change.node, attr_only=True)
        else:
            self._waiters.wake(change.node)

    @handler
    async def poll(self, inode: int, fh: int, poll_handle: pyfuse3.PollHandle | None,
                   ctx: RequestContext) -> int:
        # The channel puts the kernel's number of the open file here, and what it is polled for.
        ready = self._waiters.poll(inode, fh >> 16, fh & 0xFFFF, ctx.pid & 0x7FFFFFFF, poll_handle)
        if ready is None:
            raise FUSEError(errno.ENOSYS)
        return ready

    def _on_hidden(self, node: int, size: int) -> None:
        if size >= LARGE:
            self._hidden_large = node
        self._tell(watch_message([node]))

    async def _give_back(self) -> None:
        """Frees what was just removed before rm(1) returns, as tmpfs does, if nobody has it open.

        Small areas are freed a little later, when the kernel forgets them: no round trip for them.
        """
        node, self._hidden_large = self._hidden_large, None
        if node is None:
            return
        removal = self._removals[node] = _Removal()
        try:
            self._tell(ask_message(node))
            with trio.move_on_after(ASKING):
                await removal.answered.wait()
            if removal.answer == FORGET_UNOPENED:
                await self._empty(node)
        finally:
            del self._removals[node]
            removal.settled.set()

    async def _empty(self, node: int) -> None:
        fd = self._backend.empty(node)
        if fd is None:
            return
        try:
            await trio.to_thread.run_sync(os.ftruncate, fd, 0)
        except OSError as error:
            # A dma-buf has its pages: they go with it.
            if error.errno != errno.EBUSY:
                raise
        finally:
            os.close(fd)

    # Directories are read by node and offset, so any server goes on where another one died.

    @handler
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        return inode

    @handler
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        entry = EntryAttributes()
        for name, attributes, offset in self._backend.entries(fh, start_id):
            if not pyfuse3.readdir_reply(token, name, _fill(entry, attributes), offset):
                return

    @handler
    async def releasedir(self, fh: int) -> None:
        pass

    # Nodes

    @handler
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return _entry(self._backend.attributes(inode))

    @handler
    async def setattr(self, inode: int, attr: EntryAttributes, fields: SetattrFields,
                      fh: int | None, ctx: RequestContext) -> EntryAttributes:
        mode = attr.st_mode if fields.update_mode else None
        if fields.update_size:
            await self._resize(inode, attr.st_size)
        changes_owner = fields.update_uid or fields.update_gid
        nothing = not (fields.update_size or fields.update_mode or changes_owner
                       or fields.update_atime or fields.update_mtime)
        if mode is None and (nothing or changes_owner or (fields.update_size and ctx.uid != 0)):
            # HANDLE_KILLPRIV_V2: the kernel leaves it to us to take set-id bits from what somebody
            # without the right to keep them has changed.
            mode = self._without_set_id(inode, ctx)
        return _entry(self._backend.change(
            inode, mode=mode,
            uid=attr.st_uid if fields.update_uid else -1,
            gid=attr.st_gid if fields.update_gid else -1,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None))

    def _without_set_id(self, node: int, ctx: RequestContext) -> int | None:
        found = self._backend.attributes(node).stat
        mode = found.st_mode
        cleared = mode & ~stat.S_ISUID
        # Without the right to execute this bit once meant a lock: members of the group keep it.
        if mode & stat.S_IXGRP or (mode & stat.S_ISGID and not _is_member(ctx, found.st_gid)):
            cleared &= ~stat.S_ISGID
        return None if stat.S_ISDIR(mode) or cleared == mode else cleared

    @handler
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return self._backend.readlink(inode)

    @handler
    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        return True  # the mount has default_permissions: the kernel decides

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self._removed = trio.current_time()
        for node, answer in inode_list:
            if answer == FORGET_DONE:
                self._waiters.forget(node)
            if node in self._removals:
                self._removals[node].answer = answer
                self._removals[node].answered.set()
            if answer != FORGET_DONE:
                continue
            try:
                last = self._backend.forget(node)
            except OSError as error:
                log.warning("cannot drop removed area %d: %s", node, error)
                continue
            if last is None:
                continue
            size = os.fstat(last).st_blocks * 512
            self._freed = max(self._freed, self._removed) + size / FREEING_RATE
            if size < LARGE:
                os.close(last)
            else:
                await trio.to_thread.run_sync(os.close, last)

    # Sizes

    async def _resize(self, node: int, size: int) -> None:
        fd = self._backend.open(node, os.O_RDWR)
        try:
            found = os.fstat(fd)
            # It may have memory beyond its end, which goes, too.
            large = max(abs(size - found.st_size), abs(size - found.st_blocks * 512)) >= LARGE
            await self._in_turn(node, large, self._backend.resize, fd, size)
        finally:
            os.close(fd)

    async def _cut(self, node: int) -> None:
        """O_TRUNC. An area that the kernel holds keeps its size, as a device file would."""
        if self._backend.is_fixed(node):
            return
        try:
            await self._resize(node, 0)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise

    async def _in_turn(self, node: int, large: bool, function: Callable[..., None],
                       *args: int) -> None:
        """Changes of one area follow each other; those of others never wait for them."""
        if not large and node not in self._turns:
            try:
                function(*args)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                    raise
        lock, waiting = self._turns.setdefault(node, (trio.Lock(), []))
        waiting.append(None)
        try:
            async with lock:
                await self._patiently(function, *args)
        finally:
            waiting.pop()
            if not waiting:
                del self._turns[node]

    async def _patiently(self, function: Callable[..., None], *args: int) -> None:
        """Memory of a removed area comes back a little after rm(1) has: wait while it does."""
        free = -1
        while True:
            try:
                await trio.to_thread.run_sync(function, *args)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                    raise
                now = self._backend.statvfs().f_bfree
                if trio.current_time() > self._freed and (
                        now <= free or trio.current_time() > self._removed + FREEING):
                    raise
                free = now
            await trio.sleep(FREEING_STEP)

    # Bytes

    def _opened(self, node: int) -> FileInfo:
        backing = self._register(node)
        if not backing and not self._backend.page_cache:
            # So a shared mapping is refused (ENODEV).
            return FileInfo(fh=0, direct_io=True, keep_cache=False)
        return FileInfo(fh=backing, keep_cache=True)

    def _register(self, node: int) -> int:
        """A fresh backing id for one open, 0 without passthrough; the channel may use another."""
        if self._device is None:
            return 0
        fd = self._backend.open(node, os.O_PATH)
        try:
            return int(fcntl.ioctl(self._device, BACKING_OPEN,
                                   bytearray(struct.pack("=iIQ", fd, 0, 0)), True))
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTTY, errno.EOPNOTSUPP):
                raise
            log.info("no passthrough: %s", error.strerror)
            self._device = None
            return 0
        finally:
            os.close(fd)

    @handler
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        if removal := self._removals.get(inode):
            # The answer that nobody has it open must not become untrue before it is acted on.
            await removal.settled.wait()
        if flags & os.O_TRUNC:
            await self._cut(inode)
            mode = self._without_set_id(inode, ctx) if ctx.uid != 0 else None
            if mode is not None:
                self._backend.change(inode, mode=mode)
        return self._opened(inode)

    @handler
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self._backend.read(fh, off, size)

    @handler
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return self._backend.write(fh, off, buf)

    @handler
    async def flush(self, fh: int) -> None:
        pass

    @handler
    async def release(self, fh: int) -> None:
        pass

    @handler
    async def fsync(self, fh: int, datasync: bool) -> None:
        pass  # memory has no disk behind it

    @handler
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        pass

    @handler
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        found = self._backend.statvfs()
        data = pyfuse3.StatvfsData()
        for field in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files",
                      "f_ffree", "f_favail", "f_namemax"):
            setattr(data, field, getattr(found, field))
        return data

    # Extended attributes

    def _facts(self, node: int, ctx: RequestContext) -> dict[bytes, bytes]:
        if not stat.S_ISREG(self._backend.attributes(node).stat.st_mode):
            return {}
        facts = self._backend.facts(node)
        for name in SECRETS & facts.keys():
            if int(facts[name], 16) and not _may_see(ctx):
                facts[name] = "0x0"
        facts["passthrough"] = str(int(self._passes_through(node)))
        return {PREFIX + name.encode(): value.encode() for name, value in facts.items()}

    def _passes_through(self, node: int) -> bool:
        backing = self._register(node)
        if backing:
            fcntl.ioctl(self._device or 0, BACKING_CLOSE, struct.pack("=I", backing))
        return backing > 0

    @handler
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        value = self._facts(inode, ctx).get(name)
        if value is None:
            raise FUSEError(pyfuse3.ENOATTR)
        return value

    @handler
    async def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        return list(self._facts(inode, ctx))

    @handler
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        if name == FALLOCATE_NAME:
            # FALLOCATE in disguise; the channel lets no client use this name.
            await self._fallocate(inode, *FALLOCATE_WORDS.unpack(value))
            return
        if not name.startswith(PREFIX):
            raise FUSEError(errno.EOPNOTSUPP)
        found = self._backend.attributes(inode).stat
        if name == KIND_NAME and stat.S_ISREG(found.st_mode):
            if ctx.uid not in (0, found.st_uid):
                raise FUSEError(errno.EPERM)
            try:
                kind = value.decode("ascii")
            except UnicodeDecodeError:
                raise FUSEError(errno.EINVAL) from None
            self._backend.set_kind(inode, kind)
            return
        # A copy that keeps attributes (cp -a) may write what is there anyway.
        if self._facts(inode, ctx).get(name) != value:
            raise FUSEError(errno.EPERM)

    async def _fallocate(self, node: int, offset: int, length: int, mode: int) -> None:
        fd = self._backend.open(node, os.O_RDWR)
        try:
            await self._in_turn(node, length >= LARGE, self._backend.allocate, fd, mode, offset,
                                length)
        finally:
            os.close(fd)

    @handler
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        if name in self._facts(inode, ctx):
            raise FUSEError(errno.EPERM)
        raise FUSEError(pyfuse3.ENOATTR)
