# SPDX-License-Identifier: MIT
"""When umount returns, what it refuses, and what --discard takes away; with fakes for the mount."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mbufffs import mounts
from mbufffs.errors import Exit
from mbufffs.holders import Holder
from mbufffs.state import State, state_of
from tests.unit.fakes import INFO, FakeKeeper, FakeMounts, Run, lock

# The name in the package is the command's; this is its module.
umount = importlib.import_module("mbufffs.cli.umount")


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """umount leaves its working directory; this takes the tests back."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def areas(mount_state: State) -> Path:
    """A store with an area in it."""
    mount_state.store.mkdir(parents=True)
    (mount_state.store / "area").write_text("bytes")
    return mount_state.store


def ends_when_waited_for(monkeypatch: pytest.MonkeyPatch, held: int) -> list[float]:
    """A keeper that lives until somebody has waited for it a third time."""
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            os.close(held)

    monkeypatch.setattr(umount.time, "sleep", wait)
    return waits


def test_umount_waits_for_the_keeper_and_the_areas_survive(
    run: Run, fake_mounts: FakeMounts, mount_state: State, areas: Path,
    monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = ends_when_waited_for(monkeypatch, lock(mount_state))
    assert run("umount").code == 0
    assert len(waits) == 3
    assert fake_mounts.lines == []
    assert (areas / "area").read_text() == "bytes"


def test_a_keeper_that_does_not_end_is_told_and_its_areas_are_kept(
    run: Run, fake_mounts: FakeMounts, mount_state: State, areas: Path,
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umount, "PATIENCE", -1)
    held = lock(mount_state)
    done = run("umount", "--discard")
    os.close(held)
    assert done.code == Exit.BUSY
    assert "has not ended" in done.err
    assert (areas / "area").exists()


def test_a_busy_mount_stays_and_its_users_are_named(
    run: Run, mount: Path, fake_mounts: FakeMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_mounts.busy = True
    held_by = [Holder(os.getpid(), "python", "open"), Holder(7, "vi", "cwd"),
               Holder(7, "vi", "open"), Holder(8, "a\nb", "mapped")]
    monkeypatch.setattr(umount.holders, "holders_of_mount", lambda path: held_by)
    (mount / "below").mkdir()
    fake_mounts.add(mount / "below", "ext4")
    done = run("umount")
    assert done.code == Exit.BUSY
    assert done.err == (f"mbufffs: {mount}: is in use by 7 (vi: cwd, open), 8 (a\\nb: mapped), "
                    f"the mount at {mount}/below\n")
    assert len(fake_mounts.lines) == 2


def test_many_users_are_counted_instead_of_listed(
    run: Run, mount: Path, fake_mounts: FakeMounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_mounts.busy = True
    monkeypatch.setattr(umount.holders, "holders_of_mount", lambda path: [
        Holder(pid, "vi", "open") for pid in range(100, 130)])
    done = run("umount")
    assert done.err.count("(vi: open)") == 10
    assert done.err.endswith(", 20 more\n")


def test_lazily_a_busy_mount_goes_and_its_keeper_is_not_waited_for(
    run: Run, mount: Path, fake_mounts: FakeMounts, mount_state: State
) -> None:
    fake_mounts.busy = True
    held = lock(mount_state)
    assert run("umount", "--lazy").code == 0
    os.close(held)
    assert fake_mounts.lazily == [str(mount)]


def test_areas_that_lazy_users_still_have_are_not_discarded(
    run: Run, fake_mounts: FakeMounts, mount_state: State, areas: Path
) -> None:
    fake_mounts.busy = True
    held = lock(mount_state)
    done = run("umount", "--lazy", "--discard")
    os.close(held)
    assert done.code == Exit.BUSY
    assert "its areas are kept" in done.err
    assert (areas / "area").exists()


def test_discard_frees_the_areas_and_everything_around_them(
    run: Run, runtime: Path, fake_mounts: FakeMounts, mount_state: State, areas: Path
) -> None:
    os.close(lock(mount_state))
    fake_mounts.add(areas, "tmpfs")
    assert run("umount", "--discard").code == 0
    assert fake_mounts.lines == []
    assert os.listdir(runtime) == []


def test_discard_works_when_the_mount_has_gone_before(
    run: Run, runtime: Path, fake_mounts: FakeMounts, areas: Path
) -> None:
    fake_mounts.lines.clear()
    assert run("umount", "--discard").code == 0
    assert os.listdir(runtime) == []
    assert run("umount", "--discard").code == Exit.NOT_MOUNTED


def test_discard_finds_a_store_by_its_name(
    run: Run, runtime: Path, mount: Path, fake_mounts: FakeMounts
) -> None:
    fake_mounts.lines.clear()
    named = state_of(str(mount), "cameras")
    named.store.mkdir(parents=True)
    assert run("umount", "--discard", "--store", "cameras").code == 0
    assert os.listdir(runtime) == []
    assert run("umount", "--discard", "--store", "../x").code == Exit.USAGE


def test_a_named_store_is_found_by_asking_the_keepers(
    run: Run, runtime: Path, mount: Path, fake_mounts: FakeMounts,
    keeper: Callable[..., FakeKeeper]
) -> None:
    named = state_of(str(mount), "cameras")
    named.store.mkdir(parents=True)
    keeper(named, {**INFO, "mountpoint": str(mount)})
    assert run("umount", "--discard").code == 0
    assert os.listdir(runtime) == []


def test_discard_follows_no_link_that_somebody_planted(
    run: Run, runtime: Path, tmp_path: Path, fake_mounts: FakeMounts, mount_state: State
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").touch()
    mount_state.directory.symlink_to(mine)
    done = run("umount", "--discard")
    assert done.code == Exit.NOT_PERMITTED
    assert "belongs to somebody else" in done.err
    assert os.listdir(mine) == ["letter"]


def test_a_store_with_something_foreign_mounted_on_it_is_not_discarded(
    run: Run, fake_mounts: FakeMounts, areas: Path
) -> None:
    fake_mounts.add(areas, "ext4")
    done = run("umount", "--discard")
    assert done.code == Exit.BUSY
    assert "ext4" in done.err
    assert (areas / "area").exists()


def test_a_mount_of_another_kind_is_left_alone(
    run: Run, mount: Path, fake_mounts: FakeMounts
) -> None:
    fake_mounts.add(mount, "ext4")
    assert run("umount").code == Exit.NOT_MOUNTED
    assert [line.fstype for line in fake_mounts.lines] == [mounts.FSTYPE, "ext4"]
