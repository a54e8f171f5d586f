# SPDX-License-Identifier: MIT
"""A mount on the device backend, and somebody else's /dev/mbuff beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs.backends.registry import Registry
from tests.conftest import Mounted, wait_for
from tests.kernel.inside.conftest import Module
from tests.kernel.inside.old_ioctl import DEALLOCATE, old

PATIENCE = 60  # seconds: the machine is emulated, and a server takes some to start


@contextlib.contextmanager
def module_and_mount(new_mount: Callable[..., Mounted], *parameters: str) -> Iterator[Mounted]:
    """`parameters`: of the module."""
    module = Module(Path(os.environ["MBUFF_MODULE"]))
    module.insmod(*parameters)
    mounted = new_mount()
    yield mounted
    mounted.stop()
    module.unload()


@pytest.fixture(scope="module")
def shared_mount(new_mount: Callable[..., Mounted]) -> Iterator[Mounted]:
    """What `mounted` of tests/conftest.py sweeps before and after each test."""
    with module_and_mount(new_mount) as mounted:
        yield mounted


@pytest.fixture
def registry(shared_mount: Mounted) -> Iterator[Registry]:
    """Another open /dev/mbuff; when it is closed, all memory must have come back."""
    def is_empty() -> bool:
        usage = registry.usage()
        return usage.areas == usage.used_bytes == 0

    with contextlib.closing(Registry.open()) as registry:
        wait_for(is_empty, "what an earlier test has removed is freed", PATIENCE)
        yield registry
        for name, found in list(registry.areas()):
            for _ in range(found.count):  # of a test that has failed
                old(registry, DEALLOCATE, name)
            with contextlib.suppress(FileNotFoundError):  # gone with its last count
                registry.remove(found.id)
        wait_for(is_empty, f"all memory is back from {shared_mount.path}", PATIENCE)
