# SPDX-License-Identifier: MIT
"""Stand-ins for what needs a mount, a keeper and a mount table; and what a command has done."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbufffs import mounts
from mbufffs.state import State

INFO: dict[str, Any] = {
    "mountpoint": "/mnt/mbuff", "store": "/run/mbufffs/mnt-mbuff/store", "backend": "shmem",
    "passthrough": True, "passthrough_reason": "", "locked": True, "keeper": 11, "server": 12,
    "restarts": 3, "uptime": 12.5, "limit": 1 << 30, "used": 4096,
    "messages": {"LOOKUP": {"received": 7, "answered": 2}}, "channel": {"resent": 1, "kept": 0}}


class Done:
    """Exit code, standard output and standard error of one command."""

    def __init__(self, code: object, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Done]


def is_one_line(done: Done, *words: str) -> bool:
    """Whether the error is a single line of ours that has these words."""
    return (done.err.startswith("mbufffs: ") and done.err.count("\n") == 1
            and all(word in done.err for word in words))


class FakeKeeper:
    """Answers every question on a state's control socket with the same bytes, until it is closed.

    With no bytes it hangs up; with None it leaves the question unanswered.
    """

    def __init__(self, state: State, answer: dict[str, Any] | bytes | None) -> None:
        self.questions: list[Any] = []
        self._answer = json.dumps(answer).encode() if isinstance(answer, dict) else answer
        self._silent: list[socket.socket] = []
        state.directory.mkdir(parents=True, exist_ok=True)
        directory = os.open(state.directory, os.O_PATH)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(f"/proc/self/fd/{directory}/{state.control.name}")
        os.close(directory)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # shut down by close()
                return
            self.questions.append(json.loads(connection.recv(4096)))
            if self._answer is None:
                self._silent.append(connection)
                continue
            with connection:
                if self._answer:
                    connection.send(self._answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for connection in (self._socket, *self._silent):
            connection.close()


class FakeMounts:
    """A mount table; unmounting takes the topmost line away, or is EBUSY while `busy`."""

    def __init__(self) -> None:
        self.lines: list[mounts.Mount] = []
        self.busy = False
        self.lazily: list[str] = []

    def add(self, path: Path, fstype: str = mounts.FSTYPE) -> None:
        self.lines.append(mounts.Mount(
            str(path), fstype, mounts.SOURCE, os.stat(path).st_dev, "rw"))

    def table(self) -> list[mounts.Mount]:
        return list(self.lines)

    def unmount(self, path: str, *, lazy: bool = False) -> None:
        if self.busy and not lazy:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
        if lazy:
            self.lazily.append(path)
        self.lines.remove([mount for mount in self.lines if mount.mountpoint == path][-1])


def lock(state: State) -> int:
    """What a living keeper holds; closing the descriptor ends it."""
    state.directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(state.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd
