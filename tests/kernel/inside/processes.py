# SPDX-License-Identifier: MIT
"""Processes that end as nobody wants."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import resource
import signal
from collections.abc import Callable


def until_killed(steps: Callable[[], object]) -> None:
    """A child that does these steps, says so, and is killed."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            steps()
            os.write(theirs, b"d")
        finally:
            signal.pause()
    assert os.read(ours, 1) == b"d"
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    os.close(ours)
    os.close(theirs)


def touched_behind(fd: int, length: int) -> int:
    """The signal for who maps two pages more than the file has, and reads behind its end.

    By libc: Python's mmap looks at the size of the file first.
    """
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.disable()
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        start = libc.mmap(None, ctypes.c_size_t(length + 2 * mmap.PAGESIZE), mmap.PROT_READ,
                          mmap.MAP_SHARED, fd, ctypes.c_int64(0))
        if len(ctypes.string_at(start + length - 1, 1)) != 1:
            os._exit(1)
        ctypes.string_at(start + length, 1)
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])
