# SPDX-License-Identifier: MIT
"""The module comes and goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.inside.conftest import Module

pytestmark = pytest.mark.rt


def test_a_loaded_module_has_its_device(module: Module) -> None:
    assert module.loaded
    assert Path("/dev/mbuff").is_char_device()


def test_an_unused_module_can_be_unloaded_and_loaded_again(module: Module) -> None:
    for _ in range(10):
        module.rmmod()
        assert not Path("/dev/mbuff").exists()
        module.insmod()
