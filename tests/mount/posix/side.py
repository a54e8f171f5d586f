# SPDX-License-Identifier: MIT
"""One side of a comparison: does what a case asks for in a directory of its own, in a process of
its own, and writes down what a program sees there. Whether that is right, the other side says.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import select
import signal
import stat
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Log = list[tuple[str, Any]]  # a step, and what came of it
Case = Callable[["Side"], None]

CLOCK_REALTIME_COARSE = 5  # the clock of file times, which the time module does not name
PATIENCE = 60  # seconds after which a case hangs
PAST = 1_000_000_000 * 10**9  # long before any test, so that relatime lets every access count

# People of the cases: uid and gid are the same number.
OWNER, MEMBER, OTHER = 65101, 65102, 65103
GROUP = 65110  # OWNER's and MEMBER's other group

_FLAGS = ("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK",
          "O_PATH", "O_DIRECT", "O_SYNC", "O_NOATIME")


def flag_names(flags: int) -> str:
    names = [("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE")[flags & os.O_ACCMODE]]
    names += [name for name in _FLAGS if flags & getattr(os, name) == getattr(os, name)]
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        names.append("O_TMPFILE")
    return "|".join(names)


def _kind(mode: int) -> str:
    return {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink",
            stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "character",
            stat.S_IFBLK: "block"}[stat.S_IFMT(mode)]


def seen(found: os.stat_result) -> tuple[Any, ...]:
    """What must be equal in stat(2): not the inode, the blocks and the moments."""
    return (_kind(found.st_mode), oct(stat.S_IMODE(found.st_mode)), found.st_nlink, found.st_uid,
            found.st_gid, found.st_size, found.st_rdev)


def _plain(result: Any) -> Any:
    return seen(result) if isinstance(result, os.stat_result) else result


class Side:
    """What a case works with; the current directory is empty when it starts.

    `side.NAME(...)` is os.NAME(...), written down with its result, or its error's name. It
    returns None after an error.
    """

    def __init__(self) -> None:
        self.log: Log = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            return self.do(name, function, *args, **options)

        return call

    def do(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        shown = [repr(arg) if not isinstance(arg, bytes) or len(arg) < 60
                 else f"{len(arg)} bytes" for arg in args]
        shown += [f"{key}={value!r}" for key, value in options.items()]
        step = f"{name}({', '.join(shown)})"
        try:
            result = function(*args, **options)
        except OSError as error:
            self.log.append((step, errno.errorcode.get(error.errno or 0, str(error))))
            return None
        self.log.append((step, _plain(result)))
        return result

    def open(self, path: str, flags: int, mode: int = 0o666, **options: Any) -> int | None:
        step = f"open({path!r}, {flag_names(flags)}, {mode:#o})"
        try:
            fd = os.open(path, flags, mode, **options)
        except OSError as error:
            self.log.append((step, errno.errorcode[error.errno or 0]))
            return None
        self.log.append((step, "open"))
        return fd

    def opens(self, path: str, flags: int, mode: int = 0o666) -> None:
        """Only whether it opens."""
        fd = self.open(path, flags, mode)
        if fd is not None:
            os.close(fd)

    def note(self, what: str, value: Any) -> None:
        self.log.append((what, _plain(value)))

    # Not written down: what a case needs beforehand.

    def make(self, kind: str, name: str, mode: int | None = None, content: bytes = b"") -> None:
        """One of file, empty, full (a directory with a file in it), symlink, dangling, loop..."""
        if kind == "file":
            Path(name).write_bytes(content)
        elif kind == "empty":
            os.mkdir(name)
        elif kind == "full":
            os.mkdir(name)
            Path(name, "inside").write_bytes(b"inside")
        elif kind == "symlink":
            Path("pointed-at").write_bytes(b"pointed at")
            os.symlink("pointed-at", name)
        elif kind == "dirlink":
            os.makedirs("pointed-into", exist_ok=True)
            os.symlink("pointed-into", name)
        elif kind == "dangling":
            os.symlink("points-nowhere", name)
        elif kind == "loop":
            os.symlink(os.path.basename(name), name)
        elif kind == "fifo":
            os.mkfifo(name)
        elif kind == "socket":
            os.mknod(name, stat.S_IFSOCK | 0o666)
        elif kind != "none":
            raise ValueError(kind)
        if mode is not None:
            os.chmod(name, mode)

    def sweep(self) -> None:
        """Removes everything that is there."""
        for name in os.listdir("."):
            remove(name)

    @contextlib.contextmanager
    def user(self, uid: int, *groups: int) -> Iterator[None]:
        """Acts as this user, who is a member of the group of the same number and of `groups`."""
        os.setgroups(groups)
        os.setegid(uid)
        os.seteuid(uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups([])

    # What is written down about more than one call.

    def tree(self, what: str = "tree") -> None:
        """Everything that is there: names, stat, bytes, targets."""
        self.log.append((what, dict(_walk("."))))

    @contextlib.contextmanager
    def times(self, *paths: str, **moved: str) -> Iterator[None]:
        """Which times of which files move while the body runs.

        A path that is in `moved` as well is somewhere else afterwards.
        """
        before = {}
        for path in paths:
            os.utime(path, ns=(PAST, PAST), follow_symlinks=False)
            before[path] = os.lstat(path).st_ctime_ns
        await_tick(before.values())
        yield
        for path, changed in before.items():
            try:
                found = os.lstat(moved.get(path, path))
            except FileNotFoundError:
                self.log.append((f"times of {path}", "gone"))
                continue
            self.log.append((f"times of {path}", "".join(
                letter for letter, moment, was in (
                    ("a", found.st_atime_ns, PAST), ("m", found.st_mtime_ns, PAST),
                    ("c", found.st_ctime_ns, changed)) if moment != was)))


def await_tick(moments: Iterable[int]) -> None:
    """Returns when what is changed from now on gets a later time than all of `moments`."""
    now = time.time_ns()
    newest = max((moment for moment in moments if moment <= now), default=0)
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= newest:
        time.sleep(0.001)


def remove(path: str) -> None:
    """Removes what is there and below, whatever its mode."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    os.chmod(path, 0o700)
    for name in os.listdir(path):
        remove(f"{path}/{name}")
    os.rmdir(path)


def _walk(path: str) -> Iterator[tuple[str, Any]]:
    found = os.lstat(path)
    entry: list[Any] = [seen(found)]
    if stat.S_ISREG(found.st_mode) and os.access(path, os.R_OK):
        entry.append(_digest(Path(path).read_bytes()))
    elif stat.S_ISLNK(found.st_mode):
        entry.append(os.readlink(path))
    yield path, entry
    if stat.S_ISDIR(found.st_mode) and os.access(path, os.R_OK | os.X_OK):
        for name in sorted(os.listdir(path)):
            yield from _walk(f"{path}/{name}")


def _digest(content: bytes) -> Any:
    return content if len(content) < 100 else (len(content), hash_of(content))


def hash_of(content: bytes) -> str:
    import hashlib

    return hashlib.blake2b(content, digest_size=8).hexdigest()


def run_in(directory: Path, body: Callable[[Side], None]) -> Log:
    """Runs `body` in a child process whose current directory is `directory`; returns its log."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    with warnings.catch_warnings():
        # The child calls nothing that another thread could have left locked.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(directory, body, writer)
    os.close(writer)
    try:
        answer = _read_all(reader, time.monotonic() + PATIENCE)
    except TimeoutError:
        where = _wait_channel(pid)
        os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"the case hangs in {directory}: {where}") from None
    finally:
        os.close(reader)
    os.waitpid(pid, 0)
    assert answer, f"the process of a case died in {directory}"
    log, trouble = pickle.loads(answer)
    assert not trouble, f"in {directory} after {log[-3:]}:\n{trouble}"
    return log  # type: ignore[no-any-return]


def _child(directory: Path, body: Callable[[Side], None], writer: int) -> None:
    side, trouble = Side(), ""
    try:
        os.umask(0o022)
        os.chdir(directory)
        body(side)
        os.chmod(directory, 0o755)
        os.chdir(directory)
        side.tree("tree at the end")
    except BaseException:
        trouble = traceback.format_exc()
    try:
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump((side.log, trouble), pipe)
    finally:
        os._exit(0)


def _read_all(reader: int, end: float) -> bytes:
    parts = []
    while True:
        if not select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
            raise TimeoutError
        part = os.read(reader, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _wait_channel(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stack").read_text() + Path(f"/proc/{pid}/syscall").read_text()
    except OSError as error:
        return str(error)
