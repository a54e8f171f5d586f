# SPDX-License-Identifier: MIT
"""A mount of the kernel's areas: what appears by itself, what is refused, and what waits."""

from __future__ import annotations

import errno
import mmap
import os
import re
import select
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mbufffs.backends.registry import RENAME_TREE, Registry
from mbufffs.memory import meminfo
from tests.conftest import Mounted, run, wait_for
from tests.kernel.inside.conftest import MBUFFFS
from tests.kernel.inside.mount.conftest import PATIENCE
from tests.kernel.inside.mount.waiting import each_way_is_woken, no_wakeup_is_lost, told_no_more
from tests.kernel.inside.old_ioctl import ALLOCATE, DEALLOCATE, old

pytestmark = pytest.mark.rt


def refused(code: int, function: Callable[..., object], *args: object) -> None:
    with pytest.raises(OSError) as caught:
        function(*args)
    assert caught.value.errno == code, caught.value


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_auto_takes_the_module_and_programs_get_its_memory(mounted: Mounted) -> None:
    (mounted.path / "frame").write_bytes(b"bytes")
    info = mounted.info()
    assert (info["backend"], info["passthrough"], info["locked"]) == ("device", True, True)
    with (mounted.path / "frame").open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        mapped[:5] = b"BYTES"
        assert os.pread(opened.fileno(), 5, 0) == b"BYTES"
    assert mounted.counts("READ", "WRITE") == [0, 0]


def test_what_others_make_appears_with_size_mode_and_owner(
        mounted: Mounted, registry: Registry) -> None:
    path = mounted.path / "made"
    assert not path.exists()  # which the kernel remembers
    registry.create(b"made", size=5000, mode=0o604, uid=12, gid=34)
    wait_for(path.exists, "it is there")
    found = path.stat()
    assert (found.st_size, found.st_mode & 0o7777, found.st_uid, found.st_gid) == (
        5000, 0o604, 12, 34)
    wait_for(lambda: names(mounted.path) == ["made"], "it is listed")


def test_a_directory_that_was_listed_hears_of_what_nobody_has_looked_up(
        mounted: Mounted, registry: Registry) -> None:
    (mounted.path / "directory").mkdir()
    for directory, name in ((mounted.path, b"new"), (mounted.path / "directory", b"directory/new")):
        before = names(directory)
        assert names(directory) == before
        registry.create(name, size=4096)
        wait_for(lambda directory=directory, before=before:
                 names(directory) == sorted([*before, "new"]), "it is listed")


def test_what_others_remove_disappears(mounted: Mounted, registry: Registry) -> None:
    area = registry.create(b"made", size=4096)
    wait_for((mounted.path / "made").exists, "it is there")
    with (mounted.path / "made").open("rb") as opened:
        registry.remove(area)
        wait_for(lambda: not (mounted.path / "made").exists(), "it is gone")
        wait_for(lambda: names(mounted.path) == [], "it is not listed")
        assert opened.read() == bytes(4096)  # as long as it is open
        wait_for(lambda: os.fstat(opened.fileno()).st_nlink == 0, "it has no name")


def test_what_others_change_is_seen(mounted: Mounted, registry: Registry) -> None:
    area = registry.create(b"made", size=4096, mode=0o600)
    path = mounted.path / "made"
    wait_for(path.exists, "it is there")
    registry.resize(area, 10_000)
    wait_for(lambda: path.stat().st_size == 10_000, "its size is seen")
    registry.change(area, mode=0o640, uid=5, mtime_ns=10**18)
    wait_for(lambda: path.stat().st_mtime_ns == 10**18, "its time is seen")
    assert (path.stat().st_mode & 0o7777, path.stat().st_uid) == (0o640, 5)
    registry.rename(b"made", b"moved")
    wait_for(lambda: not path.exists(), "the old name is gone")
    assert (mounted.path / "moved").stat().st_size == 10_000


def test_a_directory_is_implied_by_names_and_goes_with_the_last(
        mounted: Mounted, registry: Registry) -> None:
    area = registry.create(b"cam0/left/frame", size=4096)
    inner = mounted.path / "cam0" / "left"
    wait_for((inner / "frame").exists, "it is there")
    wait_for(lambda: [names(at) for at in (mounted.path, inner.parent, inner)]
             == [["cam0"], ["left"], ["frame"]], "it is listed")
    registry.rename(b"cam0", b"cam1", RENAME_TREE)
    wait_for(lambda: names(mounted.path) == ["cam1"], "the directory has the other name")
    registry.remove(area)
    wait_for(lambda: names(mounted.path) == [], "the directory is gone")


