# SPDX-License-Identifier: MIT
"""Contiguous and reserved memory by path: files like all others, and where they lie."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs.backends.registry import Registry
from mbufffs.pagemap import Extent, extents
from tests.conftest import Mounted, run, wait_for
from tests.kernel.inside.conftest import MBUFFFS, example
from tests.kernel.inside.mount.conftest import module_and_mount
from tests.kernel.inside.raw_ioctl import NOBODY, PAGE, refused
from tests.kernel.machine import RESERVED, RESERVED_BYTES
from tests.kernel.old import device_programs

MIB = 1 << 20
KIND, PHYS = "user.mbuff.kind", "user.mbuff.phys"


@pytest.fixture(scope="module")
def shared_mount(new_mount: Callable[..., Mounted]) -> Iterator[Mounted]:
    with module_and_mount(new_mount,
                          f"reserved=fpga:{RESERVED_BYTES}@{RESERVED:#x}") as mounted:
        yield mounted


@pytest.fixture
def path(shared_mount: Mounted) -> Iterator[Path]:
    """The mount, with the reserved area alone before and after."""
    with contextlib.closing(Registry.open()) as registry:
        yield shared_mount.path
        for name in set(os.listdir(shared_mount.path)) - {"fpga"}:
            (shared_mount.path / name).unlink()
        wait_for(lambda: registry.usage().used_bytes == 0, "all memory is back")


def mbufffs(path: Path, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([MBUFFFS, verb, "-m", path, *words], capture_output=True, text=True,
                          check=False)


def told(path: Path, name: str, *options: str) -> dict[str, object]:
    done = mbufffs(path, "info", name, "--json", *options)
    assert done.returncode == 0, done.stderr
    facts: dict[str, object] = json.loads(done.stdout)
    return facts


@pytest.mark.parametrize("size", [3 * PAGE, 4 * MIB])
def test_contiguous_memory_is_created_by_one_command(path: Path, size: int) -> None:
    done = mbufffs(path, "create", "--kind", "contiguous", "dma", str(size))
    assert done.returncode == 0, done.stderr
    facts = told(path, "dma", "--extents")
    assert (facts["kind"], facts["size"], facts["passthrough"]) == ("contiguous", size, True)
    assert facts["extents"] == [{"offset": 0, "physical": facts["phys"], "length": size}]
    # From outside: the page tables of a mapping by path.
    assert extents(str(path / "dma")) == [Extent(0, facts["phys"], size)]  # type: ignore[arg-type]
    if size == 4 * MIB:
        assert f"{facts['phys']:#x}" in mbufffs(path, "info", "dma").stdout
    assert os.getxattr(path / "dma", PHYS).decode() == f"{facts['phys']:#x}"


def test_a_kind_is_chosen_by_setfattr_before_there_is_memory(path: Path) -> None:
    (path / "dma").touch()
    run("setfattr", "-n", KIND, "-v", "contiguous", path / "dma")
    assert os.getxattr(path / "dma", KIND) == b"contiguous"
    os.truncate(path / "dma", MIB)
    refused(errno.EBUSY, os.setxattr, path / "dma", KIND, b"pages")
    for wrong in (b"", b"x", b"reserved", b"Contiguous", b"\xff", b"contiguous\0"):
        refused(errno.EINVAL, os.setxattr, path / "dma", KIND, wrong)
    refused(errno.EPERM, os.removexattr, path / "dma", KIND)
    refused(errno.EPERM, os.setxattr, path / "dma", PHYS, b"0x1000")
    assert len(extents(str(path / "dma"))) == 1


def test_pages_are_told_piece_by_piece(path: Path) -> None:
    assert mbufffs(path, "create", "frame", "1M").returncode == 0
    pieces = told(path, "frame", "--extents")["extents"]
    assert isinstance(pieces, list)
    assert [piece["offset"] for piece in pieces] == sorted(piece["offset"] for piece in pieces)
    assert sum(piece["length"] for piece in pieces) == MIB
    assert all(piece["physical"] > 0 for piece in pieces)
    assert pieces == [extent._asdict() for extent in extents(str(path / "frame"))]


def test_bytes_of_no_kind_are_carried_by_the_daemon(shared_mount: Mounted, path: Path) -> None:
    before = shared_mount.counts("READ", "WRITE")
    assert mbufffs(path, "create", "dma", "1M", "--kind", "contiguous").returncode == 0
    for name in ("dma", "fpga"):
        with (path / name).open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), b"x" * 100_000, 5000)
            assert os.pread(file.fileno(), 100_000, 5000) == b"x" * 100_000
            with mmap.mmap(file.fileno(), MIB) as memory:
                assert memory[5000] == ord("x")
    assert shared_mount.counts("READ", "WRITE") == before


def test_more_than_there_is_in_one_piece_leaves_nothing(path: Path) -> None:
    done = mbufffs(path, "create", "--kind", "contiguous", "dma", "200M")
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert "contiguous memory" in done.stderr
    assert os.listdir(path) == ["fpga"]
    assert "in one piece" in mbufffs(path, "info").stdout


def test_opening_for_writing_leaves_contiguous_memory_its_size_and_place(path: Path) -> None:
    assert mbufffs(path, "create", "--kind", "contiguous", "dma", "1M").returncode == 0
    before = os.getxattr(path / "dma", PHYS)
    (path / "dma").write_bytes(b"hello")  # O_TRUNC, as `echo hello > dma`
    assert (path / "dma").stat().st_size == MIB
    assert (path / "dma").read_bytes()[:6] == b"hello\0"
    assert os.getxattr(path / "dma", PHYS) == before
    with (path / "dma").open("r+b") as file:
        file.seek(MIB)
        refused(errno.ENOSPC, os.write, file.fileno(), b"x")
    refused(errno.EBUSY, os.truncate, path / "dma", 2 * MIB)
    os.truncate(path / "dma", 0)
    assert os.getxattr(path / "dma", PHYS) == b"0x0"
    os.truncate(path / "dma", 2 * MIB)
    assert (path / "dma").read_bytes() == bytes(2 * MIB)


def test_reserved_memory_is_a_file_of_the_same_bytes(path: Path) -> None:
    assert (path / "fpga").stat().st_size == RESERVED_BYTES
    facts = told(path, "fpga", "--extents")
    assert (facts["kind"], facts["phys"]) == ("reserved", RESERVED)
    assert facts["extents"] == [{"offset": 0, "physical": RESERVED, "length": RESERVED_BYTES}]
    device = os.open("/dev/mem", os.O_RDWR)
    with (path / "fpga").open("r+b") as file, \
            contextlib.closing(mmap.mmap(file.fileno(), RESERVED_BYTES)) as memory, \
            contextlib.closing(mmap.mmap(device, RESERVED_BYTES, offset=RESERVED)) as raw:
        for at in (0, PAGE - 1, RESERVED_BYTES - 1):
            memory[at] = 1
            assert raw[at] == os.pread(file.fileno(), 1, at)[0] == 1
            raw[at] = 2
            assert memory[at] == os.pread(file.fileno(), 1, at)[0] == 2
            os.pwrite(file.fileno(), b"\3", at)
            assert memory[at] == raw[at] == 3
    os.close(device)
    copied = run("dd", f"if={path / 'fpga'}", "of=/dev/null", "bs=1M")
    assert f"{RESERVED_BYTES} bytes" in copied.stderr
    refused(errno.EPERM, (path / "fpga").unlink)
    refused(errno.EPERM, (path / "fpga").rename, path / "other")
    refused(errno.ENOSPC, os.truncate, path / "fpga", RESERVED_BYTES + 1)
    refused(errno.EBUSY, os.truncate, path / "fpga", 0)
    refused(errno.EBUSY, os.setxattr, path / "fpga", KIND, b"pages")
    (path / "fpga").write_bytes(b"hello")
    assert (path / "fpga").stat().st_size == RESERVED_BYTES


def test_physical_addresses_are_for_root_alone(path: Path) -> None:
    (path / "fpga").chmod(0o666)
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setuid(NOBODY)
            assert os.getxattr(path / "fpga", PHYS) == b"0x0"
            refused(errno.EPERM, os.setxattr, path / "fpga", KIND, b"contiguous")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    # Root without the capability is told no more.
    run("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "sh", "-c",
        f"test $(getfattr --only-values -n {PHYS} {path / 'fpga'}) = 0x0")


def test_a_published_reserved_area_is_one_memory_by_address_and_by_path(path: Path) -> None:
    module = example("published")
    module.insmod("name=fpga")
    program = device_programs() / "published_user"
    environment = {**os.environ, "MBUFF_DIR": str(path)}
    assert run(program, "devmem", "fpga", "by address", env=environment).stdout == (
        "nobody wrote anything\n")
    assert run(program, "path", "fpga", "by path", env=environment).stdout == "by address\n"
    assert run(program, "devmem", "fpga", "the last", env=environment).stdout == "by path\n"
    module.rmmod()
    assert "published: the program wrote: the last" in run("dmesg").stdout
