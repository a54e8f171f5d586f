# SPDX-License-Identifier: MIT
"""/dev/mbuff as programs written for mbuff know it: its results, and none of its defects."""

from __future__ import annotations

import errno
import mmap
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_for
from tests.kernel.inside.conftest import Module
from tests.kernel.old import FACTS, RAW_FACTS, device_programs
from tests.kernel.old.device import PAGE, REGIONS, Device, counts, error_of, exists, shown

pytestmark = pytest.mark.rt

LONGEST = b"a-name-of-31-bytes-is-the-limit"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def loaded() -> Iterator[None]:
    """Loaded once for all of these. It can be unloaded: no test has left a reference."""
    module = Module(Path(os.environ["MBUFF_MODULE"]))
    module.insmod()
    yield
    module.rmmod()


@pytest.fixture
def open_device(loaded: None) -> Iterator[Callable[..., Device]]:
    """Opens the device as often as a test wants. No test leaves an area behind."""
    opened: list[Device] = []

    def another(flags: int = os.O_RDWR) -> Device:
        opened.append(Device(flags))
        return opened[-1]

    yield another
    left = [name for name in shown() if opened[0].give_back(os.fsencode(name))]
    for device in opened:
        device.close()
    wait_for(lambda: not shown(), "no area is left")
    assert not left, "areas that were still counted"


@pytest.fixture
def device(open_device: Callable[..., Device]) -> Device:
    return open_device()


@pytest.fixture
def program(device: Device) -> Run:
    directory = device_programs()

    def to_the_end(
        name: str, *arguments: object, **identity: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(directory / name), *map(str, arguments)], capture_output=True,
                              text=True, timeout=120, check=False, **identity)

    return to_the_end


def assert_succeeds(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, "")


# The programs.


@pytest.mark.parametrize("name", [*FACTS, *RAW_FACTS])
def test_program_finds_its_fact(name: str, program: Run) -> None:
    assert_succeeds(program(name))


def test_programs_of_32_bits_find_the_same_facts(program: Run) -> None:
    narrow = [name for name in [*FACTS, *RAW_FACTS] if (device_programs() / "32" / name).exists()]
    if not narrow:
        pytest.skip("gcc builds no programs of 32 bits here")
    for name in narrow:
        assert_succeeds(program(f"32/{name}"))


@pytest.mark.parametrize("ending", ["exit", "kill"])
def test_what_one_process_allocates_another_finds(ending: str, program: Run) -> None:
    for _ in range(3):
        program("leave", "alloc", 5000, "hello", ending)
    assert counts()["count"] == 3
    assert_succeeds(program("find", "hello", 0))
    assert_succeeds(program("find", "hello", 3))


@pytest.mark.parametrize("ending", ["exit", "kill"])
def test_what_a_process_attached_goes_with_it(ending: str, program: Run) -> None:
    left = program("leave", "attach", 5000, "hello", ending)
    assert left.returncode == (0 if ending == "exit" else -signal.SIGKILL)
    wait_for(lambda: not exists(), "the area went with its only user")


def test_access_rights_are_those_of_the_device(program: Run) -> None:
    identity = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    denied = program("two_allocs", **identity)
    assert denied.returncode == 1
    assert f"errno {errno.EACCES}" in denied.stderr
    Path("/dev/mbuff").chmod(0o666)
    done = program("two_allocs", **identity)
    Path("/dev/mbuff").chmod(0o660)
    assert_succeeds(done)


# What each command returns.


def test_info_returns_the_size(device: Device) -> None:
    assert error_of(device.info, b"mybuf") == errno.EINVAL
    device.allocate(b"mybuf", 2 * PAGE)
    assert device.info(b"mybuf") == 2 * PAGE
    device.deallocate(b"mybuf")
    assert error_of(device.info, b"mybuf") == errno.EINVAL


