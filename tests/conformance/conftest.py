# SPDX-License-Identifier: MIT
"""The backends under test; the facts in this directory hold for each of them.

That over the kernel module is tested in a VM, by tests/kernel/inside/test_conformance.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs import mounts
from mbufffs.backends import Backend, Caller, device, directories, listing, shmem
from mbufffs.backends.registry import Registry
from tests.conftest import PREFIX

LIMIT = 64 << 20
ME = Caller(os.geteuid(), os.getegid())
AGAIN = Caller(os.geteuid(), os.getegid(), again=True)


@pytest.fixture(params=["shmem by handle", "shmem by path", "shmem before 6.6"])
def reopened(request: pytest.FixtureRequest,
             monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Backend]]:
    """Makes the backend on one store; each call is what a new server would see."""
    if request.param == "shmem by handle" and os.geteuid() != 0:
        pytest.skip("file handles need root")
    store = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/dev/shm"))
    if request.param == "shmem by handle":
        mounts.mount_tmpfs(store, LIMIT)
    else:
        def refused(_: int) -> None:
            raise PermissionError

        monkeypatch.setattr(shmem, "HandleNodes", refused)
    if request.param == "shmem before 6.6":
        monkeypatch.setattr(listing, "offsets_are_stable", lambda _: False)
    shmem.prepare_store(store, 0o755)
    umask = os.umask(0)
    made: list[shmem.ShmemBackend] = []

    def make() -> Backend:
        made.append(shmem.ShmemBackend(store, locked=False))
        return made[-1]

    yield make
    os.umask(umask)
    for backend in made:
        backend.close()
    if request.param == "shmem by handle":
        mounts.unmount(str(store))
    shutil.rmtree(store)


@contextlib.contextmanager
def on_device(store: Path) -> Iterator[Callable[[], Backend]]:
    """On the kernel module, in a VM: tests/kernel/inside/test_conformance.py."""
    directories.prepare_directories(store, 0o755)
    registry = Registry.open()  # one for all servers, as the keeper has it
    events = registry.events()
    limit = Path("/sys/module/mbuff/parameters/max_bytes")
    before = limit.read_text()
    limit.write_text(str(LIMIT))
    made: list[device.DeviceBackend] = []

    def make() -> Backend:
        made.append(device.DeviceBackend(Registry(os.dup(registry.fd)), os.dup(events), store))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
    for _name, found in list(registry.areas()):
        registry.remove(found.id)
    os.close(events)
    registry.close()
    limit.write_text(before)


@pytest.fixture
def backend(reopened: Callable[[], Backend]) -> Backend:
    return reopened()
