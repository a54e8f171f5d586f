# SPDX-License-Identifier: MIT
"""watch.py [N]: maps the area "counter", prints it, and N times more when the module wakes us."""

import mmap
import os
import select
import sys

path = os.path.join(os.environ.get("MBUFF_DIR", "/mnt/mbuff"), "counter")
times = int(sys.argv[1]) if len(sys.argv) > 1 else 10

with open(path, "rb") as file, mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ) as memory:
    counter = memoryview(memory).cast("Q")  # one load for all 8 bytes, little-endian machines
    woken = select.poll()
    woken.register(file, select.POLLPRI)
    print(counter[0], flush=True)
    for _ in range(times):
        woken.poll()
        print(counter[0], flush=True)
    counter.release()
