# SPDX-License-Identifier: MIT
"""The facts about this machine that decide how a mount works; diagnosis.py judges them."""

from __future__ import annotations

import ctypes
import errno
import gzip
import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mbufffs import uring
from mbufffs.backends.registry import Registry
from mbufffs.memory import Contiguous, contiguous, meminfo
from mbufffs.privileges import has_cap_sys_admin


@dataclass(frozen=True)
class Machine:
    """Facts, as they were found."""

    release: str
    passthrough_configured: bool | None  # None: the kernel does not tell
    uring: bool  # FUSE over io_uring, whether its switch is on or off
    fuse_device: int  # errno of opening it, 0 for none
    user: int
    sys_admin: bool
    user_namespace: bool
    fusermount: str  # its version, "" if it is missing
    fusermount_setuid: bool
    libfuse: str
    pyfuse3: str
    swaps: int
    user_allow_other: bool
    memory_total: int
    memory_available: int
    store: str  # why areas cannot be kept, "" if they can
    contiguous: Contiguous
    module: int | str  # what opening /dev/mbuff said: an errno, or the module's version

    @property
    def kernel(self) -> tuple[int, ...]:
        return version(self.release)


def version(text: str) -> tuple[int, ...]:
    """Its first two numbers: what comes after them has never decided anything here."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", text)[:2])


def _configured(release: str) -> bool | None:
    try:
        if Path("/proc/config.gz").exists():
            with gzip.open("/proc/config.gz", "rt") as packed:
                text = packed.read()
        else:
            text = Path(f"/boot/config-{release}").read_text(encoding="utf-8")
    except OSError:
        return None
    return "CONFIG_FUSE_PASSTHROUGH=y\n" in text


def _io_uring() -> bool:
    """Whether root may use it: 1 closes it to ordinary users, 2 to all."""
    try:
        return Path("/proc/sys/kernel/io_uring_disabled").read_text().strip() != "2"
    except OSError:  # before Linux 6.6
        return True


def _module() -> int | str:
    try:
        Registry.open().close()
        return Path("/proc/mbuff/version").read_text().strip()
    except OSError as error:
        return error.errno or errno.EIO


def _fuse_device() -> int:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _fusermount() -> tuple[str, bool]:
    program = shutil.which("fusermount3")
    if program is None:
        return "", False
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "", False
    mode = os.stat(program)
    return (said.strip().rpartition(" ")[2] or "of unknown version",
            bool(mode.st_mode & stat.S_ISUID) and mode.st_uid == 0)


def _libfuse() -> str:
    for name in ("libfuse3.so.3", "libfuse3.so.4"):
        try:
            version = ctypes.CDLL(name).fuse_pkgversion
        except (OSError, AttributeError):
            continue
        version.restype = ctypes.c_char_p
        return str(version().decode())
    return ""


def _pyfuse3() -> str:
    try:
        return importlib.metadata.version("pyfuse3")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _store(user: int) -> str:
    directory = Path("/run") if user == 0 else Path("/dev/shm")
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"{directory} is missing or not writable"
    return ""


def look() -> Machine:
    """This machine, seen by this process."""
    release = os.uname().release
    fusermount, setuid = _fusermount()
    try:
        allowed = any(line.strip() == "user_allow_other" for line in Path(
            "/etc/fuse.conf").read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        allowed = False
    try:
        swaps = len(Path("/proc/swaps").read_text(encoding="utf-8").splitlines()) - 1
    except OSError:  # a kernel without swap
        swaps = 0
    return Machine(
        release=release, passthrough_configured=_configured(release),
        uring=uring.SWITCH.exists() and _io_uring(), fuse_device=_fuse_device(),
        user=os.geteuid(),
        sys_admin=has_cap_sys_admin(os.getpid()),
        user_namespace=Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"],
        fusermount=fusermount, fusermount_setuid=setuid, libfuse=_libfuse(), pyfuse3=_pyfuse3(),
        swaps=swaps, user_allow_other=allowed,
        memory_total=meminfo("MemTotal"),
        memory_available=meminfo("MemAvailable"),
        store=_store(os.geteuid()), contiguous=contiguous(), module=_module())
