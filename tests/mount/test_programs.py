# SPDX-License-Identifier: MIT
"""Programs that know nothing of this file system do their work on it, and check it themselves."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mbufffs import mounts
from mbufffs.state import state_of
from tests.conftest import PREFIX, Mounted, needs_root, run, wait_for

PLACES = ("passthrough", "page cache") if os.geteuid() == 0 else ("page cache",)


def needs(program: str, package: str | None = None) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None,
                              reason=f"{program} is missing (Debian: {package or program})")


@pytest.fixture(scope="session", params=PLACES)
def any_mount(request: pytest.FixtureRequest, new_mount: Callable[..., Mounted]) -> Mounted:
    return new_mount(passthrough=request.param == "passthrough")


@pytest.fixture
def place(any_mount: Mounted) -> Iterator[Path]:
    """An empty directory on the mount. Afterwards nothing is left, and the log has no word."""
    log = any_mount.log()
    directory = any_mount.path / "place"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)
    assert any_mount.log() == log
    hidden = any_mount.state.store / "hidden"
    wait_for(lambda: not list(hidden.iterdir()), "nothing removed is kept")
    wait_for(lambda: any_mount.info()["used"] == 0 or os.geteuid() != 0, "the memory is back")


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Path]:
    """An empty directory on a tmpfs, to compare with."""
    where = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/dev/shm"))
    yield where
    shutil.rmtree(where)


# CPython's own tests

def _python_with_tests() -> str | None:
    for python in (sys.executable, "/usr/bin/python3"):
        found = subprocess.run([python, "-c", "import test.test_mmap"], capture_output=True,
                               check=False)
        if found.returncode == 0:
            return python
    return None


@pytest.mark.parametrize("module", [
    "test_mmap", "test_tempfile", "test_posix", "test_fileio", "test_fcntl", "test_mailbox",
    # Without root, directories of mode 0600 cannot be listed.
    *(["test_shutil"] if os.geteuid() == 0 else []),
    "test_dbm_dumb", "test_os.FileTests", "test_os.StatAttributeTests",
    "test_os.UtimeTests", "test_os.WalkTests", "test_os.MakedirTests", "test_os.TestScandir",
    "test_os.TestSendfile", "test_os.LinkTests", "test_os.PosixUidGidTests"])
def test_cpythons_tests_pass_with_their_files_here(place: Path, module: str) -> None:
    python = _python_with_tests()
    if python is None:
        pytest.skip("CPython's tests are missing (Debian: libpython3.11-testsuite)")
    run(python, "-m", "unittest", "-q", f"test.{module}", cwd=place,
        env={**os.environ, "TMPDIR": str(place)})


# sqlite3

_WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
database.execute("PRAGMA mmap_size = 67108864")
for number in range(200):
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO t VALUES (?, ?, ?)",
                     (sys.argv[2], number, sys.argv[2] * (number * 37 % 5000)))
    if number % 10 == 0:
        database.execute("DELETE FROM t WHERE writer = ? AND number = ?", (sys.argv[2], number))
    database.execute("COMMIT")
"""


@pytest.mark.parametrize("journal", ["wal", "delete", "truncate"])
def test_sqlite_keeps_what_several_processes_write(place: Path, journal: str) -> None:
    path = place / "database"
    database = sqlite3.connect(path)
    assert database.execute(f"PRAGMA journal_mode = {journal}").fetchone() == (journal,)
    database.execute("PRAGMA mmap_size = 67108864")
    database.execute("CREATE TABLE t (writer, number, filling)")
    database.commit()
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), letter])
               for letter in "abc"]
    for writer in writers:
        while writer.poll() is None:
            database.execute("SELECT sum(length(filling)) FROM t").fetchone()
        assert writer.returncode == 0
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert database.execute("SELECT count(*) FROM t").fetchone() == (3 * 180,)
    assert database.execute(
        "SELECT count(*) FROM t WHERE length(filling) != number * 37 % 5000").fetchone() == (0,)
    database.execute("VACUUM")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


# Programs that test file systems

@needs("fio")
@pytest.mark.parametrize("engine", ["psync", "pvsync2", "mmap", "libaio", "posixaio", "splice"])
@pytest.mark.parametrize("way", ["randwrite", "write", "randrw"])
def test_fio_verifies_what_it_has_written(place: Path, engine: str, way: str) -> None:
    run("fio", "--name=area", f"--directory={place}", f"--ioengine={engine}", f"--rw={way}",
        "--bsrange=512-64k", "--size=4m", "--numjobs=2", "--iodepth=8", "--verify=crc32c",
        "--verify_fatal=1", "--do_verify=1", "--minimal", cwd=place)


