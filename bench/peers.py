# SPDX-License-Identifier: MIT
"""The alternatives, each mounted as its own documentation says; fetched and built in .cache/bench.

What cannot be had here is left out, with a line on stderr that says why.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from mbufffs.bench.places import Place, temporary, tmpfs

CACHE = Path(__file__).parents[1] / ".cache/bench"
C_EXAMPLE = Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c")
MOUNT_SECONDS = 20.0
DESCRIPTORS_MAX = 1 << 18
SLOW_NAMES = 1000  # for those that take some milliseconds for each


class Missing(Exception):
    """Why a peer is not there."""


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[-1]
        raise Missing(f"{Path(command[0]).name}: {said}")
    return done.stdout


def _c_example() -> Path:
    """libfuse's passthrough_ll: low-level, all threads, with the kernel's caches on."""
    program = CACHE / "passthrough_ll"
    if not C_EXAMPLE.exists():
        raise Missing(f"{C_EXAMPLE} is not there: install libfuse3-dev")
    CACHE.mkdir(parents=True, exist_ok=True)
    flags = shlex.split(_run("pkg-config", "--cflags", "--libs", "fuse3"))
    _run("gcc", "-O2", "-D_GNU_SOURCE", C_EXAMPLE, "-o", program, *flags)
    return program


def _python_example(name: str) -> Path:
    """One of pyfuse3's, from the source package of the version that is installed."""
    import pyfuse3

    path = CACHE / f"pyfuse3-{pyfuse3.__version__}/examples/{name}"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        _run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
             "--no-binary", "pyfuse3", "--dest", CACHE, f"pyfuse3=={pyfuse3.__version__}")
        _run("tar", "-xf", next(CACHE.glob(f"pyfuse3-{pyfuse3.__version__}*.tar.gz")), "-C", CACHE)
    return path


@contextlib.contextmanager
def _mounted(name: str, command: list[str | Path], mountpoint: Path,
             names_max: int) -> Iterator[Place]:
    process = subprocess.Popen([*command, mountpoint], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + MOUNT_SECONDS
        while not mountpoint.is_mount():
            if process.poll() is not None or time.monotonic() > end:
                raise Missing(f"{shlex.join(map(str, command))} does not mount")
            time.sleep(0.02)
        yield Place(name, mountpoint, names_max=names_max)
    finally:
        subprocess.run(["fusermount3", "-uz", mountpoint], stderr=subprocess.DEVNULL, check=False)
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _kernels(name: str, fstype: str, options: str) -> Iterator[Place]:
    """A file system of the kernel's own."""
    with temporary() as mountpoint:
        _run("mount", "-t", fstype, "-o", options, fstype, mountpoint)
        try:
            yield Place(name, mountpoint)
        finally:
            subprocess.run(["umount", "-l", mountpoint], check=False)


def _allow_descriptors() -> int:
    """As many as this user can have, for this process and its children."""
    wanted = (DESCRIPTORS_MAX, DESCRIPTORS_MAX)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, wanted)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@contextlib.contextmanager
def _passthrough_ll(name: str, more: str = "") -> Iterator[Place]:
    with temporary() as mountpoint, temporary("/dev/shm") as source:
        options = f"source={source},cache=always,timeout=3600{more}"
        # It keeps a descriptor for each file that the kernel knows.
        most = _allow_descriptors() * 9 // 10
        with _mounted(name, [_c_example(), "-f", "-o", options], mountpoint, most) as place:
            yield place


def passthrough_ll() -> contextlib.AbstractContextManager[Place]:
    return _passthrough_ll("passthrough_ll")


def passthrough_ll_with_rights() -> contextlib.AbstractContextManager[Place]:
    """The kernel asks for a directory's attributes after each change, to know who may do what."""
    return _passthrough_ll("passthrough_ll, rights", ",default_permissions")


@contextlib.contextmanager
def pyfuse3_passthroughfs() -> Iterator[Place]:
    command: list[str | Path] = [sys.executable, _python_example("passthroughfs.py")]
    with temporary() as mountpoint, temporary("/dev/shm") as source, \
            _mounted("passthroughfs.py", [*command, source], mountpoint,
                     SLOW_NAMES) as place:
        yield place


@contextlib.contextmanager
def pyfuse3_tmpfs() -> Iterator[Place]:
    command: list[str | Path] = [sys.executable, _python_example("tmpfs.py")]
    with temporary() as mountpoint, _mounted("tmpfs.py", command, mountpoint, SLOW_NAMES) as place:
        yield place


@contextlib.contextmanager
def overlayfs() -> Iterator[Place]:
    """Over tmpfs. It reads and writes as FUSE passthrough does: through the kernel's backing files,
    but with no server at all.
    """
    with temporary("/dev/shm") as source:
        layers = [source / name for name in ("lower", "upper", "work")]
        for layer in layers:
            layer.mkdir()
        options = ",".join(f"{layer.name}dir={layer}" for layer in layers)
        with _kernels("overlayfs", "overlay", options) as place:
            yield place


@contextlib.contextmanager
def huge_tmpfs() -> Iterator[Place]:
    """tmpfs with the option that the areas' own has; few machines mount theirs with it."""
    with _kernels("tmpfs, huge pages", "tmpfs", "huge=within_size") as place:
        yield place


def _memfd(size: int) -> int:
    fd = os.memfd_create("mbufffs-bench", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


def _posix_shm(size: int) -> int:
    # What shm_open(3) of glibc does with a name.
    path = f"/dev/shm/mbufffs-bench-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    os.ftruncate(fd, size)
    return fd


DESCRIPTORS = (Place("memfd", memory=_memfd), Place("POSIX shm", memory=_posix_shm))
MOUNTED = (huge_tmpfs, overlayfs, passthrough_ll, passthrough_ll_with_rights,
           pyfuse3_passthroughfs, pyfuse3_tmpfs)


def enter_all(stack: ExitStack) -> list[Place]:
    """All peers that this machine can have, tmpfs first."""
    places = [stack.enter_context(tmpfs()), *DESCRIPTORS]
    for peer in MOUNTED:
        try:
            places.append(stack.enter_context(peer()))
        except Missing as missing:
            print(f"left out: {missing}", file=sys.stderr)
    return places
