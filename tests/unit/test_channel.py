# SPDX-License-Identifier: MIT
"""The channel's C core over socket pairs: builds the facts of channel/*.c, and proves them.

A fact is a C function named for what it proves; tests/unit/channel/harness.h tells how they play
kernel and server. By hand: python -m tests.unit.test_channel address DIRECTORY builds the program.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs.machine import version
from mbufffs.uring import Permission
from tests.conftest import PREFIX

FACTS = Path(__file__).parent / "channel"
CHANNEL = Path(__file__).parents[2] / "mbufffs" / "channel"

# What faults.c puts between the channel and the C library.
WRAPPED = ("calloc", "clock_gettime", "malloc", "poll", "pthread_create", "read", "recv", "send",
           "write", "writev")
FLAGS = ("-std=gnu11", "-g", "-O1", "-fno-omit-frame-pointer", "-pthread",
         "-Wall", "-Wextra", "-Werror", f"-I{CHANNEL}")

# Flags, and what a finding must do: end the process, loudly.
SANITIZERS = {
    "address": (("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
                {"ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1",
                 "UBSAN_OPTIONS": "print_stacktrace=1"}),
    "thread": (("-fsanitize=thread",),
               {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"}),
}

# Facts that draw lots are proved for some more seeds.
SEEDED = ("random_messages_are_answered_once_each_and_harm_nothing",
          "storm_of_clients_under_dying_servers_never_meets_a_closed_id")


def facts() -> list[str]:
    return sorted(name for source in FACTS.glob("*.c")
                  for name in re.findall(r"^FACT\((\w+)\)", source.read_text(), re.MULTILINE))


def compiler() -> str:
    for name in (*os.environ.get("CC", "").split()[:1], "cc", "gcc", "clang"):
        if found := shutil.which(name):
            return found
    pytest.skip("there is no C compiler: apt-get install gcc")


def build(sanitizer: str, directory: Path) -> Path:
    """The program of all facts; skips where the compiler has no such sanitizer."""
    flags, _ = SANITIZERS[sanitizer]
    cc = compiler()
    empty = directory / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    tried = subprocess.run([cc, *flags, "-o", directory / "empty", empty], check=False,
                           capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"{cc} has no {sanitizer} sanitizer: {tried.stderr.strip().splitlines()[-1]}")
    program = directory / "facts"
    sources = [source for source in CHANNEL.glob("*.c") if source.name != "module.c"]
    subprocess.run(
        [cc, *FLAGS, *flags, *(f"-Wl,--wrap={name}" for name in WRAPPED),
         "-o", program, *sorted(FACTS.glob("*.c")), *sources],
        check=True)
    return program


Prove = Callable[..., None]


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A directory of a tmpfs, which facts of a store make theirs in."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir="/dev/shm") as directory:
        yield directory


@pytest.fixture(scope="module", params=SANITIZERS)
def prove(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
          store: str) -> Prove:
    program = build(request.param, tmp_path_factory.mktemp(f"channel-{request.param}"))
    environment = os.environ | SANITIZERS[request.param][1] | {"TMPDIR": store}
    # Older ThreadSanitizers cannot live with as many random address bits as newer kernels use.
    fixed = ["setarch", "-R"] if request.param == "thread" else []
    if fixed and subprocess.run([*fixed, "true"], check=False, capture_output=True).returncode:
        fixed = []

    def prove(*arguments: str) -> None:
        done = subprocess.run([*fixed, program, *arguments], env=environment, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=60)
        assert not done.stdout, done.stdout
        assert done.returncode == 0

    return prove


def file_of(fact: str) -> Path:
    return next(path for path in FACTS.glob("*.c") if f"FACT({fact})" in path.read_text())


@pytest.mark.parametrize("fact", facts())
def test_fact(prove: Prove, fact: str) -> None:
    source = file_of(fact)
    if os.geteuid() != 0 and "store.h" in source.read_text():
        pytest.skip("file handles and mounts need root")
    if source.name != "rings.c":
        prove(fact)
        return
    permission = Permission()
    if version(os.uname().release) < (6, 18) or not permission.take():
        pytest.skip("this kernel has no FUSE over io_uring")
    try:
        prove(fact)
    finally:
        permission.give_back()


@pytest.mark.parametrize("fact", SEEDED)
@pytest.mark.parametrize("seed", ["2", "3", "4"])
def test_fact_for_another_seed(prove: Prove, fact: str, seed: str) -> None:
    prove(fact, seed)


def test_python_and_c_use_the_same_private_words() -> None:
    channel = pytest.importorskip("mbufffs.channel", reason="the C extension is not built")
    header = (CHANNEL / "protocol.h").read_text()

    def word(name: str) -> int:
        found = re.search(rf"\b{name}\b\s*=?\s*(0x[0-9a-f]+|\d+)", header)
        assert found, name
        return int(found[1], 0)

    assert struct.unpack("=IiQQQ", channel.watch_message([5, 6])) == (
        32, word("PRIVATE_WATCH"), 0, 5, 6)
    assert struct.unpack("=IiQQ", channel.ask_message(5)) == (24, word("PRIVATE_ASK"), 0, 5)
    assert struct.unpack("=IiQQ", channel.grant_message(5)) == (24, word("PRIVATE_GRANT"), 0, 5)
    for name in ("FORGET_UNOPENED", "FORGET_DONE", "FORGET_OPEN"):
        assert getattr(channel, name) == word(name)
    assert f'FALLOCATE_NAME "{channel.FALLOCATE_NAME.decode()}"' in header
    assert channel.split_exchange(0x12345 << word("EXCHANGE_TAG_SHIFT") | 2) == (2, 0x12345)


if __name__ == "__main__":
    print(build(sys.argv[1], Path(sys.argv[2])))
