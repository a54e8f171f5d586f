# SPDX-License-Identifier: MIT
"""A client that does all that clients do, over and over, and checks every byte; for fault tests.

`python churn.py DIRECTORY NAME` runs until its standard input ends, and prints one JSON object:
rounds, errors, wrong bytes, longest round in seconds.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import select
import sys
import time
from pathlib import Path


def one_round(directory: Path, name: str, number: int, dice: random.Random) -> None:
    path, other = directory / f"{name}-{number}", directory / f"{name}-{number}-moved"
    size = dice.choice((1, 100, 4096, 4097, 65536, 300_000, 1_300_000))
    data = dice.randbytes(size)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        os.ftruncate(fd, size)
        with mmap.mmap(fd, size) as mapped:
            mapped[:] = data
            check(os.pread(fd, size, 0) == data, "what was mapped is read")
        check(os.fstat(fd).st_size == size, "size by descriptor")
    finally:
        os.close(fd)
    check(path.stat().st_size == size, "size by path")
    check(path.stat().st_mode & 0o7777 == 0o640, "mode")
    check(path.read_bytes() == data, "bytes after reopening")
    path.write_bytes(data[::-1])  # O_TRUNC
    with path.open("ab") as grown:
        grown.write(b"tail")
    os.rename(path, other)
    check(not path.exists(), "the old name is gone")
    check(other.read_bytes() == data[::-1] + b"tail", "bytes after renaming")
    check(other.name in os.listdir(directory), "the listing has it")
    linked = directory / f"{name}-{number}-linked"
    with contextlib.suppress(PermissionError):  # areas of the kernel module have one name
        os.link(other, linked)
        check(other.stat().st_nlink == 2, "two links")
        os.unlink(linked)
    inner = directory / f"{name}-{number}-directory"
    inner.mkdir()
    os.replace(other, inner / "area")
    with contextlib.suppress(PermissionError):
        os.symlink("area", inner / "symlink")
        check((inner / "symlink").read_bytes() == data[::-1] + b"tail", "bytes through a symlink")
        os.unlink(inner / "symlink")
    with (inner / "area").open("rb") as kept:
        os.unlink(inner / "area")
        check(kept.read() == data[::-1] + b"tail", "a removed area lives while it is open")
        check(os.fstat(kept.fileno()).st_nlink == 0, "no links are left")
    inner.rmdir()


class WrongError(Exception):
    pass


def check(fact: bool, what: str) -> None:
    if not fact:
        raise WrongError(what)


def main() -> None:
    directory, name = Path(sys.argv[1]), sys.argv[2]
    dice = random.Random(name)
    result = {"rounds": 0, "errors": [], "wrong": [], "longest": 0.0}
    while not select.select([sys.stdin], [], [], 0)[0]:
        begun = time.monotonic()
        try:
            one_round(directory, name, result["rounds"], dice)
        except OSError as error:
            result["errors"].append(f"{type(error).__name__}: {error}")
        except WrongError as wrong:
            result["wrong"].append(str(wrong))
        result["longest"] = max(result["longest"], time.monotonic() - begun)
        result["rounds"] += 1
        if len(result["errors"]) + len(result["wrong"]) > 20:
            break
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(result))


if __name__ == "__main__":
    main()
