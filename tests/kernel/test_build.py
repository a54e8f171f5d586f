# SPDX-License-Identifier: MIT
"""The module and the examples compile without a warning, for all kernels they are meant for."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel import modules
from tests.kernel.kernels import REPOSITORY, WANTED, Kernel

pytestmark = pytest.mark.timeout(900)  # the first time it fetches some hundred megabytes

_HELLO = """
#include <linux/module.h>
static int __init hello(void)
{
	return 0;
}
module_init(hello);
MODULE_DESCRIPTION("nothing");
MODULE_LICENSE("GPL");
"""


@pytest.mark.parametrize("name", WANTED)
def test_the_modules_compile_without_a_warning(
        built: Callable[[str], Kernel], name: str) -> None:
    kernel = built(name)
    assert modules.module(kernel).is_file()
    for kbuild in REPOSITORY.glob(f"{modules.EXAMPLES}/*/Kbuild"):
        example = modules.directory(kernel) / kbuild.parent.relative_to(REPOSITORY)
        assert list(example.glob("*.ko")), f"no module in {example}"


def test_a_build_leaves_nothing_among_the_sources(built: Callable[[str], Kernel]) -> None:
    built("6.12")
    made = {".o", ".ko", ".mod", ".cmd", ".order", ".symvers"}
    trees = (REPOSITORY / modules.MODULE, REPOSITORY / modules.EXAMPLES)
    assert not [path for tree in trees for path in tree.rglob("*") if path.suffix in made]


def test_a_module_is_built_anew_for_a_changed_mbuff(
        built: Callable[[str], Kernel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = built("6.12")
    monkeypatch.setattr(modules, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(modules, "locked", lambda name: contextlib.nullcontext())
    for tree in ("kmod", "tests/kernel/ktest"):
        shutil.copytree(REPOSITORY / tree, tmp_path / tree)
    modules.build(kernel, tmp_path)
    header = tmp_path / "kmod/internal.h"
    changed = header.read_text().replace("struct mbuff_area {", "struct mbuff_area {\n\tint new;")
    assert changed != header.read_text()
    header.write_text(changed)
    target = modules.build(kernel, tmp_path)
    symbols = dict(reversed(line.split()[:2])
                   for line in (target / "kmod/Module.symvers").read_text().splitlines())
    wanted = re.findall(r"\{ (0x\w+), \"(mbuff_\w+)\" \}",
                        (target / "tests/kernel/ktest/ktest.mod.c").read_text())
    assert wanted
    assert {name: int(symbols[name], 16) for _, name in wanted} == {
        name: int(version, 16) for version, name in wanted}


def test_dkms_calls_the_module_by_its_version() -> None:
    kmod = REPOSITORY / modules.MODULE
    version = re.search(r'MODULE_VERSION\("(.*)"\)', (kmod / "main.c").read_text())
    assert version
    assert f"\nPACKAGE_VERSION={version[1]}\n" in (kmod / "dkms.conf").read_text()


def make_in_a_copy(directory: Path, *words: object) -> None:
    """What a person types in a clone."""
    for tree in ("kmod", "packaging", "examples"):
        shutil.copytree(REPOSITORY / tree, directory / tree,
                        ignore=shutil.ignore_patterns("build"))
    shutil.copy(REPOSITORY / "Makefile", directory)
    done = subprocess.run(["make", "-C", directory, *map(str, words)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_kmod_examples_builds_modules_and_programs(built: Callable[[str], Kernel],
                                                   tmp_path: Path) -> None:
    make_in_a_copy(tmp_path, "kmod-examples", f"KDIR={built('6.12').headers}")
    for source in (tmp_path / modules.EXAMPLES).glob("*/*.c"):
        name = f"{source.stem}.ko" if source.stem == source.parent.name else source.stem
        assert (tmp_path / "build" / modules.EXAMPLES / source.parent.name / name).is_file()


def test_kmod_install_brings_module_headers_and_rule(built: Callable[[str], Kernel],
                                                     tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_in_a_copy(tmp_path, "kmod-install", f"KDIR={built('6.12').headers}", f"DESTDIR={root}")
    brought = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert {path for path in brought if not path.startswith("lib/")} == {
        "etc/udev/rules.d/60-mbuff.rules", "usr/include/linux/mbuff.h", "usr/include/mbuff.h",
        "usr/include/mbuff_files.h", "usr/include/rtai_shm.h"}
    assert re.search(r"updates/mbuff\.ko(\.xz)?$", "\n".join(brought), re.MULTILINE)
    rule = (root / "etc/udev/rules.d/60-mbuff.rules").read_text()
    assert 'KERNEL=="mbuff"' in rule and 'GROUP="mbuff"' in rule and 'MODE="0660"' in rule
    old = REPOSITORY / "tests/kernel/old/plain_1999.c"
    subprocess.run(["gcc", "-std=gnu89", "-w", "-I", root / "usr/include", old, "-o",
                    tmp_path / "program"], check=True)


@pytest.mark.parametrize(("change", "complaint"), [
    (("return 0;", "int unused; return 0;"), "unused"),
    (("return 0;", "void other(void); other(); return 0;"), "other"),
    (('MODULE_DESCRIPTION("nothing");', ""), "MODULE_DESCRIPTION"),
])
def test_a_warning_fails_the_build(built: Callable[[str], Kernel], tmp_path: Path,
                                   change: tuple[str, str], complaint: str) -> None:
    (tmp_path / "Kbuild").write_text("obj-m := hello.o\n")
    (tmp_path / "hello.c").write_text(_HELLO)
    modules.make(built("6.12"), tmp_path, KCFLAGS="-Werror")
    (tmp_path / "hello.c").write_text(_HELLO.replace(*change))
    with pytest.raises(modules.BuildFailed, match=complaint):
        modules.make(built("6.12"), tmp_path, KCFLAGS="-Werror")
