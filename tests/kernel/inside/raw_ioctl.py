# SPDX-License-Identifier: MIT
"""Ioctls of /dev/mbuff as a careless or hostile program makes them; registry.py makes good ones."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable

import pytest

from mbufffs.backends import registry as abi

PAGE = os.sysconf("SC_PAGESIZE")
NOBODY = 65534
libc = ctypes.CDLL(None, use_errno=True)

# All commands that take a structure, with its size.
COMMANDS = {
    "version": abi._IOC_VERSION, "create": abi._IOC_CREATE, "open": abi._IOC_OPEN,
    "resize": abi._IOC_RESIZE, "change": abi._IOC_CHANGE, "rename": abi._IOC_RENAME,
    "remove": abi._IOC_REMOVE, "stat": abi._IOC_STAT, "list": abi._IOC_LIST,
    "usage": abi._IOC_USAGE, "notify": abi._IOC_NOTIFY, "forget": abi._IOC_FORGET,
    "kind": abi._IOC_KIND,
}


def size_of(command: int) -> int:
    return command >> 16 & 0x3FFF


def call_at(fd: int, command: int, address: int) -> int:
    """ioctl(2) with any address at all."""
    result: int = libc.ioctl(fd, ctypes.c_ulong(command), ctypes.c_void_p(address))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def call(fd: int, command: int, request: bytes) -> int:
    """ioctl(2) with a structure that may say anything."""
    buffer = ctypes.create_string_buffer(request, len(request))
    return call_at(fd, command, ctypes.addressof(buffer))


def text(content: bytes) -> tuple[ctypes.Array[ctypes.c_char], int]:
    """Bytes that a structure can point to, and their address; they live as long as the first."""
    buffer = ctypes.create_string_buffer(content, len(content) or 1)
    return buffer, ctypes.addressof(buffer)


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def which(area: int = 0, name: int = 0, length: int = 0, reserved: int = 0) -> bytes:
    return struct.pack("=QQII", area, name, length, reserved)


def refused(code: int, function: Callable[..., object], *args: object, **more: object) -> None:
    """The call fails with this errno and no other."""
    with pytest.raises(OSError) as caught:
        function(*args, **more)
    assert caught.value.errno == code, caught.value


def read_events(fd: int) -> list[abi.Event]:
    return abi.read_events(fd)[0]
