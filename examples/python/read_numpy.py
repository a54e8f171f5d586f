#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""read_numpy.py NAME N [TIMEOUT_S]: what read_live.py does, on an area mapped as a numpy array.

Ends after N values with exit status 0, or with 1 when the time is over (10 s if not given).
"""

import os
import sys
import time

import numpy


def main() -> None:
    try:
        name, wanted = sys.argv[1], int(sys.argv[2])
        timeout = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    except (IndexError, ValueError):
        wanted = 0
    if wanted < 1 or timeout < 0 or len(sys.argv) > 4:
        sys.exit("usage: read_numpy.py NAME N [TIMEOUT_S]")
    path = os.path.join(os.environ.get("MBUFF_DIR", "/mnt/mbuff"), name)
    try:
        # Without a shape all of the area is the array; "r+" makes it writable.
        counters = numpy.memmap(path, dtype="<u8", mode="r", shape=(1,))
    except OSError as error:
        advice = f"try: mbufffs mount; create {name} 4096"
        sys.exit(f"read_numpy.py: {path}: {error.strerror} ({advice})")
    except ValueError:  # there are not 8 bytes to map
        sys.exit(f"read_numpy.py: {path}: too small (the counter takes 8 bytes)")

    end = time.monotonic() + timeout
    last, seen = None, 0
    while True:
        value = int(counters[0])  # counters[0] itself is a copy already, counters[:1] a view
        if value != last:
            print(value, flush=True)
            last, seen = value, seen + 1
        if seen == wanted:
            break
        if time.monotonic() >= end:
            sys.exit(f"read_numpy.py: {path}: {seen} of {wanted} values after {timeout} s")
        time.sleep(0.001)


if __name__ == "__main__":
    main()
