# SPDX-License-Identifier: MIT
"""What the kernel has of memory and objects before and after many areas, of all kinds."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mbufffs.backends.registry import Registry
from mbufffs.memory import contiguous, meminfo
from tests.conftest import wait_for
from tests.kernel.inside.conftest import Ktest, Module
from tests.kernel.inside.old_ioctl import ALLOCATE, DEALLOCATE, old
from tests.kernel.inside.raw_ioctl import PAGE
from tests.kernel.machine import RESERVED, RESERVED_BYTES

pytestmark = pytest.mark.rt

MIB = 1 << 20
SOAK = bool(os.environ.get("MBUFF_SOAK"))
ROUNDS = 1000 if SOAK else 20  # of loading, using and unloading
SMALL = 2 if SOAK else 50  # areas of a page in each
AREAS = 10_000 if SOAK else 300  # of all kinds
LOADS = 10 if SOAK else 3
LONG = b"-as-a-name-that-the-kernel-keeps-64-bytes-for"  # of 8 bytes there may be 512 more
# What an area, its users and its names are made of; those of kmalloc() by all their names. How
# many are in use, and how many a slab has room for.
OBJECTS = re.compile(r"(kmalloc-\S+|shmem_inode_cache|filp|vm_area_struct|dentry|radix_tree_node|"
                     r"proc_inode_cache|proc_dir_entry|pid|task_struct|vmap_area|cred_jar)"
                     r" +(\d+) +\d+ +\d+ +(\d+)")
# Each processor may work on a slab of a kind and have another in store: all of both count as used.
SLABS = 2 * (os.cpu_count() or 1)


class Objects(NamedTuple):
    """Of one kind, in use."""

    count: int
    uncertain: int  # by so many it may differ with nothing made or freed


class Found(NamedTuple):
    """Bytes that are free, and objects of the kernel that are in use."""

    memory: int
    cma: int
    objects: dict[str, Objects]


def free() -> int:
    """Bytes. Each processor keeps free pages of its own, which MemFree leaves out: tens of MiB.

    They move from the one to the other at any time, and must not be counted twice. This process's
    own memory counts as free: that of the contents it compares grows and shrinks by tens of MiB.
    """
    for _ in range(100):
        before = meminfo("MemFree")
        kept = re.findall(r"^ +count: +(\d+)", Path("/proc/zoneinfo").read_text(), re.MULTILINE)
        if abs(meminfo("MemFree") - before) < MIB:
            ours = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
            assert ours
            return before + sum(map(int, kept)) * PAGE + (int(ours[1]) << 10)
    raise AssertionError("free pages never stay where they are")


def in_use() -> dict[str, Objects]:
    """Objects by kind.

    Each processor keeps some that are free, and KASAN tens of MiB for a while, among them those of
    reading these files; /proc/slabinfo counts both as used, until they are asked back.
    """
    for name, *_ in OBJECTS.findall(Path("/proc/slabinfo").read_text()):
        Path(f"/sys/kernel/slab/{name}/shrink").write_text("1")
    return {name: Objects(int(count), SLABS * int(room)) for name, count, room in
            OBJECTS.findall(Path("/proc/slabinfo").read_text())}


def found() -> Found:
    Path("/proc/sys/vm/drop_caches").write_text("3")
    objects = in_use()
    return Found(free(), contiguous().cma_free, objects)


@contextlib.contextmanager
def leaks_nothing(made: int) -> Iterator[None]:
    """`made`: areas. One object of each that stays is seen, of kinds that are not too small."""
    before = found()
    # Half of them, and as many as may be wrong; others come and go meanwhile, too.
    most = {name: (made + objects.uncertain) // 2 for name, objects in before.objects.items()
            if objects.uncertain < made}
    assert {"shmem_inode_cache", "dentry", "filp"} <= most.keys()
    assert any(re.fullmatch(r"kmalloc-(cg-)?64", name) for name in most), "names of areas"
    yield

    def more() -> dict[str, int]:
        now = found()
        grown = {name: now.objects[name].count - before.objects[name].count for name in most}
        grown = {name: count for name, count in grown.items() if count >= most[name]}
        if before.memory - now.memory >= 12 * MIB:
            grown["bytes"] = before.memory - now.memory
        if before.cma - now.cma >= MIB:
            grown["bytes of CMA"] = before.cma - now.cma
        return grown

    # The kernel frees some of it a while after the last user.
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not more(), "all is back")
    assert not more()


def test_loading_using_and_unloading_leaks_nothing(module: Module) -> None:
    module.unload()
    ktest = Ktest()

    def use() -> None:
        module.insmod()
        ktest.insmod()
        with contextlib.closing(Registry.open()) as registry:
            events = registry.events()
            area = registry.create(b"directory/new", size=4 * MIB)
            fd = registry.open_area(area, os.O_RDWR)
            mapping = mmap.mmap(fd, 4 * MIB)
            mapping[MIB] = 1
            registry.notify(area)
            old(registry, ALLOCATE, b"old", MIB)
            ktest.run("put", ktest.run("get", "old"))
            old(registry, DEALLOCATE, b"old")
            mapping.close()
            os.close(fd)
            registry.remove(area)
            for number in range(SMALL):
                name = b"%d" % number + LONG
                area = registry.create(name, size=PAGE, contiguous=number % 2 == 1)
                os.close(registry.open_area(area, os.O_RDWR))
                ktest.run("put", ktest.run("get", name.decode()))
                registry.remove(area)
            os.close(events)
        ktest.unload()
        module.unload()

    for _ in range(5):
        use()
    with leaks_nothing(made=ROUNDS * SMALL):
        for _ in range(ROUNDS):
            use()


class Kinds:
    """Areas of all kinds, and what each must contain."""

    def __init__(self, registry: Registry, chance: random.Random) -> None:
        self.registry = registry
        self.chance = chance
        self.kept: dict[bytes, tuple[int, bytes]] = {}
        self.fixed = registry.find(b"fpga").id
        self.in_fixed = bytearray(RESERVED_BYTES)
        self.sizes = [1, PAGE, 9 * PAGE, 100_000, MIB, 3 * MIB + 1]
        if contiguous().cma_total:
            self.sizes.append(8 * MIB)

    def check(self, area: int, content: bytes, offset: int = 0) -> None:
        fd = self.registry.open_area(area, os.O_RDONLY)
        assert os.pread(fd, len(content) + 1, offset)[:len(content)] == content
        os.close(fd)

    def free(self, name: bytes) -> None:
        area, content = self.kept.pop(name)
        self.check(area, content)
        self.registry.remove(area)

    def make(self, name: bytes) -> None:
        size = self.chance.choice(self.sizes)
        area = self.registry.create(name, size=size, contiguous=self.chance.random() < 0.6)
        self.check(area, bytes(size))
        content = self.chance.randbytes(size)
        self.write(area, content)
        self.kept[name] = area, content

    def write(self, area: int, content: bytes, offset: int = 0) -> None:
        fd = self.registry.open_area(area, os.O_RDWR)
        assert os.pwrite(fd, content, offset) == len(content)
        os.close(fd)

    def use_fixed(self) -> None:
        at = self.chance.randrange(RESERVED_BYTES - MIB)
        content = self.chance.randbytes(self.chance.randrange(1, MIB))
        self.write(self.fixed, content, at)
        self.in_fixed[at:at + len(content)] = content
        at = self.chance.randrange(RESERVED_BYTES - MIB)
        self.check(self.fixed, bytes(self.in_fixed[at:at + MIB]), at)


def test_all_kinds_come_and_go_in_any_order_keep_their_content_and_leak_nothing() -> None:
    """Reserved memory comes and goes with the module, and is zero when it comes again."""
    module = Module(Path(os.environ["MBUFF_MODULE"]))
    chance = random.Random(4)

    def load(count: int) -> None:
        module.insmod(f"reserved=fpga:{RESERVED_BYTES}@{RESERVED:#x}")
        with contextlib.closing(Registry.open()) as registry:
            kinds = Kinds(registry, chance)
            kinds.check(kinds.fixed, bytes(RESERVED_BYTES))
            made = 0
            while made < count:
                if kinds.kept and (len(kinds.kept) > 24 or chance.random() < 0.45):
                    kinds.free(chance.choice(list(kinds.kept)))
                    continue
                if chance.random() < 0.1:
                    kinds.use_fixed()
                try:
                    kinds.make(b"%d" % made + LONG)
                except OSError as error:  # not in one piece just now
                    assert error.errno == errno.ENOMEM
                    assert kinds.kept
                    kinds.free(next(iter(kinds.kept)))
                    continue
                made += 1
            for name in list(kinds.kept):
                kinds.free(name)
        module.unload()

    try:
        module.insmod(f"reserved=fpga:{RESERVED_BYTES}@{RESERVED:#x}")
        module.unload()  # scrubs what was found there
        load(AREAS // 10)
        with leaks_nothing(made=AREAS):
            for _ in range(LOADS):
                load(AREAS // LOADS)
    finally:
        module.unload()


def segments() -> list[tuple[int, int, int]]:
    """Of /proc/kcore, which shows the kernel's memory: physical address, length, offset."""
    with open("/proc/kcore", "rb") as kcore:
        header = kcore.read(64)
        offset, = struct.unpack_from("=Q", header, 32)
        size, count = struct.unpack_from("=HH", header, 54)
        kcore.seek(offset)
        found = []
        for _ in range(count):
            kind, _, at, _, physical, length, _, _ = struct.unpack("=IIQQQQQQ", kcore.read(size))
            if kind == 1 and physical < 1 << 52:
                found.append((physical, length, at))
        return found


