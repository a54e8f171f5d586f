# SPDX-License-Identifier: MIT
"""What mbuff offers to other kernel modules, by a module that does what a test says (ktest)."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbufffs.backends import registry as abi
from mbufffs.backends.registry import Kind, Owner, Registry
from tests.conftest import wait_for
from tests.kernel.inside.conftest import Ktest, Module, given_back
from tests.kernel.inside.old_ioctl import ALLOCATE, DEALLOCATE, old
from tests.kernel.inside.raw_ioctl import PAGE, read_events, refused

pytestmark = pytest.mark.rt

@pytest.fixture
def registry(ktest: Ktest) -> Iterator[Registry]:
    """What a test leaves held goes with ktest."""
    with given_back() as registry:
        yield registry
        ktest.unload()


def names(registry: Registry) -> list[bytes]:
    return [name for name, _ in registry.areas()]


def said_since(line: str) -> str:
    """What the kernel has said behind the last line with these words."""
    return subprocess.run(["dmesg"], capture_output=True, text=True,
                          check=True).stdout.rpartition(line)[2]


@pytest.fixture
def log() -> Iterator[str]:
    mark = f"test {time.monotonic()}"
    Path("/dev/kmsg").write_text(mark)
    yield mark


def test_kernel_and_program_see_the_same_bytes(ktest: Ktest, registry: Registry) -> None:
    size = 3 * PAGE + 1
    number = ktest.run("make", "a", size, 660)
    area = registry.find(b"a").id
    fd = registry.open_area(area, os.O_RDWR)
    memory = mmap.mmap(fd, size)
    for offset in (0, PAGE - 1, PAGE, size - 1):
        assert ktest.run("poke", number, offset, offset % 251 + 1) == offset % 251 + 1
        assert memory[offset] == offset % 251 + 1
        memory[offset] = 255
        assert ktest.run("peek", number, offset) == 255
        os.pwrite(fd, b"\7", offset)
        assert ktest.run("peek", number, offset) == 7
    assert ktest.run("size", number) == size
    memory.close()
    os.close(fd)
    ktest.run("put", number)
    assert names(registry) == []


@pytest.fixture(params=["always", "within_size", "advise"])
def huge_pages(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the administrator may choose for all shared memory of the kernel's own."""
    choice = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    if not choice.exists():
        pytest.skip("this kernel has no huge pages for shared memory")
    before = choice.read_text().partition("[")[2].partition("]")[0]
    choice.write_text(request.param)
    yield
    choice.write_text(before)


def test_huge_pages_are_the_same_memory_in_the_kernel_and_in_a_program(
        huge_pages: None, ktest: Ktest, registry: Registry) -> None:
    size = (4 << 20) + PAGE + 1
    area = registry.create(b"a", size=1)
    registry.resize(area, 2 * size)
    fd = registry.open_area(area, os.O_RDWR)
    os.pwrite(fd, b"\x55" * 2 * size, 0)
    registry.resize(area, size)
    assert registry.usage().used_bytes == size - 1 + PAGE
    number = ktest.run("get", "a")
    memory = mmap.mmap(fd, size)
    for offset in (0, PAGE, (2 << 20) - 1, 2 << 20, (4 << 20) + PAGE):
        assert ktest.run("peek", number, offset) == 0x55
        assert ktest.run("poke", number, offset, 7) == memory[offset] == 7
        memory[offset] = 8
        assert ktest.run("peek", number, offset) == 8
    memory.close()
    ktest.run("put", number)
    registry.resize(area, PAGE + 1)
    registry.resize(area, size)
    assert os.pread(fd, 3 * PAGE, PAGE) == b"\x08" + bytes(3 * PAGE - 1)
    os.close(fd)


