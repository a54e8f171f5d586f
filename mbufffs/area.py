# SPDX-License-Identifier: MIT
"""Rules about areas: which names and sizes exist, and how people write them; it touches no area."""

from __future__ import annotations

import errno
import os
import re

NAME_MAX = 255  # bytes in one component, as everywhere in Linux
SIZE_MAX = 2**63 - 1  # off_t is signed

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Digits are spelled out: \d and int() accept the digits of every script, and underscores.
_SIZE = re.compile(r"([0-9]+)([A-Za-z]*)")
_EXAMPLES = "write bytes, or a number with K, M, G or T, as in 4096, 64K or 2G"


def parse_size(text: str) -> int:
    """The number of bytes that `text` means; units are powers of 1024, K and KiB alike.

    KB, MB and so on are refused: half of the world reads them as powers of 1000.
    """
    shown = repr(text if len(text) <= 40 else text[:40] + "...")
    if re.fullmatch(r"-[0-9].*", text):
        raise OSError(errno.EINVAL, f"size {shown} is negative; {_EXAMPLES}")
    found = _SIZE.fullmatch(text)
    if found is None:
        raise OSError(errno.EINVAL, f"size {shown} is not a whole number; {_EXAMPLES}")
    digits, unit = found[1].lstrip("0") or "0", found[2].upper()
    if unit.endswith("IB"):
        unit = unit.removesuffix("IB") or "no unit"
    if unit not in _UNITS:
        raise OSError(errno.EINVAL, f"size {shown} has an unknown unit; {_EXAMPLES}")
    # int() refuses thousands of digits with an error of its own.
    if len(digits) > 19 or (size := int(digits) * _UNITS[unit]) > SIZE_MAX:
        raise OSError(errno.EFBIG, f"size {shown} is too large; a file ends at {SIZE_MAX} bytes")
    return size


def format_size(size: int) -> str:
    """The shortest exact way to write `size`: parse_size gives the same number back."""
    for unit in "TGMK":
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def check_name(name: str) -> None:
    """Refuses what cannot name an area: its name is its path below the mount point."""
    if not name:
        raise OSError(errno.EINVAL, "an area needs a name, as in frame or cam0/frame")
    if "\0" in name:
        raise OSError(errno.EINVAL, "holds a NUL byte; no name of a file can", name)
    for part in os.fsencode(name).split(b"/"):
        if not part:
            raise OSError(
                errno.EINVAL,
                "has an empty component; a name neither begins nor ends with / nor holds //", name)
        if part in (b".", b".."):
            raise OSError(
                errno.EINVAL, "has . or .. as a component; write the name from the mount point on",
                name)
        if len(part) > NAME_MAX:
            raise OSError(
                errno.ENAMETOOLONG,
                f"has a component of {len(part)} bytes; {NAME_MAX} are the most", name)


def name_below(mountpoint: str, given: str) -> str:
    """The name of the area that `given` means: a name, or an absolute path below `mountpoint`."""
    name = given
    if given.startswith("/"):
        root = mountpoint.rstrip("/") + "/"
        if not given.startswith(root):
            raise OSError(
                errno.EINVAL, f"is not below {mountpoint}; another mount is named by --mountpoint",
                given)
        name = given[len(root):]
    check_name(name)
    return name
