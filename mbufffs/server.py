# SPDX-License-Identifier: MIT
"""The server: the process with pyfuse3 that decides. It can be killed and replaced at any time.

It speaks FUSE over a socket that the keeper's channel holds the other end of, and keeps nothing
that its successor would need.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import select
import signal
import sys
from pathlib import Path

import pyfuse3
import trio

from mbufffs.backends import Backend
from mbufffs.channel import grant_message, watch_message
from mbufffs.operations import Operations

PR_SET_PDEATHSIG = 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mbufffs.server", description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="the channel's other end")
    parser.add_argument("--device", type=int, help="/dev/fuse of the connection, for passthrough")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--registry", type=int, help="/dev/mbuff, where areas are the module's")
    parser.add_argument("--events", type=int, help="and what others do there")
    parser.add_argument("--locked", action="store_true", help="the store's pages stay in memory")
    return parser.parse_args()


def _backend(arguments: argparse.Namespace) -> Backend:
    # Only one of them: to import both would be a part of what a mount takes.
    if arguments.registry is None:
        from mbufffs.backends.shmem import ShmemBackend

        return ShmemBackend(arguments.store, locked=arguments.locked)
    from mbufffs.backends.device import DeviceBackend
    from mbufffs.backends.registry import Registry

    return DeviceBackend(Registry(arguments.registry), arguments.events, arguments.store)


async def _serve(operations: Operations) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(operations.watch)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


def main() -> int:
    arguments = _arguments()
    logging.basicConfig(format="%(asctime)s server[%(process)d] %(levelname)s %(message)s")
    # A server without its keeper has nobody to serve, and would hold the store's lock.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0)
    # What the kernel sends when a lease is in somebody's way (backends/shmem.py); it would kill.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    backend = _backend(arguments)

    def tell(message: bytes) -> None:
        os.write(arguments.socket, message)

    operations = Operations(backend, tell, arguments.device)
    for node in backend.hidden():
        tell(watch_message([node]))
    if backend.granted:
        tell(grant_message(backend.granted))
    pyfuse3.init(operations, f"/dev/fd/{arguments.socket}", set())
    try:
        trio.run(_serve, operations)
    except Exception:
        # pyfuse3 knows no end of a socket: it reads nothing and raises. That the other end has
        # gone is how every server ends that is not killed.
        poller = select.poll()
        poller.register(arguments.socket, 0)
        if not poller.poll(0):
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
