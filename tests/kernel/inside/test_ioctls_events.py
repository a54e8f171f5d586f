# SPDX-License-Identifier: MIT
"""The stream of events of /dev/mbuff: who is told of what, once, and what is told again."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections.abc import Iterator

import pytest

from mbufffs.backends import registry as abi
from mbufffs.backends.registry import Event, Kind, Registry
from tests.kernel.inside.conftest import given_back
from tests.kernel.inside.raw_ioctl import PAGE, libc, read_events, refused

pytestmark = pytest.mark.rt

LONGEST = b"x/" * 2047 + b"x"
QUEUE_BYTES = 8 << 20  # QUEUE_BYTES_MAX of events.c


@pytest.fixture
def actor(loaded: None) -> Iterator[Registry]:
    """Who does what is to be told."""
    with given_back() as registry:
        yield registry


@pytest.fixture
def watcher(loaded: None) -> Iterator[Registry]:
    with contextlib.closing(Registry.open()) as registry:
        yield registry


@pytest.fixture
def events(watcher: Registry) -> Iterator[int]:
    fd = watcher.events()
    os.set_blocking(fd, False)
    yield fd
    os.close(fd)


def test_each_change_is_told_once_and_in_order(actor: Registry, events: int) -> None:
    area = actor.create(b"a", size=PAGE)
    actor.resize(area, 2 * PAGE)
    actor.rename(b"a", b"b")
    actor.change(area, mode=0o600)
    actor.remove(area)
    assert read_events(events) == [
        Event(Kind.CREATED, area, 0, b"a"), Event(Kind.RESIZED, area, 0, b""),
        Event(Kind.RENAMED, area, 0, b"b", b"a"), Event(Kind.CHANGED, area, 0, b""),
        Event(Kind.REMOVED, area, 0, b"b")]
    assert read_events(events) == []


def test_nobody_is_told_what_he_did_himself(watcher: Registry, events: int) -> None:
    area = watcher.create(b"a", size=PAGE)
    watcher.resize(area, 2 * PAGE)
    watcher.change(area, mode=0o600)
    weak = watcher.open_area(area, os.O_RDWR, weak=True)
    os.ftruncate(weak, PAGE)
    os.posix_fallocate(weak, 0, 2 * PAGE)
    os.pwrite(weak, b"x", 3 * PAGE)
    os.close(weak)
    watcher.rename(b"a", b"b")
    watcher.remove(area)
    assert read_events(events) == []


def test_a_replaced_area_is_told_as_removed(actor: Registry, events: int) -> None:
    areas = [actor.create(name) for name in (b"a", b"b")]
    read_events(events)
    actor.rename(b"a", b"b")
    assert [(event.kind, event.id, event.name) for event in read_events(events)] == [
        (Kind.REMOVED, areas[1], b"b"), (Kind.RENAMED, areas[0], b"b")]


def test_what_only_says_look_again_is_told_once(actor: Registry, events: int) -> None:
    area = actor.create(b"a")
    read_events(events)
    for size in range(10):
        actor.resize(area, size)
    assert [event.kind for event in read_events(events)] == [Kind.RESIZED]


def test_many_notifications_of_an_area_are_one_event_with_their_number(
        actor: Registry, events: int) -> None:
    areas = [actor.create(b"%d" % number) for number in range(40)]
    read_events(events)
    for area in areas:
        for _ in range(3):
            actor.notify(area)
    told = []
    while more := read_events(events):
        told += more
    assert told == [Event(Kind.NOTIFIED, area, 3, b"") for area in areas]
    actor.notify(areas[0])
    assert read_events(events) == [Event(Kind.NOTIFIED, areas[0], 4, b"")]


def test_a_reader_after_a_killed_one_is_told_again(actor: Registry, events: int) -> None:
    area = actor.create(b"a")
    actor.notify(area)
    first = read_events(events)
    assert [event.kind for event in first] == [Kind.CREATED, Kind.NOTIFIED]
    actor.rename(b"a", b"b")
    os.lseek(events, 0, os.SEEK_SET)
    assert [(event.kind, event.name) for event in read_events(events)] == [
        (Kind.CREATED, b"a"), (Kind.RENAMED, b"b")]
    assert read_events(events) == []
    os.lseek(events, 0, os.SEEK_SET)
    assert read_events(events) == []
    for offset, whence in ((1, os.SEEK_SET), (0, os.SEEK_CUR), (0, os.SEEK_END)):
        refused(errno.EINVAL, os.lseek, events, offset, whence)


def test_who_is_too_far_behind_is_told_that_he_lost_some(actor: Registry, events: int) -> None:
    area = actor.create(LONGEST)
    for number in range(QUEUE_BYTES // len(LONGEST) + 8):
        actor.rename(LONGEST[:-1] + b"xy"[number % 2:][:1], LONGEST[:-1] + b"yx"[number % 2:][:1])
    lost = [Event(Kind.LOST, 0, 0, b"")]
    assert read_events(events) == lost
    actor.remove(area)
    os.lseek(events, 0, os.SEEK_SET)
    assert [event.kind for event in read_events(events)][:1] == [Kind.LOST]
    assert read_events(events) == []
    actor.create(b"a")
    assert [event.kind for event in read_events(events)] == [Kind.CREATED]


def test_a_buffer_for_not_one_event_is_einval(actor: Registry, events: int) -> None:
    refused(errno.EAGAIN, os.read, events, abi._EVENT.size)
    area = actor.create(b"12345678")
    refused(errno.EINVAL, os.read, events, abi._EVENT.size)
    assert len(os.read(events, abi._EVENT.size + 8)) == abi._EVENT.size + 8
    actor.notify(area)
    refused(errno.EINVAL, os.read, events, abi._EVENT.size - 1)
    assert len(os.read(events, abi._EVENT.size)) == abi._EVENT.size


def test_an_unmapped_buffer_is_efault_and_loses_nothing(actor: Registry, events: int) -> None:
    actor.create(b"a")
    assert libc.read(events, PAGE, 4096) == -1
    os.lseek(events, 0, os.SEEK_SET)
    assert [event.kind for event in read_events(events)] == [Kind.CREATED]


def test_a_waiting_reader_is_woken(actor: Registry, watcher: Registry) -> None:
    fd = watcher.events()
    area = actor.create(b"b")
    read_events(fd)
    told: list[Event] = []
    for action in (lambda: actor.create(b"a"), lambda: actor.notify(area)):
        assert not select.select([fd], [], [], 0)[0]
        reader = threading.Thread(target=lambda: told.extend(read_events(fd)))
        reader.start()
        action()
        reader.join(30)
        assert not reader.is_alive()
    assert [event.kind for event in told] == [Kind.CREATED, Kind.NOTIFIED]
    actor.remove(area)
    assert select.select([fd], [], [], 30)[0]
    os.close(fd)


def test_listeners_come_and_go_under_events(actor: Registry, watcher: Registry) -> None:
    """No fault, and who stays misses nothing."""
    stays = watcher.events()
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            os.close(watcher.events())

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in threads:
        thread.start()
    count = 200
    for number in range(count):
        area = actor.create(b"%d" % number)
        actor.notify(area)
        actor.remove(area)
    done.set()
    for thread in threads:
        thread.join()
    told: list[Kind] = []
    while select.select([stays], [], [], 0)[0]:
        told += [event.kind for event in read_events(stays)]
    assert told.count(Kind.CREATED) == told.count(Kind.REMOVED) == count
    os.close(stays)


def test_events_outlive_the_device_file(actor: Registry) -> None:
    with contextlib.closing(Registry.open()) as watcher:
        fd = watcher.events()
    actor.create(b"a")
    assert [event.kind for event in read_events(fd)] == [Kind.CREATED]
    os.close(fd)
