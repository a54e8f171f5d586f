# SPDX-License-Identifier: MIT
"""The device backend beside others who use the module, and after a server that was killed."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs.backends import AREA, ROOT, Caller, Change
from mbufffs.backends.device import DeviceBackend
from mbufffs.backends.directories import prepare_directories
from mbufffs.backends.registry import Kind
from mbufffs.backends.shmem import ShmemBackend
from tests.unit.fake_registry import FakeRegistry

US = Caller(os.geteuid(), os.getegid())
AGAIN = Caller(os.geteuid(), os.getegid(), again=True)
Start = Callable[[], DeviceBackend]


class Killed(BaseException):
    pass


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    registry = FakeRegistry()
    yield registry
    os.close(registry.events)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "store").mkdir()
    prepare_directories(tmp_path / "store", 0o755)
    yield tmp_path / "store"
    # Not by Python, whose removal is recursive: a failed test may leave too deep directories.
    subprocess.run(["rm", "-rf", tmp_path / "store"], check=True)


@pytest.fixture
def start(registry: FakeRegistry, store: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as ends:
        def make() -> DeviceBackend:
            backend = DeviceBackend(registry, os.dup(registry.events), store)  # type: ignore[arg-type]
            ends.callback(backend.close)
            return backend

        yield make


@pytest.fixture
def backend(start: Start) -> DeviceBackend:
    return start()


def names(backend: DeviceBackend, node: int = ROOT) -> list[bytes]:
    return sorted(name for name, _, _ in backend.entries(node, 0) if name not in (b".", b".."))


def changes(backend: DeviceBackend) -> list[Change]:
    told: list[Change] = []
    backend.on_change = told.append
    backend.refresh()
    return told


def refused(code: int, function: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(OSError) as caught:
        function(*arguments)
    assert caught.value.errno == code, caught.value


def test_what_another_made_and_freed_meanwhile_does_not_take_the_name_of_ours(
        registry: FakeRegistry, backend: DeviceBackend) -> None:
    def make_and_free() -> None:
        registry.gap = lambda: None
        registry.remove(registry.create(b"x", told=True), told=True)

    backend.refresh()
    registry.gap = make_and_free
    found, made = backend.create(ROOT, b"x", 0o600, US, exclusive=True)
    assert made
    assert backend.lookup(ROOT, b"x").node == found.node
    assert names(backend) == [b"x"]


def test_what_another_renamed_meanwhile_and_we_removed_has_no_name(
        registry: FakeRegistry, backend: DeviceBackend) -> None:
    def rename() -> None:
        registry.gap = lambda: None
        registry.rename(b"a", b"b", told=True)

    registry.create(b"a", told=True)
    backend.refresh()
    registry.gap = rename
    backend.unlink(ROOT, b"a", US)
    refused(errno.ENOENT, backend.lookup, ROOT, b"b")
    backend.mkdir(ROOT, b"b", 0o755, US)
    backend.rmdir(ROOT, b"b", US)


def test_an_area_that_took_the_place_of_the_one_that_is_renamed_is_shown(
        registry: FakeRegistry, backend: DeviceBackend) -> None:
    def replace() -> None:
        registry.gap = lambda: None
        registry.remove(first, told=True)
        theirs.append(registry.create(b"a", told=True))

    theirs: list[int] = []
    first = registry.create(b"a", told=True)
    backend.refresh()
    registry.gap = replace
    told: list[Change] = []
    backend.on_change = told.append
    backend.rename(ROOT, b"a", ROOT, b"c", 0, 0, US)
    assert (ROOT, b"c") in [(change.parent, change.name) for change in told]
    backend.refresh()
    assert names(backend) == [b"c"]
    assert backend.lookup(ROOT, b"c").node == AREA | theirs[0]


def test_an_area_that_we_have_renamed_before_we_heard_of_it_is_shown(
        registry: FakeRegistry, backend: DeviceBackend) -> None:
    area = registry.create(b"a", told=True)
    backend.refresh()
    registry.tell(Kind.CREATED, area, b"a")  # as if it had come only now
    registry.rename(b"a", b"c")
    backend._names.put(area, b"c")
    backend.refresh()
    assert names(backend) == [b"c"]
    assert backend.lookup(ROOT, b"c").node == AREA | area


def test_a_directory_whose_mode_was_set_stays_without_areas(
        registry: FakeRegistry, backend: DeviceBackend) -> None:
    registry.create(b"cam0/frame", told=True)
    directory = backend.lookup(ROOT, b"cam0").node
    backend.change(directory, mode=0o700)
    registry.remove(next(iter(registry.names)), told=True)
    backend.refresh()
    assert names(backend) == [b"cam0"]
    assert backend.lookup(ROOT, b"cam0").stat.st_mode & 0o777 == 0o700


def test_an_area_that_goes_while_it_is_opened_is_made_anew(
        registry: FakeRegistry, backend: DeviceBackend) -> None:
    theirs = registry.create(b"x")

    def free() -> None:
        if theirs in registry.names:
            del registry.names[theirs]
            raise FileExistsError(errno.EEXIST, "")

    registry.gap = free
    found, made = backend.create(ROOT, b"x", 0o600, US, exclusive=False)
    assert made
    assert found.node != AREA | theirs


def test_names_of_before_are_told_to_the_kernel_by_the_next_server(
        registry: FakeRegistry, start: Start) -> None:
    old = registry.create(b"d/old", told=True)
    gone = registry.create(b"d/gone", told=True)
    start().refresh()
    os.ftruncate(registry.events, 0)
    registry.rename(b"d/old", b"d/new", told=True)
    registry.remove(gone, told=True)
    second = start()
    told = changes(second)
    directory = second.lookup(ROOT, b"d").node
    assert {(change.parent, change.name) for change in told} >= {
        (directory, b"old"), (directory, b"new"), (directory, b"gone")}
    assert AREA | old not in {change.node for change in told}


def test_after_lost_events_all_attributes_are_asked_for_again(
        registry: FakeRegistry, backend: DeviceBackend) -> None:
    areas = [registry.create(b"%d" % number, told=True) for number in range(3)]
    backend.refresh()
    registry.tell(Kind.LOST)
    assert {change.node for change in changes(backend)} >= {AREA | area for area in areas}


def test_a_flood_of_events_is_taken_in_by_parts(registry: FakeRegistry,
                                                backend: DeviceBackend) -> None:
    data = os.pread(registry.events, 1 << 20, 0)
    registry.tell(Kind.RESIZED, 1)
    event = os.pread(registry.events, 1 << 20, len(data))
    os.pwrite(registry.events, event * 100_000, len(data))
    rounds = 1
    while backend.refresh():
        rounds += 1
    assert rounds > 3


@pytest.mark.parametrize("killed_in", ["prune", "give way"])
def test_a_server_killed_over_an_implied_directory_leaves_nothing_that_ends_the_next(
        registry: FakeRegistry, start: Start, monkeypatch: pytest.MonkeyPatch,
        killed_in: str) -> None:
    def killed(*_: object) -> None:
        raise Killed

    area = registry.create(b"d/e/a", told=True)
    first = start()
    first.refresh()
    registry.remove(area, told=True)
    if killed_in == "give way":
        registry.create(b"d", told=True)
    rmdir = ShmemBackend.rmdir

    def remove(*arguments: object) -> None:
        rmdir(*arguments)  # type: ignore[arg-type]
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ShmemBackend, "rmdir", remove)
        with pytest.raises(Killed):
            first.refresh()
    for hidden in start().hidden():
        start().forget(hidden)  # what the kernel knew of it goes at once
    second = start()
    second.refresh()
    assert names(second) == ([b"d"] if killed_in == "give way" else [])
    assert names(start()) == names(second)


def test_an_area_with_the_name_of_deep_directories_takes_their_place(
        registry: FakeRegistry, backend: DeviceBackend) -> None:
    node = ROOT
    for _ in range(1500):
        node = backend.mkdir(node, b"d", 0o755, US).node
    area = registry.create(b"d", told=True)
    assert backend.lookup(ROOT, b"d").node == AREA | area


def test_a_directory_that_cannot_be_implied_keeps_no_other_area_away(
        registry: FakeRegistry, backend: DeviceBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(ShmemBackend, "mkdir", full)
    registry.create(b"d/a", told=True)
    registry.create(b"b", told=True)
    assert names(backend) == [b"b"]


def test_a_directory_with_a_held_area_stays_and_so_does_what_it_would_replace(
        registry: FakeRegistry, backend: DeviceBackend) -> None:
    registry.held.add(registry.create(b"d/x", told=True))
    target = backend.mkdir(ROOT, b"e", 0o755, US).node
    refused(errno.EBUSY, backend.rename, ROOT, b"d", ROOT, b"e", 0, 0, US)
    assert backend.lookup(ROOT, b"e").node == target
    assert names(backend) == [b"d", b"e"]


def test_a_server_killed_over_the_renaming_of_a_directory_is_followed_by_one_that_ends_it(
        registry: FakeRegistry, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise Killed

    first = start()
    node = first.mkdir(ROOT, b"old", 0o700, US).node
    inner = first.mkdir(node, b"inner", 0o700, US).node
    first.create(inner, b"x", 0o600, US, exclusive=True)
    with monkeypatch.context() as patch:
        patch.setattr(ShmemBackend, "rename", killed)
        with pytest.raises(Killed):
            first.rename(ROOT, b"old", ROOT, b"new", 0, 0, US)
    second = start()
    second.refresh()
    second.rename(ROOT, b"old", ROOT, b"new", 0, 0, AGAIN)
    assert second.lookup(ROOT, b"new").node == node
    assert names(second) == [b"new"]
    assert names(second, second.lookup(node, b"inner").node) == [b"x"]


def test_a_listing_goes_on_behind_an_area_that_has_gone(registry: FakeRegistry,
                                                        backend: DeviceBackend) -> None:
    areas = [registry.create(b"%d" % number, told=True) for number in range(10)]
    first = [offset for _, _, offset in backend.entries(ROOT, 0)]
    registry.remove(areas[4], told=True)
    assert [name for name, _, _ in backend.entries(ROOT, first[-6])] == [
        b"%d" % number for number in range(5, 10)]
