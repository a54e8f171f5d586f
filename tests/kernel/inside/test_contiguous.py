# SPDX-License-Identifier: MIT
"""Areas of physically contiguous memory, by the ioctls and in the kernel."""

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
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbufffs.backends import registry as abi
from mbufffs.backends.registry import Kind, Owner, Registry
from mbufffs.memory import contiguous
from mbufffs.pagemap import Extent, extents
from tests.conftest import wait_for
from tests.kernel.inside.conftest import Ktest, given_back
from tests.kernel.inside.old_ioctl import ALLOCATE, DEALLOCATE, SELECT, old
from tests.kernel.inside.processes import touched_behind
from tests.kernel.inside.raw_ioctl import (
    NOBODY,
    PAGE,
    address_of,
    call,
    libc,
    read_events,
    refused,
    text,
)

pytestmark = pytest.mark.rt

MIB = 1 << 20
BLOCK = 4 * MIB  # the page allocator's largest
PROC = Path("/proc/mbuff/regions")
MADV_POPULATE_WRITE = 23
CREATE_TRANSIENT = 4
UDMABUF_CREATE = 0x40187542  # _IOW('u', 0x42, struct udmabuf_create)


@pytest.fixture
def registry(loaded: None) -> Iterator[Registry]:
    with given_back() as registry:
        yield registry


def opened(registry: Registry, area: int) -> contextlib.closing[mmap.mmap]:
    fd = registry.open_area(area, os.O_RDWR)
    memory = mmap.mmap(fd, 0)
    os.close(fd)
    return contextlib.closing(memory)


def pieces(registry: Registry, area: int) -> list[Extent]:
    fd = registry.open_area(area, os.O_RDWR)
    try:
        return extents(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [1, PAGE, 3 * PAGE, 5 * PAGE + 1, MIB, 3 * MIB + PAGE, BLOCK])
