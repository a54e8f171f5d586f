# SPDX-License-Identifier: MIT
"""What the commands for areas print and leave behind; a plain directory stands in for the mount."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from mbufffs.cli import commands, table
from mbufffs.cli.names import shown
from mbufffs.errors import Exit
from mbufffs.state import State
from tests.unit.fakes import INFO, FakeKeeper, Run, is_one_line

# create


def test_create_makes_an_area_of_that_size(run: Run, mount: Path) -> None:
    done = run("create", "a", "64K")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert (mount / "a").read_bytes() == bytes(65536)


def test_create_gives_the_mode_whatever_the_umask(run: Run, mount: Path) -> None:
    before = os.umask(0o077)
    try:
        run("create", "--mode", "0664", "a", "1")
        run("create", "b", "1")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((mount / name).stat().st_mode) for name in "ab"] == [0o664, 0o600]


def test_create_of_an_existing_name_is_exit_code_7_and_changes_nothing(
    run: Run, mount: Path
) -> None:
    (mount / "a").write_text("bytes")
    assert run("create", "a", "0").code == Exit.EXISTS
    assert (mount / "a").read_text() == "bytes"


def test_create_makes_directories_when_told_to(run: Run, mount: Path) -> None:
    done = run("create", "cam0/left/frame", "1")
    assert done.code == Exit.NOT_FOUND
    assert is_one_line(done, "--parents")
    assert run("create", "--parents", "cam0/left/frame", "1").code == 0
    assert (mount / "cam0/left/frame").stat().st_size == 1


def test_a_size_that_fails_leaves_neither_name_nor_directory(
    run: Run, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "ftruncate", full)
    done = run("create", "-p", "new/dir/a", "2G")
    assert done.code == Exit.NO_SPACE
    assert is_one_line(done, "2G do not fit")
    assert os.listdir(mount) == []


@pytest.mark.parametrize(("size", "code"), [
    ("-5", Exit.USAGE), ("-64K", Exit.USAGE), ("much", Exit.USAGE), ("5X", Exit.USAGE),
    ("9223372036854775808", Exit.NO_SPACE)])
def test_a_wrong_size_is_one_line_and_makes_nothing(
    run: Run, mount: Path, size: str, code: Exit
) -> None:
    done = run("create", "a", size)
    assert done.code == code
    assert is_one_line(done, f"size '{size}'")
    assert os.listdir(mount) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "x" * 256, "a/"])
def test_a_wrong_name_is_one_line_and_makes_nothing(run: Run, mount: Path, name: str) -> None:
    done = run("create", name, "1")
    assert done.code == Exit.USAGE
    assert is_one_line(done)
    assert os.listdir(mount) == []


@pytest.mark.parametrize("mode", ["8", "rw", "10000", "-1"])
def test_a_wrong_mode_is_wrong_usage(run: Run, mount: Path, mode: str) -> None:
    assert is_one_line(run("create", "--mode", mode, "a", "1"), "octal")


# ls


@pytest.fixture
def areas(mount: Path) -> Path:
    (mount / "cam0").mkdir()
    for name, size in (("b", 3), ("cam0/frame", 4096), ("new\nline", 1), ("\udcff", 2)):
        (mount / name).write_bytes(bytes(size))
        os.chmod(mount / name, 0o640)
        os.utime(mount / name, (1_000_000_000, 1_000_000_000))
    (mount / "link").symlink_to("b")
    os.mkfifo(mount / "fifo")
    return mount


def test_ls_lists_all_areas_sorted_and_escaped_and_nothing_else(run: Run, areas: Path) -> None:
    assert run("ls").out == "b\ncam0/frame\nnew\\nline\n\\377\n"


def test_ls_lists_the_areas_named_and_those_below_a_directory(run: Run, areas: Path) -> None:
    assert run("ls", "cam0", "b").out == "b\ncam0/frame\n"


def test_ls_long_has_stable_columns_when_piped(run: Run, areas: Path) -> None:
    columns = run("ls", "-l", "cam0").out.split()
    assert columns[0] == "-rw-r-----"
    assert columns[3] == "4096"
    assert columns[4].startswith("2001-09-0")
    assert columns[5] == "cam0/frame"


def test_ls_long_on_a_terminal_is_a_table_with_every_name_as_it_is(
    run: Run, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mount / "[bold]a:smile:").write_bytes(bytes(4096))
    monkeypatch.setattr(table, "on_terminal", lambda: True)
    heading, row = run("ls", "-l").out.splitlines()
    assert heading.split() == ["mode", "owner", "group", "size", "modified", "name"]
    assert row.split()[3] == "4K"
    assert row.rstrip().endswith(" [bold]a:smile:")


def test_ls_json_has_every_documented_key(run: Run, areas: Path) -> None:
    listed = {entry["name"]: entry for entry in json.loads(run("ls", "--json").out)}
    assert listed["cam0/frame"] == {
        "name": "cam0/frame", "size": 4096, "mode": "0640", "uid": os.getuid(),
        "gid": os.getgid(), "mtime": 1e9}
    assert "name_bytes" not in listed["new\nline"]
    assert listed["\\377"]["name_bytes"] == "/w=="


def test_ls_of_an_empty_mount_prints_nothing(run: Run, mount: Path) -> None:
    assert run("ls").out == ""
    assert json.loads(run("ls", "--json").out) == []


def test_ls_goes_on_after_a_missing_name(run: Run, areas: Path) -> None:
    done = run("ls", "none", "b")
    assert (done.code, done.out) == (Exit.NOT_FOUND, "b\n")
    assert is_one_line(done, "none")


def test_names_are_shown_printable_and_on_one_line() -> None:
    assert shown("with blank é") == "with blank é"
    assert shown("a\tb\\c\x1b\u202e") == "a\\tb\\\\c\\033\\342\\200\\256"


def test_names_are_completed_but_for_those_that_need_an_escape(areas: Path) -> None:
    completion = BashComplete(commands, {}, "mbufffs", "_MBUFFFS_COMPLETE")
    for command in ("ls", "rm", "info"):
        found = completion.get_completions([command], "")
        assert [item.value for item in found] == ["b", "cam0/frame"]
    assert [item.value for item in completion.get_completions(["rm", "b"], "cam")] == [
        "cam0/frame"]


# rm


def test_rm_goes_on_after_an_error_and_tells_the_first(run: Run, areas: Path) -> None:
    done = run("rm", "none", "..", "cam0", "b", "cam0/frame")
    assert done.code == Exit.NOT_FOUND
    lines = done.err.splitlines()
    assert [word in line for word, line in zip(
        ("No such file", "as a component", "rmdir"), lines, strict=True)] == [True] * 3
    assert run("ls").out == "new\\nline\n\\377\n"


def test_rm_takes_names_of_any_bytes(run: Run, areas: Path) -> None:
    assert run("rm", "new\nline", "\udcff").code == 0


# info


def test_info_of_an_area_has_every_documented_key(
    run: Run, areas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"kind": "module", "name": "driver", "pid": None, "count": 1}
    attributes = {
        "user.mbuff.backend": b"shmem", "user.mbuff.kind": b"file", "user.mbuff.locked": b"1",
        "user.mbuff.passthrough": b"0", "user.mbuff.owners": json.dumps([owner]).encode(),
        "user.mbuff.phys": b"0x30000000"}
    monkeypatch.setattr(os, "getxattr", lambda _path, name: attributes[name])
    with open(areas / "b", "rb"):
        told = json.loads(run("info", "b", "--json").out)
    (holder,) = told.pop("open_by")
    assert (holder["pid"], holder["how"]) == (os.getpid(), ["open"])
    assert told == {
        "name": "b", "path": f"{areas}/b", "size": 3, "backend": "shmem", "kind": "file",
        "phys": 0x30000000, "passthrough": False, "locked": True, "owners": [owner],
        "mode": "0640", "uid": os.getuid(), "gid": os.getgid()}


def test_info_says_who_holds_an_area(
    run: Run, areas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = [{"kind": "module", "name": "driver", "pid": None, "count": 2},
              {"kind": "process", "name": "daq", "pid": 17, "count": 1},
              {"kind": "process", "name": "gone\n", "pid": None, "count": 3}]
    monkeypatch.setattr(
        os, "getxattr",
        lambda _path, name: json.dumps(owners).encode() if "owners" in name else b"0")
    said = [line.split(None, 1)[1] for line in run("info", "b").out.splitlines()
            if line.startswith("owner ")]
    assert said == ["module driver, 2 times", "17 (daq)",
                    "a program that has ended (gone\\n), 3 times"]
    assert json.loads(run("info", "b", "--json").out)["owners"] == owners


def test_info_tells_null_for_what_an_area_does_not_say(run: Run, areas: Path) -> None:
    told = json.loads(run("info", "b", "--json").out)
    assert [told[key] for key in ("backend", "kind", "passthrough", "locked", "owners")] == [
        None, None, None, None, []]
    assert "backend -\n" in run("info", "b").out


def test_info_without_a_name_is_what_the_keeper_says(
    run: Run, mount: Path, mount_state: State, keeper: Callable[..., FakeKeeper]
) -> None:
    said = {**INFO, "mountpoint": str(mount)}
    keeper(mount_state, said)
    assert json.loads(run("info", "--json").out) == said
    lines = run("info").out.splitlines()
    assert f"mountpoint {mount}" in lines
    assert "limit 1073741824 (1G)" in lines
    assert "passthrough yes" in lines
    assert "messages.LOOKUP 7 received, 2 answered by the channel" in lines
    assert "channel.resent 1" in lines


def test_info_of_a_directory_is_an_error(run: Run, areas: Path) -> None:
    assert is_one_line(run("info", "cam0"), "is a directory")
