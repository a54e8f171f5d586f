# SPDX-License-Identifier: MIT
"""The module for tests inside a virtual machine: loaded for each that asks, and gone afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs.backends.registry import Registry
from tests.conftest import wait_for
from tests.kernel.inside.old_ioctl import DEALLOCATE, old
from tests.kernel.inside.raw_ioctl import PAGE

SOURCES = Path(__file__).resolve().parents[1]
REPOSITORY = SOURCES.parents[1]
MBUFFFS = Path(sys.executable).with_name("mbufffs")


class Module:
    """A module that is loaded from the build directory: mbuff itself, or an example."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem.replace("-", "_")

    @property
    def loaded(self) -> bool:
        return Path(f"/sys/module/{self.name}").exists()

    def insmod(self, *parameters: str) -> None:
        self._run("insmod", str(self.path), *parameters)

    def rmmod(self) -> None:
        """Fails if it is in use."""
        self._run("rmmod", self.name)

    def unload(self) -> None:
        """Waits for the last file to let it go: the kernel closes files some time after a kill."""
        def gone() -> bool:
            with contextlib.suppress(OSError):
                self.rmmod()
            return not self.loaded

        if self.loaded:
            wait_for(gone, f"{self.name} can be unloaded")

    @staticmethod
    def _run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(done.stderr.strip())


class Ktest(Module):
    """tests/kernel/ktest/ktest.c, whose head lists the commands."""

    PARAMETERS = Path("/sys/module/ktest/parameters")

    def __init__(self) -> None:
        super().__init__(Path(os.environ["MBUFF_BUILD"], "tests/kernel/ktest/ktest.ko"))

    def run(self, *words: object) -> int:
        """What the command gave, if it gives anything."""
        fd = os.open(self.PARAMETERS / "run", os.O_WRONLY)
        try:
            os.write(fd, " ".join(map(str, words)).encode())
        finally:
            os.close(fd)
        return int((self.PARAMETERS / "result").read_text().strip() or "0")


def example(name: str) -> Module:
    """The module of examples/kernel/NAME, as it was built; the test loads and unloads it."""
    (path,) = Path(os.environ["MBUFF_BUILD"], "examples/kernel", name).glob("*.ko")
    return Module(path)


def remove_all_areas() -> None:
    """Every area that has a name. One that is still held is a fault, and the error says so."""
    with contextlib.closing(Registry.open()) as registry:
        for _, area in list(registry.areas()):
            registry.remove(area.id)


@contextlib.contextmanager
def given_back(*, counted: bool = False) -> Iterator[Registry]:
    """An open /dev/mbuff; in the end all areas go, and all that is charged must come back.

    `counted`: also what a program has counted. Else that is a fault, and the error says so.
    """
    with contextlib.closing(Registry.open()) as registry:
        yield registry
        for name, found in list(registry.areas()):
            with contextlib.suppress(FileNotFoundError) if counted else contextlib.nullcontext():
                for _ in range(found.count if counted else 0):
                    old(registry, DEALLOCATE, name)
                registry.remove(found.id)
        wait_for(lambda: registry.usage().used_bytes == 0, "nothing is charged any more")


@pytest.fixture(scope="module")
def loaded() -> Iterator[None]:
    """mbuff.ko for all tests of a file."""
    module = Module(Path(os.environ["MBUFF_MODULE"]))
    module.insmod()
    yield
    module.unload()


@pytest.fixture
def ktest(loaded: None) -> Iterator[Ktest]:
    ktest = Ktest()
    ktest.insmod()
    yield ktest
    ktest.unload()


@pytest.fixture
def module() -> Iterator[Module]:
    """mbuff.ko with its defaults; what a test leaves in it is removed."""
    module = Module(Path(os.environ["MBUFF_MODULE"]))
    if module.loaded:  # a test that has failed may have left it
        remove_all_areas()
        module.rmmod()
    module.insmod()
    yield module
    if module.loaded:
        remove_all_areas()
        module.unload()


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """Builds a program of tests/kernel."""
    def build(name: str, *flags: str) -> Path:
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Wno-unused-result", "-Werror",
                        "-pthread", f"-I{REPOSITORY}/kmod/include", f"-I{REPOSITORY}/kmod/uapi",
                        *flags, SOURCES / f"{name}.c", "-o", tmp_path / name], check=True)
        return tmp_path / name

    return build


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    """A block device, and what is on it."""
    content = os.urandom(64 * PAGE)
    (tmp_path / "disk").write_bytes(content)
    subprocess.run(["modprobe", "-q", "loop"], check=False)
    done = subprocess.run(["losetup", "--find", "--show", tmp_path / "disk"], check=False,
                          capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("this kernel has no loop devices")
    yield done.stdout.strip(), content
    subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)
