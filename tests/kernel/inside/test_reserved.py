# SPDX-License-Identifier: MIT
"""Areas of memory that was reserved at boot: the same bytes by descriptor, address and /dev/mem."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbufffs.backends import registry as abi
from mbufffs.backends.registry import Registry
from tests.conftest import wait_for
from tests.kernel.inside.conftest import Ktest, Module
from tests.kernel.inside.old_ioctl import ALLOCATE, old
from tests.kernel.inside.processes import touched_behind
from tests.kernel.inside.raw_ioctl import PAGE, refused
from tests.kernel.machine import RESERVED, RESERVED_BYTES

pytestmark = pytest.mark.rt

MIB = 1 << 20
RAM = 0x10000000
WHOLE = f"fpga:{RESERVED_BYTES >> 20}M@{RESERVED:#x}"
WRONG = {
    "": None,  # no range at all is none that is wrong
    "fpga": "NAME:SIZE@ADDRESS",
    "fpga:1M": "NAME:SIZE@ADDRESS",
    "fpga@0x30000000": "NAME:SIZE@ADDRESS",
    "fpga:@0x30000000": "NAME:SIZE@ADDRESS",
    "fpga:1M@": "NAME:SIZE@ADDRESS",
    "fpga:1X@0x30000000": "NAME:SIZE@ADDRESS",
    "fpga:1M@0x30000000x": "NAME:SIZE@ADDRESS",
    "fpga:-1@0x30000000": "NAME:SIZE@ADDRESS",
    "fpga:1M@0x30000000,": "NAME:SIZE@ADDRESS",
    ":1M@0x30000000": "cannot be the name",
    "a//b:1M@0x30000000": "cannot be the name",
    "..:1M@0x30000000": "cannot be the name",
    "fpga:0@0x30000000": "it is empty",
    "fpga:1@0x30000000": "multiples of the page size",
    "fpga:1M@0x30000001": "multiples of the page size",
    f"fpga:1M@{RAM:#x}": "System RAM",
    "fpga:32M@0x30000000": "System RAM",
    f"fpga:1M@{RESERVED - MIB:#x}": "System RAM",
    "fpga:1M@0xfffffffff0000000": "beyond what this machine can address",
    "fpga:0xfffffffffffff000@0x30000000": "beyond what this machine can address",
    "fpga:1M@0x30000000,other:1M@0x300ff000": "overlaps another range",
    "fpga:1M@0x30000000,fpga:1M@0x30100000": "its name is taken",
    "fpga:1M@0x30000000,fpga/a:1M@0x30100000": "its name is taken",
}


@pytest.fixture
def module() -> Iterator[Module]:
    module = Module(Path(os.environ["MBUFF_MODULE"]))
    yield module
    module.unload()


@pytest.fixture
def registry(module: Module) -> Iterator[Registry]:
    module.insmod(f"reserved={WHOLE}")
    with contextlib.closing(Registry.open()) as registry:
        yield registry


@pytest.fixture
def dev_mem() -> Iterator[mmap.mmap]:
    """The range, as every program of root could see it before."""
    try:
        fd = os.open("/dev/mem", os.O_RDWR)
    except FileNotFoundError:
        pytest.skip("this kernel has no /dev/mem")
    with contextlib.closing(mmap.mmap(fd, RESERVED_BYTES, offset=RESERVED)) as memory:
        os.close(fd)
        yield memory


@pytest.mark.parametrize("ranges", WRONG)
def test_a_wrong_range_is_refused_with_one_line(module: Module, ranges: str) -> None:
    complaint = WRONG[ranges]
    Path("/dev/kmsg").write_text("here it begins\n")
    if complaint is None:
        module.insmod(f"reserved={ranges}")
        return
    with pytest.raises(OSError, match=r"Invalid parameters|File exists|directory"):
        module.insmod(f"reserved={ranges}")
    assert not module.loaded
    said = subprocess.run(["dmesg"], capture_output=True, text=True,
                          check=True).stdout.rpartition("here it begins")[2]
    lines = [line for line in said.splitlines() if "mbuff:" in line]
    assert len(lines) == 1
    assert complaint in lines[0]


def test_reserved_memory_is_the_same_by_every_way(registry: Registry, dev_mem: mmap.mmap) -> None:
    (name, found), = registry.areas()
    assert (name, abi.KINDS[found.kind]) == (b"fpga", "reserved")
    assert (found.size, found.allocated, found.physical) == (
        RESERVED_BYTES, RESERVED_BYTES, RESERVED)
    assert registry.usage().used_bytes == 0  # the machine had set it aside anyway
    ktest = Ktest()
    ktest.insmod()
    number = ktest.run("get", "fpga")
    assert ktest.run("physical", number) == RESERVED
    fd = registry.open_area(found.id, os.O_RDWR)
    with contextlib.closing(mmap.mmap(fd, RESERVED_BYTES)) as memory:
        for at in (0, PAGE - 1, 5 * MIB, RESERVED_BYTES - 1):
            def same(at: int = at) -> set[int]:
                return {memory[at], dev_mem[at], os.pread(fd, 1, at)[0],
                        ktest.run("peek", number, at)}
            memory[at] = 1
            assert same() == {1}
            dev_mem[at] = 2
            assert same() == {2}
            ktest.run("poke", number, at, 3)
            assert same() == {3}
            os.pwrite(fd, b"\4", at)
            assert same() == {4}
        content = random.Random(1).randbytes(RESERVED_BYTES)
        assert os.pwrite(fd, content, 0) == RESERVED_BYTES
        assert memory[:] == dev_mem[:] == os.pread(fd, RESERVED_BYTES, 0) == content
        for at in range(PAGE - 1, RESERVED_BYTES, MIB // 2 + 1):
            assert ktest.run("peek", number, at) == content[at]
    os.close(fd)
    ktest.unload()


def test_reserved_memory_ends_where_it_ends(registry: Registry) -> None:
    area = registry.find(b"fpga").id
    fd = registry.open_area(area, os.O_RDWR)
    assert os.lseek(fd, 0, os.SEEK_END) == RESERVED_BYTES
    refused(errno.ENOSPC, os.write, fd, b"x")
    assert os.pwrite(fd, b"x" * 2 * PAGE, RESERVED_BYTES - PAGE) == PAGE
    assert os.pread(fd, 2 * PAGE, RESERVED_BYTES - PAGE) == b"x" * PAGE
    assert os.pread(fd, 1, RESERVED_BYTES) == b""
    refused(errno.ENOSPC, os.ftruncate, fd, RESERVED_BYTES + 1)
    refused(errno.ENOSPC, registry.resize, area, 2 * RESERVED_BYTES)
    refused(errno.EBUSY, os.ftruncate, fd, 0)
    refused(errno.ENOSPC, os.posix_fallocate, fd, RESERVED_BYTES, 1)
    refused(errno.EBUSY, registry.set_kind, area, "pages")
    refused(errno.EPERM, registry.remove, area)
    refused(errno.EPERM, registry.rename, b"fpga", b"other")
    other = registry.create(b"other", size=PAGE)
    refused(errno.EPERM, registry.rename, b"other", b"fpga")
    registry.remove(other)
    # Of what has no pages, udmabuf would get others.
    refused(errno.EOPNOTSUPP, registry.open_area, area, os.O_RDWR, sealed=True)
    refused(errno.EINVAL, mmap.mmap, fd, PAGE, mmap.MAP_PRIVATE)  # pages to copy there are none
    assert touched_behind(fd, RESERVED_BYTES) == signal.SIGBUS
    os.close(fd)


def test_reserved_memory_is_left_as_found_and_scrubbed_when_it_is_given_back(
        module: Module, dev_mem: mmap.mmap) -> None:
    dev_mem[:5] = b"found"
    module.insmod(f"reserved={WHOLE}")
    with contextlib.closing(Registry.open()) as registry:
        fd = registry.open_area(registry.find(b"fpga").id, os.O_RDWR)
        assert os.pread(fd, 5, 0) == b"found"
        with pytest.raises(OSError, match="in use"):
            module.rmmod()
        os.close(fd)
    module.unload()
    assert dev_mem[:] == bytes(RESERVED_BYTES)
    dev_mem[:5] = b"found"
    module.insmod(f"reserved={WHOLE}", "scrub=0")
    module.unload()
    assert dev_mem[:5] == b"found"
    # Nor did a module scrub what it has not served.
    with pytest.raises(OSError, match="Invalid parameters"):
        module.insmod(f"reserved={WHOLE},fpga")
    assert dev_mem[:5] == b"found"


def test_what_a_program_has_left_counted_goes_with_the_module(module: Module,
                                                              dev_mem: mmap.mmap) -> None:
    module.insmod(f"reserved={WHOLE}")
    with contextlib.closing(Registry.open()) as registry:
        area = registry.find(b"fpga").id
        old(registry, ALLOCATE, b"fpga", PAGE)
        fd = registry.open_area(area, os.O_RDWR)
        assert registry.attributes(area).count == 1
        path = os.open(f"/proc/self/fd/{fd}", os.O_PATH)  # which keeps no module
        os.close(fd)
    dev_mem[:5] = b"found"
    module.unload()
    assert dev_mem[:5] == bytes(5)
    assert os.fstat(path).st_size == 0
    with contextlib.suppress(OSError):
        os.close(os.open(f"/proc/self/fd/{path}", os.O_RDWR))
    os.close(path)


def test_where_it_lies_is_for_root_alone(registry: Registry) -> None:
    parameter = Path("/sys/module/mbuff/parameters/reserved")
    assert parameter.stat().st_mode & 0o7777 == 0o400


def test_memory_of_the_kernel_is_refused_by_dev_mem(module: Module) -> None:
    module.insmod()
    with contextlib.closing(Registry.open()) as registry:
        area = registry.create(b"a", size=PAGE, contiguous=True)
        physical = registry.attributes(area).physical
        fd = os.open("/dev/mem", os.O_RDWR)
        refused(errno.EPERM, mmap.mmap, fd, PAGE, offset=physical)
        os.close(fd)
        registry.remove(area)
        wait_for(lambda: registry.usage().used_bytes == 0, "its memory is back")


def test_several_ranges_are_several_areas(module: Module) -> None:
    module.insmod(f"reserved=cam/0:1M@{RESERVED:#x},cam/1:1M@{RESERVED + MIB:#x},"
                  f"rest:14M@{RESERVED + 2 * MIB}")
    with contextlib.closing(Registry.open()) as registry:
        assert [(name, found.physical, found.size) for name, found in registry.areas()] == [
            (b"cam/0", RESERVED, MIB), (b"cam/1", RESERVED + MIB, MIB),
            (b"rest", RESERVED + 2 * MIB, 14 * MIB)]
        refused(errno.EPERM, registry.rename, b"cam", b"other", abi.RENAME_TREE)

