# SPDX-License-Identifier: MIT
"""A mount that fails takes nothing away from those who use the kernel's areas already."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mbufffs import keeper, store
from mbufffs.keeper import Keeper, Settings
from tests.unit.fake_registry import FakeRegistry


@pytest.mark.parametrize("fails_at", ["the directories", "the mount"])
def test_areas_of_the_kernel_outlive_a_mount_that_fails(
        tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
    def refused(*_: object, **_named: object) -> None:
        raise PermissionError(errno.EPERM, "refused")

    registry = FakeRegistry()
    registry.create(b"theirs")
    monkeypatch.setattr(FakeRegistry, "open", lambda *_: registry, raising=False)
    monkeypatch.setattr(keeper, "_registry", lambda _: registry)
    monkeypatch.setattr(registry, "events", lambda: os.memfd_create("events"))
    monkeypatch.setattr(store, "Registry", registry)
    monkeypatch.setattr(store, "DEVICE", "/dev/null")
    monkeypatch.setattr(store, "_mounted",
                        refused if fails_at == "the directories" else lambda *_, **_named: None)
    monkeypatch.setattr(store, "prepare_directories", lambda *_: None)
    monkeypatch.setattr(keeper.mounts, "mount_fuse", refused)
    (tmp_path / "mnt").mkdir()
    failing = Keeper(Settings(mountpoint=str(tmp_path / "mnt")))
    failing.state.directories.mkdir(parents=True)
    with pytest.raises(PermissionError, match="refused"):
        failing._open()
    assert list(registry.names.values()) == [b"theirs"]
    assert not failing.state.directory.exists()
