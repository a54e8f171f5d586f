# SPDX-License-Identifier: MIT
"""The commands of the old interface from Python, and what /proc/mbuff says of an area."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

from tests.conftest import wait_for

PAGE = mmap.PAGESIZE
REGIONS = Path("/proc/mbuff/regions")
NUMBERS = ("size", "count", "kcount", "open_cnt", "open_mode")
REQUEST = "I33s3xQ16x"  # struct mbuff_request_struct: flags, name, size, reserved


def number(command: int) -> int:
    return 3 << 30 | struct.calcsize(REQUEST) << 16 | 0xBE << 8 | 0x40 + command


class Device:
    """An open file of /dev/mbuff. What a command returns, or its OSError."""

    def __init__(self, flags: int = os.O_RDWR) -> None:
        self.fd = os.open("/dev/mbuff", flags | os.O_CLOEXEC)

    def _command(self, command: int, name: bytes, size: int) -> int:
        request = struct.pack(REQUEST, 0xDEADBEEF, name, size)
        return int(fcntl.ioctl(self.fd, number(command), bytearray(request)))

    def info(self, name: bytes) -> int:
        return self._command(0, name, 0)

    def allocate(self, name: bytes, size: int) -> int:
        return self._command(1, name, size)

    def deallocate(self, name: bytes) -> int:
        return self._command(2, name, 0)

    def select(self, name: bytes) -> int:
        return self._command(3, name, 0)

    def give_back(self, name: bytes) -> bool:
        """Drops all counts of an area; whether there was one."""
        were = False
        with contextlib.suppress(OSError):
            while True:
                self.deallocate(name)
                were = True
        return were

    def map(self, length: int, offset: int = 0) -> mmap.mmap:
        return mmap.mmap(self.fd, length, offset=offset)

    def close(self) -> None:
        os.close(self.fd)


def counts(name: str = "mybuf") -> dict[str, int]:
    """What /proc/mbuff says of an area, whose entry may come a little later than the area."""
    wait_for((REGIONS / name / "open_mode").exists, f"/proc shows {name}")
    return {number: int((REGIONS / name / number).read_text()) for number in NUMBERS}


def shown() -> list[str]:
    """The names in /proc/mbuff, which follow what happens with a little delay."""
    return sorted(os.listdir(REGIONS))


def exists(name: str = "mybuf") -> bool:
    device = Device()
    error = error_of(device.info, os.fsencode(name))
    device.close()
    assert error in (None, errno.EINVAL)
    return error is None


def error_of(function: Callable[..., object], *arguments: object) -> int | None:
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return None
