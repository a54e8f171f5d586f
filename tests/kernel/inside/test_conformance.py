# SPDX-License-Identifier: MIT
"""What every backend promises, on the device backend: the tests of tests/conformance again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs.backends import Backend
from tests.conformance.conftest import backend, on_device  # noqa: F401
from tests.conformance.test_backend import *  # noqa: F403
from tests.kernel.inside.conftest import Module


@pytest.fixture
def reopened(module: Module) -> Iterator[Callable[[], Backend]]:
    umask = os.umask(0)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as store, on_device(Path(store)) as make:
        yield make
    os.umask(umask)
    assert module.loaded
