# SPDX-License-Identifier: MIT
"""Programs of the old interface: which there are, and how one is compiled with our header."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from tests.kernel.kernels import CACHE, locked

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
HEADERS = REPOSITORY / "kmod/include"
UAPI = REPOSITORY / "kmod/uapi"
EXAMPLES = REPOSITORY / "examples/kernel"

# Each is one fact, the same with the device and without, and leaves no area.
FACTS = [
    "default_name",
    "descriptors",
    "double_free",
    "failed_attach",
    "forked",
    "freed_while_mapped",
    "made_anew",
    "many_mappings",
    "plain_1999",
    "plusplus",
    "refusals",
    "rtai_shared",
    "two_allocs",
    "zeroed",
]
# They call ioctl(2) and so need the device.
RAW_FACTS = ["raw_careless", "raw_files", "raw_new", "raw_race", "raw_values", "rtai_piece"]
WITH_NEW = {"raw_new", "rtai_piece", "rtai_shared"}  # they include linux/mbuff.h
TOOLS = ["find", "leave", "storm"]

# The user sides of examples/kernel, which are built with these.
USER_SIDES = {"watch": "counter", "hello_user": "hello", "rtshared_user": "rtshared",
              "published_user": "published", "rtai_user": "rtai", "dmabuf_user": "dmabuf"}

# So that a program works on files although there may be a device.
NO_DEVICE = [
    '-DMBUFF_DEV_NAME="/nonexistent/mbuff"',
    '-DMBUFF_DEV_NAME2="/nonexistent/rtl_shm"',
]
_STRICT = ["-Wall", "-Wextra", "-Werror"]


def narrow_flags() -> list[str] | None:
    """What makes gcc build programs of 32 bits; None where it cannot.

    On Debian that are libc6-dev-i386 and lib32gcc-12-dev. gcc-multilib, which has no more than a
    link to the directory that is named here, excludes every cross compiler.
    """
    multiarch = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True,
                               check=True).stdout.strip()
    flags = ["-m32", "-isystem", f"/usr/include/{multiarch}"]
    tried = subprocess.run(["gcc", *flags, "-x", "c", "-", "-o", "/dev/null"], text=True,
                           input="int main(void) { return 0; }\n", capture_output=True,
                           check=False)
    return None if tried.returncode else flags


def build(name: str, directory: Path, *flags: str) -> Path:
    """Compiles a program into the directory; a warning is an error but in what was written so."""
    program = directory / name
    if name == "plusplus":
        command = ["g++", "-std=c++98", "-Wpedantic", *_STRICT, str(HERE / f"{name}.cc")]
    elif name == "plain_1999":
        command = ["gcc", "-std=gnu89", "-w", str(HERE / f"{name}.c")]
    else:
        command = ["gcc", "-std=gnu89", *_STRICT, str(HERE / f"{name}.c")]
    headers = [f"-I{HEADERS}", *([f"-I{UAPI}"] if name in WITH_NEW else [])]
    subprocess.run([*command, *flags, "-g", "-O1", *headers, "-o", str(program)], check=True)
    return program


def _state() -> str:
    """What the programs are made of."""
    sum_of = hashlib.sha256()
    for path in sorted([*HERE.iterdir(), *HEADERS.iterdir(), *EXAMPLES.glob("*/*.c")]):
        if path.is_file():
            sum_of.update(path.name.encode() + b"\0" + path.read_bytes())
    return sum_of.hexdigest()


def _build_all(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    stamp = directory / "state"
    if stamp.exists() and stamp.read_text() == _state():
        return
    stamp.unlink(missing_ok=True)
    narrow = directory / "32"
    narrow.mkdir(exist_ok=True)
    flags = narrow_flags()
    for name in [*FACTS, *RAW_FACTS, *TOOLS]:
        build(name, directory)
        (narrow / name).unlink(missing_ok=True)
        if flags is not None and name != "plusplus":
            build(name, narrow, *flags)
    for name, example in USER_SIDES.items():
        subprocess.run(["gcc", "-O2", *_STRICT, f"-I{HEADERS}", f"-I{UAPI}",
                        str(EXAMPLES / example / f"{name}.c"), "-o", str(directory / name)],
                       check=True)
    stamp.write_text(_state())


@functools.cache
def device_programs() -> Path:
    """The directory of all programs, for the device, with those of 32 bits in 32/ below it.

    A virtual machine that emulates its processor needs minutes to build them, so this is called
    outside before it boots; inside, where the directory is read-only, they are up to date then.
    """
    directory = CACHE / "old"
    if (directory / "state").exists() and (directory / "state").read_text() == _state():
        return directory
    if not os.access(CACHE, os.W_OK):  # inside, and the sources have changed since
        directory = Path(tempfile.gettempdir()) / "mbuff-old"
        _build_all(directory)
        return directory
    with locked("old"):
        _build_all(directory)
    return directory
