# SPDX-License-Identifier: MIT
"""What sizes and names mean, and what each wrong one is told."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbufffs.area import SIZE_MAX, check_name, format_size, name_below, parse_size


@pytest.mark.parametrize(("text", "size"), [
    ("0", 0), ("4096", 4096), ("64K", 65536), ("64k", 65536), ("64KiB", 65536), ("1M", 1 << 20),
    ("1MiB", 1 << 20), ("2G", 2 << 30), ("3t", 3 << 40), ("007", 7), ("9223372036854775807",
                                                                     SIZE_MAX)])
def test_a_size_is_bytes_or_a_number_with_a_power_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "code", "says"), [
    ("-1", errno.EINVAL, "negative"), ("-64K", errno.EINVAL, "negative"),
    ("", errno.EINVAL, "not a whole number"), ("many", errno.EINVAL, "not a whole number"),
    ("1.5G", errno.EINVAL, "not a whole number"), (" 1", errno.EINVAL, "not a whole number"),
    ("1_000", errno.EINVAL, "not a whole number"), ("+1", errno.EINVAL, "not a whole number"),
    ("0x10", errno.EINVAL, "not a whole number"),
    ("\u0663", errno.EINVAL, "not a whole number"), ("1\n", errno.EINVAL, "not a whole number"),
    ("5X", errno.EINVAL, "unknown unit"), ("5KB", errno.EINVAL, "unknown unit"),
    ("5iB", errno.EINVAL, "unknown unit"), ("5E", errno.EINVAL, "unknown unit"),
    ("9223372036854775808", errno.EFBIG, "too large"), ("8388608T", errno.EFBIG, "too large"),
    ("9" * 5000, errno.EFBIG, "too large"), ("x" * 5000, errno.EINVAL, "not a whole number")])
def test_a_wrong_size_is_told_what_is_wrong_with_it(text: str, code: int, says: str) -> None:
    with pytest.raises(OSError, match=says) as raised:
        parse_size(text)
    assert raised.value.errno == code
    assert len(str(raised.value)) <= 150


@given(st.integers(0, SIZE_MAX))
def test_a_size_written_and_read_again_is_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_an_oserror(text: str) -> None:
    try:
        assert 0 <= parse_size(text) <= SIZE_MAX
    except OSError as error:
        assert error.errno in (errno.EINVAL, errno.EFBIG)


def test_sizes_are_written_in_the_largest_unit_that_is_exact() -> None:
    assert [format_size(size) for size in (0, 1, 1023, 4096, 1 << 20, (1 << 20) + 1, 3 << 40)] == [
        "0", "1", "1023", "4K", "1M", "1048577", "3T"]


@pytest.mark.parametrize("name", [
    "a", "cam0/frame", "...", ".hidden", "with blank", "new\nline", "\udcff", "x" * 255,
    "é" * 127, "/".join(["d" * 255] * 3)])
def test_every_name_that_linux_takes_names_an_area(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(("name", "code", "says"), [
    ("", errno.EINVAL, "needs a name"), (".", errno.EINVAL, "as a component"),
    ("..", errno.EINVAL, "as a component"), ("a/../b", errno.EINVAL, "as a component"),
    ("a//b", errno.EINVAL, "empty component"), ("a/", errno.EINVAL, "empty component"),
    ("a\0b", errno.EINVAL, "NUL"), ("x" * 256, errno.ENAMETOOLONG, "256 bytes"),
    ("é" * 128, errno.ENAMETOOLONG, "256 bytes")])
def test_a_wrong_name_is_told_what_is_wrong_with_it(name: str, code: int, says: str) -> None:
    with pytest.raises(OSError, match=says) as raised:
        check_name(name)
    assert raised.value.errno == code


def test_a_path_below_the_mount_is_the_name_of_its_area() -> None:
    assert name_below("/mnt/mbuff", "/mnt/mbuff/cam0/frame") == "cam0/frame"
    assert name_below("/mnt/mbuff", "cam0/frame") == "cam0/frame"
    assert name_below("/", "/frame") == "frame"


@pytest.mark.parametrize("path", ["/mnt/mbuffer/a", "/etc/passwd", "/mnt/mbuff"])
def test_a_path_elsewhere_is_no_area(path: str) -> None:
    with pytest.raises(OSError, match="is not below /mnt/mbuff"):
        name_below("/mnt/mbuff", path)
