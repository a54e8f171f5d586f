# SPDX-License-Identifier: MIT
"""The module on real kernels: one boot each, in which all tests of inside/ run."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.kernel import inside, machine
from tests.kernel.kernels import BOOTED, Kernel

SECONDS = 3000  # for the tests of one kernel beside another; the boot comes on top

pytestmark = [
    pytest.mark.timeout(SECONDS + machine.BOOT_SECONDS + 600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the machine of the tests is x86-64"),
]


@dataclass(frozen=True)
class Result:
    """What became of one test inside."""

    name: str
    failure: str = ""
    skipped: str = ""


def results(junit: Path) -> Iterator[Result]:
    if not junit.exists():
        return
    for case in ElementTree.parse(junit).iter("testcase"):
        module = case.get("classname", "").rpartition(".")[2]
        name = f"{module}::{case.get('name')}"
        failures = [part.text or "" for part in case if part.tag in ("failure", "error")]
        said = [part.text or "" for part in case if part.tag in ("system-out", "system-err")]
        skipped = [part.get("message", "") for part in case if part.tag == "skipped"]
        yield Result(name, "\n".join([*failures, *said]) if failures else "", "".join(skipped))


@pytest.fixture(scope="module")
def runs(built: Callable[[str], Kernel],
         request: pytest.FixtureRequest) -> Iterator[dict[str, Future[machine.Run]]]:
    """Of the kernels that are asked for: all at once, as each of them keeps one core busy."""
    kernels = [built(item.callspec.params["name"]) for item in request.session.items
               if isinstance(item, pytest.Function) and item.module is request.module]
    scripts = {kernel: inside.script(kernel, seconds=SECONDS) for kernel in kernels}
    with ThreadPoolExecutor(len(kernels)) as pool:
        yield {kernel.name: pool.submit(machine.run, kernel, script, seconds=SECONDS)
               for kernel, script in scripts.items()}


@pytest.mark.parametrize("name", BOOTED)
def test_all_tests_inside_hold(runs: dict[str, Future[machine.Run]], subtests: pytest.Subtests,
                               name: str) -> None:
    run = runs[name].result()
    found = list(results(run.directory / "junit.xml"))
    for result in found:
        with subtests.test(result.name):
            if result.failure:
                pytest.fail(result.failure, pytrace=False)
            if result.skipped:
                pytest.skip(result.skipped)
    with subtests.test("the kernel complained of nothing"):
        if run.wrong:
            pytest.fail("\n".join([*run.wrong, f"all of it: {run.directory}"]), pytrace=False)
    failed = [result.name for result in found if result.failure]
    if run.status != 0 and not failed:
        pytest.fail(f"pytest inside ended with {run.status}:\n{run.output[-8000:]}", pytrace=False)
    assert found, "no test ran inside"
