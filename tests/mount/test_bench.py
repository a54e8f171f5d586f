# SPDX-License-Identifier: MIT
"""`mbufffs bench` measures what it says, on a mount of its own of which nothing is left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from mbufffs.bench.measures import QUICK
from mbufffs.state import runtime_directory


def test_a_look_at_this_machine_leaves_nothing() -> None:
    command = [Path(sys.executable).with_name("mbufffs"), "bench", "--rounds", "2", "--json"]
    mounts = Path("/proc/self/mounts").read_text()
    states = sorted(runtime_directory().glob("*"))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)
    assert [result["measure"] for result in results] == [measure.name for measure in QUICK]
    for result in results:
        assert set(result["figures"]) == {"tmpfs", "mbufffs"}
        assert all(figure > 0 for figures in result["figures"].values() for figure in figures)
    assert Path("/proc/self/mounts").read_text() == mounts
    assert sorted(runtime_directory().glob("*")) == states
