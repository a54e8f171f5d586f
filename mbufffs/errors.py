# SPDX-License-Identifier: MIT
"""What can go wrong and how it is told: OSError inside, an exit code and one line at the edge.

OSError                     every expected failure, with the errno a C programmer expects
├── NotMounted   ENOTCONN   nothing of ours is mounted there, or its keeper has died
├── StoreInUse   EBUSY      another keeper serves the same store
└── Unavailable  ENOSYS     this machine lacks something; the text says what would provide it
"""

from __future__ import annotations

import errno
import os
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line. They are part of the ABI (docs/command-line.md)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_MOUNTED = 3
    BUSY = 4
    NOT_PERMITTED = 5
    NOT_FOUND = 6
    EXISTS = 7
    NO_SPACE = 8
    UNAVAILABLE = 9


class NotMounted(OSError):
    def __init__(self, text: str) -> None:
        super().__init__(errno.ENOTCONN, text)


class StoreInUse(OSError):
    def __init__(self, text: str) -> None:
        super().__init__(errno.EBUSY, text)


class Unavailable(OSError):
    def __init__(self, text: str) -> None:
        super().__init__(errno.ENOSYS, text)


_EXITS = {
    errno.ENOTCONN: Exit.NOT_MOUNTED,
    errno.EBUSY: Exit.BUSY,
    errno.EPERM: Exit.NOT_PERMITTED,
    errno.EACCES: Exit.NOT_PERMITTED,
    errno.ENOENT: Exit.NOT_FOUND,
    errno.EEXIST: Exit.EXISTS,
    errno.ENOSPC: Exit.NO_SPACE,
    errno.ENOMEM: Exit.NO_SPACE,
    errno.EFBIG: Exit.NO_SPACE,
    errno.EINVAL: Exit.USAGE,
    errno.ENAMETOOLONG: Exit.USAGE,
    errno.ENOSYS: Exit.UNAVAILABLE,
}


def exit_code(error: OSError) -> Exit:
    """The exit code that stands for an errno; FAILED for those without one of their own."""
    return _EXITS.get(error.errno or 0, Exit.FAILED)


def one_line(error: OSError) -> str:
    """The error as one printable line, with the file it concerns where it names one.

    A file name may hold any byte but NUL and '/': control bytes are escaped, so that the line
    stays one line.
    """
    text = error.strerror or str(error)
    if error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {text}"
    return text.encode("utf-8", "backslashreplace").decode().translate(
        {c: f"\\x{c:02x}" for c in (*range(32), 127)}
    )
