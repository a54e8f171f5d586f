# SPDX-License-Identifier: MIT
"""What mount asks of the keeper, and what doctor finds at the mount point; nothing is mounted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbufffs.errors import Exit
from mbufffs.state import State
from tests.unit.fakes import INFO, FakeKeeper, FakeMounts, Run, is_one_line


class Asked:
    """Keeps what mount asked for."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings


@pytest.fixture
def mounted_with(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """A keeper module that mounts nothing: what it was asked to, by which function."""
    asked: list[tuple[str, dict[str, Any]]] = []

    class Keeper:
        Settings = Asked

        @staticmethod
        def start(settings: Asked) -> None:
            asked.append(("start", settings.settings))

        @staticmethod
        def run(settings: Asked) -> int:
            asked.append(("run", settings.settings))
            return 5

    monkeypatch.setitem(sys.modules, "mbufffs.keeper", Keeper)
    monkeypatch.setattr("mbufffs.keeper", Keeper, raising=False)
    return asked


def test_mount_passes_its_defaults_to_the_keeper(
    run: Run, tmp_path: Path, mounted_with: list[Any]
) -> None:
    assert run("mount", f"{tmp_path}/x/../m").code == 0
    assert mounted_with == [("start", {
        "mountpoint": f"{tmp_path}/m", "backend": "auto", "limit": None, "store": None,
        "passthrough": True, "huge": True, "io_uring": True, "nonempty": False,
        "allow_other": os.geteuid() == 0})]


def test_mount_passes_every_option_to_the_keeper_and_its_exit_code_back(
    run: Run, tmp_path: Path, mounted_with: list[Any]
) -> None:
    done = run("mount", "--foreground", "--backend", "shmem", "--size", "512M",
               "-o", "nopassthrough,nohuge,noio_uring,nonempty",
               "-o", "noallow_other,store=cameras",
               str(tmp_path))
    assert done.code == 5
    assert mounted_with == [("run", {
        "mountpoint": str(tmp_path), "backend": "shmem", "limit": 512 << 20, "store": "cameras",
        "passthrough": False, "huge": False, "io_uring": False, "nonempty": True,
        "allow_other": False})]


@pytest.mark.parametrize("options", [
    "ro", "store", "store=", "store=..", "store=a/b", "nopassthrough,x", "store=."])
def test_wrong_mount_options_mount_nothing(
    run: Run, mounted_with: list[Any], options: str
) -> None:
    done = run("mount", "-o", options)
    assert done.code == Exit.USAGE
    assert is_one_line(done, "mbufffs mount --help")
    assert mounted_with == []


def test_an_unknown_mount_option_is_told_the_valid_ones(run: Run, mounted_with: list[Any]) -> None:
    assert is_one_line(run("mount", "-o", "suid"), "nopassthrough, nohuge, noio_uring, nonempty",
                       "store=NAME")


@pytest.mark.parametrize("size", ["0", "-1", "lots"])
def test_a_limit_that_means_nothing_mounts_nothing(
    run: Run, mounted_with: list[Any], size: str
) -> None:
    assert run("mount", "--size", size).code == Exit.USAGE
    assert mounted_with == []


def test_doctor_tells_each_check_and_ends_with_the_verdict(
    run: Run, runtime: Path, fake_mounts: FakeMounts, tmp_path: Path
) -> None:
    done = run("doctor", "-m", str(tmp_path / "new"))
    told = run("doctor", "--json", "-m", str(tmp_path / "new"))
    parsed = json.loads(told.out)
    assert all(set(check) == {"check", "ok", "found", "needed", "fix"}
               for check in parsed["checks"])
    assert parsed["checks"][-1]["check"] == "mount point"
    assert done.out.splitlines()[-1] == parsed["advice"]
    assert done.code == told.code == (0 if parsed["mountable"] else Exit.UNAVAILABLE)


@pytest.mark.parametrize(("make", "ok", "found"), [
    (lambda path: None, True, "does not exist"), (lambda path: path.mkdir(), True, "is an empty"),
    (lambda path: path.touch(), "warn", "is a file"),
    (lambda path: (path / "x").mkdir(parents=True), "warn", "is not empty")])
def test_doctor_tells_what_is_at_the_mount_point(
    run: Run, runtime: Path, fake_mounts: FakeMounts, tmp_path: Path,
    make: Callable[[Path], None], ok: object, found: str
) -> None:
    make(tmp_path / "m")
    check = json.loads(run("doctor", "--json", "-m", str(tmp_path / "m")).out)["checks"][-1]
    assert check["ok"] == ok
    assert found in check["found"]


def test_doctor_names_the_keeper_of_a_live_mount(
    run: Run, mount: Path, mount_state: State, keeper: Callable[..., FakeKeeper]
) -> None:
    keeper(mount_state, {**INFO, "mountpoint": str(mount)})
    assert f"{mount} is mounted by keeper 11" in run("doctor").out
