# SPDX-License-Identifier: MIT
"""kill -9: of the server, which no client notices, and of everything, by which nothing is lost."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Mounted, is_gone, needs_root, wait_for

CHURN = Path(__file__).with_name("churn.py")


def churning(mounted: Mounted, clients: int) -> list[subprocess.Popen[str]]:
    return [subprocess.Popen([sys.executable, CHURN, mounted.path, f"client{number}"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for number in range(clients)]


def results(clients: list[subprocess.Popen[str]]) -> list[dict[str, object]]:
    found = []
    for client in clients:
        out, _ = client.communicate("")
        found.append(json.loads(out))
    return found


@pytest.mark.timeout(600)
def test_clients_notice_no_death_of_the_server(
        mounted: Mounted, request: pytest.FixtureRequest) -> None:
    soak = request.config.getoption("--soak")
    kills, clients = (200, 8) if soak else (8, 4)
    before = mounted.info()["restarts"]
    running = churning(mounted, clients)
    seen = mounted.counts("LOOKUP")[0]
    for _ in range(kills):
        # Every server gets to work before it dies: a second apart, or as soon as it has answered.
        wait_for(lambda seen=seen: mounted.counts("LOOKUP")[0] > seen + 50, "clients are at work")
        if soak:
            threading.Event().wait(1)
        seen = mounted.counts("LOOKUP")[0]
        mounted.kill_server()
    found = results(running)
    assert [(one["errors"], one["wrong"]) for one in found] == [([], [])] * clients
    assert all(one["rounds"] for one in found)
    wait_for(lambda: mounted.info()["server"], "a server is there again")
    assert mounted.info()["restarts"] - before == kills


def in_thread(function: Callable[[], object]) -> Callable[[], object]:
    """Runs it aside; the returned function waits for its result."""
    result: list[object] = []

    def body() -> None:
        try:
            result.append(function())
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=body)
    thread.start()

    def wait() -> object:
        thread.join(30)
        assert result, "it still waits"
        return result[0]

    return wait


def while_stopped(mounted: Mounted, operation: Callable[[], object]) -> object:
    """The result of an operation whose request one server got and could not answer.

    The server is stopped so that the request is in its socket, not done, when it is killed.
    """
    pid = mounted.info()["server"]
    os.kill(pid, signal.SIGSTOP)
    try:
        kept = mounted.info()["channel"]["kept"]
        wait = in_thread(operation)
        wait_for(lambda: mounted.info()["channel"]["kept"] > kept, "the request is kept")
    finally:
        os.kill(pid, signal.SIGKILL)
    return wait()


def renameat2(old: Path, new: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def test_a_request_outlives_the_server_that_had_it(mounted: Mounted) -> None:
    # With O_TRUNC of so much, which no channel does by itself.
    (mounted.path / "a").write_bytes(bytes(2 << 20))
    assert while_stopped(mounted, lambda: (mounted.path / "a").write_bytes(b"x")) == 1
    assert (mounted.path / "a").read_bytes() == b"x"
    assert mounted.info()["channel"]["resent"] >= 1


def test_an_exchange_outlives_the_server_that_had_it(mounted: Mounted) -> None:
    a, b = mounted.path / "a", mounted.path / "b"
    a.write_bytes(b"a")
    b.write_bytes(b"b")
    assert while_stopped(mounted, lambda: renameat2(a, b, 2)) is None
    assert (a.read_bytes(), b.read_bytes()) == (b"b", b"a")


def test_open_files_and_mappings_outlive_the_server(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mounted.kill_server()
        mapped[0] = 1
        file.seek(1)
        file.write(b"\x02")
        file.flush()
        assert path.read_bytes()[:2] == b"\x01\x02"


@pytest.mark.parametrize("size", [4, 1 << 20], ids=["the channel's", "the server's"])
def test_a_removed_open_area_outlives_the_server(mounted: Mounted, size: int) -> None:
    path = mounted.path / "a"
    used = mounted.info()["used"]
    path.write_bytes(b"kept".ljust(size))
    with path.open("r+b") as file:
        path.unlink()
        mounted.kill_server()
        assert os.fstat(file.fileno()).st_nlink == 0
        os.ftruncate(file.fileno(), 100)
        assert os.fstat(file.fileno()).st_size == 100
        assert file.read(4) == b"kept"
    hidden = mounted.state.store / "hidden"
    wait_for(lambda: not list(hidden.iterdir()), "the removed area is gone")
    wait_for(lambda: mounted.info()["used"] <= used or os.geteuid() != 0, "the memory is back")


def test_a_listing_goes_on_with_the_next_server(mounted: Mounted) -> None:
    names = {f"area-{number}" for number in range(500)}
    for name in names:
        (mounted.path / name).touch()
    with os.scandir(mounted.path) as entries:
        seen = [next(entries).name]
        mounted.kill_server()
        seen += [entry.name for entry in entries]
    assert len(seen) == 500
    assert set(seen) == names


def test_a_signal_during_a_restart_is_no_error(mounted: Mounted) -> None:
    """An interval timer interrupts each system call; none may fail because a server is starting."""
    ticking = ("import os, signal, sys\n"
               "signal.signal(signal.SIGALRM, lambda *_: None)\n"
               "signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)\n"
               "for number in range(400):\n"
               "    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
               "    os.ftruncate(fd, number)\n"
               "    os.close(fd)\n"
               "    os.rename(sys.argv[1], sys.argv[1] + 'b')\n"
               "    os.rename(sys.argv[1] + 'b', sys.argv[1])\n")
    client = subprocess.Popen([sys.executable, "-c", ticking, mounted.path / "a"],
                              stderr=subprocess.PIPE, text=True)
    while client.poll() is None:
        seen = mounted.counts("SETATTR")[0]
        mounted.kill_server()
        wait_for(lambda seen=seen: mounted.counts("SETATTR")[0] > seen + 5
                 or client.poll() is not None, "the client has got on")
    assert client.communicate()[1] == ""


def test_a_killed_client_ends_while_no_server_answers(mounted: Mounted) -> None:
    pid = mounted.info()["server"]
    os.kill(pid, signal.SIGSTOP)
    try:
        client = subprocess.Popen(["mkdir", mounted.path / "a"])
        wait_for(lambda: mounted.info()["channel"]["kept"], "its request is kept")
        client.kill()
        assert client.wait(20) == -signal.SIGKILL
        assert mounted.info()["channel"]["interrupted"] >= 1
    finally:
        os.kill(pid, signal.SIGCONT)
    (mounted.path / "b").touch()  # and the late reply has disturbed nothing


@needs_root
@pytest.mark.parametrize(("command", "done"), [
    ("mkdir new", lambda path: (path / "new").exists()),
    ("rm old", lambda path: not (path / "old").exists()),
    ("rmdir directory", lambda path: not (path / "directory").exists()),
    ("truncate -s 8192 old", lambda path: (path / "old").stat().st_size == 8192),
    ("fallocate -l 2M old", lambda path: (path / "old").stat().st_size == 2 << 20),
    ("chmod 600 old", lambda path: (path / "old").stat().st_mode & 0o777 == 0o600),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_was_done_for_a_client_that_had_gone_is_seen(
        mounted: Mounted, command: str, done: Callable[[Path], bool]) -> None:
    (mounted.path / "old").touch()
    os.truncate(mounted.path / "old", 1 << 20)  # so that it is the server's to change
    (mounted.path / "directory").mkdir()
    assert not (mounted.path / "new").exists()
    assert not done(mounted.path)  # all of which the kernel remembers
    pid = mounted.info()["server"]
    os.kill(pid, signal.SIGSTOP)
    try:
        client = subprocess.Popen(command.split(), cwd=mounted.path, stderr=subprocess.DEVNULL)
        wait_for(lambda: mounted.info()["channel"]["kept"], "its request is kept")
        client.kill()
        assert client.wait(20) == -signal.SIGKILL
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: done(mounted.path), "it is seen")


def test_df_answers_while_the_server_is_dead(mounted: Mounted) -> None:
    before = os.statvfs(mounted.path)
    pid = mounted.info()["server"]
    os.kill(pid, signal.SIGSTOP)
    wait = in_thread(lambda: os.statvfs(mounted.path).f_blocks)
    wait_for(lambda: mounted.info()["channel"]["kept"], "its request is kept")
    os.kill(pid, signal.SIGKILL)
    assert wait() == before.f_blocks


def close_after_the_keeper(file: int) -> None:
    """Without passthrough the kernel tells close(2) that what was dirty has nowhere to go."""
    try:
        os.close(file)
    except OSError as error:
        assert error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        assert os.geteuid() != 0


@pytest.mark.parametrize("victim", ["keeper", "server first"])
def test_areas_survive_the_death_of_everything(fresh: Mounted, victim: str) -> None:
    path = fresh.path / "cam0" / "frame"
    path.parent.mkdir(mode=0o750)
    path.write_bytes(b"frame" * 1000)
    path.chmod(0o4640)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
        path.chmod(0o4640)
    os.utime(path, ns=(10**18, 10**18 + 1))
    before = path.stat()
    file = os.open(path, os.O_RDWR)
    mapped = mmap.mmap(file, 0)
    if victim == "server first":
        fresh.kill_server()
    fresh.kill_keeper()
    with pytest.raises(OSError) as caught:
        os.statvfs(path)  # stat(2) may still be answered from the kernel's cache
    # The second of what was asked while the last process that has the device was just ending.
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    if fresh.settings.passthrough and os.geteuid() == 0:
        mapped[0:4] = b"live"
        assert os.pread(file, 4, 0) == b"live"
        assert os.pwrite(file, b"F", 0) == 1
    fresh.start()
    after = path.stat()
    for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_ino"):
        assert getattr(after, field) == getattr(before, field), field
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    expected = b"Five" if fresh.settings.passthrough and os.geteuid() == 0 else b"fram"
    assert path.read_bytes()[:4] == expected
    assert path.read_bytes()[4:] == (b"frame" * 1000)[4:]
    mapped.close()
    close_after_the_keeper(file)


WRITER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
mapped = mmap.mmap(fd, 0)
print("ready", flush=True)
number = 0
while not os.path.exists(sys.argv[2]):
    number += 1
    os.pwrite(fd, number.to_bytes(8, "little") * 1024, 0)
    mapped[8192:16384] = number.to_bytes(8, "little") * 1024
print(number, flush=True)
"""


