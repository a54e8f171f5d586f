# SPDX-License-Identifier: MIT
"""Who waits for notifications of an area by poll, select or epoll, and what they were told."""

from __future__ import annotations

import os
import select
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

READABLE = select.POLLIN | select.POLLRDNORM | select.POLLPRI
POLLERS_MAX = 1024  # open files of one area that are remembered to be waiting
SEEN_MAX = 65536  # open files of which is known what they have been told
LOOKS = 200  # at a thread on its way to sleep; together about a millisecond
EPOLL_CTL = {"x86_64": (b"233", b"255"), "aarch64": (b"21", b"251")}.get(
    os.uname().machine, ())  # its number; for programs of 32 bits too


class Handle(Protocol):
    """What wakes a waiter: pyfuse3.PollHandle."""

    def notify(self) -> None: ...


def _syscall_of(thread: int) -> bytes:
    try:
        with open(f"/proc/{thread}/syscall", "rb") as line:
            return line.read()
    except OSError:  # it has ended, or is of another pid namespace
        return b""


def _only_registers(thread: int) -> bool:
    """Whether this poll is epoll_ctl(2)'s: it tells nobody, so epoll_wait(2) asks again.

    "running" is one on its way to sleep until it is answered. One that does not get there, because
    others have the processor, is told once more, which is allowed.
    """
    for _ in range(LOOKS):
        name = _syscall_of(thread).split(None, 1)[:1]
        if name != [b"running"]:
            return name in [[number] for number in EPOLL_CTL]
        os.sched_yield()
    return True


def _takes_report(wanted: int) -> bool:
    """Whether who polls for these is told of reading. select(2) always asks for POLLPRI too."""
    if wanted & (select.POLLIN | select.POLLRDNORM):
        return True
    if not wanted & select.POLLPRI:
        return False
    return bool(wanted & select.POLLHUP) or not wanted & select.POLLOUT


class Waiters:
    def __init__(self, notified: Callable[[int], int | None]) -> None:
        """`notified`: how many notifications a node has had, None where nobody can notify."""
        self._notified = notified
        self._handles: dict[int, dict[int, Handle]] = {}
        self._handles_max = POLLERS_MAX
        self._woken: dict[int, set[int]] = {}  # by node, when they were too many
        self._seen: OrderedDict[int, int] = OrderedDict()

    def wake(self, node: int) -> None:
        for handle in self._handles.pop(node, {}).values():
            handle.notify()

    def forget(self, node: int) -> None:
        self._handles.pop(node, None)
        self._woken.pop(node, None)

    def poll(self, node: int, opened: int, wanted: int, thread: int,
             handle: Handle | None) -> int | None:
        """The events that are there for the kernel's open file `opened`; None: ask no more.

        `thread` polls for the events `wanted`; `handle` is to be notified when there are new ones.
        """
        if handle is not None:
            known = self._handles.setdefault(node, {})
            if len(known) >= self._handles_max and opened not in known:
                # Files that are closed leave theirs here. Who still waits asks again; if most of
                # those did that were woken before, they may stay.
                if 2 * len(self._woken.get(node, set()) & known.keys()) > self._handles_max:
                    self._handles_max *= 2
                else:
                    self._woken[node] = set(known)
                    self.wake(node)
            self._handles.setdefault(node, {})[opened] = handle
        # After the handle is kept: a notification from here on finds it.
        count = self._notified(node)
        if count is None:
            return None
        ready = select.POLLOUT | select.POLLWRNORM
        if count != self._seen.get(opened, 0):
            ready |= READABLE
            if _takes_report(wanted) and not _only_registers(thread):
                self._seen[opened] = count
                self._seen.move_to_end(opened)
                if len(self._seen) > SEEN_MAX:
                    # It will be told once too often, which is allowed; too seldom is not.
                    self._seen.popitem(last=False)
        return ready
