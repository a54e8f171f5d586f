# SPDX-License-Identifier: MIT
"""The asking end of the keeper's control socket; what is answered is up to the keeper."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbufffs import state as states
from mbufffs.errors import NotMounted
from mbufffs.state import State

TIMEOUT = 5.0
REPLY_MAX = 1 << 16
ROOT_RUNTIME = Path("/run/mbufffs")  # every user may ask root's keepers

_NOBODY = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)


def ask(state: State, question: dict[str, Any]) -> dict[str, Any]:
    """One question, one answer. NotMounted when no keeper listens, TimeoutError when it hangs."""
    try:
        reply, flags = _exchange(state, json.dumps(question).encode())
    except (TimeoutError, BlockingIOError):  # the latter: more are waiting than it listens to
        raise TimeoutError(
            errno.ETIMEDOUT,
            f"the keeper of {state.mountpoint} has not answered for {TIMEOUT:.0f} s") from None
    except OSError as error:
        if error.errno not in _NOBODY:
            raise
        reply, flags = b"", 0
    if not reply:  # it has ended between our question and its answer
        raise not_mounted(state.mountpoint)
    try:
        answer = json.loads(reply)
    except ValueError:
        answer = None
    if flags & socket.MSG_TRUNC or not isinstance(answer, dict):
        raise OSError(
            errno.EPROTO,
            f"the keeper of {state.mountpoint} answers what this program does not understand; "
            "is it of another version?")
    if "error" in answer:
        raise OSError(int(answer.get("errno", errno.EPROTO)), str(answer["error"]))
    return answer


def _exchange(state: State, question: bytes) -> tuple[bytes, int]:
    # sun_path ends after 107 bytes, which a long mount point exceeds; the name by way of the
    # directory's descriptor never does.
    directory = os.open(state.control.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.settimeout(TIMEOUT)
            control.connect(f"/proc/self/fd/{directory}/{state.control.name}")
            control.send(question)
            reply, _, flags, _ = control.recvmsg(REPLY_MAX)
            return reply, flags
    finally:
        os.close(directory)


def not_mounted(mountpoint: str) -> NotMounted:
    return NotMounted(
        f"nothing of mbufffs is mounted at {mountpoint}; start it with: mbufffs mount {mountpoint}")


def _others(runtime: Path, own: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from sorted(directory for directory in runtime.iterdir() if directory != own)


def served(mountpoint: str, *, own: bool = False) -> tuple[State, dict[str, Any]]:
    """The state whose keeper serves `mountpoint`, and what that keeper says of itself.

    Keepers of this user are asked first, then root's unless `own`; NotMounted if none serves it.
    """
    runtimes = [states.runtime_directory()]
    if not own and ROOT_RUNTIME not in runtimes:
        runtimes.append(ROOT_RUNTIME)
    for runtime in runtimes:
        usual = State(mountpoint, runtime / states.escaped(mountpoint))
        with contextlib.suppress(NotMounted):
            answer = ask(usual, {"ask": "info"})
            if answer.get("mountpoint") == mountpoint:
                return usual, answer
        # A mount with -o store=NAME has its state under that name. What ails keepers of other
        # mounts is not the question.
        for directory in _others(runtime, usual.directory):
            with contextlib.suppress(OSError):
                answer = ask(State(mountpoint, directory), {"ask": "info"})
                if answer.get("mountpoint") == mountpoint:
                    return State(mountpoint, directory), answer
    raise not_mounted(mountpoint)
