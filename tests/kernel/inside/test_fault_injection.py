# SPDX-License-Identifier: MIT
"""Every allocation of every operation fails once: an errno, and nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbufffs.backends.registry import Registry
from tests.conftest import wait_for
from tests.kernel.inside.conftest import Ktest, Module

pytestmark = pytest.mark.debug

HERE = Path(__file__).parents[1]
REPOSITORY = HERE.parents[1]
INJECTED = Path("/sys/kernel/debug")
OPERATIONS = ["open-device", "create", "open", "resize", "write", "fallocate", "ftruncate",
              "change", "rename", "rename-tree", "stat", "list", "remove", "remove-hold", "notify",
              "events", "read-events", "allocate", "allocate-again", "map", "make",
              "make-contiguous", "contiguous", "get", "alloc", "attach"]


def code_of_the_module() -> tuple[int, int]:
    start = int(Path("/sys/module/mbuff/sections/.text").read_text(), 16)
    sizes = [line.split()[1] for line in Path("/proc/modules").read_text().splitlines()
             if line.startswith("mbuff ")]
    return start, start + int(sizes[0])


@pytest.fixture(scope="module")
def fail_nth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    program = tmp_path_factory.mktemp("fault") / "fail_nth"
    subprocess.run(["gcc", "-O2", "-I", REPOSITORY / "kmod/include", "-I", REPOSITORY / "kmod/uapi",
                    HERE / "fail_nth.c", "-o", program], check=True)
    if not (INJECTED / "failslab").exists():
        subprocess.run(["mount", "-t", "debugfs", "debugfs", INJECTED], check=True)
    module, ktest = Module(Path(os.environ["MBUFF_MODULE"])), Ktest()
    module.insmod()
    ktest.insmod()
    for kind in ("failslab", "fail_page_alloc", "fail_usercopy"):
        (INJECTED / kind / "verbose").write_text("0")
        # Only what is done for the module, else the reading of fail-nth would fail too.
        for edge, address in zip(("start", "end"), code_of_the_module(), strict=True):
            (INJECTED / kind / f"require-{edge}").write_text(hex(address))
    for kind in ("failslab", "fail_page_alloc"):
        (INJECTED / kind / "ignore-gfp-wait").write_text("N")
    (INJECTED / "fail_page_alloc" / "ignore-gfp-highmem").write_text("N")
    (INJECTED / "fail_page_alloc" / "min-order").write_text("0")
    yield program
    ktest.unload()
    module.unload()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_fails_for_lack_of_memory_says_so_and_leaves_nothing(
        fail_nth: Path, operation: str) -> None:
    with contextlib.closing(Registry.open()) as registry:
        before = registry.usage()
        done = subprocess.run([fail_nth, operation], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not done.stdout.startswith("0"), "nothing was made to fail"
        print(f"{operation}: {done.stdout}", end="")
        wait_for(lambda: registry.usage() == before, "all is as it was")
