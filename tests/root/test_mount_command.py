# SPDX-License-Identifier: MIT
"""The command line on real mounts: every state of a mount point, and one clear line for each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbufffs import mounts
from mbufffs.backends.registry import DEVICE
from mbufffs.errors import Exit
from mbufffs.state import state_of
from tests.conftest import PREFIX, is_gone, needs_root, run, take_down, wait_for
from tests.root.test_ordinary_user import as_nobody

pytestmark = needs_root

MBUFFFS = Path(sys.executable).with_name("mbufffs")


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path.resolve() / f"{PREFIX}{os.getpid()}-command"
    yield path
    if mounts.mount_at(str(path)) or state_of(str(path)).directory.exists():
        take_down(state_of(str(path)))


def mbufffs(*arguments: str | Path, code: Exit = Exit.OK,
            says: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command; a failure is one line on stderr that begins with the command's name."""
    done = subprocess.run([MBUFFFS, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    if code not in (Exit.OK, Exit.USAGE):
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("mbufffs: ")
    assert says in done.stderr
    return done


def test_mount_makes_the_mount_point_and_answers_when_it_returns(mountpoint: Path) -> None:
    mbufffs("mount", mountpoint)
    (mountpoint / "a").write_bytes(b"x")
    assert os.path.ismount(mountpoint)
    found = mounts.mount_at(str(mountpoint))
    assert found
    assert (found.fstype, found.source) == ("fuse.mbufffs", "mbufffs")
    flags = os.statvfs(mountpoint).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV
    assert {"allow_other", "default_permissions"} <= set(found.options.split(","))


def test_a_mount_that_is_there_is_refused(mountpoint: Path) -> None:
    mbufffs("mount", mountpoint)
    mbufffs("mount", mountpoint, code=Exit.EXISTS, says="is already mounted")
    assert os.path.ismount(mountpoint)


def test_a_dead_mount_is_cleared(mountpoint: Path) -> None:
    mbufffs("mount", mountpoint)
    (mountpoint / "a").write_bytes(b"kept")
    info = json.loads(mbufffs("info", "-m", mountpoint, "--json").stdout)
    os.kill(info["keeper"], signal.SIGKILL)
    wait_for(lambda: is_gone(info["keeper"]) and is_gone(info["server"]), "all are dead")
    mbufffs("ls", "-m", mountpoint, code=Exit.NOT_MOUNTED, says="mbufffs mount")
    mbufffs("mount", mountpoint)
    assert (mountpoint / "a").read_bytes() == b"kept"


def test_a_file_and_a_full_directory_are_refused_and_leave_no_trace(mountpoint: Path) -> None:
    mountpoint.write_bytes(b"")
    mbufffs("mount", mountpoint, code=Exit.FAILED, says="is not a directory")
    mountpoint.unlink()
    mountpoint.mkdir()
    (mountpoint / "something").touch()
    mbufffs("mount", mountpoint, code=Exit.FAILED, says="is not empty")
    assert not state_of(str(mountpoint)).directory.exists()
    mbufffs("mount", mountpoint, "-o", "nonempty")
    mbufffs("umount", "--discard", mountpoint)
    (mountpoint / "something").unlink()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mbufffs("mount", tmp_path / "file" / "below", code=Exit.FAILED, says="ot a directory")


@as_nobody
def test_without_the_right_to_mount_there_it_is_refused() -> None:
    done = subprocess.run(
        ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups",
         MBUFFFS, "mount", "/mnt"], capture_output=True, text=True, check=False)
    assert done.returncode in (Exit.NOT_PERMITTED, Exit.UNAVAILABLE, Exit.FAILED), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_dev_fuse_the_error_says_what_to_do(mountpoint: Path, tmp_path: Path) -> None:
    empty = tmp_path / "dev"
    empty.mkdir()
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c",
         'mount -t tmpfs none "$1" && mknod -m 666 "$1/null" c 1 3 && mkdir "$1/shm" && '
         'mount --move "$1" /dev && exec "$2" mount "$3"', "sh", empty, MBUFFFS, mountpoint],
        capture_output=True, text=True, check=False)
    assert done.returncode == Exit.UNAVAILABLE, done.stderr
    assert "/dev/fuse is missing; load the kernel's FUSE with: modprobe fuse" in done.stderr


@pytest.mark.parametrize(("size", "code", "says"), [
    ("-1", Exit.USAGE, ""), ("much", Exit.USAGE, ""), ("12Q", Exit.USAGE, "unit"),
    ("9223372036854775808", Exit.NO_SPACE, ""), ("", Exit.USAGE, "")])
