# SPDX-License-Identifier: MIT
"""Messages by io_uring: used where the kernel has it, unless refused, and no client hangs in it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs import uring
from mbufffs.backends.registry import DEVICE
from mbufffs.cli.umount import end_mount
from mbufffs.machine import version
from tests.conftest import Mounted, needs_root, wait_for

pytestmark = [
    needs_root,
    pytest.mark.skipif(
        not uring.SWITCH.exists() or version(os.uname().release) < (6, 18)
        or os.path.exists(DEVICE), reason="FUSE over io_uring takes Linux 6.18, areas of shmem"),
]


@pytest.fixture(params=["N", "Y"])
def switch(request: pytest.FixtureRequest) -> Iterator[str]:
    before = uring.SWITCH.read_text()
    uring.SWITCH.write_text(request.param)
    yield request.param
    uring.SWITCH.write_text(before)


def work(mounted: Mounted) -> int:
    """Messages that came by a ring while an area was made, found, sized, renamed and removed."""
    before = mounted.info()["channel"]["ringed"]
    path = mounted.path / "a"
    path.write_bytes(b"x" * 5000)
    os.truncate(path, 2 << 20)
    path.rename(mounted.path / "b")
    assert (mounted.path / "b").stat().st_size == 2 << 20
    (mounted.path / "b").unlink()
    assert not list(mounted.path.iterdir())
    return int(mounted.info()["channel"]["ringed"]) - before


def test_it_is_used_and_the_switch_stays_as_it_was(
    switch: str, new_mount: Callable[..., Mounted]
) -> None:
    mounted = new_mount()
    assert uring.SWITCH.read_text().strip() == switch
    assert mounted.info()["io_uring"] is True
    assert work(mounted) >= 5
    mounted.kill_server()
    assert work(mounted) >= 5
    mounted.stop()


def test_it_can_be_refused_where_the_switch_is_on(
    switch: str, new_mount: Callable[..., Mounted]
) -> None:
    mounted = new_mount(io_uring=False)
    assert mounted.info()["io_uring"] is False
    assert work(mounted) == 0
    mounted.stop()


def test_through_the_page_cache_it_is_not_used(new_mount: Callable[..., Mounted]) -> None:
    mounted = new_mount(passthrough=False)
    assert mounted.info()["io_uring"] is False
    assert work(mounted) == 0
    mounted.stop()


def test_clients_that_are_killed_go_though_no_server_answers(fresh: Mounted) -> None:
    """However early: see interrupts.c. More of them than have room at the channel at once."""
    server = fresh.info()["server"]
    os.kill(server, signal.SIGSTOP)
    try:
        clients = []
        for number in range(100):
            client = os.fork()
            if not client:
                os.execvp("mkdir", ["mkdir", f"{fresh.path}/{number}"])
            clients.append(client)
            if number % 2:
                time.sleep(random.random() / 200)
            os.kill(client, signal.SIGKILL)

        def gone() -> bool:
            clients[:] = [client for client in clients if os.waitpid(client, os.WNOHANG)[0] == 0]
            return not clients

        wait_for(gone, "all clients are gone")
    finally:
        os.kill(server, signal.SIGCONT)
    (fresh.path / "a").touch()


def test_idle_rings_use_no_processor_time(fresh: Mounted) -> None:
    assert work(fresh)
    stat = Path(f"/proc/{fresh.info()['keeper']}/stat")
    time.sleep(0.1)
    before = stat.read_text().split()[13:15]  # in ticks of 10 ms
    time.sleep(1)
    assert stat.read_text().split()[13:15] == before


@pytest.mark.parametrize("end", ["unmounted", "killed"])
def test_the_store_is_free_as_soon_as_its_keeper_has_gone(
    new_mount: Callable[..., Mounted], end: str
) -> None:
    """What a process leaves of a ring to the kernel keeps the device and the areas for a while."""
    for _ in range(10):
        mounted = new_mount()
        work(mounted)
        (mounted.path / "a").write_bytes(b"x")
        if end == "killed":
            mounted.kill_keeper()
        end_mount(str(mounted.path), lazy=False, discard=True)
