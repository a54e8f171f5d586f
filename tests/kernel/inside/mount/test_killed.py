# SPDX-License-Identifier: MIT
"""Deaths of server and keeper on the device backend: what clients, waiters and areas notice."""

from __future__ import annotations

import json
import mmap
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mbufffs.backends.registry import Registry
from tests.conftest import SLOWNESS, Mounted, wait_for
from tests.kernel.inside.mount.conftest import PATIENCE

CHURN = Path(__file__).parents[3] / "mount" / "churn.py"
KILLS = int(os.environ.get("MBUFF_KILLS", "2"))  # a server takes ten seconds to start here


def alive(mounted: Mounted) -> None:
    wait_for(lambda: mounted.info()["server"], "a server is there", PATIENCE)


@pytest.mark.rt
@pytest.mark.timeout(SLOWNESS * (240 + 60 * KILLS))
def test_clients_notice_no_death_of_the_server(mounted: Mounted, registry: Registry) -> None:
    clients = [subprocess.Popen([sys.executable, CHURN, mounted.path, f"client{number}"],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for number in range(2)]
    before = mounted.info()["restarts"]
    for _ in range(KILLS):
        seen = mounted.counts("LOOKUP")[0]
        wait_for(lambda seen=seen: mounted.counts("LOOKUP")[0] > seen + 20,
                 "clients are at work", PATIENCE)
        mounted.kill_server()
    found = [json.loads(client.communicate("")[0]) for client in clients]
    assert [(one["errors"], one["wrong"]) for one in found] == [([], [])] * 2
    assert all(one["rounds"] for one in found)
    alive(mounted)
    assert mounted.info()["restarts"] - before == KILLS
    assert registry.usage().areas == 0


def test_what_happens_while_no_server_is_there_is_not_missed(
        mounted: Mounted, registry: Registry) -> None:
    gone = registry.create(b"gone", size=4096)
    registry.create(b"old", size=4096)
    within = registry.create(b"directory/within", size=4096)
    for name in ("gone", "old", "directory/within"):
        wait_for((mounted.path / name).exists, "it is there")
    # What was read last is told again; so the names above must not be in that.
    registry.create(b"other", size=4096)
    wait_for((mounted.path / "other").exists, "it is there")
    assert not (mounted.path / "new").exists()
    mounted.kill_server()
    registry.remove(gone)
    registry.remove(within)
    registry.create(b"new", size=8192)
    registry.rename(b"old", b"renamed")
    wait_for(lambda: sorted(os.listdir(mounted.path)) == ["new", "other", "renamed"],
             "the listing is right", PATIENCE)
    wait_for(lambda: not (mounted.path / "directory").exists(), "so has its directory", PATIENCE)
    wait_for(lambda: not (mounted.path / "gone").exists(), "what has gone is gone", PATIENCE)
    wait_for(lambda: not (mounted.path / "old").exists(), "the old name is gone", PATIENCE)
    wait_for((mounted.path / "new").exists, "what is new is there", PATIENCE)


@pytest.mark.rt
def test_a_waiter_survives_the_death_of_the_server(mounted: Mounted, registry: Registry) -> None:
    area = registry.create(b"area", size=4096)
    wait_for((mounted.path / "area").exists, "it is there")
    with (mounted.path / "area").open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        woken = threading.Event()

        def wait() -> None:
            poll = select.poll()
            poll.register(opened, select.POLLIN)
            while not mapped[0]:  # a wake-up for nothing is allowed
                poll.poll()
            woken.set()

        thread = threading.Thread(target=wait, daemon=True)
        asked = mounted.counts("POLL")[0]
        thread.start()
        wait_for(lambda: mounted.counts("POLL")[0] > asked, "it waits")
        mounted.kill_server()
        alive(mounted)
        mapped[0] = 1
        registry.notify(area)
        assert woken.wait(PATIENCE)
        thread.join()


@pytest.mark.rt
def test_a_notification_while_no_server_is_there_wakes(mounted: Mounted,
                                                       registry: Registry) -> None:
    area = registry.create(b"area", size=4096)
    wait_for((mounted.path / "area").exists, "it is there")
    with (mounted.path / "area").open("rb") as opened:
        mounted.kill_server()
        registry.notify(area)
        poll = select.poll()
        poll.register(opened, select.POLLIN)
        assert poll.poll(PATIENCE * 1000)


def test_areas_survive_keeper_and_server(mounted: Mounted, registry: Registry) -> None:
    (mounted.path / "directory").mkdir(mode=0o750)
    (mounted.path / "directory" / "kept").write_bytes(b"bytes")
    (mounted.path / "directory" / "kept").chmod(0o604)
    removed = (mounted.path / "removed").open("w+b")
    removed.write(bytes(8192))
    removed.flush()
    (mounted.path / "removed").unlink()
    mounted.kill_keeper()
    assert os.pread(removed.fileno(), 5, 0) == bytes(5)  # what is open works on
    mounted.start()
    assert (mounted.path / "directory" / "kept").read_bytes() == b"bytes"
    assert (mounted.path / "directory" / "kept").stat().st_mode & 0o7777 == 0o604
    assert (mounted.path / "directory").stat().st_mode & 0o7777 == 0o750
    removed.close()
    wait_for(lambda: registry.usage().areas == 1 and registry.usage().used_bytes == 4096,
             "the removed area's memory is back")
