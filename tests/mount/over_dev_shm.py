# SPDX-License-Identifier: MIT
"""POSIX shared memory and semaphores on a mount over /dev/shm; one run, in a namespace of its own.

`python over_dev_shm.py STORE` must be started by `unshare --mount`. It undoes nothing but the one
mount that it has made: what /dev/shm is outside must stay untouched.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import subprocess
import sys
from multiprocessing import shared_memory

from mbufffs import mounts
from mbufffs.client import ask
from mbufffs.keeper import Settings, start
from mbufffs.state import state_of

SHM = "/dev/shm"
libc = ctypes.CDLL(None, use_errno=True)
libc.sem_open.restype = ctypes.c_void_p


def check(fact: bool, what: str) -> None:
    if not fact:
        raise AssertionError(what)
    print(what)


def python_shares_memory() -> None:
    mine = shared_memory.SharedMemory("mbufffs-test", create=True, size=100_000)
    mine.buf[:5] = b"hello"
    check("mbufffs-test" in os.listdir(SHM), "shared memory is a file of the mount")
    theirs = subprocess.run(
        [sys.executable, "-c", "from multiprocessing import resource_tracker, shared_memory\n"
         "found = shared_memory.SharedMemory('mbufffs-test')\n"
         # Until Python 3.13 whoever attaches also removes.
         "resource_tracker.unregister(found._name, 'shared_memory')\n"
         "print(bytes(found.buf[:5]).decode(), len(found.buf))\n"
         "found.buf[5] = 66\n"
         "found.close()\n"], stdout=subprocess.PIPE, text=True, check=True).stdout
    check(theirs == "hello 100000\n", "another process attaches to it")
    check(mine.buf[5] == 66, "and its stores are seen")
    mine.close()
    mine.unlink()
    check(os.listdir(SHM) == [], "shared memory is removed")


def c_shares_memory() -> None:
    fd = libc.shm_open(b"/c-memory", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    check(fd >= 0, "shm_open makes")
    os.ftruncate(fd, 1 << 20)
    again = libc.shm_open(b"/c-memory", os.O_RDWR, 0)
    with mmap.mmap(fd, 1 << 20) as one, mmap.mmap(again, 1 << 20) as two:
        one[-1] = 7
        check(two[-1] == 7, "shm_open finds")
    check(libc.shm_unlink(b"/c-memory") == 0, "shm_unlink removes")
    check(libc.shm_open(b"/c-memory", os.O_RDWR, 0) == -1, "and it is gone")


def c_shares_semaphores() -> None:
    mine = ctypes.c_void_p(libc.sem_open(b"/c-semaphore", os.O_CREAT | os.O_EXCL, 0o600, 0))
    check(bool(mine.value), "sem_open makes")
    check(os.listdir(SHM) == ["sem.c-semaphore"], "a semaphore is a file of the mount")
    pid = os.fork()
    if pid == 0:
        theirs = libc.sem_open(b"/c-semaphore", 0)
        for _ in range(1000):
            libc.sem_post(ctypes.c_void_p(theirs))
        os._exit(0)
    for _ in range(1000):
        libc.sem_wait(mine)
    os.waitpid(pid, 0)
    check(libc.sem_trywait(mine) == -1, "each post wakes once")
    check(libc.sem_close(mine) == 0 and libc.sem_unlink(b"/c-semaphore") == 0, "sem_unlink removes")


def python_shares_semaphores() -> None:
    context = multiprocessing.get_context("fork")
    semaphore, queue = context.Semaphore(0), context.SimpleQueue()
    process = context.Process(target=lambda: (queue.put(semaphore.acquire(timeout=20))))
    process.start()
    semaphore.release()
    check(queue.get() is True, "multiprocessing.Semaphore crosses processes")
    process.join()


def main() -> None:
    state = state_of(SHM, sys.argv[1])
    start(Settings(SHM, limit=256 << 20, store=sys.argv[1], nonempty=True))
    try:
        python_shares_memory()
        c_shares_memory()
        c_shares_semaphores()
        python_shares_semaphores()
        messages = ask(state, {"ask": "info"})["messages"]
        check(messages["READ"]["received"] == 0, "no byte was read through the server")
    finally:
        found = mounts.mount_at(SHM)
        if found and found.fstype == mounts.FSTYPE:
            mounts.unmount(SHM, lazy=True)
            mounts.unmount(str(state.store), lazy=True)
    print("done")


if __name__ == "__main__":
    main()