@needs("fio")
def test_fio_verifies_direct_writes(place: Path) -> None:
    run("fio", "--name=area", f"--directory={place}", "--ioengine=libaio", "--direct=1",
        "--rw=randrw", "--bsrange=4k-64k", "--size=8m", "--numjobs=2", "--iodepth=16",
        "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=32", "--minimal", cwd=place)


STRESSORS = ("hdd", "rename", "link", "dir", "dirdeep", "dirmany", "dentry", "fallocate",
             "filename", "seek", "chmod", "chown", "chdir", "open", "utime", "symlink", "flock",
             "lockf", "fpunch", "getdent", "access", "copy-file", "sync-file", "touch", "iomix",
             "splice", "sendfile", "mknod", "handle", "inotify", "msync", "readahead", "mmap")


@needs("stress-ng")
@pytest.mark.timeout(900)
def test_stress_ng_finds_nothing_wrong(place: Path, request: pytest.FixtureRequest) -> None:
    """All stressors at once for a few seconds; with --soak one after the other."""
    soak = request.config.getoption("--soak")
    for names in [[name] for name in STRESSORS] if soak else [STRESSORS]:
        stressors = [part for name in names for part in (f"--{name}", "1")]
        done = run("stress-ng", *stressors, "--mmap-file", "--mmap-bytes", "8M", "--hdd-bytes",
                   "16M", "--fallocate-bytes", "16M", "--iomix-bytes", "16M", "--temp-path", place,
                   "--timeout", "8", "--verify", "--oomable", cwd=place)
        assert "fail:" not in done.stderr + done.stdout


# Copies