@needs_root
def test_writes_go_on_through_the_death_of_everything(fresh: Mounted, tmp_path: Path) -> None:
    """Writers with open files and mappings notice nothing, and their bytes are there afterwards."""
    paths = [fresh.path / f"area-{number}" for number in range(4)]
    for path in paths:
        path.write_bytes(bytes(16384))
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, tmp_path / "stop"],
                                stdout=subprocess.PIPE, text=True) for path in paths]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    fresh.kill_keeper()
    fresh.start()
    before = [path.read_bytes()[:8] for path in paths]
    wait_for(lambda: all(path.read_bytes()[:8] != was
                         for path, was in zip(paths, before, strict=True)),
             "writers go on, and the new mount shows it")
    (tmp_path / "stop").touch()
    for path, writer in zip(paths, writers, strict=True):
        last = int(writer.communicate()[0])
        assert writer.returncode == 0
        assert path.read_bytes() == last.to_bytes(8, "little") * 2048


def test_what_was_hidden_is_swept_at_the_next_mount(fresh: Mounted) -> None:
    path = fresh.path / "a"
    path.write_bytes(bytes(1 << 20))  # smaller ones the channel removes, and hides none
    file = os.open(path, os.O_RDONLY)
    path.unlink()
    assert list((fresh.state.store / "hidden").iterdir())
    fresh.kill_keeper()
    close_after_the_keeper(file)
    fresh.start()
    assert not list((fresh.state.store / "hidden").iterdir())


