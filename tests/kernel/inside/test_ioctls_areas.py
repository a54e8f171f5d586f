# SPDX-License-Identifier: MIT
"""An area by the ioctls of /dev/mbuff: its pages, its size, what it is charged, who holds it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs.backends import registry as abi
from mbufffs.backends.registry import Registry
from tests.conftest import wait_for
from tests.kernel.inside.conftest import given_back
from tests.kernel.inside.old_ioctl import ALLOCATE, DEALLOCATE, old
from tests.kernel.inside.raw_ioctl import PAGE, address_of, libc, refused

pytestmark = pytest.mark.rt

MIB = 1 << 20
PARAMETERS = Path("/sys/module/mbuff/parameters")
MADV_REMOVE, MADV_PAGEOUT, MADV_COLLAPSE = 9, 21, 25
MAP_FIXED = 0x10
COLLAPSE_AND_THE_LIKE = (0x03, 0x08, 0x10, 0x11, 0x20, 0x21, 0x40)


@pytest.fixture
def registry(loaded: None) -> Iterator[Registry]:
    """All that a test charges comes back when its areas are removed and its files closed."""
    with given_back() as registry:
        yield registry


@pytest.fixture
def limits(registry: Registry) -> Iterator[Callable[[str, int], object]]:
    """Sets a parameter of the module, for this test."""
    before = {file: file.read_text() for file in PARAMETERS.iterdir()
              if file.stat().st_mode & stat.S_IWUSR}
    yield lambda name, value: (PARAMETERS / name).write_text(str(value))
    for file, content in before.items():
        file.write_text(content)


@pytest.fixture
def held(registry: Registry) -> Iterator[tuple[int, int]]:
    """An area of two pages that a program has counted, and a descriptor of it."""
    registry.create(b"held", size=2 * PAGE)
    old(registry, ALLOCATE, b"held", PAGE)
    area = registry.find(b"held").id
    fd = registry.open_area(area, os.O_RDWR)
    os.pwrite(fd, b"\x55" * 2 * PAGE, 0)
    yield area, fd
    assert registry.attributes(area).size == 2 * PAGE
    assert os.pread(fd, 3 * PAGE, 0) == b"\x55" * 2 * PAGE
    os.close(fd)
    while registry.attributes(area).count:
        old(registry, DEALLOCATE, b"held")


def used(registry: Registry) -> int:
    return registry.usage().used_bytes


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


# What is held stays as it is.


def test_a_held_area_is_not_removed_renamed_replaced_or_resized(
        registry: Registry, held: tuple[int, int]) -> None:
    area, fd = held
    other = registry.create(b"other")
    refused(errno.EBUSY, registry.remove, area)
    refused(errno.EBUSY, registry.remove, area, hold=True)
    assert not list(registry.areas(held=True))
    refused(errno.EBUSY, registry.rename, b"held", b"new")
    refused(errno.EBUSY, registry.rename, b"other", b"held")
    refused(errno.EBUSY, registry.rename, b"other", b"held", abi.RENAME_EXCHANGE)
    refused(errno.EBUSY, registry.rename, b"held", b"other", abi.RENAME_EXCHANGE)
    for size in (0, 1, PAGE, 2 * PAGE - 1, 2 * PAGE + 1, MIB):
        refused(errno.EBUSY, registry.resize, area, size)
        refused(errno.EBUSY, os.ftruncate, fd, size)
    registry.resize(area, 2 * PAGE)
    os.ftruncate(fd, 2 * PAGE)
    assert registry.find(b"held").id == area
    assert registry.find(b"other").id == other


def test_a_held_area_in_a_tree_stops_its_renaming(registry: Registry) -> None:
    for name in (b"tree/a", b"tree/b", b"tree/c/d"):
        registry.create(name, size=PAGE)
    old(registry, ALLOCATE, b"tree/b", PAGE)
    refused(errno.EBUSY, registry.rename, b"tree", b"wood", abi.RENAME_TREE)
    assert [name for name, _ in registry.areas()] == [b"tree/a", b"tree/b", b"tree/c/d"]
    old(registry, DEALLOCATE, b"tree/b")
    refused(errno.EINVAL, registry.rename, b"tree", b"tree/c/wood", abi.RENAME_TREE)
    registry.rename(b"tree", b"wood/deep", abi.RENAME_TREE)
    assert [name for name, _ in registry.areas()] == [
        b"wood/deep/a", b"wood/deep/b", b"wood/deep/c/d"]


def test_writing_to_a_held_area_ends_at_its_end(registry: Registry, held: tuple[int, int]) -> None:
    _, fd = held
    refused(errno.ENOSPC, os.pwrite, fd, b"x", 2 * PAGE)
    refused(errno.ENOSPC, os.pwrite, fd, b"x", 2**40)
    assert os.pwrite(fd, b"\x55" * 3 * PAGE, PAGE) == PAGE


def test_no_way_takes_pages_out_of_an_area(registry: Registry, held: tuple[int, int]) -> None:
    _, fd = held
    free = registry.open_area(registry.create(b"free", size=2 * PAGE), os.O_RDWR)
    for file in (fd, free):
        for mode in COLLAPSE_AND_THE_LIKE:
            refused(errno.EOPNOTSUPP, fallocate, file, mode, 0, PAGE)
        memory = mmap.mmap(file, 2 * PAGE)
        memory[0:1] = b"\x55"
        assert libc.madvise(ctypes.c_void_p(address_of(memory)), ctypes.c_size_t(PAGE),
                            MADV_REMOVE) == -1
        assert ctypes.get_errno() == errno.EOPNOTSUPP
        assert memory[0:1] == b"\x55"
        memory.close()
    os.close(free)


@pytest.fixture
def swap(disk: tuple[str, bytes]) -> Iterator[None]:
    path, _ = disk
    subprocess.run(["mkswap", path], check=True, capture_output=True)
    subprocess.run(["swapon", path], check=True)
    yield
    subprocess.run(["swapoff", path], check=True)


def swapped(memory: mmap.mmap) -> int:
    """KiB of a mapping that have been swapped out."""
    _, _, rest = Path("/proc/self/smaps").read_text().partition(f"{address_of(memory):x}-")
    return int(rest.partition("\nSwap:")[2].split()[0])


def test_an_area_is_never_swapped_out(registry: Registry, swap: None) -> None:
    size = 32 * PAGE
    fd = registry.open_area(registry.create(b"area", size=size), os.O_RDWR)
    with contextlib.closing(mmap.mmap(fd, size)) as area, \
            contextlib.closing(mmap.mmap(-1, size, mmap.MAP_PRIVATE)) as ordinary:
        for memory in (area, ordinary):
            memory[:] = b"\x55" * size

        def is_swapped() -> bool:
            for memory in (area, ordinary):
                memory.madvise(MADV_PAGEOUT)
            return swapped(ordinary) > 0

        wait_for(is_swapped, "what is no area is swapped out")
        assert swapped(area) == 0
        assert area[:] == ordinary[:] == b"\x55" * size
    os.close(fd)


def test_seals_and_leases_are_refused(registry: Registry, held: tuple[int, int]) -> None:
    _, fd = held
    refused(errno.EPERM, fcntl.fcntl, fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    refused(errno.EINVAL, fcntl.fcntl, fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)


# Old counts.


def test_no_attributes_of_users_are_kept(registry: Registry) -> None:
    """shmem would keep them without a limit."""
    area = registry.create(b"a", size=PAGE)
    fd = registry.open_area(area, os.O_RDWR)
    refused(errno.EOPNOTSUPP, os.setxattr, fd, "user.name", b"x" * 1000)
    assert os.listxattr(fd) == []
    os.close(fd)


def test_no_huge_page_comes_by_advice(registry: Registry) -> None:
    """It would have memory that the area does not have, and that nothing counts."""
    area = registry.create(b"a", size=PAGE)
    fd = registry.open_area(area, os.O_RDWR)
    libc.mmap.restype = ctypes.c_void_p
    huge = 2 << 20
    room = libc.mmap(None, ctypes.c_size_t(2 * huge), 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1,
                     ctypes.c_long(0))
    start = -(-room // huge) * huge
    mapped = libc.mmap(ctypes.c_void_p(start), ctypes.c_size_t(huge),
                       mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | MAP_FIXED, fd,
                       ctypes.c_long(0))
    assert mapped == start
    ctypes.memset(start, 7, PAGE)
    for advice in (mmap.MADV_HUGEPAGE, MADV_COLLAPSE):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(huge), advice)
        assert registry.attributes(area).allocated == PAGE
    assert os.pread(fd, 1, PAGE - 1) == b"\7"
    libc.munmap(ctypes.c_void_p(room), ctypes.c_size_t(2 * huge))
    os.close(fd)


def test_what_is_appended_is_in_one_piece(registry: Registry, tmp_path: Path) -> None:
    """Whatever of the writer's memory is there: a fault in the middle of it lets nobody between."""
    area = registry.create(b"log")
    length, times = 40 * PAGE, 50
    children = []
    for number in (1, 2):
        (tmp_path / str(number)).write_bytes(bytes([number]) * length)
        child = os.fork()
        if not child:
            fd = registry.open_area(area, os.O_WRONLY | os.O_APPEND)
            with (tmp_path / str(number)).open("rb") as source:
                for _ in range(times):
                    with mmap.mmap(source.fileno(), length, prot=mmap.PROT_READ) as record:
                        assert record[0] == number  # and what the kernel maps besides
                        assert os.write(fd, record) == length
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    fd = registry.open_area(area, os.O_RDONLY)
    found = [os.read(fd, length) for _ in range(2 * times)]
    os.close(fd)
    assert sorted(found) == [bytes([1]) * length] * times + [bytes([2]) * length] * times


