# SPDX-License-Identifier: MIT
"""The old interface's commands for tests in Python; programs use kmod/include/mbuff.h."""

from __future__ import annotations

import fcntl
import struct

from mbufffs.backends.registry import Registry

_REQUEST = struct.Struct("=I33s3xQ16x")  # struct mbuff_request_struct for 64 bits

INFO, ALLOCATE, DEALLOCATE, SELECT = (
    3 << 30 | _REQUEST.size << 16 | 0xBE << 8 | number for number in range(0x40, 0x44))


def old(registry: Registry, command: int, name: bytes, size: int = 0) -> int:
    """What the command returns: the size of the area, or 0 when it is gone with it."""
    request = bytearray(_REQUEST.pack(0, name, size))
    return int(fcntl.ioctl(registry.fd, command, request, True))
