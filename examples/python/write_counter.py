#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""write_counter.py NAME COUNT [INTERVAL_MS]: maps an area, adds 1 to its counter COUNT times.

Meant to be the only writer: how several processes share a counter is in c/share_mutex.c.
"""

import mmap
import os
import sys
import time


def main() -> None:
    try:
        name, count = sys.argv[1], int(sys.argv[2])
        interval = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    except (IndexError, ValueError):
        count = 0
    if count < 1 or interval < 0 or len(sys.argv) > 4:
        sys.exit("usage: write_counter.py NAME COUNT [INTERVAL_MS]")
    path = os.path.join(os.environ.get("MBUFF_DIR", "/mnt/mbuff"), name)
    try:
        with open(path, "r+b") as file:
            area = mmap.mmap(file.fileno(), 8)
    except OSError as error:
        advice = f"try: mbufffs mount; create {name} 4096"
        sys.exit(f"write_counter.py: {path}: {error.strerror} ({advice})")
    except ValueError:  # there are not 8 bytes to map
        sys.exit(f"write_counter.py: {path}: too small (the counter takes 8 bytes)")

    # A cast view stores its 8 bytes at once. struct.pack_into does not: it zeroes them first,
    # and a reader who looks at that moment sees 0.
    with area, memoryview(area).cast("Q") as counters:
        for _ in range(count):
            counters[0] += 1
            time.sleep(interval / 1000)
        print(counters[0])


if __name__ == "__main__":
    main()