def test_an_area_of_a_program_is_found_and_stays(ktest: Ktest, registry: Registry) -> None:
    refused(errno.ENOENT, ktest.run, "get", "a")
    area = registry.create(b"a")
    refused(errno.ENODATA, ktest.run, "get", "a")
    assert registry.attributes(area).kcount == 0
    registry.resize(area, 2 * PAGE)
    fd = registry.open_area(area, os.O_RDWR)
    os.pwrite(fd, b"\x42", PAGE)
    number = ktest.run("get", "a")
    again = ktest.run("alloc", "a", PAGE + 1)
    assert registry.attributes(area).kcount == 2
    assert ktest.run("peek", number, PAGE) == ktest.run("peek", again, PAGE) == 0x42
    ktest.run("put", number)
    ktest.run("free", "a")
    assert registry.attributes(area).kcount == 0
    os.close(fd)
    assert names(registry) == [b"a"]


def test_what_a_module_holds_is_not_removed_renamed_or_resized(ktest: Ktest,
                                                               registry: Registry) -> None:
    area = registry.create(b"a", size=PAGE)
    fd = registry.open_area(area, os.O_RDWR)
    number = ktest.run("get", "a")
    other = registry.create(b"b")
    refused(errno.EBUSY, registry.remove, area)
    refused(errno.EBUSY, registry.resize, area, 0)
    refused(errno.EBUSY, os.ftruncate, fd, 2 * PAGE)
    refused(errno.EBUSY, registry.rename, b"a", b"c")
    refused(errno.EBUSY, registry.rename, b"b", b"a")
    refused(errno.EBUSY, registry.rename, b"b", b"a", abi.RENAME_EXCHANGE)
    refused(errno.ENOSPC, os.pwrite, fd, b"x", PAGE)
    ktest.run("put", number)
    os.ftruncate(fd, 2 * PAGE)
    registry.rename(b"a", b"c")
    registry.remove(area)
    registry.remove(other)
    os.close(fd)


def test_owners_name_the_module_with_its_count(ktest: Ktest, registry: Registry) -> None:
    area = registry.create(b"a", size=PAGE)
    ktest.run("get", "a")
    ktest.run("alloc", "a", 1)
    ktest.run("attach", "a", 1)
    assert registry.owners(area) == [Owner(kind="module", name="ktest", pid=0, count=3)]
    old(registry, ALLOCATE, b"a", 1)
    assert registry.owners(area)[1].pid == os.getpid()
    old(registry, DEALLOCATE, b"a")
    assert registry.attributes(area).count == 0
    refused(errno.EINVAL, old, registry, DEALLOCATE, b"a")
    assert registry.attributes(area).kcount == 3


def test_an_area_made_by_a_module_alone_goes_with_the_last(ktest: Ktest,
                                                           registry: Registry) -> None:
    ktest.run("alloc", "a", 1)
    found = registry.find(b"a")
    assert (found.size, found.flags, found.mode & 0o7777) == (PAGE, 0, 0o660)
    fd = registry.open_area(found.id, os.O_RDWR)
    assert not any(os.pread(fd, PAGE, 0))
    ktest.run("free", "a")
    assert names(registry) == [b"a"]
    os.close(fd)
    wait_for(lambda: names(registry) == [], "it goes with its last descriptor")


def test_mode_and_group_of_what_modules_make_are_parameters(ktest: Ktest,
                                                            registry: Registry) -> None:
    parameters = Path("/sys/module/mbuff/parameters")
    try:
        (parameters / "mode").write_text("0640")
        (parameters / "gid").write_text("7")
        ktest.run("alloc", "a", PAGE)
        ktest.run("make", "b", PAGE, 604)
        ktest.run("contiguous", "c", PAGE, 604)
        assert [(stat.S_IMODE(found.mode), found.uid, found.gid)
                for _, found in registry.areas()] == [(0o640, 0, 7), (0o604, 0, 7), (0o604, 0, 7)]
    finally:
        (parameters / "mode").write_text("0660")
        (parameters / "gid").write_text("0")


