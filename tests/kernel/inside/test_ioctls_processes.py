# SPDX-License-Identifier: MIT
"""Areas and processes: killed ones, forked ones, many mappings, and unloading beside them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs.backends.registry import Registry
from tests.conftest import wait_for
from tests.kernel.inside.conftest import Module, given_back
from tests.kernel.inside.old_ioctl import ALLOCATE, DEALLOCATE, SELECT, old
from tests.kernel.inside.processes import until_killed
from tests.kernel.inside.raw_ioctl import PAGE, address_of, libc, refused

pytestmark = pytest.mark.rt

MIB = 1 << 20
SYS_USERFAULTFD = 323
UFFDIO_API = 0xC018AA3F
UFFDIO_REGISTER = 0xC020AA00
SOAK = bool(os.environ.get("MBUFF_SOAK"))


@pytest.fixture
def registry(module: Module) -> Iterator[Registry]:
    with given_back(counted=True) as registry:
        yield registry


def test_a_process_killed_after_each_step_leaves_what_it_had_counted_alone(
        registry: Registry) -> None:
    def creates() -> None:
        mine = Registry.open()
        mine.create(b"new", size=MIB)

    def maps() -> None:
        creates()
        mine = Registry.open()
        fd = mine.open_area(mine.find(b"new").id, os.O_RDWR)
        mmap.mmap(fd, MIB)[0] = 1
        globals()["kept"] = mmap.mmap(fd, MIB)

    def removes() -> None:
        maps()
        mine = Registry.open()
        mine.remove(mine.find(b"new").id, hold=True)

    until_killed(creates)
    assert registry.find(b"new").open_cnt == 0
    until_killed(maps)
    wait_for(lambda: registry.find(b"new").open_cnt == 0, "descriptor and mapping are gone")
    until_killed(removes)
    refused(errno.ENOENT, registry.find, b"new")
    wait_for(lambda: registry.usage().used_bytes == 0, "what was held for it is gone")


def test_a_process_killed_after_each_old_step_leaves_its_count_alone(registry: Registry) -> None:
    def allocates() -> None:
        old(Registry.open(), ALLOCATE, b"new", MIB)

    def maps() -> None:
        mine = Registry.open()
        old(mine, ALLOCATE, b"new", MIB)
        globals()["kept"] = mmap.mmap(mine.fd, MIB)

    def frees() -> None:
        mine = Registry.open()
        old(mine, ALLOCATE, b"new", MIB)
        globals()["kept"] = mmap.mmap(mine.fd, MIB)
        old(mine, DEALLOCATE, b"new")

    for count, steps in ((1, allocates), (2, maps), (2, frees)):
        until_killed(steps)
        wait_for(lambda: registry.find(b"new").open_cnt == 0, "the mapping is gone")
        assert registry.find(b"new").count == count
    assert old(registry, DEALLOCATE, b"new") == MIB
    assert old(registry, DEALLOCATE, b"new") == 0
    until_killed(frees)
    wait_for(lambda: not list(registry.areas()), "an area without a count goes with its mapping")


def test_programs_that_ended_without_freeing_do_not_become_more_and_more(
        registry: Registry) -> None:
    for _ in range(20):
        child = os.fork()
        if not child:
            old(registry, ALLOCATE, b"new", PAGE)
            os._exit(0)
        os.waitpid(child, 0)
    owners = registry.owners(registry.find(b"new").id)
    assert len(owners) <= 2  # the last one, and all before him
    assert sum(owner.count for owner in owners) == registry.find(b"new").count == 20
    assert {(owner.kind, owner.pid) for owner in owners} == {("process", 0)}


def test_ended_programs_of_many_names_are_told_as_others(registry: Registry) -> None:
    registry.create(b"a", size=PAGE)
    for number in range(100):
        child = os.fork()
        if not child:
            Path("/proc/self/comm").write_text(f"program{number}")
            old(registry, ALLOCATE, b"a", PAGE)
            os._exit(0)
        os.waitpid(child, 0)
    owners = registry.owners(registry.find(b"a").id)
    assert sum(owner.count for owner in owners) == 100
    assert len(owners) < 70
    assert max(owners, key=lambda owner: owner.count).name in ("(others)", b"(others)")


def test_a_forked_mapping_counts_until_the_last_process_ends(registry: Registry) -> None:
    old(registry, ALLOCATE, b"new", PAGE)
    memory = mmap.mmap(registry.fd, PAGE)
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        memory[0] = 7
        os.read(ours, 1)
        os._exit(0)
    memory.close()
    assert old(registry, DEALLOCATE, b"new") == PAGE
    wait_for(lambda: registry.find(b"new").open_cnt == 1, "the child's mapping counts")
    fd = registry.open_area(registry.find(b"new").id, os.O_RDONLY)
    wait_for(lambda: os.pread(fd, 1, 0) == b"\7", "the child has written")
    os.close(fd)
    os.write(theirs, b"e")
    os.waitpid(child, 0)
    wait_for(lambda: not list(registry.areas()), "the area goes with the child")
    os.close(ours)
    os.close(theirs)


def test_an_area_is_mapped_a_thousand_times(registry: Registry) -> None:
    old(registry, ALLOCATE, b"new", PAGE)
    memory = [mmap.mmap(registry.fd, PAGE) for _ in range(1000)]
    memory[0][0] = 1
    for at in range(1, 1000):
        assert memory[at][0] == at % 256
        memory[at][0] = (at + 1) % 256
    assert registry.find(b"new").open_cnt == 1000
    old(registry, DEALLOCATE, b"new")
    assert registry.find(b"new").open_cnt == 1000
    for mapping in memory:
        mapping.close()
    wait_for(lambda: not list(registry.areas()), "it goes with the last mapping")


def test_a_mapping_of_the_device_is_of_the_selected_area_and_within(registry: Registry) -> None:
    refused(errno.EINVAL, mmap.mmap, registry.fd, PAGE)
    refused(errno.EINVAL, os.read, registry.fd, 1)
    registry.create(b"new", size=2 * PAGE)
    old(registry, SELECT, b"new")
    for length, offset in ((3 * PAGE, 0), (PAGE, 2 * PAGE), (2 * PAGE, PAGE), (PAGE, 2**40)):
        refused(errno.EFAULT, mmap.mmap, registry.fd, length, offset=offset)
    mmap.mmap(registry.fd, PAGE, offset=PAGE).close()
    registry.remove(registry.find(b"new").id)
    refused(errno.EINVAL, mmap.mmap, registry.fd, PAGE)


def test_a_module_in_use_is_not_unloaded(module: Module) -> None:
    def in_use() -> None:
        with pytest.raises(OSError, match="in use"):
            module.rmmod()

    registry = Registry.open()
    in_use()
    old(registry, ALLOCATE, b"new", PAGE)
    memory = mmap.mmap(registry.fd, PAGE)
    old(registry, DEALLOCATE, b"new")
    events = registry.events()
    kept = registry.create(b"kept")
    registry.close()
    in_use()
    os.close(events)
    in_use()
    memory.close()
    in_use()
    registry = Registry.open()
    registry.remove(kept)
    registry.close()
    module.unload()


def test_a_disk_is_read_and_written_directly_from_an_area(registry: Registry,
                                                          disk: tuple[str, bytes]) -> None:
    """O_DIRECT of a block device pins the pages: the area's own, so they must be ordinary ones."""
    path, content = disk
    old(registry, ALLOCATE, b"new", len(content))
    memory = mmap.mmap(registry.fd, len(content))
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    assert os.preadv(fd, [memory], 0) == len(content)
    assert memory[:] == content
    memory[:PAGE] = b"x" * PAGE
    assert os.pwritev(fd, [memory], 0) == len(content)
    memory[:PAGE] = bytes(PAGE)
    assert os.preadv(fd, [memory], 0) == len(content)
    assert memory[:] == b"x" * PAGE + content[PAGE:]
    os.close(fd)
    memory.close()


