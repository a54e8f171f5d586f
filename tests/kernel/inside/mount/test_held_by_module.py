# SPDX-License-Identifier: MIT
"""An area that a kernel module holds, by path and by /dev/mbuff: the pages of both are the same."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from mbufffs.backends.registry import Registry
from tests.conftest import Mounted, run, wait_for
from tests.kernel.inside.conftest import Ktest
from tests.kernel.inside.mount.waiting import each_way_is_woken, no_wakeup_is_lost
from tests.kernel.inside.processes import until_killed
from tests.kernel.inside.raw_ioctl import PAGE, address_of, libc, read_events, refused
from tests.kernel.old import NO_DEVICE

pytestmark = pytest.mark.rt

PAGES = 4
COUNTS = "100000" if os.environ.get("MBUFF_SOAK") else "2000"
FS_IOC_UNRESVSP = 0x4030582B  # linux/falloc.h: the oldest way to punch a hole
MADV_FREE, MADV_REMOVE, MADV_COLD, MADV_PAGEOUT, MADV_COLLAPSE = 8, 9, 20, 21, 25


@pytest.fixture
def ktest(mounted: Mounted, registry: Registry) -> Iterator[Ktest]:
    ktest = Ktest()
    ktest.insmod()
    yield ktest
    ktest.unload()


class Held(NamedTuple):
    """An area of PAGES pages that ktest holds, open for reading and writing."""

    ktest: Ktest
    number: int  # of ktest
    fd: int

    def agree(self, memory: mmap.mmap) -> None:
        """What either side stores in a page the other one reads there."""
        for at in range(5, PAGES * PAGE, PAGE):
            value = (memory[at] + 1) % 256
            self.ktest.run("poke", self.number, at, value)
            assert memory[at] == value
            memory[at] = value ^ 255
            assert self.ktest.run("peek", self.number, at) == value ^ 255


@pytest.fixture(params=[("path", "make"), ("ioctl", "make"), ("path", "contiguous"),
                        ("ioctl", "contiguous")], ids=" ".join)
def held(request: pytest.FixtureRequest, mounted: Mounted, registry: Registry,
         ktest: Ktest) -> Iterator[Held]:
    way, kind = request.param
    number = ktest.run(kind, "held", PAGES * PAGE, 660)
    if way == "path":
        wait_for((mounted.path / "held").exists, "the area is there")
        fd = os.open(mounted.path / "held", os.O_RDWR)
    else:
        fd = registry.open_area(registry.find(b"held").id, os.O_RDWR)
    yield Held(ktest, number, fd)
    os.close(fd)


def allocate(fd: int, mode: int) -> None:
    if libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(PAGE)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def advise(memory: mmap.mmap, advice: int) -> None:
    if libc.madvise(ctypes.c_void_p(address_of(memory)), ctypes.c_size_t(PAGE), advice) != 0:
        raise OSError(ctypes.get_errno(), "madvise")


def test_nothing_parts_the_pages_of_a_program_from_the_modules(held: Held) -> None:
    fd, memory = held.fd, mmap.mmap(held.fd, PAGES * PAGE)
    space = struct.pack("=hhxxxxqqiI16x", 0, 0, 0, PAGE, 0, 0)
    attempts: list[Callable[[], object]] = [
        *(lambda mode=mode: allocate(fd, mode)  # type: ignore[misc]
          for mode in (0x02, 0x03, 0x08, 0x10, 0x11, 0x20, 0x40)),
        *(lambda size=size: os.ftruncate(fd, size)  # type: ignore[misc]
          for size in (0, 1, PAGE, PAGES * PAGE + 1, 1 << 30)),
        lambda: advise(memory, MADV_REMOVE),
        lambda: fcntl.ioctl(fd, FS_IOC_UNRESVSP, space),
    ]
    held.agree(memory)
    for number, attempt in enumerate(attempts):
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno in (errno.EBUSY, errno.EOPNOTSUPP, errno.ENOTTY), number
        held.agree(memory)
    # Allowed, and without effect on what is in memory.
    for advice in (mmap.MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT, MADV_COLLAPSE):
        with contextlib.suppress(OSError):
            advise(memory, advice)
        held.agree(memory)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with open("/proc/sys/vm/drop_caches", "w") as drop:
        drop.write("3")
    held.agree(memory)
    again = mmap.mmap(held.fd, PAGES * PAGE)
    held.agree(again)
    held.agree(memory)
    memory.close()
    again.close()


def test_a_disk_is_read_and_written_directly_from_a_modules_memory(
        held: Held, disk: tuple[str, bytes]) -> None:
    path, content = disk
    memory = mmap.mmap(held.fd, PAGES * PAGE)
    direct = os.open(path, os.O_RDWR | os.O_DIRECT)
    assert os.preadv(direct, [memory], 0) == PAGES * PAGE
    assert memory[:] == content[:PAGES * PAGE]
    for at in (0, PAGE, 3 * PAGE + 1):
        assert held.ktest.run("peek", held.number, at) == content[at]
        held.ktest.run("poke", held.number, at, content[at] ^ 255)
    assert os.pwritev(direct, [memory], 0) == PAGES * PAGE
    memory[:] = bytes(PAGES * PAGE)
    assert os.preadv(direct, [memory], 0) == PAGES * PAGE
    changed = bytearray(content[:PAGES * PAGE])
    for at in (0, PAGE, 3 * PAGE + 1):
        changed[at] ^= 255
    assert memory[:] == changed
    os.close(direct)
    memory.close()


def test_a_thousand_mappings_are_of_one_memory(held: Held) -> None:
    memory = [mmap.mmap(held.fd, PAGES * PAGE) for _ in range(1000)]
    memory[0][PAGE] = 1
    for at in range(1, 1000):
        assert memory[at][PAGE] == at % 256
        memory[at][PAGE] = (at + 1) % 256
    assert held.ktest.run("peek", held.number, PAGE) == 1000 % 256
    for mapping in memory:
        mapping.close()


def test_a_child_keeps_what_it_inherited_when_the_module_has_gone(held: Held) -> None:
    memory = mmap.mmap(held.fd, PAGES * PAGE)
    held.ktest.run("poke", held.number, PAGE, 7)
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.read(ours, 1)
        os._exit(memory[PAGE])
    memory.close()
    held.ktest.unload()
    os.write(theirs, b"e")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("grow", [os.ftruncate, lambda fd, size: os.posix_fallocate(fd, 0, size)])
@pytest.mark.parametrize("by", ["path", "ioctl"])
def test_a_program_killed_while_an_area_grows_leaves_it_whole(
        mounted: Mounted, registry: Registry, grow: Callable[[int, int], None], by: str) -> None:
    for delay in (0.0, 0.01, 0.03, 0.1):
        path = mounted.path / "grows"
        path.touch()
        area = registry.find(b"grows").id
        child = os.fork()
        if not child:
            fd = (os.open(path, os.O_RDWR) if by == "path"
                  else registry.open_area(area, os.O_RDWR))
            grow(fd, 256 << 20)
            os._exit(0)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        # By path the server may still be at it, for whom nobody waits any more.
        wait_for(lambda area=area: registry.attributes(area).open_cnt == 0
                 and registry.usage().used_bytes == registry.attributes(area).size,
                 "the file is closed, and what is charged is its size")
        assert registry.attributes(area).size in (0, 256 << 20)
        path.unlink()
        wait_for(lambda: registry.usage().used_bytes == 0, "its memory is back")


@pytest.mark.parametrize("make", [
    "truncate -s 8192 made", "dd if=/dev/zero of=made bs=4096 count=2 status=none"])
def test_what_is_made_by_path_is_found_in_a_module(mounted: Mounted, registry: Registry,
                                                   ktest: Ktest, make: str) -> None:
    run("sh", "-c", f"cd {mounted.path} && {make}")
    path = mounted.path / "made"
    with path.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"by path", 5000)
        number = ktest.run("alloc", "made", 8192)
        assert ktest.run("peek", number, 5000) == ord("b")
        ktest.run("poke", number, 5000, ord("B"))
        assert os.pread(file.fileno(), 7, 5000) == b"By path"
    refused(errno.EBUSY, path.unlink)
    refused(errno.ENOMEM, ktest.run, "alloc", "made", 8193)  # it is smaller
    ktest.run("free", "made")
    path.unlink()


@pytest.mark.parametrize("context", ["thread", "hard", "soft"])
def test_a_module_wakes_poll_select_and_epoll_and_none_is_lost(
        mounted: Mounted, registry: Registry, ktest: Ktest, context: str) -> None:
    number = ktest.run("make", "area", PAGE, 660)
    path = mounted.path / "area"
    wait_for(path.exists, "it is there")
    each_way_is_woken(path, lambda: ktest.run("notify", number, context))
    no_wakeup_is_lost(path, lambda: ktest.run("notify", number, context))


@pytest.mark.parametrize("holder", ["module", "nobody"])
def test_a_mutex_in_an_area_works_between_processes_by_path(
        mounted: Mounted, registry: Registry, ktest: Ktest,
        program: Callable[..., os.PathLike[str]], holder: str) -> None:
    by_path = program("shared_mutex", *NO_DEVICE)
    if holder == "module":
        number = ktest.run("make", "mutex", PAGE, 660)
        wait_for((mounted.path / "mutex").exists, "it is there")
    with open(registry.events(), "rb", buffering=0) as events:
        done = subprocess.run([by_path, "mutex", "4", COUNTS], check=False, timeout=1000,
                              env={**os.environ, "MBUFF_DIR": str(mounted.path)})
        assert done.returncode == 0
        if holder == "nobody":
            assert b"mutex" in [event.name for event in read_events(events.fileno())]
    if holder == "module":
        assert [ktest.run("peek", number, at) for at in range(40, 48)] == list(
            (4 * int(COUNTS)).to_bytes(8, "little"))
        ktest.run("put", number)
    wait_for(lambda: os.listdir(mounted.path) == [], "it has gone with its last user")


def test_a_program_killed_at_each_step_by_path_leaves_what_it_had_made(
        mounted: Mounted, registry: Registry) -> None:
    path, other = mounted.path / "area", mounted.path / "other"
    mapped: list[mmap.mmap] = []

    def opened() -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o640)

    def store() -> None:
        fd = opened()
        os.ftruncate(fd, 5000)
        mapped.append(mmap.mmap(fd, 5000))
        mapped[-1][4999] = 7

    steps: list[tuple[Callable[[], object], dict[str, int]]] = [
        (opened, {"area": 0}),
        (store, {"area": 5000}),
        (lambda: (store(), path.rename(other)), {"other": 5000}),
        (lambda: (store(), os.open(path, os.O_RDWR), path.unlink()), {}),
        (lambda: (other.write_bytes(b"x" * 100), opened(), other.replace(path)), {"area": 100}),
    ]
    for step, left in steps:
        until_killed(step)
        assert {name: (mounted.path / name).stat().st_size
                for name in os.listdir(mounted.path)} == left
        if 5000 in left.values():
            assert next(mounted.path.iterdir()).read_bytes()[4999] == 7
        wait_for(lambda left=left: registry.usage().used_bytes
                 == sum(-(-size // PAGE) * PAGE for size in left.values()), "no more is charged")
        for name in left:
            (mounted.path / name).unlink()