def test_a_count_too_many_is_not_given_back(registry: Registry) -> None:
    registry.create(b"kept", size=PAGE)
    assert old(registry, ALLOCATE, b"kept", PAGE) == PAGE
    old(registry, DEALLOCATE, b"kept")
    refused(errno.EINVAL, old, registry, DEALLOCATE, b"kept")
    assert registry.find(b"kept").count == 0
    assert old(registry, ALLOCATE, b"gone", PAGE) == PAGE
    assert old(registry, DEALLOCATE, b"gone") == 0
    refused(errno.EINVAL, old, registry, DEALLOCATE, b"gone")


# Size and memory.


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, PAGE + 1, MIB + 1])
def test_each_size_is_exact_and_charged_in_whole_pages(registry: Registry, size: int) -> None:
    pages = -(-size // PAGE) * PAGE
    area = registry.create(b"new", size=size)
    found = registry.attributes(area)
    assert (found.size, found.allocated) == (size, pages)
    assert used(registry) == pages
    registry.resize(area, size + 3 * PAGE)
    assert used(registry) == pages + 3 * PAGE
    registry.resize(area, size)
    assert (used(registry), registry.attributes(area).allocated) == (pages, pages)
    fd = registry.open_area(area, os.O_RDWR)
    registry.remove(area)
    assert used(registry) == pages
    os.close(fd)
    wait_for(lambda: used(registry) == 0, "the last descriptor keeps the memory no longer")


def test_memory_is_zeroed_whatever_was_in_it(registry: Registry) -> None:
    for _ in range(3):
        area = registry.create(b"new", size=8 * MIB)
        fd = registry.open_area(area, os.O_RDWR)
        assert not any(os.pread(fd, 8 * MIB, 0))
        os.pwrite(fd, b"\xaa" * 8 * MIB, 0)
        registry.resize(area, 5)
        registry.resize(area, 8 * MIB)
        assert os.pread(fd, 8 * MIB, 0) == b"\xaa" * 5 + bytes(8 * MIB - 5)
        os.close(fd)
        registry.remove(area)


def test_a_write_behind_the_end_leaves_no_hole(registry: Registry) -> None:
    area = registry.create(b"new", size=1)
    fd = registry.open_area(area, os.O_RDWR)
    assert os.pwrite(fd, b"x", 100 * PAGE) == 1
    found = registry.attributes(area)
    assert (found.size, found.allocated, used(registry)) == (100 * PAGE + 1, 101 * PAGE, 101 * PAGE)
    refused(errno.EFAULT, _write_from_nowhere, fd, 200 * PAGE)
    assert registry.attributes(area).size == found.size
    assert used(registry) == 101 * PAGE
    os.close(fd)


def _write_from_nowhere(fd: int, offset: int) -> None:
    if libc.pwrite(fd, ctypes.c_void_p(PAGE), ctypes.c_size_t(PAGE), ctypes.c_long(offset)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def test_fallocate_grows_and_changes_nothing_below(registry: Registry) -> None:
    area = registry.create(b"new", size=PAGE)
    fd = registry.open_area(area, os.O_RDWR)
    os.pwrite(fd, b"x" * PAGE, 0)
    os.posix_fallocate(fd, 0, 4 * PAGE)
    fallocate(fd, 1, 0, 4 * PAGE)
    refused(errno.EOPNOTSUPP, fallocate, fd, 1, 0, 5 * PAGE)
    assert os.pread(fd, 5 * PAGE, 0) == b"x" * PAGE + bytes(3 * PAGE)
    assert used(registry) == 4 * PAGE
    os.close(fd)


def test_a_size_above_rlimit_fsize_is_refused_and_nothing_has_changed(registry: Registry) -> None:
    area = registry.create(b"new", size=PAGE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * PAGE, before[1]))
    try:
        refused(errno.EFBIG, registry.resize, area, 3 * PAGE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert registry.attributes(area).size == used(registry) == PAGE


# Limits.


def test_bytes_beyond_the_limit_are_refused_and_what_fits_is_written(
        registry: Registry, limits: Callable[[str, int], object]) -> None:
    limits("max_bytes", 4 * PAGE)
    area = registry.create(b"new", size=2 * PAGE)
    refused(errno.ENOSPC, registry.create, b"other", size=2 * PAGE + 1)
    refused(errno.ENOSPC, registry.resize, area, 4 * PAGE + 1)
    fd = registry.open_area(area, os.O_RDWR)
    assert os.pwrite(fd, b"x" * 5 * PAGE, PAGE) == 3 * PAGE
    refused(errno.ENOSPC, os.pwrite, fd, b"x", 4 * PAGE)
    refused(errno.ENOSPC, os.pwrite, fd, b"x", 2**40)
    assert registry.attributes(area).size == used(registry) == 4 * PAGE
    limits("max_bytes", PAGE)
    assert registry.usage().max_bytes == PAGE
    refused(errno.ENOSPC, registry.create, b"other", size=1)
    refused(errno.ENOSPC, registry.resize, area, 5 * PAGE)
    registry.resize(area, PAGE - 1)
    assert os.pwrite(fd, b"xx", PAGE - 1) == 1
    limits("max_bytes", 8 * PAGE)
    registry.resize(area, 8 * PAGE)
    os.close(fd)


def test_areas_beyond_the_limit_are_refused(registry: Registry,
                                            limits: Callable[[str, int], object]) -> None:
    limits("max_areas", 2)
    areas = [registry.create(name) for name in (b"a", b"b")]
    refused(errno.ENOSPC, registry.create, b"c", size=PAGE)
    assert registry.usage().areas == registry.usage().max_areas == 2
    assert used(registry) == 0
    assert registry.create(b"a") == areas[0]
    registry.rename(b"a", b"c")
    registry.remove(areas[1])
    registry.create(b"d")


# What is left when an area has gone.


def test_a_path_to_a_removed_area_keeps_no_memory(registry: Registry) -> None:
    """An O_PATH descriptor is no open file: who has it must not keep memory beyond the limit."""
    area = registry.create(b"new", size=MIB)
    fd = registry.open_area(area, os.O_RDWR)
    path = os.open(f"/proc/self/fd/{fd}", os.O_PATH)
    registry.remove(area)
    assert os.stat(path).st_size == MIB
    os.close(fd)
    wait_for(lambda: used(registry) == 0, "the area is gone")
    found = os.stat(path)
    assert (found.st_size, found.st_blocks) == (0, 0)
    os.chmod(f"/proc/self/fd/{path}", 0o600)
    os.close(path)


def test_opening_by_a_path_while_the_area_goes_is_an_error_at_most(registry: Registry) -> None:
    """A child opens and truncates it by its path when nothing but a descriptor here keeps it."""
    for _ in range(40):
        area = registry.create(b"new", size=PAGE)
        fd = registry.open_area(area, os.O_RDWR)
        path = os.open(f"/proc/self/fd/{fd}", os.O_PATH)
        registry.remove(area)
        child = os.fork()
        if not child:
            os.close(fd)
            os._exit(_open_by(path))
        os.close(fd)
        assert os.waitpid(child, 0)[1] == 0
        os.close(path)


def _open_by(path: int) -> int:
    for _ in range(20):
        try:
            os.truncate(f"/proc/self/fd/{path}", 2 * PAGE)
            os.close(os.open(f"/proc/self/fd/{path}", os.O_RDWR))
        except OSError as error:
            return error.errno != errno.ENXIO
    return 0


def test_what_is_removed_with_hold_is_there_until_forgotten(registry: Registry) -> None:
    area = registry.create(b"new", size=PAGE)
    registry.remove(area, hold=True)
    refused(errno.ENOENT, registry.remove, area, hold=True)
    refused(errno.ENOENT, registry.find, b"new")
    assert [(name, found.id) for name, found in registry.areas(held=True)] == [(b"", area)]
    assert registry.attributes(area).flags & abi.IS_REMOVED
    os.close(registry.open_area(area, os.O_RDWR))
    replaced = registry.create(b"to")
    registry.create(b"from")
    registry.rename(b"from", b"to", abi.RENAME_HOLD)
    assert [found.id for _, found in registry.areas(held=True)] == [area, replaced]
    for held in (area, replaced):
        registry.forget(held)
        refused(errno.ENOENT, registry.forget, held)
        refused(errno.ENOENT, registry.attributes, held)
