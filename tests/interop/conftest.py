# SPDX-License-Identifier: MIT
"""Where programs of all languages meet their areas: a mount, or MBUFF_TEST_DIR if that is set."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def area_directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The directory of areas; one that MBUFF_TEST_DIR names is made, and removed, if need be."""
    given = os.environ.get("MBUFF_TEST_DIR")
    if given is None:
        yield Path(os.fsdecode(request.getfixturevalue("mountpoint")))
        return
    directory = Path(given)
    made = not directory.exists()
    if made:
        directory.mkdir()
    yield directory
    if made:
        directory.rmdir()  # fails where a test has left an area behind


@pytest.fixture
def area(area_directory: Path) -> Iterator[Path]:
    """The path of an area that does not exist yet, and no longer does when the test is over."""
    path = area_directory / f"example-{uuid.uuid4().hex}"
    yield path
    path.unlink(missing_ok=True)
