# SPDX-License-Identifier: MIT
"""What handlers answer, and what they tell the channel before, over a store without a mount."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pyfuse3
import pytest
import trio

from mbufffs.ahead import NAMES_MAX
from mbufffs.backends import ROOT
from mbufffs.backends.shmem import ShmemBackend, prepare_store
from mbufffs.operations import Operations
from tests.conftest import PREFIX

ATTRIBUTES, NAMES = 0x4D44, 0x4D45


class Ours:
    """Uid, gid and pid of a request."""

    def __init__(self) -> None:
        self.uid, self.gid, self.pid, self.umask = os.getuid(), os.getgid(), os.getpid(), 0


class Served:
    def __init__(self, store: Path) -> None:
        self.backend = ShmemBackend(store, locked=False, handles=False)
        self.backend.sole = True  # as with root's rights
        self.told: list[tuple[int, bytes]] = []
        self.operations = Operations(self.backend, self._tell, None)

    def _tell(self, message: bytes) -> None:
        while message:
            length, code, unique = struct.unpack_from("=IiQ", message)
            assert 16 <= length <= len(message) and not unique
            if code in (ATTRIBUTES, NAMES):
                self.told.append((code, message[16:length]))
            message = message[length:]

    def do(self, handler: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """The result, and what was told meanwhile is in `told`."""
        self.told.clear()

        async def run() -> Any:
            return await handler(*arguments, Ours())

        return trio.run(run)

    def fails(self, error: int, handler: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        with pytest.raises(pyfuse3.FUSEError) as raised:
            self.do(handler, *arguments)
        assert raised.value.errno == error

    def directories(self) -> list[tuple[int, int]]:
        """Those whose attributes were told, with their time of change in ns."""
        return [(words[0], words[8] * 10**9 + words[11]) for code, body in self.told
                if code == ATTRIBUTES and (words := struct.unpack("=QQII6Q10I", body))]

    def changed(self, node: int) -> tuple[int, int]:
        return node, self.backend.attributes(node).stat.st_mtime_ns


@pytest.fixture
def served() -> Iterator[Served]:
    store = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/dev/shm"))
    prepare_store(store, 0o755)
    served = Served(store)
    yield served
    served.backend.close()
    shutil.rmtree(store)


def test_each_change_of_a_directory_is_told_with_its_attributes(served: Served) -> None:
    do, operations, backend = served.do, served.operations, served.backend
    do(operations.mkdir, ROOT, b"d", 0o755)
    assert served.directories() == [served.changed(ROOT)]
    inside = backend.lookup(ROOT, b"d").node
    do(operations.create, inside, b"a", 0o600, 0)
    assert served.directories() == [served.changed(inside)]
    do(operations.symlink, inside, b"s", b"a")
    assert served.directories() == [served.changed(inside)]
    do(operations.link, backend.lookup(inside, b"a").node, ROOT, b"hard")
    assert served.directories() == [served.changed(ROOT)]
    do(operations.mknod, inside, b"p", 0o010600, 0)
    assert served.directories() == [served.changed(inside)]
    do(operations.rename, inside, b"p", ROOT, b"q", 0)
    assert sorted(served.directories()) == sorted([served.changed(ROOT), served.changed(inside)])
    do(operations.rename, ROOT, b"q", ROOT, b"r", 0)
    assert served.directories() == [served.changed(ROOT)]
    for name in (b"a", b"s"):
        do(operations.unlink, inside, name)
        assert served.directories() == [served.changed(inside)]
    do(operations.rmdir, ROOT, b"d")
    assert served.directories() == [served.changed(ROOT)]


def test_a_change_that_fails_is_told_too(served: Served) -> None:
    served.do(served.operations.mkdir, ROOT, b"d", 0o755)
    served.fails(errno.EEXIST, served.operations.mkdir, ROOT, b"d", 0o755)
    assert served.directories() == [served.changed(ROOT)]


def test_a_name_that_was_missing_once_tells_all_that_are_there(served: Served) -> None:
    for name in (b"a", b"b"):
        served.do(served.operations.create, ROOT, name, 0o600, 0)
    accessed = served.backend.attributes(ROOT).stat.st_atime_ns
    assert served.do(served.operations.lookup, ROOT, b"none").st_ino == 0
    assert [(code, body[:8], sorted(body[8:].split(b"\0"))) for code, body in served.told] == [
        (NAMES, struct.pack("=Q", ROOT), [b"", b"a", b"b"])]
    assert served.backend.attributes(ROOT).stat.st_atime_ns == accessed
    served.do(served.operations.lookup, ROOT, b"a")
    assert not served.told


def test_too_many_names_are_not_told_and_seldom_counted(served: Served,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def names(node: int, most: int) -> None:
        assert most == NAMES_MAX
        counted.append(node)

    monkeypatch.setattr(served.backend, "names", names)
    for _ in range(100):
        served.do(served.operations.lookup, ROOT, b"none")
        assert not served.told
    assert counted == [ROOT] * 7  # 1, 2, 4, ... 64


def test_a_store_counts_names_up_to_the_most_that_are_wanted(served: Served) -> None:
    for number in range(5):
        served.do(served.operations.create, ROOT, b"%d" % number, 0o600, 0)
    assert sorted(served.backend.names(ROOT, 5) or []) == [b"0", b"1", b"2", b"3", b"4"]
    assert served.backend.names(ROOT, 4) is None


def test_others_who_change_directories_leave_nothing_to_tell(served: Served) -> None:
    served.backend.sole = False
    served.do(served.operations.create, ROOT, b"a", 0o600, 0)
    assert not served.told
    served.do(served.operations.lookup, ROOT, b"none")
    assert not served.told


def test_a_removed_area_is_not_found_by_its_handle(served: Served) -> None:
    served.do(served.operations.create, ROOT, b"a", 0o600, 0)
    node = served.backend.lookup(ROOT, b"a").node
    assert served.do(served.operations.lookup, node, b".").st_ino == node
    served.do(served.operations.unlink, ROOT, b"a")
    served.fails(errno.ESTALE, served.operations.lookup, node, b".")
