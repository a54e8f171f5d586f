# SPDX-License-Identifier: MIT
"""Random calls by tests/kernel/fuzz.c: what the kernel says of them fails the whole run."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SLOWNESS
from tests.kernel.inside.conftest import Ktest, Module
from tests.kernel.inside.raw_ioctl import NOBODY, PAGE
from tests.kernel.old import narrow_flags

CALLS = os.environ.get("MBUFF_FUZZ", "10000")  # of each test here
SEED = os.environ.get("MBUFF_SEED") or int.from_bytes(os.urandom(4), "little")

pytestmark = [
    pytest.mark.rt,
    pytest.mark.timeout(SLOWNESS * max(300, int(CALLS) // 100)),
]

Program = Callable[..., Path]


def end(fuzz: Path, module: Module) -> None:
    """What the calls have left can all be given back, by who has the right."""
    subprocess.run([fuzz, "clean"], check=True)
    module.unload()


@pytest.mark.parametrize("user", [0, NOBODY])
def test_random_calls_harm_nobody(module: Module, program: Program, user: int) -> None:
    fuzz = program("fuzz")
    print(f"fuzz {CALLS} {SEED} as {user}")
    with fuzz.open("rb") as opened:  # in a directory that only root enters
        subprocess.run([f"/proc/self/fd/{opened.fileno()}", CALLS, str(SEED)], check=True,
                       pass_fds=[opened.fileno()], user=user, group=0, extra_groups=[])
    end(fuzz, module)


def test_random_calls_of_32_bits_harm_nobody(module: Module, program: Program) -> None:
    flags = narrow_flags()
    assert flags is not None, "install libc6-dev-i386 and lib32gcc-12-dev"
    fuzz = program("fuzz", *flags)
    print(f"fuzz {CALLS} {SEED} with -m32")
    subprocess.run([fuzz, CALLS, str(SEED)], check=True)
    end(fuzz, module)


def test_random_calls_beside_a_module_harm_nobody(module: Module, program: Program) -> None:
    fuzz = program("fuzz")
    ktest = Ktest()
    ktest.insmod()
    print(f"fuzz {CALLS} {SEED} beside a module")
    chance = random.Random(SEED)
    references: list[int] = []
    allocated: list[str] = []  # what is freed without that would be the module's fault
    with subprocess.Popen([fuzz, CALLS, str(SEED)]) as running:
        while running.poll() is None:
            name, size = f"n{chance.randrange(24)}", chance.randrange(1, 32 * PAGE)
            with contextlib.suppress(OSError):  # who comes too late, or asks for too much
                match chance.randrange(6):
                    case 0:
                        references.append(ktest.run("get", name))
                    case 1:
                        references.append(ktest.run("make", name, size, "660"))
                    case 2:
                        ktest.run(chance.choice(["alloc", "attach"]), name, size)
                        allocated.append(name)
                    case 3 if allocated:
                        ktest.run(chance.choice(["free", "detach"]),
                                  allocated.pop(chance.randrange(len(allocated))))
                    case 4 if references:
                        number = chance.choice(references)
                        ktest.run("poke", number, chance.randrange(ktest.run("size", number)), 7)
                        ktest.run("notify", number, chance.choice(["thread", "hard", "soft"]))
                    case 5 if references:
                        ktest.run("put", references.pop(chance.randrange(len(references))))
    assert running.returncode == 0
    ktest.unload()
    end(fuzz, module)
