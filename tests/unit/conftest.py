# SPDX-License-Identifier: MIT
"""What unit tests stand on: a runtime directory and a mount table that are not the machine's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from mbufffs import client, mounts, state
from mbufffs.cli import commands
from mbufffs.state import State, state_of
from tests.unit.fakes import Done, FakeKeeper, FakeMounts, Run


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of all states."""
    directory = tmp_path / "run"
    directory.mkdir()
    monkeypatch.setattr(state, "runtime_directory", lambda: directory)
    monkeypatch.setattr(client, "ROOT_RUNTIME", directory)
    return directory


@pytest.fixture
def fake_mounts(monkeypatch: pytest.MonkeyPatch) -> FakeMounts:
    fake = FakeMounts()
    monkeypatch.setattr(mounts, "mount_table", lambda: iter(fake.table()))
    monkeypatch.setattr(mounts, "unmount", fake.unmount)
    return fake


@pytest.fixture
def mount(
    tmp_path: Path, runtime: Path, fake_mounts: FakeMounts, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A plain directory that the table calls a mount of ours; commands find it without asking."""
    directory = tmp_path / "mount"
    directory.mkdir()
    fake_mounts.add(directory)
    monkeypatch.setenv("MBUFFFS_MOUNT", str(directory))
    return directory


@pytest.fixture
def mount_state(mount: Path) -> State:
    return state_of(str(mount))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process."""
    def invoke(*arguments: str, group: click.Group = commands) -> Done:
        with pytest.raises(SystemExit) as ended:
            group.main(list(arguments), prog_name="mbufffs")
        out, err = capsys.readouterr()
        return Done(ended.value.code, out, err)

    return invoke


@pytest.fixture
def keeper() -> Iterator[Callable[[State, dict[str, Any] | bytes | None], FakeKeeper]]:
    """Starts fake keepers, and ends them after the test."""
    started: list[FakeKeeper] = []

    def start(where: State, answer: dict[str, Any] | bytes | None) -> FakeKeeper:
        started.append(FakeKeeper(where, answer))
        return started[-1]

    yield start
    for one in started:
        one.close()