def test_contiguous_memory_is_one_piece_where_it_says_and_zeroed(registry: Registry,
                                                                 size: int) -> None:
    whole = -(-size // PAGE) * PAGE
    area = registry.create(b"a", size=size, contiguous=True)
    found = registry.attributes(area)
    assert (abi.KINDS[found.kind], found.size, found.allocated) == ("contiguous", size, whole)
    assert registry.usage().used_bytes == whole
    assert pieces(registry, area) == [Extent(0, found.physical, whole)]
    with opened(registry, area) as memory:
        assert memory[:] == bytes(size)
        memory[:] = b"\x55" * size
    fd = registry.open_area(area, os.O_RDWR)
    assert os.pread(fd, size + 1, 0) == b"\x55" * size
    os.close(fd)


def test_what_was_in_contiguous_memory_is_not_in_the_next(registry: Registry) -> None:
    for _ in range(20):
        area = registry.create(b"a", size=BLOCK, contiguous=True)
        with opened(registry, area) as memory:
            assert memory[:] == bytes(BLOCK)
            memory[:] = b"\x55" * BLOCK
        registry.remove(area)


@pytest.mark.parametrize("size", [BLOCK + 1, 64 * MIB])
def test_more_than_the_page_allocator_has_is_of_cma_or_enomem_at_once(registry: Registry,
                                                                      size: int) -> None:
    if contiguous().cma_total:
        for _ in range(10):
            area = registry.create(b"a", size=size, contiguous=True)
            assert pieces(registry, area) == [
                Extent(0, registry.attributes(area).physical, -(-size // PAGE) * PAGE)]
            with opened(registry, area) as memory:
                assert memory[:] == bytes(size)
                memory[:] = b"\x55" * size
            registry.remove(area)
    else:
        refused(errno.ENOMEM, registry.create, b"a", size=size, contiguous=True)
        area = registry.create(b"b", contiguous=True)
        refused(errno.ENOMEM, registry.resize, area, size)
        assert registry.attributes(area).size == registry.usage().used_bytes == 0
        assert [name for name, _ in registry.areas()] == [b"b"]


def how_many(registry: Registry, size: int) -> int:
    """The contiguous areas of this size that there is memory for, up to 16."""
    made = []
    with contextlib.suppress(OSError):
        while len(made) < 16:
            made.append(registry.create(b"%d" % len(made), size=size, contiguous=True))
    for area in made:
        registry.remove(area)
    return len(made)


def test_a_page_that_somebody_has_pinned_is_given_back_with_its_last_user(
        registry: Registry) -> None:
    area = registry.create(b"a", contiguous=True)
    size = 64 * MIB if contiguous().cma_total else BLOCK
    registry.resize(area, size)
    fd = registry.open_area(area, os.O_RDWR)
    os.pwrite(fd, b"kept", 0)
    reader, writer = os.pipe()
    assert os.splice(fd, writer, PAGE, offset_src=0) == PAGE  # the pipe has the page itself
    os.close(fd)
    registry.remove(area)
    quarter = size // 4
    meanwhile = how_many(registry, quarter)
    assert registry.usage().used_bytes == size
    assert os.read(reader, 4) == b"kept"
    os.close(reader)
    os.close(writer)
    wait_for(lambda: registry.usage().used_bytes == 0, "it is given back")
    if contiguous().cma_total:
        wait_for(lambda: how_many(registry, quarter) >= meanwhile + 4, "CMA has it again")


def test_a_page_that_somebody_has_locked_is_given_back(registry: Registry) -> None:
    area = registry.create(b"a", size=BLOCK, contiguous=True)
    with opened(registry, area) as memory:
        start, length = ctypes.c_void_p(address_of(memory)), ctypes.c_size_t(BLOCK)
        assert libc.mlock(start, length) == 0
        assert pieces(registry, area) == [Extent(0, registry.attributes(area).physical, BLOCK)]
        registry.remove(area)
    wait_for(lambda: registry.usage().used_bytes == 0, "it is given back")


def test_who_touches_memory_while_it_comes_gets_no_other(registry: Registry) -> None:
    """A fault does not wait for who changes the size."""
    area = registry.create(b"a", contiguous=True)
    fd = registry.open_area(area, os.O_RDWR)
    libc.mmap.restype = ctypes.c_void_p
    start = libc.mmap(None, ctypes.c_size_t(BLOCK), mmap.PROT_READ | mmap.PROT_WRITE,
                      mmap.MAP_SHARED, fd, ctypes.c_long(0))
    ended = threading.Event()

    def touch() -> None:  # what the kernel cannot touch for us is an error, and no SIGBUS
        while not ended.is_set():
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(BLOCK), MADV_POPULATE_WRITE)

    threads = [threading.Thread(target=touch) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(50):
            try:
                os.ftruncate(fd, BLOCK)
            except OSError as error:
                assert error.errno in (errno.EBUSY, errno.ENOMEM)
                continue
            os.pwrite(fd, bytes([number]), BLOCK - PAGE)
            assert ctypes.string_at(start + BLOCK - PAGE, 1) == bytes([number])
            assert pieces(registry, area) == [Extent(0, registry.attributes(area).physical, BLOCK)]
            os.ftruncate(fd, 0)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(BLOCK))
        os.close(fd)


@pytest.mark.parametrize("kind", ["pages", "contiguous"])
def test_no_mapping_reaches_past_the_end_into_another_area(registry: Registry, kind: str) -> None:
    areas = [registry.create(b"%d" % number, size=3 * PAGE, contiguous=kind == "contiguous")
             for number in range(16)]
    for area in areas:
        fd = registry.open_area(area, os.O_RDWR)
        os.pwrite(fd, b"\x55" * 3 * PAGE, 0)
        os.close(fd)
    for area in areas:
        fd = registry.open_area(area, os.O_RDWR)
        touched = touched_behind(fd, 3 * PAGE)
        os.close(fd)
        assert touched == signal.SIGBUS


def test_a_kind_is_chosen_before_there_is_memory(registry: Registry) -> None:
    area = registry.create(b"a")
    registry.set_kind(area, "contiguous")
    registry.set_kind(area, "pages")
    registry.set_kind(area, "contiguous")
    registry.resize(area, 2 * PAGE)
    refused(errno.EBUSY, registry.set_kind, area, "pages")
    registry.set_kind(area, "contiguous")  # it is that already
    registry.resize(area, 0)
    assert registry.attributes(area).physical == 0
    registry.set_kind(area, "pages")
    registry.resize(area, PAGE)
    refused(errno.EBUSY, registry.set_kind, area, "contiguous")
    for kind, reserved in ((abi.KINDS.index("reserved"), 0), (3, 0), (2**32 - 1, 0), (0, 1)):
        refused(errno.EINVAL, call, registry.fd, abi._IOC_KIND,
                abi._KIND.pack(area, 0, 0, 0, kind, reserved))
    refused(errno.ENOENT, registry.set_kind, 2**40, "pages")


def test_who_is_not_the_owner_chooses_no_kind_and_sees_no_address(registry: Registry) -> None:
    area = registry.create(b"a", mode=0o666)
    other = registry.create(b"b", mode=0o666, size=PAGE, contiguous=True)
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setuid(NOBODY)
            refused(errno.EPERM, registry.set_kind, area, "contiguous")
            assert registry.attributes(other).physical == 0
            assert dict(registry.areas())[b"b"].physical == 0
            assert (PROC / "b/phys").read_text() == "0x0\n"
            fd = registry.open_area(other, os.O_RDWR)
            refused(errno.EPERM, extents, f"/proc/self/fd/{fd}")
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    physical = registry.attributes(other).physical
    assert physical
    assert (PROC / "b/phys").read_text() == f"{physical:#x}\n"
    assert [(PROC / name / "kind").read_text() for name in "ab"] == ["pages\n", "contiguous\n"]


def test_contiguous_memory_changes_its_size_from_and_to_0_alone(registry: Registry) -> None:
    area = registry.create(b"a", contiguous=True)
    fd = registry.open_area(area, os.O_RDWR)
    refused(errno.ENOSPC, os.write, fd, b"x")  # it has been given no size yet
    registry.resize(area, 2 * PAGE)
    for size in (1, PAGE, 2 * PAGE + 1, BLOCK):
        refused(errno.EBUSY, registry.resize, area, size)
        refused(errno.EBUSY, os.ftruncate, fd, size)
    assert os.pwrite(fd, b"x" * 3 * PAGE, PAGE) == PAGE
    refused(errno.ENOSPC, os.pwrite, fd, b"x", 2 * PAGE)
    refused(errno.EBUSY, os.posix_fallocate, fd, 0, 3 * PAGE)
    os.posix_fallocate(fd, 0, 2 * PAGE)
    assert os.pread(fd, 3 * PAGE, 0) == bytes(PAGE) + b"x" * PAGE
    os.ftruncate(fd, 0)
    assert registry.usage().used_bytes == 0
    os.ftruncate(fd, MIB)
    assert pieces(registry, area) == [Extent(0, registry.attributes(area).physical, MIB)]
    assert os.pread(fd, MIB, 0) == bytes(MIB)
    os.close(fd)


def test_a_mapping_keeps_contiguous_memory_that_was_removed(registry: Registry) -> None:
    area = registry.create(b"a", size=MIB, contiguous=True)
    with opened(registry, area) as memory:
        memory[:4] = b"kept"
        registry.remove(area)
        others = [registry.create(b"%d" % at, size=MIB, contiguous=True) for at in range(20)]
        for other in others:
            with opened(registry, other) as filled:
                filled[:] = b"\x55" * MIB
        assert memory[:8] == b"kept" + bytes(4)


def test_a_module_makes_contiguous_memory_and_is_told_where_it_lies(ktest: Ktest,
                                                                    registry: Registry) -> None:
    number = ktest.run("contiguous", "a", MIB, 660)
    area = registry.find(b"a")
    assert ktest.run("physical", number) == area.physical != 0
    with opened(registry, area.id) as memory:
        for at in (0, PAGE, MIB - 1):
            ktest.run("poke", number, at, 7)
            assert memory[at] == 7
            memory[at] = 8
            assert ktest.run("peek", number, at) == 8
    refused(errno.EBUSY, registry.resize, area.id, 0)
    assert registry.owners(area.id) == [Owner(kind="module", name="ktest", pid=0, count=1)]
    again = ktest.run("contiguous", "a", PAGE, 660)
    ktest.run("put", again)
    ktest.run("put", number)
    assert not list(registry.areas())
    plain = ktest.run("make", "b", PAGE, 660)
    assert ktest.run("physical", plain) == 0
    refused(errno.EINVAL, ktest.run, "contiguous", "b", PAGE, 660)
    refused(errno.ENOSPC, ktest.run, "contiguous", "c", 1 << 40, 660)
    assert [name for name, _ in registry.areas()] == [b"b"]
    ktest.run("put", plain)


def test_a_contiguous_area_is_an_area_for_old_programs(registry: Registry) -> None:
    area = registry.create(b"a", size=2 * PAGE, contiguous=True)
    assert old(registry, ALLOCATE, b"a", PAGE) == 2 * PAGE
    with contextlib.closing(mmap.mmap(registry.fd, 2 * PAGE)) as memory:
        memory[:5] = b"hello"
    refused(errno.EBUSY, registry.remove, area)
    assert old(registry, DEALLOCATE, b"a") == 2 * PAGE
    with opened(registry, area) as memory:
        assert memory[:5] == b"hello"


def test_a_change_of_kind_is_told(registry: Registry) -> None:
    with contextlib.closing(Registry.open()) as other, \
            open(other.events(), "rb", buffering=0) as events:
        os.set_blocking(events.fileno(), False)
        area = registry.create(b"a")
        registry.set_kind(area, "contiguous")
        assert [event.kind for event in read_events(events.fileno())] == [
            Kind.CREATED, Kind.CHANGED]


@pytest.mark.parametrize("contiguous", [False, True])
def test_an_area_becomes_a_dma_buf(registry: Registry, contiguous: bool) -> None:
    subprocess.run(["modprobe", "-q", "udmabuf"], check=False)
    if not Path("/dev/udmabuf").exists():
        pytest.skip("this kernel has no udmabuf")
    area = registry.create(b"a", size=8 * PAGE, contiguous=contiguous)
    plain = registry.open_area(area, os.O_RDWR)
    device = os.open("/dev/udmabuf", os.O_RDWR)
    request = struct.pack("=IIQQ", plain, 1, 0, 8 * PAGE)
    refused(errno.EINVAL, fcntl.ioctl, device, UDMABUF_CREATE, request)  # it could shrink
    sealed = registry.open_area(area, os.O_RDWR, sealed=True)
    dmabuf = fcntl.ioctl(device, UDMABUF_CREATE,
                         bytearray(struct.pack("=IIQQ", sealed, 1, 0, 8 * PAGE)), True)
    refused(errno.EBUSY, os.ftruncate, plain, 0)
    refused(errno.EBUSY, registry.resize, area, PAGE)
    with contextlib.closing(mmap.mmap(dmabuf, 8 * PAGE)) as memory:
        memory[PAGE:PAGE + 5] = b"hello"
        assert os.pread(plain, 5, PAGE) == b"hello"
        os.pwrite(plain, b"there", 0)
        assert memory[:5] == b"there"
        registry.remove(area)
        os.close(plain)
        os.close(sealed)
        assert memory[:5] == b"there"  # the dma-buf's pages outlive the area
    os.close(dmabuf)
    os.close(device)


def test_what_cannot_be_pinned_for_long_is_not_sealed(registry: Registry) -> None:
    empty = registry.create(b"a", contiguous=True)
    refused(errno.EOPNOTSUPP, registry.open_area, empty, os.O_RDWR, sealed=True)
    pages = registry.create(b"b")
    os.close(registry.open_area(pages, os.O_RDWR, sealed=True))
    refused(errno.EBUSY, registry.set_kind, pages, "contiguous")
    if contiguous().cma_total:
        area = registry.create(b"c", size=64 * MIB, contiguous=True)
        refused(errno.EOPNOTSUPP, registry.open_area, area, os.O_RDWR, sealed=True)


def test_when_no_piece_is_left_nothing_is_taken(registry: Registry) -> None:
    areas = []
    while True:
        try:
            areas.append(registry.create(b"%d" % len(areas), size=BLOCK, contiguous=True))
        except OSError as error:
            assert error.errno in (errno.ENOMEM, errno.ENOSPC)
            break
    assert len(areas) > 8
    assert registry.usage().used_bytes == BLOCK * len(areas)
    assert len(list(registry.areas())) == len(areas)


def test_what_waits_for_its_first_user_is_not_taken_by_who_only_looks(registry: Registry) -> None:
    name, address = text(b"a")
    call(registry.fd, abi._IOC_CREATE, abi._CREATE.pack(
        address, 1, abi.CREATE_CONTIGUOUS | CREATE_TRANSIENT, PAGE, 0o660, abi._NOBODY,
        abi._NOBODY, 0, 0))
    del name
    area = registry.find(b"a").id
    os.close(registry.open_area(area, os.O_RDWR, weak=True))
    refused(errno.EIO, old, registry, ALLOCATE, b"a", 2 * PAGE)  # it is smaller
    old(registry, SELECT, b"a")
    assert os.pread(registry.fd, 1, 0) == b"\0"
    assert abi.KINDS[registry.find(b"a").kind] == "contiguous"
    fd = registry.open_area(area, os.O_RDWR)
    os.close(registry.open_area(area, os.O_RDWR))
    assert registry.find(b"a").id == area
    os.close(fd)
    refused(errno.ENOENT, registry.find, b"a")


def test_a_program_that_is_killed_leaves_no_contiguous_memory(registry: Registry) -> None:
    for delay in range(10):
        child = os.fork()
        if not child:
            while True:
                registry.remove(registry.create(b"a", size=MIB, contiguous=True))
        time.sleep(delay / 100)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for _, found in list(registry.areas()):
            registry.remove(found.id)
        wait_for(lambda: registry.usage().used_bytes == 0, "all of it is back")
