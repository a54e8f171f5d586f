# SPDX-License-Identifier: MIT
"""The example modules do what their README says: seen by path, woken, and unloaded in order."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs.pagemap import Extent, extents
from tests.conftest import Mounted, run, wait_for
from tests.kernel.inside.conftest import MBUFFFS, Module
from tests.kernel.inside.conftest import example as built_example
from tests.kernel.old import EXAMPLES, device_programs

pytestmark = pytest.mark.rt

PAGE = mmap.PAGESIZE


@pytest.fixture(scope="module")
def shared_mount(new_mount: Callable[..., Mounted]) -> Iterator[Mounted]:
    module = Module(Path(os.environ["MBUFF_MODULE"]))
    module.insmod()
    mounted = new_mount()
    yield mounted
    mounted.stop()
    module.rmmod()


@pytest.fixture
def example(mounted: Mounted) -> Iterator[Callable[..., Module]]:
    """Loads an example and waits for its area, which mostly has the same name."""
    loaded: list[Module] = []

    def load(name: str, *parameters: str, area: str | None = None) -> Module:
        module = built_example(name)
        module.insmod(*parameters)
        loaded.append(module)
        wait_for((mounted.path / (area or name)).exists, "the area is there")
        return module

    yield load
    for module in loaded:
        if module.loaded:
            module.rmmod()
    wait_for(lambda: not os.listdir(mounted.path), "the areas went with the modules")


@pytest.fixture
def environment(mounted: Mounted) -> dict[str, str]:
    return {**os.environ, "MBUFF_DIR": str(mounted.path)}


def said(*words: str) -> list[str]:
    """What the kernel's log has of an example."""
    lines = [line.partition("] ")[2] for line in run("dmesg").stdout.splitlines()]
    return [line for line in lines if line.startswith(words)]


def counter(mounted: Mounted) -> int:
    return int.from_bytes((mounted.path / "counter").read_bytes()[:8], "little")


def test_counter_counts_and_wakes_who_waits(
    example: Callable[..., Module], mounted: Mounted, environment: dict[str, str]
) -> None:
    module = example("counter", "notify_every=100")
    before = counter(mounted)
    wait_for(lambda: counter(mounted) > before, "it counts")
    for watch in ([device_programs() / "watch"], [sys.executable, EXAMPLES / "counter/watch.py"]):
        values = [int(line) for line in run(*watch, "3", env=environment).stdout.split()]
        assert len(values) == 4
        assert values == sorted(values)
        assert values[0] > before
    with pytest.raises(OSError) as refused:
        (mounted.path / "counter").unlink()
    assert refused.value.errno == errno.EBUSY
    module.rmmod()
    wait_for(lambda: not (mounted.path / "counter").exists(), "the area is gone")


def test_counter_runs_in_any_program_without_a_message_to_the_server(
        example: Callable[..., Module], mounted: Mounted) -> None:
    module = example("counter", "period_us=1000")
    path = mounted.path / "counter"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), PAGE) as memory:
        dumped = run("od", "-An", "-tu8", "-N8", path).stdout
        seen = [int(dumped), int.from_bytes(memory[:8], "little")]
        before = mounted.counts(*mounted.info()["messages"])
        wait_for(lambda: int.from_bytes(memory[:8], "little") > seen[1], "it runs in the mapping")
        assert mounted.counts(*mounted.info()["messages"]) == before
        seen.append(int.from_bytes(memory[:8], "little"))
        seen.append(int(run("od", "-An", "-tu8", "-N8", path).stdout))
        assert 0 < seen[0] < seen[1] < seen[2] < seen[3]
        memory[:8] = (2**40).to_bytes(8, "little")
        wait_for(lambda: int(run("od", "-An", "-tu8", "-N8", path).stdout) > 2**40,
                 "it counts on from what a program has stored")
    assert mounted.counts("READ", "WRITE") == [0, 0]
    told = run(MBUFFFS, "info", "-m", mounted.path, "counter").stdout
    assert "module counter" in told
    module.rmmod()


def test_counter_without_a_pause_or_with_a_long_one_is_unloaded_at_once(
    example: Callable[..., Module], mounted: Mounted
) -> None:
    for period in ("0", "1000000000"):
        module = example("counter", f"period_us={period}")
        wait_for(lambda: counter(mounted) > 0, "it counts")
        module.rmmod()
        wait_for(lambda: not (mounted.path / "counter").exists(), "the area is gone")


