# SPDX-License-Identifier: MIT
"""The mount behaves as tmpfs: the same calls on both, and the same errors, values, stat and bytes.

The calls are in the modules of posix/. Nothing here says what is right: tmpfs does. What differs
on purpose is in KNOWN, each with the heading of docs/posix.md that gives the reason.
"""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from mbufffs import mounts
from tests.conftest import PREFIX, Mounted, needs_root
from tests.mount.posix import (  # noqa: F401
    contents,
    directories,
    linking,
    locks,
    mapping,
    opening,
    removing,
    renaming,
    rights,
    times,
)
from tests.mount.posix.chance import CALLS, Player
from tests.mount.posix.registry import CASES, NEED_ROOT
from tests.mount.posix.side import OWNER, Case, Log, Side, remove, run_in

# Case: the heading of docs/posix.md, and for each way what the mount says in the steps that differ.
PASSTHROUGH, CACHED = "passthrough", "page cache"
KNOWN: dict[str, tuple[str, dict[str, list[Any]]]] = {}


def known(heading: str, name: str, *found: Any, ways: tuple[str, ...] = (PASSTHROUGH, CACHED)
          ) -> None:
    KNOWN.setdefault(name, (heading, {}))[1].update({way: list(found) for way in ways})


known("Memory is real", "contents.sizes_beyond_all_memory", "ENOSPC", 7, "ENOSPC", 7)
known("Holes", "contents.seeking_holes", 0, 16384, 36865, 36865, 36865)
known("Files without a name", "opening.unnamed_files", "ENOTSUP", "ENOTSUP", "ENOTSUP")
known("Calls of tmpfs alone", "locks.seals", "EINVAL", "EINVAL")
known("Calls of tmpfs alone", "locks.flags_of_the_inode", "ENOTTY")
known("Calls of tmpfs alone", "locks.birth", False)
known("Calls of tmpfs alone", "renaming.whiteouts", "EINVAL")
known("Extended attributes", "rights.extended_attributes_of_the_mount", [
    f"user.mbuff.{fact}" for fact in ("backend", "kind", "locked", "owners", "passthrough")])
known("Extended attributes", "rights.extended_attributes_of_ones_own",
      "ENOTSUP", "ENODATA", "ENODATA")
known("Extended attributes", "rights.extended_attributes_of_roots", "ENOTSUP", "ENOTSUP")
known("Extended attributes", "rights.extended_attributes_without_a_kind", *["ENODATA"] * 4)
known("Extended attributes", "rights.access_control_lists", "ENODATA", "ENODATA", "ENOTSUP")
known("Set-id bits, and chown that changes nothing", "times.of_chown_to_nobody_else", "")
known("Set-id bits, and chown that changes nothing", "rights.chown_to_nobody_else_by_a_stranger",
      None, ("file", "0o777", 1, OWNER, OWNER, 0, 0))
known("Set-id bits, and chown that changes nothing",
      "rights.set_id_bits_and_a_change_that_fails", ("file", "0o777", 1, 0, 0, 7, 0))
known("Times", "times.of_a_symbolic_link_that_is_read_again", "")
known("Times", "times.of_an_empty_file_that_is_truncated", "mc")
known("Times", "times.of_reading_what_is_not_there", "", ways=(PASSTHROUGH,))
known("Times", "times.of_reading_what_is_not_there", "", "", ways=(CACHED,))
known("Times", "times.of_storing_through_a_mapping", "", ways=(PASSTHROUGH,))
known("Times", "times.of_storing_through_a_mapping", "", "mc", ways=(CACHED,))
known("Times", "times.of_a_file_that_is_read_again", "", ways=(CACHED,))
known("Times", "times.atime_moves_relatively", True, True, ways=(CACHED,))
known("Times", "opening.o_noatime_is_the_owners", False, ways=(CACHED,))

# Before this kernel tmpfs itself lacks some of it: attributes user.*, for one.
OLD_TMPFS = tuple(int(part) for part in platform.release().split(".")[:2]) < (6, 12)

WAYS = [PASSTHROUGH, CACHED] if os.geteuid() == 0 else [CACHED]


