#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""create.py NAME SIZE: makes an area of SIZE zero bytes; a name that exists is refused."""

import os
import sys


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: create.py NAME SIZE")
    path = os.path.join(os.environ.get("MBUFF_DIR", "/mnt/mbuff"), sys.argv[1])
    try:
        size = int(sys.argv[2])
    except ValueError:
        size = 0
    if not 0 < size < 2**63:
        sys.exit(f"create.py: {sys.argv[2]}: not a size (a whole number of bytes, 1 or more)")

    advice = "is mbufffs mounted? try: mbufffs mount"
    try:
        with open(path, "xb") as area:
            advice = "how much is free? try: df -h"
            try:
                area.truncate(size)
            except OSError:  # not a page was taken, so the name must go as well
                os.unlink(path)
                raise
    except FileExistsError as error:
        sys.exit(f"create.py: {path}: {error.strerror} (rm it first, or take another name)")
    except OSError as error:
        sys.exit(f"create.py: {path}: {error.strerror} ({advice})")


if __name__ == "__main__":
    main()
