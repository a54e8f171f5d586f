# SPDX-License-Identifier: MIT
"""The debug kernel, built from Debian's source with debug.config; its build is also its headers."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.kernel.kernels import CACHE, Kernel, Unavailable, files_of, locked, unpack, update

NAME = "debug"
SOURCE = "linux-source-6.12"
FRAGMENT = Path(__file__).with_name("debug.config")


def _unpack_source(tree: Path) -> None:
    """The newest source that Debian offers; where it cannot be asked, the one that is here."""
    stamp = tree / ".debian"  # written last: a tree that has it is whole
    try:
        updated = update()
        if stamp.exists() and stamp.stat().st_mtime > updated:
            return
        files = files_of([SOURCE])
        if stamp.exists() and stamp.read_text().split() == files:
            stamp.touch()
            return
        package = tree.with_name("package")
        unpack([SOURCE], files, package)
    except Unavailable:
        if stamp.exists():
            return
        raise
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    subprocess.run(["tar", "-xf", package / f"usr/src/{SOURCE}.tar.xz", "-C", tree,
                    "--strip-components=1"], check=True)
    shutil.rmtree(package)
    stamp.write_text("\n".join(files) + "\n")


def _make(source: Path, build: Path, log: Path, *arguments: str) -> None:
    """Runs the kernel's build behind everything else on this machine; its words go to a log."""
    command = ["nice", "-n", "19", "make", "-C", str(source), f"O={build}", *arguments]
    with log.open("a") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, check=False,
                              stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        raise Unavailable(f"the debug kernel cannot be built: the end of {log} says why")


def _check(config: Path) -> None:
    """What the fragment asks for and the kernel does not give is a mistake in the fragment."""
    taken = set(config.read_text().splitlines())
    asked = [line for line in FRAGMENT.read_text().splitlines() if line.startswith("CONFIG_")]
    if lost := [line for line in asked if not line.endswith("=n") and line not in taken]:
        raise Unavailable(f"debug.config asks for what this kernel cannot have: {' '.join(lost)}")


def source() -> Path:
    """The source alone, for what looks at it: checkpatch."""
    tree = CACHE / NAME / "source"
    tree.parent.mkdir(parents=True, exist_ok=True)
    with locked(NAME):
        _unpack_source(tree)
    return tree


def fetch() -> Kernel:
    """Builds what is not built yet: some ten minutes on two processors; a killed build goes on."""
    tree = CACHE / NAME
    tree.mkdir(parents=True, exist_ok=True)
    unpacked, build, log = tree / "source", tree / "build", tree / "log"
    image = build / "arch/x86/boot/bzImage"
    stamp = tree / "built"
    with locked(NAME):
        _unpack_source(unpacked)
        made_of = hashlib.sha256(
            (unpacked / ".debian").read_bytes() + FRAGMENT.read_bytes()).hexdigest()
        if not stamp.exists() or stamp.read_text() != made_of:
            log.unlink(missing_ok=True)
            build.mkdir(exist_ok=True)
            print(f"building the debug kernel; what the build says is in {log}", flush=True)
            _make(unpacked, build, log, f"KCONFIG_ALLCONFIG={FRAGMENT}", "allnoconfig")
            _check(build / ".config")
            _make(unpacked, build, log, f"-j{os.cpu_count()}", "bzImage", "modules")
            stamp.write_text(made_of)
    return Kernel(NAME, build, image)
