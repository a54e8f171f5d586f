# SPDX-License-Identifier: MIT
"""sparse and clang's analyzer say nothing of the modules; checkpatch: `make kernel-check`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.kernels import REPOSITORY, Kernel

pytestmark = pytest.mark.timeout(900)

SCRIPT = Path("tests/kernel/static.sh")


def run(repository: Path, kernel: Kernel) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", repository / SCRIPT, kernel.headers], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_sparse_and_clang_have_no_complaint(built: Callable[[str], Kernel]) -> None:
    done = run(REPOSITORY, built("6.12"))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("function", "complaint"), [
    ("static int wrong(const int __user *from)\n{\n\treturn *from;\n}", "dereference of noderef"),
    ("static int wrong(const int *from)\n{\n\treturn from ? 0 : *from;\n}", "null pointer"),
])
def test_what_they_know_is_found(built: Callable[[str], Kernel], tmp_path: Path, function: str,
                                 complaint: str) -> None:
    for tree in ("kmod/include", "kmod/uapi"):
        shutil.copytree(REPOSITORY / tree, tmp_path / tree)
    (tmp_path / SCRIPT).parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / SCRIPT, tmp_path / SCRIPT)
    example = tmp_path / "examples/kernel/wrong"
    example.mkdir(parents=True)
    (example / "Kbuild").write_text("obj-m := wrong.o\n")
    (example / "wrong.c").write_text(
        f'#include <linux/module.h>\n{function}\nmodule_param_call(wrong, NULL, NULL, NULL, 0);\n'
        f'int (*use)(const int __user *) = (void *)wrong;\nMODULE_LICENSE("GPL");\n')
    done = run(tmp_path, built("6.12"))
    assert done.returncode == 1
    assert complaint in done.stdout
