# SPDX-License-Identifier: MIT
"""Who is told of notifications by poll, select and epoll, and what is kept of those who wait."""

from __future__ import annotations

import select

import pytest

from mbufffs import waiters
from mbufffs.waiters import READABLE, Waiters

POLL = select.POLLIN | select.POLLERR | select.POLLHUP
# What select(2) asks a file for: POLLPRI always, and by the sets that the file is in.
SELECT_READ = select.POLLPRI | select.POLLIN | select.POLLRDNORM | select.POLLHUP | select.POLLERR
SELECT_WRITE = select.POLLPRI | select.POLLOUT | select.POLLWRNORM | select.POLLERR
SELECT_OTHER = select.POLLPRI
WRITABLE = select.POLLOUT | select.POLLWRNORM


class Handle:
    def __init__(self) -> None:
        self.woken = 0

    def notify(self) -> None:
        self.woken += 1


@pytest.fixture
def counts() -> dict[int, int]:
    return {}


@pytest.fixture
def waiting(counts: dict[int, int]) -> Waiters:
    return Waiters(lambda node: counts.get(node, 0))


@pytest.mark.parametrize("wanted", [POLL, SELECT_READ, SELECT_OTHER, select.POLLPRI | POLL])
def test_a_notification_is_told_once_to_each_open_file(
        counts: dict[int, int], waiting: Waiters, wanted: int) -> None:
    counts[7] = 2
    for opened in (1, 2):
        assert waiting.poll(7, opened, wanted, 0, None) == READABLE | WRITABLE
        assert waiting.poll(7, opened, wanted, 0, None) == WRITABLE
    counts[7] = 3
    assert waiting.poll(7, 1, wanted, 0, None) == READABLE | WRITABLE


@pytest.mark.parametrize("wanted", [SELECT_WRITE, select.POLLOUT, 0])
def test_who_does_not_wait_for_it_takes_nothing_from_who_does(
        counts: dict[int, int], waiting: Waiters, wanted: int) -> None:
    counts[7] = 1
    waiting.poll(7, 1, wanted, 0, None)
    assert waiting.poll(7, 1, POLL, 0, None) == READABLE | WRITABLE


@pytest.mark.parametrize(("line", "told_again"), [
    (b"7 0x1 0x2", False), (b"running\n", True), (b"233 0x1", True), (b"", False)])
def test_epoll_ctl_takes_nothing_from_epoll_wait(
        counts: dict[int, int], waiting: Waiters, monkeypatch: pytest.MonkeyPatch,
        line: bytes, told_again: bool) -> None:
    monkeypatch.setattr(waiters, "EPOLL_CTL", (b"233",))
    monkeypatch.setattr(waiters, "_syscall_of", lambda thread: line)
    counts[7] = 1
    waiting.poll(7, 1, POLL, 5, None)
    assert (waiting.poll(7, 1, POLL, 5, None) == READABLE | WRITABLE) is told_again


def test_a_thread_on_its_way_to_sleep_is_looked_at_again(
        counts: dict[int, int], waiting: Waiters, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter([b"running\n", b"running\n", b"7 0x1 0x2"])
    monkeypatch.setattr(waiters, "_syscall_of", lambda thread: next(lines))
    counts[7] = 1
    assert waiting.poll(7, 1, POLL, 5, None) == READABLE | WRITABLE
    assert waiting.poll(7, 1, POLL, 5, None) == WRITABLE


def test_where_nobody_can_notify_the_kernel_asks_no_more() -> None:
    assert Waiters(lambda node: None).poll(7, 1, POLL, 0, Handle()) is None


def test_who_waits_is_woken_once(waiting: Waiters) -> None:
    handle = Handle()
    waiting.poll(7, 1, POLL, 0, handle)
    waiting.wake(7)
    waiting.wake(7)
    assert handle.woken == 1


def test_more_waiters_than_the_bound_are_woken_once_and_then_may_be_so_many(
        waiting: Waiters) -> None:
    handles = {opened: Handle() for opened in range(waiters.POLLERS_MAX + 100)}
    for _ in range(3):
        for opened, handle in handles.items():
            waiting.poll(7, opened, POLL, 0, handle)
    woken = [handle.woken for handle in handles.values()]
    assert set(woken) == {0, 1}
    assert sum(woken) == waiters.POLLERS_MAX


def test_files_that_are_closed_do_not_become_more_and_more(waiting: Waiters) -> None:
    for opened in range(20 * waiters.POLLERS_MAX):
        waiting.poll(7, opened, POLL, 0, Handle())
        assert len(waiting._handles[7]) <= waiters.POLLERS_MAX


def test_what_has_gone_leaves_nothing(waiting: Waiters) -> None:
    for node in range(100):
        waiting.poll(node, node, POLL, 0, Handle())
        waiting.forget(node)
    assert not waiting._handles
