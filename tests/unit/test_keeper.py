# SPDX-License-Identifier: MIT
"""When a keeper starts the next server, and when it gives up; without a mount."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from typing import Any

import pytest

from mbufffs.keeper import FAILURES_MAX, LIVED, Keeper, Settings


class FakeChannel:
    def __init__(self) -> None:
        self.replies = 0
        self.state = "serving"
        self.error = 0
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def counters(self) -> dict[str, Any]:
        return {"replies": self.replies}


@pytest.fixture
def keeper() -> Keeper:
    keeper = Keeper(Settings("/nonexistent", backend="shmem"))
    keeper._channel = FakeChannel()  # type: ignore[assignment]
    return keeper


def a_server_ends(keeper: Keeper, lived: float = 0) -> None:
    keeper._server = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    keeper._server_started = time.monotonic() - lived
    keeper._bury()


def test_servers_that_end_at_their_start_are_given_up(keeper: Keeper) -> None:
    for _ in range(FAILURES_MAX - 1):
        a_server_ends(keeper)
        assert keeper.failed is None
    a_server_ends(keeper)
    assert keeper.failed


def test_a_server_that_answered_or_lived_for_a_while_is_no_failure(keeper: Keeper) -> None:
    for _ in range(FAILURES_MAX):
        a_server_ends(keeper, lived=LIVED + 1)
    assert keeper.failed is None
    for _ in range(FAILURES_MAX - 1):
        a_server_ends(keeper)
    keeper._channel.replies += 1  # type: ignore[attr-defined]
    for _ in range(FAILURES_MAX - 1):
        a_server_ends(keeper)
    assert keeper.failed is None


@pytest.mark.parametrize(("state", "error", "closed"), [
    ("ended", 0, True), ("ended", errno.EOPNOTSUPP, False), ("serving", 0, False)])
def test_the_kernel_is_waited_for_only_where_the_connection_ends(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch, state: str, error: int, closed: bool
) -> None:
    monkeypatch.setattr("mbufffs.keeper.DYING", 0.05)
    keeper._channel.state, keeper._channel.error = state, error  # type: ignore[misc]
    keeper._wait_for_kernel()
    assert keeper._channel.closed is closed  # type: ignore[attr-defined]
