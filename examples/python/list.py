#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""list.py: prints the size and name of every area, one a line, in the order of the directory."""

import contextlib
import os
import stat
import sys


def stop(error: OSError) -> None:
    advice = "is mbufffs mounted? try: mbufffs mount"
    sys.exit(f"list.py: {error.filename}: {error.strerror} ({advice})")


def main() -> None:
    if len(sys.argv) != 1:
        sys.exit("usage: list.py")
    directory = os.environ.get("MBUFF_DIR", "/mnt/mbuff")
    # Names may hold directories (cam0/frame), so all of the tree is walked.
    for parent, _, names in os.walk(directory, onerror=stop):
        for name in names:
            path = os.path.join(parent, name)
            with contextlib.suppress(FileNotFoundError):  # somebody removed it just now
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    # A name is bytes: what is not UTF-8 in it is printed as it is.
                    area = os.fsencode(os.path.relpath(path, directory))
                    sys.stdout.buffer.write(b"%d %s\n" % (status.st_size, area))


if __name__ == "__main__":
    main()