def test_more_than_there_is_and_sizes_of_none_are_refused(ktest: Ktest,
                                                          registry: Registry) -> None:
    area = registry.create(b"a", size=PAGE)
    refused(errno.EINVAL, ktest.run, "make", "a", PAGE + 1, 600)
    refused(errno.ENOMEM, ktest.run, "alloc", "a", PAGE + 1)
    refused(errno.EINVAL, ktest.run, "make", "b", 0, 600)
    refused(errno.ENOMEM, ktest.run, "alloc", "b", 0)
    refused(errno.ENOMEM, ktest.run, "alloc", "b", -1)
    refused(errno.ENOSPC, ktest.run, "make", "b", 2**62, 600)
    refused(errno.EFBIG, ktest.run, "make", "b", 2**64 - 1, 600)
    refused(errno.ENOMEM, ktest.run, "alloc", "b", 2**31 - 1)
    for name in ("", ".", "a/..", "a//b"):
        refused(errno.EINVAL, ktest.run, "make", name, 1, 600)
    refused(errno.ENAMETOOLONG, ktest.run, "get", "x" * 256)
    refused(errno.ENOTDIR, ktest.run, "make", "a/b", 1, 600)
    assert registry.attributes(area).kcount == 0
    assert (names(registry), registry.usage().used_bytes) == ([b"a"], PAGE)


def test_freeing_what_one_does_not_hold_is_refused_and_logged(ktest: Ktest, registry: Registry,
                                                              log: str) -> None:
    registry.create(b"a", size=PAGE)
    old(registry, ALLOCATE, b"a", 1)
    ktest.run("free", "a")
    ktest.run("detach", "b")
    assert registry.find(b"a").count == 1
    old(registry, DEALLOCATE, b"a")
    said = said_since(log)
    assert "ktest frees area a, which it does not hold" in said
    assert "ktest frees area b, which it does not hold" in said


def test_a_module_that_leaves_without_freeing_is_named_and_its_counts_go(
        ktest: Ktest, registry: Registry, log: str) -> None:
    kept = registry.create(b"kept", size=PAGE)
    for name in ("kept", "kept", "own"):
        ktest.run("alloc", name, 1)
    fd = registry.open_area(kept, os.O_RDWR)
    ktest.rmmod()
    assert names(registry) == [b"kept"]
    assert registry.attributes(kept).kcount == 0
    assert registry.owners(kept) == []
    said = said_since(log)
    assert "ktest left without freeing area kept" in said
    assert "ktest left without freeing area own" in said
    registry.resize(kept, 0)
    os.close(fd)


def test_a_module_that_fails_to_load_keeps_nothing(ktest: Ktest, registry: Registry,
                                                   log: str) -> None:
    ktest.rmmod()
    with pytest.raises(OSError, match="No data available"):
        ktest.insmod("make_and_fail=a")
    assert names(registry) == []
    assert "ktest left without freeing area a" in said_since(log)


def test_mbuff_stays_while_a_module_uses_it(ktest: Ktest, registry: Registry) -> None:
    with pytest.raises(OSError, match="in use"):
        Module(Path(os.environ["MBUFF_MODULE"])).rmmod()


@pytest.mark.parametrize("context", ["thread", "hard", "soft"])
def test_a_notification_from_any_context_is_told(ktest: Ktest, registry: Registry,
                                                 context: str) -> None:
    number = ktest.run("make", "a", 1, 600)
    area = registry.find(b"a").id
    with contextlib.closing(Registry.open()) as watcher:
        events = watcher.events()
    os.set_blocking(events, False)
    for count in range(1, 20):
        ktest.run("notify", number, context)
        assert select.select([events], [], [], 30)[0]
        assert [(event.kind, event.id, event.notified) for event in read_events(events)] == [
            (Kind.NOTIFIED, area, count)]
    os.close(events)


def test_a_notification_on_its_way_is_no_harm_when_the_area_goes(ktest: Ktest,
                                                                 registry: Registry) -> None:
    for _ in range(50):
        number = ktest.run("make", "a", 1, 600)
        ktest.run("notify", number, "thread")
        ktest.run("put", number)
    assert names(registry) == []


def test_the_address_stays_while_anybody_in_the_kernel_holds_it(ktest: Ktest,
                                                                registry: Registry) -> None:
    first = ktest.run("make", "a", PAGE, 600)
    address = ktest.run("address", first)
    assert address % PAGE == 0
    second = ktest.run("get", "a")
    ktest.run("put", first)
    assert ktest.run("address", second) == address
    ktest.run("poke", second, PAGE - 1, 9)
    ktest.run("put", second)
