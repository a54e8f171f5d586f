# SPDX-License-Identifier: MIT
"""What a killed run leaves is cleared by the next one; what belongs to others is not touched."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel import machine


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "RUNS", tmp_path)
    return tmp_path


def _sleeper(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"], start_new_session=True,
                            env={**os.environ, "MBUFF_RUN": str(directory)})


def _owner(directory: Path, pid: int, started: str) -> None:
    directory.mkdir()
    (directory / "owner").write_text(json.dumps({"pid": pid, "started": started}))


def test_a_run_whose_process_has_ended_is_removed_with_its_machine(runs: Path) -> None:
    _owner(runs / "6.12-1-0", os.getpid(), "another process with this id")
    _owner(runs / "6.12-1-00", os.getpid(), machine._start_time(os.getpid()))
    left, other = _sleeper(runs / "6.12-1-0"), _sleeper(runs / "6.12-1-00")
    try:
        machine.clear_leftovers()
        assert left.wait(10) == -9
        assert other.poll() is None
    finally:
        left.kill()
        other.kill()
        left.wait()
        other.wait()
    assert [path.name for path in runs.iterdir()] == ["6.12-1-00"]


def test_a_run_that_was_killed_before_it_had_an_owner_is_removed(runs: Path) -> None:
    (runs / "6.12-1-0").mkdir()
    machine.clear_leftovers()
    assert not list(runs.iterdir())