@pytest.fixture(scope="session")
def tmpfs() -> Iterator[Path]:
    """The other side: a tmpfs of its own as root, a directory on /dev/shm otherwise."""
    where = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    if os.geteuid() != 0:
        where.rmdir()
        where = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/dev/shm"))
        yield where
        where.rmdir()
        return
    mounts.mount("tmpfs", str(where), "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV,
                 f"size={2 << 30},mode=1777")
    yield where
    mounts.unmount(str(where), lazy=True)
    where.rmdir()


@pytest.fixture(scope="session", params=WAYS)
def under_test(request: pytest.FixtureRequest, new_mount: Callable[..., Mounted]) -> Mounted:
    return new_mount(passthrough=request.param == PASSTHROUGH)


def on(side: Path, case: Case) -> Log:
    """Runs a case in a new directory there, and removes it again."""
    directory = Path(tempfile.mkdtemp(dir=side))
    directory.chmod(0o755)
    try:
        return run_in(directory, case)
    finally:
        remove(str(directory))


def differences(expected: Log, found: Log) -> list[tuple[str, Any, Any]]:
    """The steps that differ: what was done, what came of it on tmpfs, and on the mount."""
    told = [(there[0] if there[0] == here[0] else f"{there[0]} or {here[0]}", there[1], here[1])
            for there, here in zip(expected, found, strict=False) if there != here]
    if len(expected) != len(found):
        told.append(("number of steps", len(expected), len(found)))
    return told


def in_words(told: list[tuple[str, Any, Any]]) -> str:
    return "\n".join(f"{step}: tmpfs {there}, the mount {here}" for step, there, here in told)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.skipif(
        name in NEED_ROOT and os.geteuid() != 0, reason="needs root"))
    for name in CASES])
def test_it_is_as_on_tmpfs(tmpfs: Path, under_test: Mounted, name: str) -> None:
    case = CASES[name]
    told = differences(on(tmpfs, case), on(under_test.path, case))
    if name in KNOWN:
        way = PASSTHROUGH if under_test.info()["passthrough"] else CACHED
        expected = KNOWN[name][1].get(way, [])
        # The tree at the end follows from the steps.
        found = [here for step, _, here in told if step != "tree at the end"]
        if OLD_TMPFS:
            assert all(here in expected for here in found)
        else:
            assert found == expected, in_words(told)
    elif told:
        pytest.fail(in_words(told), pytrace=False)


def test_any_calls_are_as_on_tmpfs(tmpfs: Path, under_test: Mounted,
                                   request: pytest.FixtureRequest) -> None:
    soak = request.config.getoption("--soak")

    @settings(max_examples=3_000 if soak else 100, derandomize=not soak, deadline=None,
              database=None, suppress_health_check=list(HealthCheck))
    @given(CALLS)
    def compare(calls: Any) -> None:
        def play(side: Side) -> None:
            Player(side, with_times=calls[0]).play(calls[1])

        told = differences(on(tmpfs, play), on(under_test.path, play))
        assert not told, in_words(told)

    compare()


@needs_root
def test_memory_of_a_nameless_file_can_be_taken_again_once_it_is_closed(
        new_mount: Callable[..., Mounted]) -> None:
    mounted = new_mount(limit=1 << 30)
    for _ in range(4):
        # Freeing so much takes longer than the next call comes after the close.
        fd = os.open(mounted.path / "f", os.O_CREAT | os.O_RDWR)
        os.unlink(mounted.path / "f")
        os.ftruncate(fd, 1000 << 20)
        os.close(fd)
    mounted.stop()


def test_a_locked_directory_locks_no_other_file_for_the_next_server(
        new_mount: Callable[..., Mounted]) -> None:
    mounted = new_mount()
    (mounted.path / "f").touch()
    (mounted.path / "d").mkdir()
    (mounted.path / "d").chmod(0)
    mounted.kill_server()
    (mounted.path / "f").chmod(0o600)
    (mounted.path / "d").chmod(0o755)
    mounted.stop()


def test_every_known_difference_has_its_reason_in_the_documents() -> None:
    assert set(KNOWN) <= set(CASES)
    page = (Path(__file__).parents[2] / "docs" / "posix.md").read_text()
    headings = set(re.findall(r"^## (.*)$", page, re.MULTILINE))
    assert {heading for heading, _ in KNOWN.values()} <= headings
