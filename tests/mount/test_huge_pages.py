# SPDX-License-Identifier: MIT
"""Areas in huge pages: mappings have less to do, and what is given back is given back."""

from __future__ import annotations

import mmap
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mbufffs import mounts
from tests.conftest import Mounted, needs_root, run

PAGE = mmap.PAGESIZE
MIB = 1 << 20
MADV_POPULATE_WRITE = 23  # that mmap has from Python 3.13 on
SIZE = 64 * MIB
SMALL_FAULTS = SIZE // PAGE // 16  # the kernel maps up to 16 pages around one that is touched

pytestmark = [needs_root, pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled").exists(),
    reason="this kernel has no huge pages for shared memory")]


def faults(path: Path) -> int:
    """Of a program that maps the file and reads of each page."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapping:
        mapping.madvise(MADV_POPULATE_WRITE)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapping:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        assert mapping[::PAGE] == bytes(SIZE // PAGE)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def make(path: Path) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, SIZE)


def test_a_mapping_has_as_few_faults_as_one_of_a_tmpfs_with_huge_pages(
        mounted: Mounted, tmp_path: Path) -> None:
    make(mounted.path / "a")
    run("mount", "-t", "tmpfs", "-o", "huge=within_size", "mbufffs-test", tmp_path)
    try:
        make(tmp_path / "a")
        assert faults(mounted.path / "a") <= 2 * faults(tmp_path / "a") + SMALL_FAULTS // 8
    finally:
        run("umount", tmp_path)


def test_nohuge_is_for_the_mount_that_has_it(new_mount: Callable[..., Mounted]) -> None:
    mounted = new_mount(huge=False)

    def option() -> str:
        found = mounts.mount_at(str(mounted.state.store))
        assert found
        return next((word for word in found.options.split(",") if word.startswith("huge=")), "")

    make(mounted.path / "a")
    assert option() == ""
    assert faults(mounted.path / "a") >= SMALL_FAULTS
    run("umount", mounted.path)
    mounted.settings = replace(mounted.settings, huge=True)
    mounted.start()
    assert option() == "huge=within_size"
    assert (mounted.path / "a").stat().st_size == SIZE


def test_a_hole_may_have_memory_within_a_huge_page(mounted: Mounted) -> None:
    with (mounted.path / "a").open("wb") as file:
        os.posix_fallocate(file.fileno(), PAGE, MIB)
        assert 0 <= os.fstat(file.fileno()).st_blocks * 512 - MIB <= PAGE


@pytest.mark.parametrize("mapped", [False, True], ids=["", "mapped"])
@pytest.mark.parametrize("punched", [False, True], ids=["cut", "punched"])
def test_a_part_of_a_huge_page_is_given_back(mounted: Mounted, punched: bool,
                                             mapped: bool) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"x" * 4 * MIB)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4 * MIB) as mapping:
        if mapped:
            assert mapping[::PAGE] == b"x" * (4 * MIB // PAGE)
        if punched:
            run("fallocate", "-p", "-o", 3 * MIB, "-l", MIB, path)
        else:
            os.ftruncate(file.fileno(), 3 * MIB)
        assert path.stat().st_blocks * 512 == 3 * MIB
        assert mapping[:3 * MIB] == b"x" * (3 * MIB)
        assert os.pread(file.fileno(), 2 * MIB, 3 * MIB) == bytes(MIB if punched else 0)
