# SPDX-License-Identifier: MIT
"""Descriptors of nodes that are kept: how many, and for how long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbufffs.backends import descriptors
from mbufffs.backends.descriptors import Descriptors

MOST = descriptors._MOST


def count() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def opened() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def kept(tmp_path: Path, opened: list[tuple[int, int]]) -> Iterator[Descriptors]:
    def open_node(node: int, flags: int) -> int:
        opened.append((node, flags))
        return os.open(tmp_path, flags)

    descriptors = Descriptors(open_node)
    yield descriptors
    descriptors.close()


def test_a_node_is_opened_once_for_each_use(kept: Descriptors,
                                            opened: list[tuple[int, int]]) -> None:
    path = kept.get(1, os.O_PATH)
    assert kept.get(1, os.O_PATH) == path == kept.kept(1, os.O_PATH)
    assert kept.get(1, os.O_RDONLY) != path
    assert opened == [(1, os.O_PATH), (1, os.O_RDONLY)]
    assert kept.kept(2, os.O_PATH) is None


def test_those_used_last_stay(kept: Descriptors, opened: list[tuple[int, int]]) -> None:
    before = count()
    for node in range(MOST):
        kept.get(node, os.O_PATH)
    kept.get(0, os.O_PATH)
    for node in range(MOST, 2 * MOST - 1):
        kept.get(node, os.O_PATH)
    assert count() == before + MOST
    kept.get(0, os.O_PATH)
    assert len(opened) == 2 * MOST - 1
    kept.get(1, os.O_PATH)
    assert len(opened) == 2 * MOST


def test_a_dropped_node_has_none(kept: Descriptors) -> None:
    before = count()
    kept.get(1, os.O_PATH)
    kept.get(1, os.O_RDONLY)
    kept.get(2, os.O_PATH)
    assert 1 in kept
    kept.drop(1)
    kept.drop(1)
    assert 1 not in kept
    assert 2 in kept
    assert count() == before + 1


def test_none_is_left_at_the_end(kept: Descriptors) -> None:
    before = count()
    kept.get(1, os.O_PATH)
    kept.close()
    assert count() == before
    assert 1 not in kept
