# SPDX-License-Identifier: MIT
"""The backends under test; the facts in this directory hold for each of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs import mounts
from mbufffs.backends import Backend, Caller, device, listing, shmem
from mbufffs.backends.registry import DEVICE, Registry
from tests.conftest import PREFIX

LIMIT = 64 << 20
ME = Caller(os.geteuid(), os.getegid())
AGAIN = Caller(os.geteuid(), os.getegid(), again=True)


WAYS = ["shmem by handle", "shmem by path", "shmem before 6.6"]
if os.path.exists(DEVICE):  # in the VM of tests/kernel
    WAYS.append("device")


@pytest.fixture(params=WAYS)
def reopened(request: pytest.FixtureRequest,
             monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Backend]]:
    """Makes the backend on one store; each call is what a new server would see."""
    umask = os.umask(0)
    store = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/dev/shm"))
    make = on_device if request.param == "device" else on_shmem
    with make(request.param, store, monkeypatch) as new:
        yield new
    os.umask(umask)
    shutil.rmtree(store)


@contextlib.contextmanager
def on_shmem(way: str, store: Path,
             monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Backend]]:
    if way == "shmem by handle" and os.geteuid() != 0:
        pytest.skip("file handles need root")
    if way == "shmem by handle":
        mounts.mount_tmpfs(store, LIMIT)
    else:
        def refused(_: int) -> None:
            raise PermissionError

        monkeypatch.setattr(shmem, "HandleNodes", refused)
    if way == "shmem before 6.6":
        monkeypatch.setattr(listing, "offsets_are_stable", lambda _: False)
    shmem.prepare_store(store, 0o755)
    made: list[shmem.ShmemBackend] = []

    def make() -> Backend:
        made.append(shmem.ShmemBackend(store, locked=False))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
    if way == "shmem by handle":
        mounts.unmount(str(store))


@contextlib.contextmanager
def on_device(_: str, store: Path, __: pytest.MonkeyPatch) -> Iterator[Callable[[], Backend]]:
    """One open /dev/mbuff for all servers, as the keeper has it."""
    device.prepare_directories(store, 0o755)
    registry = Registry.open()
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