def test_a_directory_stays_when_somebody_works_in_it(mounted: Mounted,
                                                     registry: Registry) -> None:
    registry.create(b"cam0/frame", size=4096)
    wait_for((mounted.path / "cam0" / "frame").exists, "it is there")
    (mounted.path / "cam0" / "frame").unlink()
    # So that rm -r works. A listing may come from the kernel's cache until it hears of the change.
    wait_for(lambda: names(mounted.path) == ["cam0"], "the directory is there")
    (mounted.path / "cam0").rmdir()
    (mounted.path / "mine").mkdir()
    area = registry.create(b"mine/frame", size=4096)
    wait_for((mounted.path / "mine" / "frame").exists, "it is there")
    registry.remove(area)
    wait_for(lambda: names(mounted.path / "mine") == [], "the area is gone")
    wait_for(lambda: names(mounted.path) == ["mine"], "the directory is there")


def test_renaming_a_directory_moves_the_areas_below(mounted: Mounted, registry: Registry) -> None:
    (mounted.path / "cam0" / "x").mkdir(parents=True)
    (mounted.path / "cam0" / "x" / "frame").write_bytes(b"bytes")
    (mounted.path / "cam0").rename(mounted.path / "cam1")
    assert registry.find(b"cam1/x/frame").size == 5
    assert (mounted.path / "cam1" / "x" / "frame").read_bytes() == b"bytes"
    old(registry, ALLOCATE, b"cam1/x/frame", 5)
    refused(errno.EBUSY, os.rename, mounted.path / "cam1", mounted.path / "cam2")
    assert names(mounted.path) == ["cam1"]
    old(registry, DEALLOCATE, b"cam1/x/frame")


def test_an_area_takes_the_place_of_an_empty_directory(mounted: Mounted,
                                                       registry: Registry) -> None:
    (mounted.path / "name" / "inner").mkdir(parents=True)
    registry.create(b"name", size=4096)
    wait_for((mounted.path / "name").is_file, "the area has the name")
    (mounted.path / "name").unlink()


def test_a_held_area_is_not_removed_renamed_or_resized(mounted: Mounted,
                                                       registry: Registry) -> None:
    path = mounted.path / "held"
    path.write_bytes(b"x" * 5000)
    assert old(registry, ALLOCATE, b"held", 4096) == 5000
    refused(errno.EBUSY, path.unlink)
    refused(errno.EBUSY, path.rename, mounted.path / "other")
    refused(errno.EBUSY, os.truncate, path, 0)
    refused(errno.EBUSY, os.truncate, path, 10_000)
    (mounted.path / "other").write_bytes(b"other")
    refused(errno.EBUSY, os.replace, mounted.path / "other", path)
    with path.open("ab") as grown:
        refused(errno.ENOSPC, os.write, grown.fileno(), b"more")
    path.write_bytes(b"hello")  # O_TRUNC is accepted, and the size stays
    assert path.read_bytes() == b"hello" + b"x" * 4995
    assert old(registry, DEALLOCATE, b"held") == 5000
    os.truncate(path, 10)
    path.unlink()
    assert names(mounted.path) == ["other"]


def test_info_names_the_holders(mounted: Mounted, registry: Registry) -> None:
    (mounted.path / "held").write_bytes(bytes(4096))
    old(registry, ALLOCATE, b"held", 4096)
    owners = os.getxattr(mounted.path / "held", "user.mbuff.owners").decode()
    assert f'"pid": {os.getpid()}, "count": 1' in owners
    told = run(MBUFFFS, "info", "-m", mounted.path, "held").stdout
    assert re.search(rf"^owner {os.getpid()} \(\S+\)$", told, re.MULTILINE), told
    assert '"kind": "process"' in owners
    old(registry, DEALLOCATE, b"held")
    assert os.getxattr(mounted.path / "held", "user.mbuff.owners") == b"[]"


def test_what_is_made_by_path_is_found_by_the_old_interface(mounted: Mounted,
                                                            registry: Registry) -> None:
    with (mounted.path / "made").open("wb") as made:
        made.truncate(8192)
    assert old(registry, ALLOCATE, b"made", 8192) == 8192
    refused(errno.EIO, old, registry, ALLOCATE, b"made", 8193)
    assert old(registry, DEALLOCATE, b"made") == 8192  # it stays, as who made it has not removed it
    assert (mounted.path / "made").stat().st_size == 8192


def test_an_old_programs_area_comes_and_goes(mounted: Mounted, registry: Registry) -> None:
    path = mounted.path / "old"
    assert old(registry, ALLOCATE, b"old", 100) == 4096
    wait_for(path.exists, "it is there")
    with path.open("r+b") as opened:
        opened.write(b"from the file")
    assert os.pread(registry.fd, 13, 0) == b"from the file"
    assert old(registry, DEALLOCATE, b"old") == 0
    wait_for(lambda: not path.exists(), "it is gone")


def test_links_and_special_files_are_refused(mounted: Mounted) -> None:
    path = mounted.path / "area"
    path.write_bytes(b"")
    refused(errno.EPERM, os.link, path, mounted.path / "linked")
    refused(errno.EPERM, os.symlink, "area", mounted.path / "linked")
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR):
        refused(errno.EPERM, os.mknod, mounted.path / "linked", kind | 0o600)


