# SPDX-License-Identifier: MIT
"""Builds the three C parts, or says in one line what this machine lacks to do so."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup


def missing() -> list[str]:
    """Debian packages that building needs and this machine lacks.

    pyfuse3 is built against libfuse on this machine too, so what it needs counts.
    """
    wanted = []
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not (shutil.which(compiler) or shutil.which("cc")):
        wanted.append("gcc")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        wanted.append("python3-dev")
    if not Path("/usr/include/linux/fuse.h").exists():
        wanted.append("linux-libc-dev")
    if not shutil.which("pkg-config"):
        wanted += ["pkg-config", "libfuse3-dev"]
    elif subprocess.run(["pkg-config", "--exists", "fuse3"], check=False).returncode:
        wanted.append("libfuse3-dev")
    if not shutil.which("fusermount3"):
        wanted.append("fuse3")
    return wanted


# Making a source archive compiles nothing, so it needs nothing.
if not {"sdist", "clean"} & set(sys.argv) and (packages := missing()):
    sys.exit("mbufffs cannot be built here yet; install first: "
             f"apt-get install {' '.join(packages)}")

warnings = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-pthread"]
setup(
    ext_modules=[
        Extension(
            "mbufffs.channel._channel",
            ["mbufffs/channel/module.c", "mbufffs/channel/channel.c", "mbufffs/channel/device.c",
             "mbufffs/channel/server.c", "mbufffs/channel/edit.c", "mbufffs/channel/granted.c",
             "mbufffs/channel/changes.c", "mbufffs/channel/rings.c", "mbufffs/channel/interrupts.c",
             "mbufffs/channel/linger.c", "mbufffs/channel/table.c"],
            depends=["mbufffs/channel/channel.h", "mbufffs/channel/protocol.h",
                     "mbufffs/channel/internal.h", "mbufffs/channel/rings.h",
                     "mbufffs/backends/handle.h"],
            extra_compile_args=warnings,
            extra_link_args=["-pthread"],
        ),
        Extension("mbufffs.backends._store", ["mbufffs/backends/store.c"],
                  depends=["mbufffs/backends/handle.h"], extra_compile_args=warnings),
        # No module for Python, but a library: loops.py calls it by ctypes.
        Extension("mbufffs.bench._loops", ["mbufffs/bench/loops.c"], extra_compile_args=warnings),
    ]
)
