# SPDX-License-Identifier: MIT
"""Who asks, where user and mode do not say it: capabilities of the process behind a request."""

from __future__ import annotations

import os

CAP_SYS_ADMIN = 21


def has_cap_sys_admin(pid: int) -> bool:
    """Whether this process or thread has it where we are; False of one that has ended.

    In a user namespace of its own any process has all capabilities, over nothing of ours.
    """
    try:
        if not os.path.samefile(f"/proc/{pid}/ns/user", "/proc/self/ns/user"):
            return False
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith(b"CapEff:"):
                    return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    except OSError:
        pass
    return False