def test_allocate_returns_the_size_in_whole_pages(device: Device) -> None:
    assert device.allocate(b"mybuf", 1) == PAGE
    assert device.allocate(b"mybuf", PAGE) == PAGE
    for _ in range(2):
        device.deallocate(b"mybuf")
    assert device.allocate(b"mybuf", PAGE + 1) == 2 * PAGE
    assert device.allocate(b"mybuf", 1) == 2 * PAGE
    assert error_of(device.allocate, b"mybuf", 2 * PAGE + 1) == errno.EIO
    assert (counts()["size"], counts()["count"]) == (2 * PAGE, 2)
    for _ in range(2):
        device.deallocate(b"mybuf")


def test_deallocate_returns_0_when_the_area_is_gone_with_it(device: Device) -> None:
    for _ in range(3):
        device.allocate(b"mybuf", PAGE)
    assert [device.deallocate(b"mybuf") for _ in range(3)] == [PAGE, PAGE, 0]
    assert error_of(device.deallocate, b"mybuf") == errno.EINVAL


def test_deallocate_returns_the_size_while_the_area_is_mapped(device: Device) -> None:
    device.allocate(b"mybuf", PAGE)
    with device.map(PAGE) as memory:
        assert device.deallocate(b"mybuf") == PAGE
        assert error_of(device.deallocate, b"mybuf") == errno.EINVAL
        memory[:5] = b"still"
        assert (counts()["count"], counts()["open_cnt"]) == (0, 1)
    assert not exists()


def test_select_returns_the_size_and_files_of_one_process_select_for_themselves(
    open_device: Callable[..., Device]
) -> None:
    one, other = open_device(), open_device()
    assert error_of(one.select, b"mybuf") == errno.EINVAL
    one.allocate(b"mybuf", PAGE)
    other.allocate(b"another", 2 * PAGE)
    os.pwrite(one.fd, b"mybuf", 0)
    os.pwrite(other.fd, b"another", 0)
    assert (one.select(b"another"), other.select(b"mybuf")) == (2 * PAGE, PAGE)
    assert (os.pread(one.fd, 7, 0), os.pread(other.fd, 5, 0)) == (b"another", b"mybuf")
    assert one.info(b"mybuf") == PAGE  # which selects it
    assert os.pread(one.fd, 5, 0) == b"mybuf"
    assert (one.deallocate(b"mybuf"), one.deallocate(b"another")) == (0, 0)


def test_mmap_before_selecting_is_einval_and_beyond_the_area_efault(device: Device) -> None:
    assert error_of(device.map, PAGE) == errno.EINVAL
    device.allocate(b"mybuf", 2 * PAGE)
    assert error_of(device.map, 2 * PAGE + 1) == errno.EFAULT
    assert error_of(device.map, 2 * PAGE, PAGE) == errno.EFAULT
    assert error_of(device.map, PAGE, 2 * PAGE) == errno.EFAULT
    device.map(PAGE, PAGE).close()
    device.map(2 * PAGE).close()
    device.deallocate(b"mybuf")
    assert error_of(device.map, PAGE) == errno.EINVAL


def test_close_and_kill_drop_no_count(open_device: Callable[..., Device]) -> None:
    first = os.fork()
    if not first:
        Device().allocate(b"mybuf", PAGE)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(first, 0)
    other = Device()
    other.allocate(b"mybuf", PAGE)
    other.close()
    assert counts()["count"] == 2
    assert [open_device().deallocate(b"mybuf") for _ in range(2)] == [PAGE, 0]


def test_a_mapping_outlives_the_device_file(open_device: Callable[..., Device]) -> None:
    device = Device()
    device.allocate(b"mybuf", PAGE)
    with device.map(PAGE) as memory:
        device.deallocate(b"mybuf")
        device.close()
        memory[:4] = b"here"
        other = open_device()
        other.select(b"mybuf")
        assert os.pread(other.fd, 4, 0) == b"here"


