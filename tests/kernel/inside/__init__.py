# SPDX-License-Identifier: MIT
"""The tests that run inside a virtual machine, and how they are started there."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from tests.kernel import modules
from tests.kernel.kernels import Kernel
from tests.kernel.old import device_programs

# Which tests a kernel gets. A kernel that is not named gets all: the debug kernel.
SELECTED = {"6.12": "not debug", "6.12-rt": "rt and not debug"}

TEST_SECONDS = 300  # for one test: a processor that is emulated, and may be shared
DEBUG_TEST_SECONDS = 2400


def environment(kernel: Kernel) -> str:
    """Shell lines with what tests and scripts find in their environment."""
    variables = {
        "MBUFF_VM": "1",
        "MBUFF_KERNEL": kernel.name,
        "MBUFF_BUILD": str(modules.directory(kernel)),
        "MBUFF_MODULE": str(modules.module(kernel)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "CI": os.environ.get("CI", ""),
        # A kernel that looks at every access and every lock takes its time.
        "MBUFF_PATIENCE": "1" if kernel.name in SELECTED else "8",
    }
    # How long the long tests are: MBUFF_KILLS and others.
    variables |= {key: value for key, value in os.environ.items()
                  if key.startswith("MBUFF_") and key not in variables}
    return "\n".join(f"export {key}={shlex.quote(value)}" for key, value in variables.items())


def script(kernel: Kernel, options: Sequence[str] = (), *, seconds: float) -> str:
    """A script that runs the tests; their results go to junit.xml beside the script.

    When its time is over, pytest is interrupted, so that it still says what it has found. The
    programs that they run are built here: an emulated processor needs minutes for that.
    """
    device_programs()
    of_one = TEST_SECONDS if kernel.name in SELECTED else DEBUG_TEST_SECONDS
    command = ["timeout", "-s", "INT", "-k", "30", str(seconds),
               sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v",
               "-o", f"timeout={of_one}"]
    if kernel.name in SELECTED:
        command += ["-m", SELECTED[kernel.name]]
    if not any(option.startswith("tests/") for option in options):
        command.append("tests/kernel/inside")
    return (f"{environment(kernel)}\n{shlex.join([*command, *options])} "
            '--junitxml="$MBUFF_RUN_DIRECTORY/junit.xml"')
