# SPDX-License-Identifier: MIT
"""What handlers answer, over a store without a mount."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pyfuse3
import pytest
import trio

from mbufffs.backends import ROOT
from mbufffs.backends.shmem import ShmemBackend, prepare_store
from mbufffs.channel import FORGET_DONE
from mbufffs.operations import Operations
from tests.conftest import PREFIX


class Ours:
    """Uid, gid and pid of a request."""

    def __init__(self) -> None:
        self.uid, self.gid, self.pid, self.umask = os.getuid(), os.getgid(), os.getpid(), 0


class Served:
    def __init__(self, store: Path) -> None:
        self.store = store
        self.backend = ShmemBackend(store, locked=False, handles=False)
        self.operations = Operations(self.backend, lambda message: None, None)

    def do(self, handler: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        async def run() -> Any:
            return await handler(*arguments)

        return trio.run(run)

    def fails(self, error: int, handler: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        with pytest.raises(pyfuse3.FUSEError) as raised:
            self.do(handler, *arguments)
        assert raised.value.errno == error


@pytest.fixture
def served() -> Iterator[Served]:
    store = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/dev/shm"))
    prepare_store(store, 0o755)
    served = Served(store)
    yield served
    served.backend.close()
    shutil.rmtree(store)


def test_a_removed_area_is_not_found_by_its_handle(served: Served) -> None:
    served.do(served.operations.create, ROOT, b"a", 0o600, 0, Ours())
    node = served.backend.lookup(ROOT, b"a").node
    assert served.do(served.operations.lookup, node, b".", Ours()).st_ino == node
    served.do(served.operations.unlink, ROOT, b"a", Ours())
    served.fails(errno.ESTALE, served.operations.lookup, node, b".", Ours())


def test_the_end_of_an_area_that_the_channel_has_removed_is_no_news(served: Served) -> None:
    served.do(served.operations.forget, [(7, FORGET_DONE)])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_store_is_granted_to_the_channel_where_nodes_are_file_handles(served: Served) -> None:
    assert served.backend.granted == 0
    backend = ShmemBackend(served.store, locked=False)
    assert backend.granted > 0
    backend.close()
