# SPDX-License-Identifier: MIT
"""Waiting for notifications by path: what holds whoever it is that notifies."""

from __future__ import annotations

import mmap
import select
import threading
from collections.abc import Callable
from pathlib import Path

from tests.conftest import wait_for
from tests.kernel.inside.mount.conftest import PATIENCE

Notify = Callable[[], object]
Wait = Callable[[float], object]  # for so many seconds


def told_no_more(wait: Wait) -> None:
    """A report is one, but where others have the processor it may come twice: waiters.py."""
    wait_for(lambda: not wait(0.05), "nothing is told anymore")


def each_way_is_woken(path: Path, notify: Notify) -> None:
    with path.open("rb") as opened, select.epoll() as epoll:
        poll = select.poll()
        poll.register(opened, select.POLLIN)
        epoll.register(opened, select.EPOLLIN)
        waits: list[Wait] = [
            lambda seconds: poll.poll(seconds * 1000),
            lambda seconds: select.select([opened], [], [], seconds)[0],
            epoll.poll,
        ]
        for wait in waits:
            assert not wait(0.05)
            timer = threading.Timer(0.2, notify)
            timer.start()
            assert wait(PATIENCE)
            timer.join()
            told_no_more(wait)


def no_wakeup_is_lost(path: Path, notify: Notify) -> None:
    """Each answer is asked for by a notification, so one that is lost would end it."""
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        poll = select.poll()
        poll.register(opened, select.POLLIN)

        def count() -> None:
            for number in range(1, 101):
                while mapped[0] != number - 1:
                    answered.wait(PATIENCE)
                    answered.clear()
                mapped[1] = number
                notify()

        answered = threading.Event()
        thread = threading.Thread(target=count)
        thread.start()
        for number in range(1, 101):
            while mapped[1] != number:
                assert poll.poll(PATIENCE * 1000), f"notification {number} was lost"
            mapped[0] = number
            answered.set()
        thread.join()
