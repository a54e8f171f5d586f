# SPDX-License-Identifier: MIT
"""README's table of what works: each row has its command, which does what the row says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SLOWNESS
from tests.kernel.inside.conftest import REPOSITORY
from tests.kernel.inside.mount.conftest import PATIENCE
from tests.kernel.old import USER_SIDES, device_programs

pytestmark = pytest.mark.timeout(15 * PATIENCE * SLOWNESS)

SAYS = {  # patterns of what the commands print
    "Named at run time": "",
    "Mapped by path, without library or ioctl": r"^1000$",
    "Made, resized, copied, removed by touch, truncate, cp, rm": "",
    "Kernel side under the same name": r"^ +[1-9][0-9]*\n1$",
    "Allocated in one process, found in another": r"^3\n +3$",
    "Counts and owners shown": r"^owner module counter$",
    "Bytes outlive the process that made them": r"^hello$",
    "Nothing leaks when a user is killed":
        r"\n\S+ +\d+ +(\d{5,}) .*\n.*\n\S+ +\d+ +(\d{5,}) (.*\n)+\S+ +\d+ +\d{1,4} .*$",
    "Users survive `kill -9` of its daemon": r"^hello$",
    "Physically contiguous": r"^extent 0x0: 0x400000 bytes at 0x[0-9a-f]+$",
    "Physical address published": r"^(0x[0-9a-f]+)\n(.*\n)*user\.mbuff\.phys=\"\1\"$",
    "Memory reserved at boot": r"^kind reserved\nphys 0x30000000$",
    "Never swapped": r"\"locked\": true",
    "read() and write()": r"^16777216 bytes",
    "Resized while it exists": r"^8192$",
    "Mode and owner for each buffer": r"^-rw-r----- \d+ nobody daemon 8192 ",
    "Listed as text": r" frame$",
    "Pages good for futexes and mutexes, O_DIRECT, io_uring": r"^40000$",
    "Wait and notify (poll)": r"^(\d+\n){4}",
    "dma-buf export": r"dmabuf: it begins with: hello$",
    "Example with a real-time thread":
        r"^3 was printed\n.*rtshared: 1\n.*rtshared: 2\n.*rtshared: 3$",
    "Unloads cleanly, refused while mapped": r"^refused$",
}


def section(title: str) -> str:
    text = (REPOSITORY / "README.md").read_text()
    return re.split(r"^#+ ", text.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the table's rows."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """What the commands find in a clone after `make run` and `make kmod kmod-examples`."""
    examples = tmp_path / "build/examples/kernel"
    shutil.copytree(Path(os.environ["MBUFF_BUILD"], "examples/kernel"), examples)
    for program, example in USER_SIDES.items():
        shutil.copy(device_programs() / program, examples / example)
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples",
                    ignore=shutil.ignore_patterns("build"))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], check=True)
    Path("/mnt/mbuff").mkdir()
    yield tmp_path
    subprocess.run(["umount", "-l", "/mnt"], check=True)


def test_each_row_has_its_command_which_shows_it(clone: Path) -> None:
    table = rows(section("What it does, and what others do"))
    assert all(row[1].startswith("**works**") for row in table)
    text = section("The command that shows each row")
    commands = {row: command.strip("`").replace("\\|", "|") for row, command in rows(text)}
    assert list(commands) == [row[0] for row in table] == list(SAYS)
    setup = "".join(f"{line.strip()}\n" for line in text.splitlines() if line.startswith("    "))
    script = clone / "script"
    script.write_text(
        # The module of this kernel's build instead of an installed one.
        'modprobe() { if [ "$1" = mbuff ]; then shift; insmod "$MBUFF_MODULE" "$@";'
        ' else command modprobe "$@"; fi; }\n' + setup + "".join(
            f"({command}) >{clone}/said-{number} 2>&1; echo $? >{clone}/ended-{number}\n"
            for number, command in enumerate(commands.values())))
    done = subprocess.run(["bash", script], cwd=clone, text=True, capture_output=True,
                          check=False, timeout=10 * PATIENCE * SLOWNESS)
    said = {row: (clone / f"said-{number}").read_text() for number, row in enumerate(commands)}
    wrong = [f"{row}: {output}" for number, (row, output) in enumerate(said.items())
             if (clone / f"ended-{number}").read_text() != "0\n"
             or not re.search(SAYS[row], output, re.MULTILINE)]
    assert not wrong, "\n".join([*wrong, done.stdout, done.stderr])
    assert not Path("/sys/module/mbuff").exists()
