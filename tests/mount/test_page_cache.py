# SPDX-License-Identifier: MIT
"""Without passthrough: the same files through the page cache, coherent among users of the mount.

The mount option forces this mode, so that it is tested where the kernel has passthrough too.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Mounted, run, wait_for
from tests.mount.test_server_killed import CHURN


@pytest.fixture(scope="module")
def cached(new_mount: Callable[..., Mounted]) -> Mounted:
    return new_mount(passthrough=False)


def test_it_says_so(cached: Mounted) -> None:
    (cached.path / "said").touch()
    assert cached.info()["passthrough"] is False
    assert "nopassthrough" in cached.info()["passthrough_reason"]
    assert os.getxattr(cached.path / "said", "user.mbuff.passthrough") == b"0"


def test_mappings_reads_and_writes_agree(cached: Mounted) -> None:
    path = cached.path / "a"
    path.write_bytes(bytes(200_000))
    with path.open("r+b", buffering=0) as one, path.open("r+b", buffering=0) as two, \
            mmap.mmap(one.fileno(), 0) as first, mmap.mmap(two.fileno(), 0) as second:
        first[100_000] = 7
        assert second[100_000] == 7
        assert os.pread(two.fileno(), 1, 100_000) == b"\x07"
        os.pwrite(two.fileno(), b"\x08", 100_001)
        assert first[100_001] == 8
    assert path.read_bytes()[100_000:100_002] == b"\x07\x08"


def test_another_process_sees_mapped_bytes(cached: Mounted) -> None:
    path = cached.path / "a"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:5] = b"hello"
        assert run("head", "-c5", path).stdout == "hello"


def test_large_files_cross_in_messages_of_32_pages(cached: Mounted) -> None:
    data = os.urandom((3 << 20) + 5)
    (cached.path / "large").write_bytes(data)
    assert (cached.path / "large").read_bytes() == data
    received = cached.counts("WRITE")[0]
    assert received >= (3 << 20) // (128 << 10)


def test_truncating_and_removing_work_as_with_passthrough(cached: Mounted) -> None:
    path = cached.path / "a"
    path.write_bytes(b"x" * 10_000)
    with path.open("r+b", buffering=0) as file:
        os.ftruncate(file.fileno(), 5)
        assert os.pread(file.fileno(), 10, 0) == b"xxxxx"
        os.ftruncate(file.fileno(), 10)
        assert os.pread(file.fileno(), 10, 0) == b"xxxxx" + bytes(5)
        path.unlink()
        os.pwrite(file.fileno(), b"after", 0)
        assert os.pread(file.fileno(), 10, 0) == b"after" + bytes(5)
    hidden = cached.state.store / "hidden"
    wait_for(lambda: not list(hidden.iterdir()), "the removed area is gone")


def test_a_file_opened_for_writing_may_have_a_mode_that_forbids_it(cached: Mounted) -> None:
    fd = os.open(cached.path / "readonly", os.O_RDWR | os.O_CREAT, 0o400)
    os.pwrite(fd, b"bytes", 0)
    os.close(fd)
    assert (cached.path / "readonly").read_bytes() == b"bytes"
    assert (cached.path / "readonly").stat().st_mode & 0o777 == 0o400


def test_clients_notice_no_death_of_the_server_either(cached: Mounted) -> None:
    client = subprocess.Popen([sys.executable, CHURN, cached.path, "client"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(4):
        seen = cached.counts("LOOKUP")[0]
        wait_for(lambda seen=seen: cached.counts("LOOKUP")[0] > seen + 30, "the client works")
        cached.kill_server()
    found = json.loads(client.communicate("")[0])
    assert (found["errors"], found["wrong"]) == ([], [])
    assert found["rounds"]


def test_an_open_file_is_read_by_the_next_server(cached: Mounted) -> None:
    path = cached.path / "a"
    path.write_bytes(b"x" * 300_000)
    with path.open("rb", buffering=0) as file:
        file.read(1)
        path.unlink()
        cached.kill_server()
        Path("/proc/self/fd").iterdir()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(file.fileno(), 300_000, 0) == b"x" * 300_000


def test_the_descriptors_of_a_server_are_bounded(cached: Mounted) -> None:
    for number in range(300):
        (cached.path / f"area-{number}").write_bytes(b"x")
    server = cached.info()["server"]
    assert len(os.listdir(f"/proc/{server}/fd")) < 150
