# SPDX-License-Identifier: MIT
"""What becomes of a question to a keeper: its answer, or the error that fits."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from mbufffs import client
from mbufffs.client import ask, served
from mbufffs.errors import NotMounted
from mbufffs.state import State, state_of
from tests.unit.fakes import INFO, FakeKeeper

Start = Callable[..., FakeKeeper]
QUESTION = {"ask": "info"}


@pytest.fixture
def state(runtime: Path) -> State:
    return state_of("/mnt/mbuff")


def test_the_keeper_gets_the_question_and_its_answer_comes_back(
    state: State, keeper: Start
) -> None:
    fake = keeper(state, INFO)
    assert ask(state, QUESTION) == INFO
    assert fake.questions == [QUESTION]


def test_an_answer_may_have_64_kib(state: State, keeper: Start) -> None:
    large = {"text": "x" * (65536 - len(json.dumps({"text": ""})))}
    keeper(state, large)
    assert ask(state, QUESTION) == large


def test_a_socket_path_longer_than_sun_path_is_reached(runtime: Path, keeper: Start) -> None:
    state = state_of("/" + "/".join(["directory"] * 15))
    assert len(str(state.control)) > 108
    keeper(state, INFO)
    assert ask(state, QUESTION) == INFO


def test_without_a_socket_the_error_tells_how_to_start(state: State) -> None:
    with pytest.raises(NotMounted, match="mbufffs mount /mnt/mbuff"):
        ask(state, QUESTION)


def test_the_socket_of_a_killed_keeper_is_not_mounted(state: State) -> None:
    state.directory.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(state.control))
    with pytest.raises(NotMounted):
        ask(state, QUESTION)


def test_a_keeper_that_ends_before_it_answers_is_not_mounted(
    state: State, keeper: Start
) -> None:
    keeper(state, b"")
    with pytest.raises(NotMounted):
        ask(state, QUESTION)


def test_a_keeper_that_hangs_is_a_timeout(
    state: State, keeper: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.05)
    keeper(state, None)
    with pytest.raises(TimeoutError) as raised:
        ask(state, QUESTION)
    assert raised.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("answer", [b"\xff", b"[1]", b"{", b'"' + b"x" * 70000 + b'"'])
def test_an_answer_that_is_no_object_is_a_protocol_error(
    state: State, keeper: Start, answer: bytes
) -> None:
    keeper(state, answer)
    with pytest.raises(OSError, match="another version") as raised:
        ask(state, QUESTION)
    assert raised.value.errno == errno.EPROTO


def test_the_error_that_a_keeper_answers_is_raised(state: State, keeper: Start) -> None:
    keeper(state, {"error": "no such question", "errno": errno.EINVAL})
    with pytest.raises(OSError, match="no such question") as raised:
        ask(state, QUESTION)
    assert raised.value.errno == errno.EINVAL


def test_a_mount_with_a_named_store_is_found_by_its_mount_point(
    runtime: Path, keeper: Start
) -> None:
    named = state_of("/mnt/mbuff", "cameras")
    keeper(state_of("/mnt/other"), {**INFO, "mountpoint": "/mnt/other"})
    keeper(named, INFO)
    assert served("/mnt/mbuff") == (named, INFO)


def test_a_keeper_that_serves_another_mount_is_not_taken_for_ours(
    state: State, keeper: Start
) -> None:
    keeper(state, {**INFO, "mountpoint": "/mnt/other"})
    with pytest.raises(NotMounted):
        served("/mnt/mbuff")


def test_what_ails_keepers_of_other_mounts_is_ignored(runtime: Path, keeper: Start) -> None:
    keeper(state_of("/mnt/broken"), b"nonsense")
    (runtime / "file").touch()
    with pytest.raises(NotMounted):
        served("/mnt/mbuff")