def test_sizes_that_cannot_be_are_refused(
        mountpoint: Path, size: str, code: Exit, says: str) -> None:
    done = subprocess.run([MBUFFFS, "mount", mountpoint, f"--size={size}"],
                          capture_output=True, text=True, check=False)
    assert done.returncode in (code, Exit.USAGE), done.stderr
    assert says in done.stderr
    assert not os.path.ismount(mountpoint)
    mbufffs("mount", mountpoint)
    done = subprocess.run([MBUFFFS, "create", "-m", mountpoint, "a", "--", size],
                          capture_output=True, text=True, check=False)
    assert done.returncode in (code, Exit.USAGE), done.stderr
    assert not (mountpoint / "a").exists()


def test_the_limit_is_the_size_and_can_be_changed(mountpoint: Path) -> None:
    mbufffs("mount", mountpoint, "--size", "8M")
    assert json.loads(mbufffs("info", "-m", mountpoint, "--json").stdout)["limit"] == 8 << 20
    mbufffs("create", "-m", mountpoint, "a", "6M")
    mbufffs("create", "-m", mountpoint, "b", "6M", code=Exit.NO_SPACE)
    assert not (mountpoint / "b").exists()
    mbufffs("umount", mountpoint)
    mbufffs("mount", mountpoint, "--size", "4M", code=Exit.USAGE, says="in use")
    mbufffs("mount", mountpoint, "--size", "16M")
    mbufffs("create", "-m", mountpoint, "b", "6M")


def test_umount_names_who_keeps_it_busy(mountpoint: Path) -> None:
    mbufffs("mount", mountpoint)
    with subprocess.Popen(["sh", "-c", "echo ready; read line"], cwd=mountpoint, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        assert busy.stdout and busy.stdin
        assert busy.stdout.readline() == "ready\n"
        mbufffs("umount", mountpoint, code=Exit.BUSY, says=f"{busy.pid} (sh: cwd)")
        assert os.path.ismount(mountpoint)
        busy.stdin.close()
    mbufffs("umount", mountpoint)
    assert not os.path.ismount(mountpoint)


def test_discard_frees_the_areas_and_umount_alone_does_not(mountpoint: Path) -> None:
    mbufffs("mount", mountpoint)
    (mountpoint / "a").write_bytes(b"kept")
    mbufffs("umount", mountpoint)
    mbufffs("mount", mountpoint)
    assert (mountpoint / "a").read_bytes() == b"kept"
    mbufffs("umount", "--discard", mountpoint)
    state = state_of(str(mountpoint))
    assert not state.directory.exists()
    assert mounts.mount_at(str(state.store)) is None
    mbufffs("mount", mountpoint)
    assert list(mountpoint.iterdir()) == []


def test_in_the_foreground_it_serves_until_it_is_unmounted(mountpoint: Path) -> None:
    with subprocess.Popen([MBUFFFS, "mount", "--foreground", mountpoint],
                          stderr=subprocess.PIPE, text=True) as keeper:
        wait_for(lambda: os.path.ismount(mountpoint), "it is mounted")
        (mountpoint / "a").touch()
        run("umount", mountpoint)
        assert keeper.wait(20) == Exit.OK


def test_a_mount_point_may_have_a_long_and_odd_name(mountpoint: Path) -> None:
    long = mountpoint / ("x" * 60) / "with blank" / ("y" * 60)
    mbufffs("mount", long)
    try:
        (long / "a").touch()
        assert mbufffs("ls", "-m", long).stdout == "a\n"
        assert json.loads(mbufffs("info", "-m", long, "a", "--json").stdout)["passthrough"] is True
    finally:
        mbufffs("umount", "--discard", long)


def test_info_says_who_has_an_area_open(mountpoint: Path) -> None:
    mbufffs("mount", mountpoint)
    (mountpoint / "a").write_bytes(b"x")
    with (mountpoint / "a").open("rb"):
        found = json.loads(mbufffs("info", "-m", mountpoint, "a", "--json").stdout)
    assert os.getpid() in [holder["pid"] for holder in found["open_by"]]


@pytest.mark.skipif(os.path.exists(DEVICE), reason="the kernel module is loaded")
def test_without_the_module_the_line_says_how_to_load_it(mountpoint: Path) -> None:
    mbufffs("mount", "--backend", "device", mountpoint, code=Exit.UNAVAILABLE,
            says="modprobe mbuff")
    assert not state_of(str(mountpoint)).directory.exists()
