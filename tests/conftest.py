# SPDX-License-Identifier: MIT
"""Mounts for tests: each with a directory and a store of its own, gone afterwards, crash or not."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mbufffs import mounts, uring
from mbufffs.backends.registry import DEVICE
from mbufffs.client import ask
from mbufffs.errors import NotMounted
from mbufffs.keeper import Settings, start
from mbufffs.state import State, runtime_directory, state_of

PREFIX = "mbufffs-test-"  # of every directory of a test, followed by the pid of its pytest
_OURS = re.compile(r"mbufffs(?:-|\\x2d)test(?:-|\\x2d)(\d+)(?:-|\\x2d)")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="fault tests at full length")


SLOWNESS = float(os.environ.get("MBUFF_PATIENCE", "1"))  # for machines that are slow on purpose


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Waits for a fact, never for a time; fails loudly when it does not come true."""
    seconds *= SLOWNESS
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(0.005)


class Mounted:
    """A mount under test: where it is, and what a test does to its processes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state: State = state_of(settings.mountpoint, settings.store)
        self.path = Path(settings.mountpoint)
        self.start()

    def start(self) -> None:
        start(self.settings)

    def info(self) -> dict[str, Any]:
        return ask(self.state, {"ask": "info"})

    def counts(self, *names: str) -> list[int]:
        """Messages of these kinds that came so far."""
        messages = self.info()["messages"]
        return [messages.get(name, {"received": 0})["received"] for name in names]

    def kill_server(self) -> int:
        """kill -9 of the server; returns its pid."""
        def kill() -> int:
            pid = self.info()["server"]
            try:
                os.kill(pid, signal.SIGKILL)
            except (TypeError, ProcessLookupError):  # none, or gone since
                return 0
            return int(pid)

        return int(wait_for(kill, "a server can be killed"))

    def kill_keeper(self) -> None:
        """kill -9 of the keeper, which takes the server along; waits until both are gone."""
        info = self.info()
        os.kill(info["keeper"], signal.SIGKILL)
        for pid in (info["keeper"], info["server"]):
            wait_for(partial(is_gone, pid), f"process {pid} is gone")

    def log(self) -> str:
        return self.state.log.read_text()

    def stop(self) -> None:
        take_down(self.state)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def take_down(state: State) -> None:
    """Ends keeper and mount, whatever state they are in, and frees the store."""
    keeper = None
    with contextlib.suppress(NotMounted, OSError):
        keeper = ask(state, {"ask": "info"})["keeper"]
    # Only what is ours: a test may mount over a directory of the system's, like /dev/shm.
    while (found := mounts.mount_at(state.mountpoint)) and found.fstype == mounts.FSTYPE:
        mounts.unmount(state.mountpoint, lazy=True)
    if keeper:
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGTERM)
        wait_for(lambda: is_gone(keeper), "the keeper has ended")
    if os.geteuid() == 0:
        for part in (state.store, state.directories):
            while mounts.mount_at(str(part)):
                mounts.unmount(str(part), lazy=True)
    shutil.rmtree(state.directory, ignore_errors=True)
    if _OURS.search(state.mountpoint):
        with contextlib.suppress(OSError):
            Path(state.mountpoint).rmdir()


def _is_left(name: str) -> bool:
    """Whether a name is that of a test whose pytest has ended."""
    found = _OURS.search(name)
    return found is not None and (
        int(found[1]) == os.getpid() or is_gone(int(found[1])))


def _take_down_leftovers() -> None:
    for mount in list(mounts.mount_table()):
        if not _is_left(mount.mountpoint):
            continue
        if mount.fstype == mounts.FSTYPE:
            take_down(state_of(mount.mountpoint))
        elif mount.fstype == "tmpfs" and runtime_directory() not in Path(mount.mountpoint).parents:
            mounts.unmount(mount.mountpoint, lazy=True)  # what a mount was compared with
            Path(mount.mountpoint).rmdir()
    if runtime_directory().is_dir():
        for left in runtime_directory().iterdir():
            if _is_left(left.name):
                take_down(State("/nonexistent", left))
    for mountpoint in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if _is_left(mountpoint.name):
            with contextlib.suppress(OSError):
                mountpoint.rmdir()


@pytest.fixture(scope="session", autouse=True)
def no_leftovers() -> Iterator[None]:
    """Clears what a run that was killed has left, and fails when this one leaves something."""
    _take_down_leftovers()
    switch = uring.SWITCH.read_text() if uring.SWITCH.exists() else None
    yield
    assert switch is None or uring.SWITCH.read_text() == switch
    left = [m.mountpoint for m in mounts.mount_table() if _is_left(m.mountpoint)]
    assert not left, f"mounts left behind: {left}"


@pytest.fixture(scope="session")
def new_mount() -> Iterator[Callable[..., Mounted]]:
    """Makes mounts with other settings than the shared one's."""
    made: list[Mounted] = []

    def make(**changes: Any) -> Mounted:
        directory = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")
        settings = replace(Settings(os.path.realpath(directory), limit=2 << 30), **changes)
        if os.geteuid() != 0:
            settings = replace(settings, limit=None, allow_other=False)
        if os.path.exists(DEVICE) and settings.backend != "shmem":
            settings = replace(settings, limit=None)  # it is the kernel module's
        made.append(Mounted(settings))
        return made[-1]

    yield make
    for mounted in made:
        mounted.stop()


@pytest.fixture(scope="session")
def shared_mount(new_mount: Callable[..., Mounted]) -> Mounted:
    """One mount for all tests that only need some mount."""
    return new_mount()


@pytest.fixture(scope="session")
def mountpoint(shared_mount: Mounted) -> Path:
    return shared_mount.path


@pytest.fixture
def mounted(shared_mount: Mounted) -> Iterator[Mounted]:
    """The shared mount, empty at the start and swept at the end, its log without a warning."""
    before = len(shared_mount.log())
    yield shared_mount
    wait_for(lambda: shared_mount.info()["server"], "a server is running")
    for entry in list(shared_mount.path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    new = shared_mount.log()[before:]
    unexpected = [line for line in new.splitlines() if "(signal 9)" not in line]
    assert not unexpected, f"the daemon complained:\n{new}"


@pytest.fixture
def fresh(new_mount: Callable[..., Mounted]) -> Iterator[Mounted]:
    """A mount of this test alone."""
    mounted = new_mount()
    yield mounted
    mounted.stop()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command that is expected to succeed, with its output as text."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
    return done


# What may be skipped where CI runs, and why. Anything else that is missing there is a fault.
SKIPS = {
    "a limit needs root": "conformance: only a private tmpfs has a limit of its own",
    "this kernel has no huge pages for shared memory": "a real-time kernel is built without them",
    "others cannot read this Python or this directory": "the clone may lie in root's home",
}


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or os.geteuid() != 0 or not reporter:
        return
    skipped = reporter.stats.get("skipped", [])
    reasons = {str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped}
    if unexpected := reasons - SKIPS.keys():
        reporter.write_line(f"skipped without leave: {sorted(unexpected)}", red=True)
        session.exitstatus = 1