def test_a_device_opened_for_reading_maps_for_reading(open_device: Callable[..., Device]) -> None:
    writer, reader = open_device(), open_device(os.O_RDONLY)
    writer.allocate(b"mybuf", PAGE)
    os.pwrite(writer.fd, b"bytes", 0)
    assert reader.select(b"mybuf") == PAGE
    assert os.pread(reader.fd, 5, 0) == b"bytes"
    assert error_of(os.pwrite, reader.fd, b"x", 0) == errno.EBADF
    assert error_of(reader.map, PAGE) == errno.EACCES
    with mmap.mmap(reader.fd, PAGE, prot=mmap.PROT_READ) as memory:
        assert memory[:5] == b"bytes"
    assert writer.deallocate(b"mybuf") == 0


# /proc/mbuff.


def test_proc_has_one_decimal_in_each_file(device: Device) -> None:
    assert Path("/proc/mbuff/version").read_text().count("\n") == 1
    device.allocate(b"mybuf", 3 * PAGE)
    assert counts()["size"] == 3 * PAGE
    found = {file.name: file.read_text() for file in (REGIONS / "mybuf").iterdir()}
    assert found == {"size": f"{3 * PAGE}\n", "count": "1\n", "kcount": "0\n", "open_cnt": "0\n",
                     "open_mode": "3\n", "kind": "pages\n", "phys": "0x0\n"}
    with device.map(PAGE), device.map(PAGE):
        assert counts()["open_cnt"] == 2
    assert counts()["open_cnt"] == 0
    device.deallocate(b"mybuf")
    assert not exists()


def test_a_slash_in_a_name_shows_as_an_exclamation_mark(device: Device) -> None:
    names = {b"dir/sub/area": "dir!sub!area", b"dir!area": "dir\\x21area", b"a\\b": "a\\x5cb"}
    for name in names:
        device.allocate(name, PAGE)
    wait_for(lambda: shown() == sorted(names.values()), "/proc shows them so")
    assert counts("dir!sub!area")["size"] == PAGE
    for name in names:
        assert device.deallocate(name) == 0


# The defects of mbuff, one each.


def test_no_race_between_programs_loses_a_count(program: Run) -> None:
    storm = str(device_programs() / "storm")
    started = [subprocess.Popen([storm, str(seed), "60"], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True) for seed in range(4)]
    for process in started:
        assert (process.communicate()[1], process.returncode) == ("", 0)
    assert not any(exists(f"storm-{which}") for which in range(3))


def test_killed_programs_leave_nothing_but_counts(program: Run) -> None:
    chance = random.Random(1)
    for _ in range(15):
        seed = str(chance.randrange(10**6))
        victim = subprocess.Popen([device_programs() / "storm", seed, "1000"],
                                  stdout=subprocess.PIPE, text=True)
        assert victim.stdout
        for _ in range(chance.randrange(1, 5)):
            assert victim.stdout.readline()
        victim.kill()
        victim.communicate()
    for name in filter(exists, ("storm-0", "storm-1", "storm-2")):
        assert counts(name)["count"] > 0
        assert counts(name)["open_cnt"] == 0
    assert_succeeds(program("storm", "drain"))