def test_nothing_takes_pages_from_under_a_mapping(mounted: Mounted) -> None:
    path = mounted.path / "area"
    path.write_bytes(b"x" * 8192)
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), 8192) as mapped:
        with pytest.raises(OSError):
            mapped.madvise(mmap.MADV_REMOVE)
        assert mapped[:] == b"x" * 8192
    punched = subprocess.run(["fallocate", "-p", "-o", "0", "-l", "4096", path],
                             capture_output=True, check=False)
    assert punched.returncode != 0
    assert path.read_bytes() == b"x" * 8192


def test_memory_of_a_removed_area_comes_back(mounted: Mounted, registry: Registry) -> None:
    before = registry.usage().used_bytes
    for _ in range(5):
        with (mounted.path / "large").open("w+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, 32 << 20)
            mapped = mmap.mmap(opened.fileno(), 32 << 20)
        (mounted.path / "large").unlink()
        assert registry.usage().used_bytes == before + (32 << 20)
        mapped[:4] = b"kept"
        mapped.close()
        wait_for(lambda: registry.usage().used_bytes == before, "its memory is back")


def test_the_limit_is_half_of_the_memory_unless_somebody_sets_it(mounted: Mounted,
                                                                 registry: Registry) -> None:
    def shown() -> int:
        found = os.statvfs(mounted.path)
        return found.f_blocks * found.f_frsize

    parameter = Path("/sys/module/mbuff/parameters/max_bytes")
    assert parameter.read_text() == "0\n"
    assert abs(registry.usage().max_bytes - meminfo("MemTotal") // 2) < 1 << 20
    assert shown() == registry.usage().max_bytes // 4096 * 4096
    try:
        parameter.write_text(str(1 << 20))
        assert shown() == 1 << 20
        path = mounted.path / "area"
        for more in (["if=/dev/zero", "bs=64k"], ["if=/dev/zero", "bs=1", "seek=1M", "count=1"]):
            done = subprocess.run(["dd", *more, f"of={path}", "conv=notrunc"], text=True,
                                  capture_output=True, check=False, env={"LC_ALL": "C"})
            assert "No space left on device" in done.stderr
            assert path.stat().st_size == registry.usage().used_bytes == 1 << 20
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 1 << 20) as memory:
            assert memory[:] == bytes(1 << 20)
            refused(errno.ENOSPC, os.pwrite, file.fileno(), b"x", 1 << 20)
            refused(errno.ENOSPC, os.ftruncate, file.fileno(), (1 << 20) + 1)
    finally:
        parameter.write_text("0")


# Waiting

def test_a_notification_wakes_poll_select_and_epoll(mounted: Mounted, registry: Registry) -> None:
    area = registry.create(b"area", size=4096)
    wait_for((mounted.path / "area").exists, "it is there")
    each_way_is_woken(mounted.path / "area", lambda: registry.notify(area))


def test_writing_never_waits(mounted: Mounted) -> None:
    with (mounted.path / "area").open("w+b") as opened:
        assert select.select([], [opened], [], PATIENCE)[1] == [opened]


@pytest.mark.parametrize("mode", [0, select.EPOLLET, select.EPOLLONESHOT])
def test_a_notification_before_registering_is_not_lost(
        mounted: Mounted, registry: Registry, mode: int) -> None:
    area = registry.create(b"area", size=4096)
    wait_for((mounted.path / "area").exists, "it is there")
    with (mounted.path / "area").open("rb") as opened, select.epoll() as epoll:
        registry.notify(area)
        epoll.register(opened, select.EPOLLIN | mode)
        assert epoll.poll(PATIENCE)
        told_no_more(epoll.poll)
        registry.notify(area)
        if mode == select.EPOLLONESHOT:
            epoll.modify(opened, select.EPOLLIN | mode)
        assert epoll.poll(PATIENCE)


def test_every_open_file_is_told(mounted: Mounted, registry: Registry) -> None:
    area = registry.create(b"area", size=4096)
    wait_for((mounted.path / "area").exists, "it is there")
    files = [(mounted.path / "area").open("rb") for _ in range(5)]
    try:
        assert select.select(files, [], [], 0.05)[0] == []
        registry.notify(area)
        for opened in files:
            assert select.select([opened], [], [], PATIENCE)[0] == [opened]
        told_no_more(lambda seconds: select.select(files, [], [], seconds)[0])
    finally:
        for opened in files:
            opened.close()


def test_no_wakeup_is_lost(mounted: Mounted, registry: Registry) -> None:
    area = registry.create(b"area", size=4096)
    wait_for((mounted.path / "area").exists, "it is there")
    no_wakeup_is_lost(mounted.path / "area", lambda: registry.notify(area))
