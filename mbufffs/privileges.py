# SPDX-License-Identifier: MIT
"""Who asks, where user and mode do not say it: capabilities of the process behind a request."""

from __future__ import annotations

CAP_SYS_ADMIN = 21


def has_cap_sys_admin(pid: int) -> bool:
    """Whether this process or thread has it; False of one that has ended."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            for line in status:
                if line.startswith(b"CapEff:"):
                    return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    except OSError:
        pass
    return False
