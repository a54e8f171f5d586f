# SPDX-License-Identifier: MIT
"""How much memory this machine has; apart from machine.py because the keeper asks it too."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Contiguous:
    """How much of the memory can be had in one piece, in bytes."""

    block: int  # the page allocator's largest, of which there may be none just now
    cma_total: int  # 0: this kernel has no CMA
    cma_free: int


def meminfo(name: str) -> int:
    """A line of /proc/meminfo, in bytes; 0 where this kernel has none."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    return 0


def contiguous() -> Contiguous:
    try:
        lines = Path("/proc/buddyinfo").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    # Behind "Node 0, zone Normal" a number of blocks for each order.
    orders = max((len(line.split()) - 4 for line in lines), default=1)
    return Contiguous(mmap.PAGESIZE << orders - 1, meminfo("CmaTotal"), meminfo("CmaFree"))
