# SPDX-License-Identifier: MIT
"""The module and those that use it, built for one kernel in a directory of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.kernel.kernels import CACHE, REPOSITORY, Kernel, locked

MODULE = Path("kmod")
EXAMPLES = Path("examples/kernel")
# Modules that call mbuff.ko.
_USERS = [f"{EXAMPLES}/*/Kbuild", "tests/kernel/ktest/Kbuild", "bench/kernel/Kbuild"]
_SOURCES = {".c", ".h", ".S", ".mk"}
_BY_NAME = {"Kbuild", "Makefile"}


class BuildFailed(Exception):
    """The compiler or modpost complained; the text is all that they said."""


def directory(kernel: Kernel) -> Path:
    """Where this kernel's modules are built: the same paths in it as in the repository."""
    return CACHE / "build" / kernel.name


def _sources(tree: Path) -> set[Path]:
    """The sources under a directory, relative to it; never what a build made of them."""
    return {path.relative_to(tree) for path in tree.rglob("*")
            if (path.suffix in _SOURCES and not path.name.endswith(".mod.c"))
            or path.name in _BY_NAME}


def _copy_sources(source: Path, target: Path) -> None:
    """Makes the copy equal to the source; what is equal keeps its time, so make builds the rest."""
    wanted = _sources(source)
    for gone in _sources(target) - wanted if target.exists() else ():
        (target / gone).unlink()
    for path in wanted:
        copy = target / path
        content = (source / path).read_bytes()
        if not copy.exists() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)


def make(kernel: Kernel, build: Path, **variables: str) -> None:
    """Runs the kernel's build in a directory. Every warning is an error, those of W=1 too."""
    command = ["make", "-C", str(kernel.headers), f"M={build}", f"-j{os.cpu_count()}", "W=1",
               "modules", *(f"{key}={value}" for key, value in variables.items())]
    done = subprocess.run(command, text=True, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C"})
    # modpost and Kbuild have warnings of their own, which no flag of the compiler makes errors.
    if done.returncode != 0 or "WARNING" in done.stdout or "warning:" in done.stdout:
        raise BuildFailed(f"{' '.join(command)}\n{done.stdout}")


def _users(tree: Path) -> list[Path]:
    return sorted(kbuild.parent.relative_to(tree)
                  for pattern in _USERS for kbuild in tree.glob(pattern))


def build(kernel: Kernel, sources: Path = REPOSITORY) -> Path:
    """Builds mbuff.ko and those that use it; returns the directory that they lie in."""
    target = directory(kernel)
    with locked(f"build-{kernel.name}"):
        _copy_sources(sources / MODULE, target / MODULE)
        make(kernel, target / MODULE, KCFLAGS="-Werror")
        symbols = target / MODULE / "Module.symvers"
        includes = f"-I{target / MODULE / 'include'} -I{target / MODULE / 'uapi'}"
        for user in _users(target):
            if not (sources / user / "Kbuild").exists():
                shutil.rmtree(target / user)
        for user in _users(sources):
            _copy_sources(sources / user, target / user)
            # Kbuild does not see when the symbols' versions change; without this it looks again.
            (target / user / "Module.symvers").unlink(missing_ok=True)
            make(kernel, target / user, KCFLAGS=f"-Werror {includes}",
                 KBUILD_EXTRA_SYMBOLS=str(symbols))
    return target


def module(kernel: Kernel) -> Path:
    return directory(kernel) / MODULE / "mbuff.ko"
