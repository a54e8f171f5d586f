# SPDX-License-Identifier: MIT
"""Which of these tests run where: those in inside/ in a virtual machine, the others outside."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.kernel import kernels, machine, modules

IN_MACHINE = bool(os.environ.get("MBUFF_VM"))
collect_ignore = [] if IN_MACHINE else ["inside"]


@pytest.fixture(scope="session", autouse=True)
def no_machines_left() -> None:
    """Ends what a run that was killed has left; a run ends its own machine itself."""
    if not IN_MACHINE:
        machine.clear_leftovers()


@pytest.fixture(scope="session")
def built() -> Callable[[str], kernels.Kernel]:
    """A kernel by name, fetched, and with our modules built for it; one line where that fails."""
    done: dict[str, kernels.Kernel] = {}

    def build(name: str) -> kernels.Kernel:
        if name not in done:
            try:
                kernel = kernels.fetch(name)
                modules.build(kernel)
            except (kernels.Unavailable, modules.BuildFailed) as error:
                pytest.fail(str(error), pytrace=False)
            done[name] = kernel
        return done[name]

    return build
