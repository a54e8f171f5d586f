# SPDX-License-Identifier: MIT
"""A mount of the kernel's areas: what appears by itself, what is refused, and what waits."""

from __future__ import annotations

import errno
import mmap
import os
import select
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mbufffs.backends.registry import RENAME_TREE, Registry
from tests.conftest import Mounted, wait_for
from tests.kernel.inside.mount.conftest import PATIENCE
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


def test_links_are_refused(mounted: Mounted) -> None:
    path = mounted.path / "area"
    path.write_bytes(b"")
    refused(errno.EPERM, os.link, path, mounted.path / "linked")
    refused(errno.EPERM, os.symlink, "area", mounted.path / "linked")
    refused(errno.EPERM, os.mkfifo, mounted.path / "linked")


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


# Waiting

def notified_later(registry: Registry, area: int) -> threading.Timer:
    timer = threading.Timer(0.2, registry.notify, [area])
    timer.start()
    return timer


def told_no_more(wait: Callable[[float], object]) -> None:
    """A report is one, but where others have the processor it may come twice: waiters.py."""
    wait_for(lambda: not wait(0.05), "nothing is told anymore")


def test_a_notification_wakes_poll_select_and_epoll(mounted: Mounted, registry: Registry) -> None:
    area = registry.create(b"area", size=4096)
    wait_for((mounted.path / "area").exists, "it is there")
    with (mounted.path / "area").open("rb") as opened, select.epoll() as epoll:
        poll = select.poll()
        poll.register(opened, select.POLLIN)
        epoll.register(opened, select.EPOLLIN)
        waits: list[Callable[[float], object]] = [
            lambda seconds: poll.poll(seconds * 1000),
            lambda seconds: select.select([opened], [], [], seconds)[0],
            epoll.poll,
        ]
        for wait in waits:
            assert not wait(0.05)
            timer = notified_later(registry, area)
            assert wait(PATIENCE)
            timer.join()
            told_no_more(wait)


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
    """Each answer is asked for by a notification, so one that is lost would end it."""
    area = registry.create(b"area", size=4096)
    wait_for((mounted.path / "area").exists, "it is there")
    with (mounted.path / "area").open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        poll = select.poll()
        poll.register(opened, select.POLLIN)

        def count() -> None:
            for number in range(1, 101):
                while mapped[0] != number - 1:
                    answered.wait(PATIENCE)
                    answered.clear()
                mapped[1] = number
                registry.notify(area)

        answered = threading.Event()
        thread = threading.Thread(target=count)
        thread.start()
        for number in range(1, 101):
            while mapped[1] != number:
                assert poll.poll(PATIENCE * 1000), f"notification {number} was lost"
            mapped[0] = number
            answered.set()
        thread.join()
