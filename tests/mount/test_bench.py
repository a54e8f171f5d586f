# SPDX-License-Identifier: MIT
"""`mbufffs bench` measures what it says, on a mount of its own of which nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mbufffs.bench import places
from mbufffs.bench.measures import QUICK
from mbufffs.state import escaped, runtime_directory


def test_a_look_at_this_machine_leaves_nothing(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("mbufffs"), "bench", "--rounds", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True,
                          env=os.environ | {"TMPDIR": str(tmp_path)})
    results = json.loads(done.stdout)
    assert [result["measure"] for result in results] == [measure.name for measure in QUICK]
    for result in results:
        assert set(result["figures"]) == {"tmpfs", "mbufffs"}
        assert all(figure > 0 for figures in result["figures"].values() for figure in figures)
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert not [state for state in runtime_directory().glob("*")
                if state.name.startswith(escaped(str(tmp_path)))]


def test_a_mount_that_is_measured_leaves_the_working_directory_as_it_is(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with places.ours(64 << 20 if os.geteuid() == 0 else None, "shmem"):
        pass
    assert Path.cwd() == tmp_path