def test_hello_and_a_program_exchange_messages(
    example: Callable[..., Module], mounted: Mounted, environment: dict[str, str]
) -> None:
    module = example("hello")
    assert (mounted.path / "hello").stat().st_size == 16 * PAGE
    program = run(device_programs() / "hello_user", "hello, kernel", env=environment)
    assert program.stdout == "hello from the kernel\nand this is the last page\n"
    module.rmmod()
    assert said("hello: ")[-1] == "hello: the program wrote: hello, kernel"


def test_memory_stays_under_a_program_when_the_example_is_unloaded(
    example: Callable[..., Module], mounted: Mounted
) -> None:
    module = example("hello")
    with (mounted.path / "hello").open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    module.rmmod()
    assert memory[:21] == b"hello from the kernel"
    memory[:3] = b"HEL"
    assert (mounted.path / "hello").read_bytes()[:5] == b"HELlo"
    refused = subprocess.run(["rmmod", "mbuff"], capture_output=True, check=False)
    assert refused.returncode != 0
    memory.close()
    wait_for(lambda: not (mounted.path / "hello").exists(), "the area went with its last user")


def test_rtshared_prints_each_number_once_and_ends_in_order(
    example: Callable[..., Module], mounted: Mounted, environment: dict[str, str]
) -> None:
    before = len(said("rtshared: "))
    module = example("rtshared")
    thread = run("pgrep", "mbuff-rtshared").stdout.strip()
    assert "SCHED_FIFO" in run("chrt", "-p", thread).stdout
    program = run(device_programs() / "rtshared_user", input="1\n2\n-3\n", env=environment)
    assert program.stdout == "1 was printed\n2 was printed\n-3 was printed\n"
    assert said("rtshared: ")[before:] == ["rtshared: 1", "rtshared: 2", "rtshared: -3"]
    with (mounted.path / "rtshared").open("r+b") as file:
        memory = mmap.mmap(file.fileno(), PAGE)
    memory[:5] = struct.pack("=ib", 4, 1)
    module.rmmod()  # under the mapping; the number that waits is printed
    assert said("rtshared: ")[before + 3:] == ["rtshared: 4"]
    assert memory[:5] == struct.pack("=ib", 4, 0)
    memory[:4] = struct.pack("=i", 5)
    memory.close()


def test_published_is_written_by_path_and_closed_to_dev_mem(
    example: Callable[..., Module], mounted: Mounted, environment: dict[str, str]
) -> None:
    module = example("published")
    regions = Path("/proc/mbuff/regions/published")
    physical = int((regions / "phys").read_text(), 16)
    assert (regions / "size").read_text() == f"{1 << 20}\n"
    assert (regions / "kind").read_text() == "contiguous\n"
    assert extents(str(mounted.path / "published")) == [Extent(0, physical, 1 << 20)]
    program = str(device_programs() / "published_user")
    refused = subprocess.run([program, "devmem", "published", "x"], env=environment, text=True,
                             capture_output=True, check=False)
    assert refused.returncode == 1
    assert "only what was reserved at boot is open there" in refused.stderr
    done = run(program, "path", "published", "hello, kernel", env=environment)
    assert done.stdout == "nobody wrote anything\n"
    module.rmmod()
    assert said("published: ")[-1] == "published: the program wrote: hello, kernel"


def test_source_for_rtai_shares_with_its_module(
    example: Callable[..., Module], mounted: Mounted, environment: dict[str, str]
) -> None:
    module = example("rtai", area="SHMBLK")
    for number in (7, -8):
        done = run(device_programs() / "rtai_user", str(number), env=environment)
        assert done.stdout == "the module stored 42\n"
    content = (mounted.path / "SHMBLK").read_bytes()
    assert struct.unpack_from("=ii", content) == (42, -8)
    module.rmmod()
    assert said("rtai: ")[-1] == "rtai: the program stored -8"


@pytest.mark.parametrize("kind", ["pages", "contiguous"])
def test_an_area_is_imported_as_a_dma_buf(mounted: Mounted, kind: str) -> None:
    subprocess.run(["modprobe", "-q", "udmabuf"], check=False)
    if not Path("/dev/udmabuf").exists():
        pytest.skip("this kernel has no udmabuf")
    path = mounted.path / "frame"
    path.touch()
    os.setxattr(path, "user.mbuff.kind", kind.encode())
    os.truncate(path, 1 << 20)
    module = built_example("dmabuf")
    module.insmod()
    try:
        run(device_programs() / "dmabuf_user", "frame", f"hello, {kind}")
        told = said("dmabuf: ")[-2:]
        if kind == "contiguous":
            assert told[0] == f"dmabuf: {1 << 20} bytes; pieces for a device: 1"
        assert told[1] == f"dmabuf: it begins with: hello, {kind}"
    finally:
        module.rmmod()
    path.unlink()
