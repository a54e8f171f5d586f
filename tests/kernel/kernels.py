# SPDX-License-Identifier: MIT
"""The kernels of the tests: Debian's images and headers, unpacked into .cache, never installed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache/kernels"
LISTS_LAST = 24 * 3600  # after so many seconds the package lists are fetched again


class Unavailable(Exception):
    """A kernel cannot be had; one line says why."""


@dataclass(frozen=True)
class Wanted:
    """A kernel by the packages of Debian that always depend on the newest one."""

    headers: str
    image: str | None = None  # only of kernels that are booted
    prefix: str = ""  # what the package has to lead to: another Debian has another kernel there


WANTED = {
    "6.12": Wanted("linux-headers-6.12-amd64", "linux-image-6.12-amd64"),
    "6.12-rt": Wanted("linux-headers-6.12-rt-amd64", "linux-image-6.12-rt-amd64"),
    "6.12-arm64": Wanted("linux-headers-6.12-arm64:arm64"),
    "6.1": Wanted("linux-headers-amd64", prefix="linux-headers-6.1."),
}
BOOTED = [name for name, wanted in WANTED.items() if wanted.image]


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache: with headers to build against, perhaps with an image to boot."""

    name: str
    headers: Path
    image: Path | None


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time works on this part of the cache; the lock ends with its process."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _apt(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs apt with the machine's sources and keys, and with lists and architectures of our own.

    So nothing of the machine's state is read or changed, and no root is needed. Without the
    sandbox of apt, because its user cannot write into a clone that lies in somebody's home.
    """
    state = CACHE / "apt"
    for directory in ("lists/partial", "cache/archives/partial"):
        (state / directory).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb-src::Sources::DefaultEnabled": "false",
        "Acquire::Retries": "3",
    }
    arguments = [f"-o={key}={value}" for key, value in options.items()]
    arguments += ["-o=APT::Architectures::=amd64", "-o=APT::Architectures::=arm64"]
    return subprocess.run([command[0], *arguments, *command[1:]], cwd=cwd, text=True, check=False,
                          capture_output=True, env={**os.environ, "LC_ALL": "C"})


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def update() -> float:
    """Fetches the package lists unless they are fresh; where that fails, the old ones stay.

    Returns when that was: what has been compared with the lists since then is not compared again.
    """
    stamp = CACHE / "apt/updated"
    if stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_LAST:
        return stamp.stat().st_mtime
    done = _apt("apt-get", "update", "-q")
    if done.returncode == 0:
        stamp.touch()
    elif not stamp.exists():
        raise Unavailable(f"package lists cannot be fetched: {_last_line(done)}")
    return stamp.stat().st_mtime


def _depends(package: str) -> str:
    done = _apt("apt-cache", "depends", "--important", package)
    if done.returncode != 0:
        raise Unavailable(f"Debian offers no {package} here: {_last_line(done)}")
    return done.stdout


def _newest(package: str, prefix: str) -> str:
    """The package with a version in its name to which one without leads."""
    kind = package.split("-")[1]
    found = re.search(rf"Depends: (linux-{kind}-\d[^\s:]*(:arm64)?)", _depends(package))
    if not found or not found[1].startswith(prefix):
        raise Unavailable(f"{package} leads to no {prefix or kind} in this Debian")
    return found[1]


def packages(wanted: Wanted) -> list[str]:
    """The packages of a kernel, with the newest version that Debian offers."""
    headers = _newest(wanted.headers, wanted.prefix)
    depends = _depends(headers)
    common = re.search(r"linux-headers-[^\s:>]+-common(?:-rt)?(?=[\s:>])", depends)
    kbuild = re.search(r"linux-kbuild-[^\s:>]+", depends)
    if not common or not kbuild:
        raise Unavailable(f"{headers} depends on other packages than expected")
    # The tools of the build run here, so they are of this machine's architecture for every kernel.
    found = [headers, common[0], f"{kbuild[0]}:amd64"]
    if wanted.image:
        found.append(_newest(wanted.image, wanted.prefix))
    return found


def files_of(names: list[str]) -> list[str]:
    """The file names that these packages have where they are fetched from, with their versions."""
    done = _apt("apt-get", "download", "--print-uris", *names)
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("'")]
    if len(found) != len(names):
        raise Unavailable(f"cannot be fetched: {' '.join(names)}: {_last_line(done)}")
    return sorted(found)


def unpack(names: list[str], files: list[str], tree: Path) -> None:
    """Fetches packages and unpacks them into one new tree. apt checks what lies here already."""
    store = CACHE / "packages"
    store.mkdir(exist_ok=True)
    done = _apt("apt-get", "download", "-q", *names, cwd=store)
    if done.returncode != 0:
        raise Unavailable(f"cannot be fetched: {' '.join(names)}: {_last_line(done)}")
    shutil.rmtree(tree, ignore_errors=True)
    for file in files:
        subprocess.run(["dpkg", "-x", store / file, tree], check=True)
    for file in files:
        (store / file).unlink()


def _make_movable(tree: Path) -> None:
    """Lets headers work where they lie: they name each other as if they were in /usr/src.

    Without the vmlinux beside them, which only serves to make BTF; a module needs none, and the
    pahole of the machine may not understand this kernel.
    """
    here = "$(dir $(lastword $(MAKEFILE_LIST)))"
    for makefile in tree.glob("usr/src/linux-headers-*/Makefile"):
        text = makefile.read_text()
        makefile.write_text(text.replace("include /usr/src/", f"include {here}../"))
    for vmlinux in tree.glob("usr/src/linux-headers-*/vmlinux"):
        vmlinux.unlink()
    for link in tree.glob("lib/modules/*/*"):
        if link.is_symlink():
            link.unlink()


def _kernel(name: str, tree: Path) -> Kernel:
    (headers,) = (path.parent for path in tree.glob("usr/src/linux-headers-*/.config"))
    images = list(tree.glob("boot/vmlinuz-*"))
    return Kernel(name, headers, images[0] if images else None)


def fetch(name: str) -> Kernel:
    """The newest kernel of this name; where Debian cannot be asked, the one that is here."""
    tree = CACHE / name
    stamp = tree / "packages"  # written last: a tree that has it is whole
    with locked("fetch"):
        try:
            updated = update()
            if stamp.exists() and stamp.stat().st_mtime > updated:
                return _kernel(name, tree)
            names = packages(WANTED[name])
            files = files_of(names)
            if stamp.exists() and stamp.read_text().split() == files:
                stamp.touch()
                return _kernel(name, tree)
            new = tree.with_name(f"{name}.new")
            unpack(names, files, new)
        except Unavailable:
            if stamp.exists():
                return _kernel(name, tree)
            raise
        _make_movable(new)
        (new / stamp.name).write_text("\n".join(files) + "\n")
        if tree.exists():
            old = tree.with_name(f"{name}.old")
            shutil.rmtree(old, ignore_errors=True)
            tree.rename(old)
            shutil.rmtree(old)
        new.rename(tree)
        return _kernel(name, tree)
