# SPDX-License-Identifier: MIT
"""Every way to hold a file or a mount is seen, and nothing else is; on plain tmpfs files."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mbufffs.holders import Holder, holders_of_area, holders_of_mount

# tmpfs, so that inode numbers in /proc are those of stat (overlayfs has others).
TMPFS = "/dev/shm"


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mbufffs-test-", dir=TMPFS) as path:
        yield Path(path)


@pytest.fixture
def area(directory: Path) -> Path:
    path = directory / "area"
    path.write_bytes(bytes(8192))
    return path


def ways(holders: list[Holder]) -> list[str]:
    """How this process holds it."""
    return [holder.how for holder in holders if holder.pid == os.getpid()]


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    with opened(path) as fd:
        mapping = mmap.mmap(fd, 0)
    try:
        yield
    finally:
        mapping.close()


def test_an_area_that_nobody_uses_has_no_holder(area: Path) -> None:
    assert holders_of_area(str(area)) == []


def test_a_descriptor_holds_an_area_with_the_command_that_has_it(area: Path) -> None:
    with opened(area):
        assert holders_of_area(str(area)) == [
            Holder(os.getpid(), Path("/proc/self/comm").read_text().rstrip("\n"), "open")]


@pytest.mark.parametrize("name", ["area", "with blank", "new\nline", "back\\slash", "\udcff"])
def test_a_mapping_holds_an_area_when_its_descriptor_is_closed(
    directory: Path, name: str
) -> None:
    path = directory / name
    path.write_bytes(bytes(4096))
    with mapped(path):
        # mmap of Python keeps a duplicate of the descriptor.
        assert sorted(ways(holders_of_area(str(path)))) == ["mapped", "open"]


def test_an_open_area_is_held_under_each_of_its_names(area: Path) -> None:
    other = area.with_name("other")
    other.hardlink_to(area)
    with opened(other):
        assert ways(holders_of_area(str(area))) == ["open"]


def test_a_renamed_area_is_still_held(area: Path) -> None:
    with opened(area):
        moved = area.rename(area.with_name("moved"))
        assert ways(holders_of_area(str(moved))) == ["open"]


def test_holders_of_a_removed_area_do_not_hold_the_one_that_took_its_name(area: Path) -> None:
    with opened(area), mapped(area):
        area.unlink()
        area.write_bytes(bytes(4096))
        assert ways(holders_of_area(str(area))) == []


def test_other_areas_of_the_same_directory_are_not_held(area: Path) -> None:
    other = area.with_name("area2")
    other.write_bytes(bytes(4096))
    with opened(other):
        assert holders_of_area(str(area)) == []


def test_a_missing_area_is_enoent(directory: Path) -> None:
    with pytest.raises(FileNotFoundError):
        holders_of_area(str(directory / "none"))


def test_descriptors_and_mappings_hold_the_mount(area: Path) -> None:
    with mapped(area):
        assert {"open", "mapped"} <= set(ways(holders_of_mount(TMPFS)))


def test_an_unlinked_file_holds_the_mount(area: Path) -> None:
    before = ways(holders_of_mount(TMPFS))
    with opened(area):
        area.unlink()
        assert ways(holders_of_mount(TMPFS)) == [*before, "open"]


def test_a_working_directory_holds_the_mount(directory: Path) -> None:
    with subprocess.Popen(
            [sys.executable, "-c", "input()"], cwd=directory, stdin=subprocess.PIPE) as child:
        holders = holders_of_mount(TMPFS)
        child.communicate(b"\n")
    assert (child.pid, "cwd") in {(holder.pid, holder.how) for holder in holders}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_root_directory_holds_the_mount(directory: Path) -> None:
    reader, writer = os.pipe()
    script = f"import os, sys; os.chroot({str(directory)!r}); os.write({writer}, b'x'); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE,
                          pass_fds=[writer]) as child:
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        holders = holders_of_mount(TMPFS)
        child.communicate(b"\n")
    os.close(reader)
    assert (child.pid, "root") in {(holder.pid, holder.how) for holder in holders}


def test_no_descriptor_is_left_open(area: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    holders_of_area(str(area))
    holders_of_mount(TMPFS)
    assert len(os.listdir("/proc/self/fd")) == before
