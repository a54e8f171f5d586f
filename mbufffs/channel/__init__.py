# SPDX-License-Identifier: MIT
"""The channel's Python face: starting it, reading its counters, and words that both sides use.

The channel itself is C (channel.h tells what it does). The constants stand in protocol.h too.
"""

from __future__ import annotations

import struct
from typing import Any

from mbufffs.channel._channel import Channel

__all__ = ["FALLOCATE_NAME", "Channel", "ask_message", "grant_message", "messages",
           "split_exchange", "watch_message"]

FALLOCATE_NAME = b"user.mbuff.fallocate"
FALLOCATE_WORDS = struct.Struct("=QQQ")  # offset, length, mode

_EXCHANGE_TAG_SHIFT = 8
_PRIVATE_WATCH = 0x4D42
_PRIVATE_ASK = 0x4D43
_PRIVATE_GRANT = 0x4D44

# What the count of a FORGET says to the server.
FORGET_UNOPENED = 0
FORGET_DONE = 1
FORGET_OPEN = 2
_HEADER = struct.Struct("=IiQ")  # fuse_out_header

# linux/fuse.h, enum fuse_opcode
_OPCODES = {
    1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK",
    8: "MKNOD", 9: "MKDIR", 10: "UNLINK", 11: "RMDIR", 12: "RENAME", 13: "LINK", 14: "OPEN",
    15: "READ", 16: "WRITE", 17: "STATFS", 18: "RELEASE", 20: "FSYNC", 21: "SETXATTR",
    22: "GETXATTR", 23: "LISTXATTR", 24: "REMOVEXATTR", 25: "FLUSH", 26: "INIT", 27: "OPENDIR",
    28: "READDIR", 29: "RELEASEDIR", 30: "FSYNCDIR", 31: "GETLK", 32: "SETLK", 33: "SETLKW",
    34: "ACCESS", 35: "CREATE", 36: "INTERRUPT", 37: "BMAP", 38: "DESTROY", 39: "IOCTL",
    40: "POLL", 41: "NOTIFY_REPLY", 42: "BATCH_FORGET", 43: "FALLOCATE", 44: "READDIRPLUS",
    45: "RENAME2", 46: "LSEEK", 47: "COPY_FILE_RANGE", 48: "SETUPMAPPING", 49: "REMOVEMAPPING",
    50: "SYNCFS", 51: "TMPFILE", 52: "STATX", 53: "COPY_FILE_RANGE_64",
}


def messages(counters: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Messages of the kernel by kind: how many came, how many the channel answered itself.

    READ and WRITE are always there: that they are 0 is what passthrough means.
    """
    pairs = zip(counters["received"], counters["answered"], strict=True)
    return {
        _OPCODES.get(number, str(number)): {"received": received, "answered": answered}
        for number, (received, answered) in enumerate(pairs)
        if received or number in (15, 16)
    }


def watch_message(nodes: list[int]) -> bytes:
    """Asks the channel to forward the FORGET of `nodes`; for the server's end of the socket."""
    body = struct.pack(f"={len(nodes)}Q", *nodes)
    return _HEADER.pack(_HEADER.size + len(body), _PRIVATE_WATCH, 0) + body


def ask_message(node: int) -> bytes:
    """As watch_message, and asks whether `node` is open: the answer is a FORGET at once."""
    return _HEADER.pack(_HEADER.size + 8, _PRIVATE_ASK, 0) + struct.pack("=Q", node)


def grant_message(limit: int) -> bytes:
    """Lets the channel look into the store, and change plain areas of less than `limit` bytes."""
    return _HEADER.pack(_HEADER.size + 8, _PRIVATE_GRANT, 0) + struct.pack("=Q", limit)


def split_exchange(flags: int) -> tuple[int, int]:
    """The flags of RENAME2 and the number by which a repeated exchange is known."""
    return flags & ((1 << _EXCHANGE_TAG_SHIFT) - 1), flags >> _EXCHANGE_TAG_SHIFT
