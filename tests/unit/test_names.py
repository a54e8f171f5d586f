# SPDX-License-Identifier: MIT
"""The names of the kernel module's areas, put in and dropped in the order of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mbufffs.backends.names import Names, split

COMPONENTS = st.sampled_from([b"a", b"b", b"c"])
NAMES = st.lists(COMPONENTS, min_size=1, max_size=3).map(b"/".join)


def test_a_name_is_split_at_its_last_slash() -> None:
    assert split(b"frame") == (b"", b"frame")
    assert split(b"cam0/left/frame") == (b"cam0/left", b"frame")


def test_the_later_of_two_areas_has_the_name() -> None:
    names = Names()
    names.put(1, b"a")
    names.put(2, b"a")
    assert names.at(b"a") == 2
    assert 1 not in names


@given(st.lists(st.tuples(st.integers(1, 5), st.none() | NAMES)))
def test_every_view_tells_the_same(events: list[tuple[int, bytes | None]]) -> None:
    names = Names()
    expected: dict[int, bytes] = {}
    for area, name in events:
        if name is None:
            assert names.drop(area) == expected.pop(area, b"")
        else:
            names.put(area, name)
            expected = {other: at for other, at in expected.items() if at != name and other != area}
            expected[area] = name
    assert names.of == expected
    for area, name in expected.items():
        directory = split(name)[0]
        assert names.at(name) == area
        assert area in names.next_in(directory, area - 1)
        assert area not in names.next_in(directory, area)
    for directory in (b"a", b"b", b"a/b", b"c/c"):
        below = any(name.startswith(directory + b"/") for name in expected.values())
        assert names.any_below(directory) == below
