# SPDX-License-Identifier: MIT
"""The kernel's switch for FUSE over io_uring is as it was, whatever comes between."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from mbufffs import uring
from mbufffs.uring import Permission


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "enable_uring"
    path.write_text("N\n")
    monkeypatch.setattr(uring, "SWITCH", path)
    monkeypatch.setattr(uring, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(uring, "PATIENCE", 0.05)
    return path


def test_it_is_on_while_it_is_held_and_off_again(switch: Path) -> None:
    permission = Permission()
    assert permission.take()
    assert switch.read_text()[0] == "Y"
    permission.give_back()
    assert switch.read_text()[0] == "N"
    permission.give_back()


def test_what_the_administrator_has_on_stays_on(switch: Path) -> None:
    switch.write_text("Y\n")
    permission = Permission()
    assert permission.take()
    permission.give_back()
    assert switch.read_text() == "Y\n"


def test_two_mounts_do_not_turn_it_off_under_each_other(switch: Path) -> None:
    first, second = Permission(), Permission()
    assert first.take()
    assert not second.take()
    second.give_back()
    assert switch.read_text()[0] == "Y"
    first.give_back()
    assert second.take()
    second.give_back()
    assert switch.read_text()[0] == "N"


def test_one_that_waits_gets_it_when_the_other_is_done(
    switch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uring.LOCK.touch()
    with uring.LOCK.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(other, fcntl.LOCK_UN))
        permission = Permission()
        assert permission.take()
    permission.give_back()


def test_what_a_killed_mount_has_left_on_is_put_right_by_the_next(switch: Path) -> None:
    killed = Permission()
    assert killed.take()
    os.close(vars(killed)["_lock"])
    assert switch.read_text()[0] == "Y"
    permission = Permission()
    assert permission.take()
    permission.give_back()
    assert switch.read_text()[0] == "N"
    assert uring.LOCK.read_bytes() == b""


def test_an_older_kernel_or_one_that_lets_nobody_write_has_none(switch: Path) -> None:
    switch.unlink()
    assert not Permission().take()
    switch.mkdir()
    assert not Permission().take()


def test_no_descriptor_is_left(switch: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for state in "YN":
        switch.write_text(state)
        permission = Permission()
        permission.take()
        permission.give_back()
    assert os.listdir("/proc/self/fd") == before