def in_memory(physical: int, length: int) -> bytes:
    with open("/proc/kcore", "rb", buffering=0) as kcore:
        for begin, size, offset in segments():
            if begin <= physical and physical + length <= begin + size:
                content = os.pread(kcore.fileno(), length, offset + physical - begin)
                if len(content) == length:
                    return content
    pytest.fail(f"/proc/kcore does not show {physical:#x}")


@pytest.mark.parametrize("pinned", [False, True], ids=["", "pinned"])
@pytest.mark.parametrize("scrub", [True, False], ids=["scrub", "no scrub"])
def test_what_was_in_contiguous_memory_is_zeroed_when_it_is_given_back(
        module: Module, scrub: bool, pinned: bool) -> None:
    Path("/sys/module/mbuff/parameters/scrub").write_text(str(int(scrub)))
    mark = b"\xa5\x5a" * (PAGE // 2)
    with contextlib.closing(Registry.open()) as registry, contextlib.ExitStack() as stack:
        area = registry.create(b"a", size=4 * MIB, contiguous=True)
        physical = registry.attributes(area).physical
        reader, writer = os.pipe()
        for end in (reader, writer):
            stack.callback(os.close, end)
        with os.fdopen(registry.open_area(area, os.O_RDWR), "r+b", buffering=0) as file:
            assert file.write(mark * (4 * MIB // PAGE)) == 4 * MIB
            assert in_memory(physical, PAGE) == mark
            if pinned:
                os.splice(file.fileno(), writer, PAGE, offset_src=MIB)
        registry.remove(area)
        wait_for(lambda: registry.usage().areas == 0, "it is gone")
        if pinned:
            assert in_memory(physical + MIB, PAGE) == os.read(reader, PAGE) == mark
    module.unload()  # which waits until it is given back
    left = [at for at in range(0, 4 * MIB, PAGE) if in_memory(physical + at, PAGE) == mark]
    if scrub:
        assert not left
    elif not Path("/sys/kernel/debug/kmemleak").exists():  # else freed pages are poisoned
        assert len(left) > 512