def _tree_of_all_kinds(top: Path) -> None:
    (top / "directory" / "deeper").mkdir(parents=True)
    (top / "directory" / "deeper").chmod(0o1777)
    (top / "directory" / "big").write_bytes(os.urandom(300_000))
    os.link(top / "directory" / "big", top / "directory" / "deeper" / "second name")
    (top / "directory" / "program").write_bytes(b"#!/bin/sh\n")
    (top / "directory" / "program").chmod(0o4751)
    os.symlink("../big", top / "directory" / "deeper" / "symlink")
    os.symlink("nowhere", top / "dangling")
    os.mkfifo(top / "fifo", 0o640)
    (top / os.fsdecode(b"not \xff utf-8\n")).write_bytes(b"odd")
    (top / "-rf").write_bytes(b"")
    with (top / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    if os.geteuid() == 0:
        os.chown(top / "directory" / "big", 1234, 2345)
        os.lchown(top / "dangling", 77, 78)
        os.mknod(top / "device", 0o20644, os.makedev(1, 3))
    # Of these kinds rsync takes a time in the same second for the same, on tmpfs too.
    for path in (top / "fifo", top / "device", top / "directory" / "deeper" / "symlink"):
        if os.path.lexists(path):
            os.utime(path, ns=(10**18 + 3, 10**18 + 3), follow_symlinks=False)
    for path, moment in ((top / "directory" / "program", 981_173_106_123_456_789),
                         (top / "dangling", 1), (top / "directory" / "deeper", 10**18),
                         (top / "directory", 10**18 + 1), (top, 10**18 + 2)):
        os.utime(path, ns=(moment, moment), follow_symlinks=False)


def _described(top: Path) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for directory, directories, files in os.walk(top):
        for name in [*directories, *files, "."]:
            path = os.path.join(directory, name)
            at = os.lstat(path)
            content: object = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = Path(path).read_bytes()
            found.append((os.path.relpath(path, top), at.st_mode, at.st_nlink, at.st_uid, at.st_gid,
                          at.st_size, at.st_rdev, at.st_mtime_ns, content))
    return sorted(found, key=lambda entry: entry[0])


@pytest.mark.parametrize("tool", [
    "cp", pytest.param("rsync", marks=needs("rsync")), pytest.param("tar", marks=needs("tar"))])
def test_copies_there_and_back_lose_nothing(place: Path, plain: Path, tool: str) -> None:
    commands = {"cp": "cp -a {0}/. {1}/", "rsync": "rsync -aH {0}/ {1}/",
                "tar": "tar --format=pax -C {0} -cf - . | tar -C {1} -xpf -"}
    source, here, back = plain / "source", place / "copy", plain / "back"
    for directory in (source, here, back):
        directory.mkdir()
    _tree_of_all_kinds(source)
    for one, other in ((source, here), (here, back)):
        run("sh", "-c", commands[tool].format(one, other))
    expected = _described(source)
    assert _described(here) == expected
    assert _described(back) == expected
    run("diff", "-r", "--no-dereference", "--exclude=fifo", "--exclude=device", source, here)


@pytest.mark.parametrize("command", [
    "ls -lAR --time-style=full-iso", "ls -la --full-time", "find . -ls | sed 's/^ *[0-9]* *//'",
    "find . -type d -links 2", "find . -type f -size +1k -newermt 2001-01-01",
    "find . -printf '%P %y %M %n %U %G %T+ %l\\n' | sort", "stat -c '%A %U %G %s %N' * | sort",
    "du -a --apparent-size | sort", "wc -c directory/[bp]*", "md5sum sparse -- -rf"])
def test_listings_are_as_on_tmpfs(place: Path, plain: Path, command: str) -> None:
    outputs = []
    for top in (place, plain):
        _tree_of_all_kinds(top)
        top.chmod(0o755)
        for path in (*top.rglob("*"), top):
            os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
        output = run("sh", "-c", command, cwd=top, errors="surrogateescape",
                     env={"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ["PATH"]}).stdout
        # The directory above belongs to the test, not to the listing, and so do columns that are
        # as wide as it needs them.
        outputs.append(sorted(re.sub(" +", " ", line) for line in output.splitlines()
                              if not line.endswith(" ..")))
    assert outputs[0] == outputs[1]


@needs("git")
def test_git_keeps_its_repositories_here(place: Path) -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
                   "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
                   "GIT_COMMITTER_EMAIL": "a@b", "HOME": str(place)}

    def git(*arguments: str, at: str = "repository") -> str:
        return run("git", "-C", place / at, *arguments, env=environment).stdout

    (place / "repository").mkdir()
    git("init", "-q", "-b", "main")
    for number in range(5):
        for name in range(20):
            (place / "repository" / f"file{name}").write_text(f"{name} {number}\n" * 100)
        git("add", "-A")
        git("commit", "-q", "-m", f"number {number}")
    git("clone", "-q", "repository", "clone", at=".")
    git("gc", "-q", "--aggressive", "--prune=now")
    git("checkout", "-q", "-b", "other", "HEAD~2", at="clone")
    git("worktree", "add", "-q", "../tree", "HEAD~1")
    for at in ("repository", "clone"):
        git("fsck", "--full", "--strict", at=at)
        assert git("status", "--porcelain", at=at) == ""
    assert git("rev-list", "--count", "--all", at="clone") == "5\n"


def test_moving_across_file_systems_keeps_bytes_and_rights(place: Path, plain: Path) -> None:
    _tree_of_all_kinds(plain)
    expected = _described(plain / "directory")
    run("mv", plain / "directory", place / "moved")
    assert _described(place / "moved") == expected
    run("mv", place / "moved", plain / "directory")
    assert _described(plain / "directory") == expected


# POSIX shared memory

@needs_root
@needs("unshare", "util-linux")
def test_posix_shared_memory_and_semaphores_work_when_it_is_mounted_over_dev_shm() -> None:
    store = f"{PREFIX}{os.getpid()}-shm"
    before = mounts.mount_at("/dev/shm")
    try:
        done = run("unshare", "--mount", "--propagation", "private", sys.executable,
                   Path(__file__).with_name("over_dev_shm.py"), store,
                   env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    finally:
        shutil.rmtree(state_of("/dev/shm", store).directory)
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr
    assert mounts.mount_at("/dev/shm") == before


# The daemon afterwards

def test_rounds_of_everything_leave_nothing_behind(any_mount: Mounted, place: Path) -> None:
    def sizes() -> tuple[int, int]:
        info = any_mount.info()
        pids = info["keeper"], info["server"]
        return (sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
                sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids))

    def rounds(count: int) -> None:
        for _ in range(count):
            (place / "d").mkdir()
            (place / "d" / "f").write_bytes(b"x" * 5000)
            os.link(place / "d" / "f", place / "g")
            os.symlink("g", place / "l")
            os.mkfifo(place / "p")
            with (place / "g").open("r+b") as file:
                os.unlink(place / "d" / "f")
                os.replace(place / "l", place / "g")
                file.truncate(10)
            (place / "n").touch()
            os.replace(place / "n", place / "g")
            os.listdir(place)
            (place / "e").mkdir()
            os.rename(place / "e", place / "d")
            (place / "d").rmdir()
            for name in ("g", "p"):
                (place / name).unlink()

    rounds(200)
    wait_for(lambda: any_mount.info()["channel"]["nodes"] <= 2, "nodes are forgotten")
    descriptors, pages = sizes()
    rounds(600)
    wait_for(lambda: any_mount.info()["channel"]["nodes"] <= 2, "nodes are forgotten")
    wait_for(lambda: sizes()[0] <= descriptors, "no descriptor is left open")
    assert (sizes()[1] - pages) * 4096 < 2 << 20
    counters = any_mount.info()["channel"]
    assert (counters["malformed"], counters["kept"]) == (0, 0)