def waits_for_ever(use: Callable[[mmap.mmap], object]) -> int:
    """A child that uses memory which somebody else has to provide, and nobody does; its pid."""
    child = os.fork()
    if not child:
        try:
            fd = libc.syscall(SYS_USERFAULTFD, 0)
            page = mmap.mmap(-1, PAGE)
            fcntl.ioctl(fd, UFFDIO_API, bytearray(struct.pack("=QQQ", 0xAA, 0, 0)))
            fcntl.ioctl(fd, UFFDIO_REGISTER,
                        bytearray(struct.pack("=QQQQ", address_of(page), PAGE, 1, 0)))
            use(page)
        finally:
            os._exit(1)
    waits = Path(f"/proc/{child}/wchan")
    try:
        wait_for(lambda: waits.read_text() == "handle_userfault", "it waits")
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    return child


@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows the call's number on x86-64")
def test_a_stopped_writer_stops_nobody_else(registry: Registry) -> None:
    area = registry.create(b"new", size=PAGE)
    fd = registry.open_area(area, os.O_RDWR)
    child = waits_for_ever(lambda page: os.pwrite(fd, page, PAGE // 2))
    os.ftruncate(fd, 3 * PAGE)
    registry.change(area, mode=0o600)
    assert os.pwrite(fd, b"here", 0) == 4
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert os.pread(fd, 3 * PAGE, 0) == b"here" + bytes(3 * PAGE - 4)
    os.close(fd)


def test_a_large_write_of_memory_that_is_not_there_yet_is_whole(registry: Registry,
                                                                tmp_path: Path) -> None:
    content = os.urandom(4 * MIB)
    (tmp_path / "file").write_bytes(content)
    area = registry.create(b"new")
    fd = registry.open_area(area, os.O_RDWR)
    with (tmp_path / "file").open("rb") as file:
        for _ in range(3):
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
                assert os.pwrite(fd, memory, 10) == len(content)
            assert os.pread(fd, len(content) + 10, 0) == bytes(10) + content
    os.close(fd)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows the call's number on x86-64")
def test_a_stopped_reader_of_proc_stops_nobody_else(registry: Registry) -> None:
    area = registry.create(b"new", size=PAGE)
    regions = Path("/proc/mbuff/regions")
    reading = os.open(regions / "new/size", os.O_RDONLY)
    child = waits_for_ever(lambda page: os.readv(reading, [page]))
    os.close(reading)
    registry.remove(area)
    again = registry.create(b"new", size=2 * PAGE)
    registry.rename(b"new", b"newer")
    registry.remove(again)
    registry.create(b"new", size=3 * PAGE)
    wait_for(lambda: registry.usage().used_bytes == 3 * PAGE, "memory does not wait for /proc")
    # One has waited for /proc in vain, but not everybody.
    begin = time.monotonic()
    for _ in range(200):
        registry.remove(registry.create(b"newest", size=PAGE))
    assert time.monotonic() - begin < 200 * 0.05 / 2
    with pytest.raises(OSError, match="in use"):
        Module(Path(os.environ["MBUFF_MODULE"])).rmmod()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_for((regions / "new/size").exists, "/proc goes on")
    assert os.listdir(regions) == ["new"]
    assert (regions / "new/size").read_text() == f"{3 * PAGE}\n"


def test_a_mutex_in_an_area_works_between_processes(registry: Registry,
                                                    program: Callable[[str], Path]) -> None:
    subprocess.run([program("shared_mutex"), "mutex", "4", "100000" if SOAK else "5000"],
                   check=True, timeout=600)
    assert not list(registry.areas())


def test_memory_that_is_unmapped_under_a_write_is_efault(registry: Registry) -> None:
    registry.create(b"new", size=2 * PAGE)
    old(registry, SELECT, b"new")
    memory = mmap.mmap(-1, 2 * PAGE)
    start = address_of(memory)
    assert libc.mprotect(ctypes.c_void_p(start + PAGE), PAGE, 0) == 0
    assert libc.write(registry.fd, ctypes.c_void_p(start), ctypes.c_size_t(2 * PAGE)) == PAGE
    assert libc.write(registry.fd, ctypes.c_void_p(start + PAGE), ctypes.c_size_t(PAGE)) == -1
    assert ctypes.get_errno() == errno.EFAULT
