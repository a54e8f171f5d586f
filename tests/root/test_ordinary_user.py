# SPDX-License-Identifier: MIT
"""The tests of the mount as an ordinary user: fusermount3, page cache, no private tmpfs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import needs_root

pytestmark = needs_root

# In a mount namespace of its own /dev/fuse gets the mode that a usual system gives it.
AS_NOBODY = """
set -e
mount -t tmpfs none "$1"
mknod "$1/fuse" c 10 229
chmod 666 "$1/fuse"
mount --bind "$1/fuse" /dev/fuse
shift
exec setpriv --reuid nobody --regid nogroup --clear-groups env PYTHONDONTWRITEBYTECODE=1 HOME=/ "$@"
"""


def can_run_as_nobody() -> bool:
    return os.geteuid() == 0 and subprocess.run(
        ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups",
         sys.executable, "-c", "import mbufffs.channel"],
        stderr=subprocess.DEVNULL, check=False).returncode == 0


as_nobody = pytest.mark.skipif(
    not can_run_as_nobody(), reason="others cannot read this Python or this directory")


@as_nobody
@pytest.mark.timeout(300)
def test_an_ordinary_user_can_mount_and_use_areas(tmp_path: Path) -> None:
    assert stat.S_ISCHR(os.stat("/dev/fuse").st_mode)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", AS_NOBODY, "sh", tmp_path,
         sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short",
         "tests/mount/test_files.py", "tests/mount/test_page_cache.py",
         "tests/mount/test_server_killed.py"],
        cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout.splitlines()[-1])