def test_servers_that_die_at_start_end_the_mount_with_a_reason(
        fresh: Mounted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh.kill_keeper()
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'mbufffs.server' in ' '.join(sys.orig_argv): sys.exit('broken on purpose')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(OSError, match="servers in a row ended at their start"):
        fresh.start()
    assert "broken on purpose" in fresh.log()
    monkeypatch.delenv("PYTHONPATH")
    fresh.start()
    (fresh.path / "a").touch()


def test_a_bug_in_a_handler_is_eio_and_one_traceback(
        fresh: Mounted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh.kill_keeper()
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'mbufffs.server' in ' '.join(sys.orig_argv):\n"
        "    from mbufffs.backends.shmem import ShmemBackend\n"
        "    def mkdir(*args): raise RuntimeError('a bug on purpose')\n"
        "    ShmemBackend.mkdir = mkdir\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    fresh.start()
    for _ in range(5):
        with pytest.raises(OSError) as caught:
            (fresh.path / "d").mkdir()
        assert caught.value.errno == errno.EIO
    (fresh.path / "a").write_bytes(b"the mount lives")
    assert fresh.log().count("RuntimeError: a bug on purpose") == 1
    assert fresh.info()["restarts"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_keeper_unmounts(fresh: Mounted, number: signal.Signals) -> None:
    info = fresh.info()
    os.kill(info["keeper"], number)
    wait_for(lambda: is_gone(info["keeper"]) and is_gone(info["server"]), "all have ended")
    assert not os.path.ismount(fresh.path)
    assert not fresh.state.control.exists()


def test_a_signal_to_the_keeper_unmounts_lazily_while_busy(fresh: Mounted) -> None:
    (fresh.path / "a").write_bytes(b"kept")
    file = os.open(fresh.path / "a", os.O_RDONLY)
    keeper = fresh.info()["keeper"]
    os.kill(keeper, signal.SIGTERM)
    wait_for(lambda: is_gone(keeper), "the keeper has ended")
    assert not os.path.ismount(fresh.path)
    if os.geteuid() == 0:
        assert os.read(file, 10) == b"kept"
    close_after_the_keeper(file)
    fresh.start()
    assert (fresh.path / "a").read_bytes() == b"kept"