def test_fork_keeps_memory_under_a_child(device: Device) -> None:
    device.allocate(b"mybuf", PAGE)
    memory = device.map(PAGE)
    memory[:6] = b"parent"
    go, come = os.pipe()
    child = os.fork()
    if not child:
        os.read(go, 1)
        ok = memory[:6] == b"parent" and exists()
        memory[:5] = b"child"
        os._exit(0 if ok and memory[:5] == b"child" else 1)
    assert device.deallocate(b"mybuf") == PAGE
    memory.close()
    assert counts()["open_cnt"] == 1
    os.write(come, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(go)
    os.close(come)
    assert not exists()


def test_more_than_sixteen_mappings(device: Device) -> None:
    device.allocate(b"mybuf", PAGE)
    memories = [device.map(PAGE) for _ in range(100)]
    memories[0][:3] = b"all"
    assert all(memory[:3] == b"all" for memory in memories)
    assert counts()["open_cnt"] == 100
    for memory in memories:
        memory.close()
    assert device.deallocate(b"mybuf") == 0


def test_write_works(device: Device) -> None:
    device.allocate(b"mybuf", 2 * PAGE)
    data = bytes(index % 251 for index in range(2 * PAGE))
    assert os.write(device.fd, data) == 2 * PAGE
    assert error_of(os.write, device.fd, b"x") == errno.ENOSPC
    with device.map(2 * PAGE) as memory:
        assert memory[:] == data
    assert os.pwrite(device.fd, data, PAGE) == PAGE
    assert device.info(b"mybuf") == 2 * PAGE
    device.deallocate(b"mybuf")


def test_read_goes_to_the_end(device: Device) -> None:
    device.allocate(b"mybuf", 5 * PAGE)
    data = os.urandom(5 * PAGE)
    with device.map(5 * PAGE) as memory:
        memory[:] = data
    assert os.read(device.fd, 10 * PAGE) == data
    assert os.read(device.fd, 1) == b""
    os.lseek(device.fd, 0, os.SEEK_SET)
    pieces = list(iter(lambda: os.read(device.fd, 1000), b""))
    assert b"".join(pieces) == data
    assert os.lseek(device.fd, -1, os.SEEK_END) == 5 * PAGE - 1
    assert os.read(device.fd, 100) == data[-1:]
    device.deallocate(b"mybuf")


def test_a_32_character_name_is_refused(device: Device) -> None:
    for command in (device.info, device.deallocate, device.select):
        assert error_of(command, LONGEST + b"+") == errno.ENAMETOOLONG
        assert error_of(command, b"x" * 33) == errno.ENAMETOOLONG  # no NUL ends it
    assert error_of(device.allocate, LONGEST + b"+", PAGE) == errno.ENAMETOOLONG
    assert error_of(device.allocate, b"x" * 33, PAGE) == errno.ENAMETOOLONG
    assert device.allocate(LONGEST, PAGE) == PAGE
    wait_for(lambda: shown() == [LONGEST.decode()], "no other area is there")
    assert device.deallocate(LONGEST) == 0


def test_a_size_0_probe_takes_no_count(device: Device) -> None:
    assert error_of(device.allocate, b"mybuf", 0) == errno.EIO
    assert not exists()
    device.allocate(b"mybuf", PAGE)
    for _ in range(5):
        assert device.allocate(b"mybuf", 0) == PAGE
    assert counts()["count"] == 1
    assert device.deallocate(b"mybuf") == 0


def test_a_failed_attach_drops_nobodys_count(device: Device, program: Run) -> None:
    device.allocate(b"mybuf", PAGE)
    assert program("leave", "attach", PAGE + 1, "", "exit").returncode == 1
    assert program("leave", "attach", 0, "", "exit").returncode == 1
    assert counts()["count"] == 1
    assert_succeeds(program("leave", "attach", PAGE, "", "exit"))
    assert counts()["count"] == 1
    assert device.deallocate(b"mybuf") == 0
    assert_succeeds(program("failed_attach"))


def test_no_descriptor_leaks(program: Run) -> None:
    assert_succeeds(program("descriptors"))


@pytest.mark.parametrize("size", [2**31, 2**32, 2**32 + 1, 2**63, 2**64 - PAGE, 2**64 - 1])
def test_sizes_are_not_mixed_up(size: int, device: Device) -> None:
    assert error_of(device.allocate, b"mybuf", size) == errno.EINVAL
    assert not exists()
    device.allocate(b"mybuf", PAGE)
    assert error_of(device.allocate, b"mybuf", size) == errno.EINVAL
    assert counts()["count"] == 1
    assert device.deallocate(b"mybuf") == 0


def test_more_memory_than_there_is_leaves_no_area(device: Device) -> None:
    assert error_of(device.allocate, b"mybuf", 2**31 - PAGE) in (errno.ENOSPC, errno.ENOMEM)
    assert not exists()


def test_memory_is_zeroed(device: Device) -> None:
    for _ in range(5):
        device.allocate(b"mybuf", 16 * PAGE)
        with device.map(16 * PAGE) as memory:
            assert memory[:] == bytes(16 * PAGE)
            memory[:] = b"\xff" * 16 * PAGE
        assert device.deallocate(b"mybuf") == 0
