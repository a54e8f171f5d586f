# SPDX-License-Identifier: MIT
"""Other mounts of the kernel's areas: without passthrough, two at once, discarded, other users."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mbufffs.backends.registry import Registry
from tests.conftest import Mounted, wait_for
from tests.kernel.inside.conftest import MBUFFFS
from tests.kernel.inside.mount.conftest import PATIENCE
from tests.kernel.inside.old_ioctl import ALLOCATE, DEALLOCATE, old

NOBODY = 65534




def mbufffs(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MBUFFFS, *arguments], capture_output=True, text=True, check=False,
                          timeout=PATIENCE)


def test_without_passthrough_bytes_are_read_and_written_and_shared_mappings_refused(
        new_mount: Callable[..., Mounted], registry: Registry) -> None:
    mounted = new_mount(passthrough=False)
    path = mounted.path / "area"
    path.write_bytes(b"bytes" * 1000)
    assert path.read_bytes() == b"bytes" * 1000
    with path.open("r+b") as opened:
        with pytest.raises(OSError) as caught:
            mmap.mmap(opened.fileno(), 0)
        assert caught.value.errno == errno.ENODEV
        with mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped:
            assert mapped[:5] == b"bytes"
    fd = registry.open_area(registry.find(b"area").id, os.O_RDWR)
    os.pwrite(fd, b"other", 0)
    os.close(fd)
    assert path.read_bytes()[:5] == b"other"  # no copy of it is kept
    path.unlink()
    mounted.stop()


def test_two_mounts_show_the_same_areas(mounted: Mounted, new_mount: Callable[..., Mounted],
                                        registry: Registry) -> None:
    second = new_mount()
    (mounted.path / "area").write_bytes(b"bytes")
    wait_for((second.path / "area").exists, "the other mount shows it")
    assert (second.path / "area").read_bytes() == b"bytes"
    with (second.path / "area").open("ab") as opened:
        opened.write(b" and more")
    wait_for(lambda: (mounted.path / "area").stat().st_size == 14, "the new size is seen")
    assert (mounted.path / "area").read_bytes() == b"bytes and more"
    (mounted.path / "area").rename(mounted.path / "moved")
    wait_for(lambda: os.listdir(second.path) == ["moved"], "the new name is seen")
    (second.path / "moved").unlink()
    wait_for(lambda: os.listdir(mounted.path) == [], "the area is gone")
    second.stop()
    assert registry.usage().areas == 0


def test_the_module_is_not_unloaded_under_a_mount(mounted: Mounted) -> None:
    done = subprocess.run(["rmmod", "mbuff"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "in use" in done.stderr
    (mounted.path / "area").write_bytes(b"bytes")


def test_a_limit_of_its_own_is_refused_with_the_way_to_the_modules(
        shared_mount: Mounted, tmp_path: Path) -> None:
    assert shared_mount.info()["backend"] == "device"
    done = mbufffs("mount", "--backend", "device", "--size", "64M", str(tmp_path))
    assert done.returncode == 2
    assert "/sys/module/mbuff/parameters/max_bytes" in done.stderr
    assert done.stderr.count("\n") == 1


def test_discarding_frees_all_areas_but_those_that_are_held(
        new_mount: Callable[..., Mounted], registry: Registry) -> None:
    mounted = new_mount()
    (mounted.path / "held").write_bytes(bytes(4096))
    (mounted.path / "directory").mkdir()
    (mounted.path / "directory" / "other").write_bytes(bytes(4096))
    old(registry, ALLOCATE, b"held", 4096)
    done = mbufffs("umount", "--discard", str(mounted.path))
    assert done.returncode == 0, done.stderr
    assert [name for name, _ in registry.areas()] == [b"held"]
    assert not mounted.state.directory.exists()
    assert old(registry, DEALLOCATE, b"held") == 4096


@pytest.mark.rt
def test_rights_decide_for_other_users_by_path_too(mounted: Mounted, registry: Registry) -> None:
    registry.create(b"mine", size=4096, mode=0o640, uid=NOBODY, gid=0)
    registry.create(b"others", size=4096, mode=0o600)
    registry.create(b"read", size=4096, mode=0o604)
    registry.create(b"group", size=4096, mode=0o660, gid=NOBODY)
    wait_for((mounted.path / "others").exists, "they are there")
    mounted.path.chmod(0o1777)
    script = f"""
import errno, os
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
os.chdir({str(mounted.path)!r})
open("mine", "r+b").write(b"bytes")
os.chmod("mine", 0o600)
def refused(function, *arguments):
    try:
        function(*arguments)
    except PermissionError:
        return
    raise SystemExit("was not refused: " + repr((function, arguments)))
refused(open, "others", "rb")
refused(os.chmod, "others", 0o666)
refused(os.unlink, "others")
refused(os.rename, "others", "taken")
refused(os.truncate, "others", 0)
refused(open, "/dev/mbuff", "rb")
assert open("read", "rb").read() == bytes(4096)
refused(open, "read", "r+b")
refused(os.truncate, "read", 0)
open("group", "r+b").write(b"bytes")
refused(os.chmod, "group", 0o666)
refused(os.unlink, "group")
open("new", "wb").write(b"bytes")
assert os.stat("new").st_uid == {NOBODY}
os.unlink("new")
os.unlink("mine")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(mounted.path)) == ["group", "others", "read"]


