# SPDX-License-Identifier: MIT
"""The edge of the command line: every error is one line and one exit code, wherever it arises."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from mbufffs.cli.edge import Edge
from mbufffs.errors import Exit, Unavailable
from tests.unit.fakes import FakeMounts, Run, is_one_line

NAMES = ["mount", "umount", "ls", "create", "rm", "info", "doctor", "bench"]


def group_that_raises(error: BaseException) -> click.Group:
    @click.group(cls=Edge)
    def group() -> None:
        pass

    @group.command()
    def fail() -> None:
        raise error

    return group


@pytest.mark.parametrize(("code", "expected"), [
    (errno.ENOTCONN, Exit.NOT_MOUNTED), (errno.EBUSY, Exit.BUSY),
    (errno.EACCES, Exit.NOT_PERMITTED), (errno.ENOENT, Exit.NOT_FOUND),
    (errno.EEXIST, Exit.EXISTS), (errno.ENOSPC, Exit.NO_SPACE), (errno.EIO, Exit.FAILED)])
def test_an_oserror_is_one_line_and_its_exit_code(run: Run, code: int, expected: Exit) -> None:
    done = run("fail", group=group_that_raises(OSError(code, "went wrong", "a\nb")))
    assert (done.code, done.out, done.err) == (expected, "", "mbufffs: a\\x0ab: went wrong\n")


def test_what_the_machine_lacks_is_exit_code_9(run: Run) -> None:
    assert run("fail", group=group_that_raises(Unavailable("no /dev/fuse"))).code == 9


def test_an_interrupt_is_130_without_a_traceback(run: Run) -> None:
    done = run("fail", group=group_that_raises(KeyboardInterrupt()))
    assert (done.code, done.err.strip()) == (130, "")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        group_that_raises(ZeroDivisionError()).main(["fail"])


@pytest.mark.parametrize("arguments", [
    ["nonsense"], ["ls", "--nonsense"], ["rm"], ["create", "a"], ["create", "a", "1", "2"]])
def test_wrong_usage_is_one_line_that_names_the_help(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.code == Exit.USAGE
    assert is_one_line(done, "--help")


def test_without_a_command_the_help_goes_to_stderr(run: Run) -> None:
    done = run()
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert "A first tour" in done.err


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_every_command_has_examples(run: Run, name: str) -> None:
    done = run(name, "--help")
    assert done.code == 0
    assert f"Examples:\n    mbufffs {name}" in done.out


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", "from mbufffs.cli import main; main()", *arguments],
        check=False, stderr=subprocess.PIPE, **options)


def test_a_command_waits_for_the_import_of_no_other() -> None:
    """They are half of what `mbufffs mount` would take before its keeper starts."""
    code = ("import sys; from mbufffs.cli import commands; commands.get_command(None, 'mount'); "
            "print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported = set(done.stdout.split())
    assert "mbufffs.cli.mount" in imported
    assert not imported & {"mbufffs.cli.doctor", "mbufffs.cli.bench", "mbufffs.diagnosis"}


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = program("--help", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (Exit.FAILED, b"")


def test_a_full_disk_under_standard_output_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = program("--help", stdout=full)
    assert (done.returncode, done.stderr) == (
        Exit.NO_SPACE, b"mbufffs: No space left on device\n")


@pytest.mark.parametrize("arguments", [
    ["ls"], ["create", "a", "1"], ["rm", "a"], ["info", "a"], ["info"], ["umount"]])
def test_without_a_mount_every_command_tells_how_to_make_one(
    run: Run, runtime: Path, fake_mounts: FakeMounts, tmp_path: Path, arguments: list[str],
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBUFFFS_MOUNT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.code == Exit.NOT_MOUNTED
    assert is_one_line(done, f"mbufffs mount {tmp_path}")
    assert os.listdir(tmp_path) == ["run"]


def test_a_mount_of_another_kind_is_not_ours(
    run: Run, fake_mounts: FakeMounts, tmp_path: Path
) -> None:
    fake_mounts.add(tmp_path, "ext4")
    done = run("ls", "-m", str(tmp_path))
    assert done.code == Exit.NOT_MOUNTED
    assert is_one_line(done, "ext4")


def test_names_may_be_paths_by_the_mount_point_and_by_a_link_to_it(
    run: Run, mount: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(mount)
    assert run("create", f"{mount}/a", "1").code == 0
    assert run("create", "-m", str(link), f"{link}/b", "1").code == 0
    assert sorted(os.listdir(mount)) == ["a", "b"]
    assert is_one_line(run("rm", "/etc/passwd"), "is not below")


def test_every_exit_code_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs/command-line.md").read_text(encoding="utf-8")
    documented = {int(code): name for code, name in re.findall(
        r"^\| (\d+) \| `([A-Z_]+)` ", manual, re.MULTILINE)}
    assert documented == {int(code): code.name for code in Exit}
