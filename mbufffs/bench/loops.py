# SPDX-License-Identifier: MIT
"""The loops of loops.c. All return seconds, release the interpreter's lock, and raise OSError."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable
from typing import Any


def _library() -> ctypes.CDLL:
    found = importlib.util.find_spec("mbufffs.bench._loops")
    assert found and found.origin, "mbufffs is not installed whole: its C parts are missing"
    return ctypes.CDLL(found.origin, use_errno=True)


_LIBRARY = _library()


def _loop(name: str, *types: Any) -> Callable[..., float]:
    function = _LIBRARY[name]
    function.argtypes = types
    function.restype = ctypes.c_double

    def call(*arguments: Any) -> float:
        took: float = function(*arguments)
        if took < 0:
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
        return took

    return call


_INT, _SIZE, _BOOL, _PATH = ctypes.c_int, ctypes.c_size_t, ctypes.c_bool, ctypes.c_char_p

stream = _loop("loop_stream", _INT, _SIZE, _INT, _BOOL)  # fd, bytes, passes, writes
reach = _loop("loop_reach", _INT, _SIZE, _INT)  # fd, bytes, reads of 64 bytes
touch = _loop("loop_touch", _INT, _SIZE, _BOOL)  # fd, bytes, MAP_POPULATE
transfer = _loop("loop_transfer", _INT, _SIZE, _SIZE, _INT, _BOOL)  # fd, size, span, count, writes
open_close = _loop("loop_open_close", _PATH, _INT)  # path, count
look = _loop("loop_look", _PATH, _INT)  # path, count
# Names are numbers. directory, first, count, bytes of each, whether they are allocated too
create = _loop("loop_create", _INT, _INT, _INT, _SIZE, _BOOL)
unlink = _loop("loop_unlink", _INT, _INT, _INT)  # directory, first, count
rename = _loop("loop_rename", _INT, _INT)  # directory, count: 0 to 1, 1 to 0, ...
# waited, trigger, number of its ioctl or 0, argument, count, whether what has woken is read
wake = _loop("loop_wake", _INT, _INT, ctypes.c_ulong, ctypes.c_char_p, _INT, _BOOL)
_list = _loop("loop_list", _PATH, _BOOL, ctypes.POINTER(ctypes.c_int))


def listing(path: bytes, attributes: bool) -> tuple[float, int]:
    """Reads a directory, with the attributes of each name or without; also how many there are."""
    count = ctypes.c_int()
    took = _list(path, attributes, ctypes.byref(count))
    return took, count.value
