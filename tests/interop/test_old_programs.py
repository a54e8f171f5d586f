# SPDX-License-Identifier: MIT
"""Programs written for mbuff, compiled with our header, where there is no device: on a mount."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Mounted, run
from tests.kernel.old import FACTS, HEADERS, NO_DEVICE, TOOLS, UAPI, build, narrow_flags

C = ["gnu89", "c90", "gnu99", "c99", "gnu11", "c11", "gnu17", "c17"]
CPP = ["c++98", "gnu++98", "c++11", "c++14", "c++17", "c++20"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wunused-function", "-Werror"]
USER = """
#include <mbuff.h>
#ifdef WITH_NEW
#include <linux/mbuff.h>
#endif
struct mbuff_request_struct positional = { 0, "default", 0, { 0 } };
typedef char size_is_as_ever[sizeof(positional) == (sizeof(long) == 8 ? 64 : 60) ? 1 : -1];
int main(void)
{
	void *at = mbuff_alloc_at("a", 1, NULL);
	mbuff_free("a", at);
	mbuff_detach("a", mbuff_attach("a", 1));
	mbuff_unmap("a", mbuff_mmap_at("a", 1, mbuff_attach_at("a", 1, at)));
	mbuff_unmap("a", mbuff_mmap("a", mbuff_size("a")));
	printf("%s %s", MBUFF_VERSION, MBUFF_DEV_NAME MBUFF_DEV_NAME2);
	return mbuff_open_dev("a", &positional) + MBUFF_NAME_LEN + MBUFF_MAX_MMAPS;
}
"""

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("gcc", "g++"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    directory = tmp_path_factory.mktemp("old")
    for name in [*FACTS, *TOOLS]:
        build(name, directory, *NO_DEVICE)
    return directory


@pytest.fixture
def environment(mounted: Mounted) -> dict[str, str]:
    return {**os.environ, "MBUFF_DIR": str(mounted.path)}


@pytest.fixture
def program(programs: Path, environment: dict[str, str]) -> Program:
    """Runs a program to its end."""

    def to_the_end(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(programs / name), *map(str, arguments)], env=environment,
                              capture_output=True, text=True, timeout=60, check=False)

    return to_the_end


def names(mounted: Mounted) -> list[str]:
    return sorted(os.listdir(mounted.path))


def assert_succeeds(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", FACTS)
def test_program_finds_its_fact_and_leaves_nothing(
    name: str, program: Program, mounted: Mounted
) -> None:
    assert_succeeds(program(name))
    assert names(mounted) == []


@pytest.mark.parametrize("ending", ["exit", "kill"])
def test_what_one_process_allocates_another_finds(
    ending: str, program: Program, mounted: Mounted
) -> None:
    for _ in range(3):
        left = program("leave", "alloc", 5000, "hello", ending)
        assert left.returncode == (0 if ending == "exit" else -signal.SIGKILL)
    assert (mounted.path / "mybuf").read_bytes() == b"hello".ljust(8192, b"\0")
    assert_succeeds(program("find", "hello", 0))
    assert_succeeds(program("find", "hello", 3))
    assert names(mounted) == []


@pytest.mark.parametrize("ending", ["exit", "kill"])
def test_what_a_process_attached_goes_with_it(
    ending: str, program: Program, mounted: Mounted
) -> None:
    program("leave", "attach", 5000, "hello", ending)
    assert program("find", "hello", 0).returncode == 1  # its file stayed until this call
    assert names(mounted) == []
    program("leave", "attach", 5000, "hello", ending)
    assert_succeeds(program("zeroed"))  # with another size
    assert names(mounted) == []


def test_an_area_of_other_programs_is_found_and_never_removed(
    program: Program, mounted: Mounted
) -> None:
    area = mounted.path / "mybuf"
    area.write_bytes(b"by hand".ljust(100, b"\0"))
    assert_succeeds(program("find", "by hand", 0))
    for how in ("alloc", "attach"):
        assert_succeeds(program("leave", how, 100, "by a program", "exit"))
        assert area.read_bytes() == b"by a program".ljust(100, b"\0")
    assert program("leave", "alloc", 101, "too much", "exit").returncode == 1
    assert program("find", "by a program", 5).returncode == 1  # it does not go
    assert area.read_bytes().startswith(b"by a program")
    assert names(mounted) == ["mybuf"]


def test_counts_do_not_pass_to_a_file_that_gets_the_name_later(
    program: Program, mounted: Mounted
) -> None:
    for _ in range(2):
        program("leave", "alloc", 100, "hello", "exit")
    area = mounted.path / "mybuf"
    area.unlink()
    area.write_bytes(b"another")
    assert program("find", "another", 2).returncode == 1  # it does not go
    assert area.read_bytes() == b"another"
    area.unlink()
    assert_succeeds(program("two_allocs"))
    assert names(mounted) == []


def test_an_area_below_a_directory_is_counted_there(
    programs: Path, environment: dict[str, str], mounted: Mounted, tmp_path: Path
) -> None:
    source = tmp_path / "below.c"
    source.write_text(
        '#include <mbuff.h>\nint main(void) { void *at = mbuff_alloc("a/b/c", 1);\n'
        'if (!at || access(MBUFF_ROOT "/a/b/.mbuff.c", F_OK)) return 1;\n'
        'mbuff_free("a/b/c", at); return mbuff_size("a/b/c") != -EINVAL; }\n')
    run("gcc", *NO_DEVICE, f'-DMBUFF_ROOT="{mounted.path}"', f"-I{HEADERS}", source, "-o",
        tmp_path / "below")
    below = mounted.path / "a/b"
    assert subprocess.run([tmp_path / "below"], env=environment, check=False).returncode == 1
    below.mkdir(parents=True)
    run(tmp_path / "below", env=environment)
    assert list(below.iterdir()) == []


def test_programs_at_once_lose_no_count(
    programs: Path, environment: dict[str, str], mounted: Mounted
) -> None:
    started = [
        subprocess.Popen([programs / "storm", str(seed), "60"], env=environment,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for seed in range(6)
    ]
    for process in started:
        error = process.communicate(timeout=100)[1]
        assert (process.returncode, error) == (0, "")
    assert names(mounted) == []


def test_killed_programs_leave_nothing_but_counts(
    programs: Path, environment: dict[str, str], program: Program, mounted: Mounted
) -> None:
    chance = random.Random(1)
    running: list[subprocess.Popen[str]] = []
    try:
        for _ in range(40):
            while len(running) < 4:
                seed = str(chance.randrange(10**6))
                running.append(subprocess.Popen(
                    [programs / "storm", seed, "1000000"], env=environment,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            victim = running.pop(0)
            assert victim.stdout and victim.stderr
            for _ in range(chance.randrange(1, 5)):
                assert victim.stdout.readline(), victim.stderr.read()
            victim.kill()
            victim.communicate()
        assert all(process.poll() is None for process in running)
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert_succeeds(program("storm", "drain"))
    assert names(mounted) == []


def test_a_program_of_32_bits_shares_with_one_of_64(
    program: Program, environment: dict[str, str], mounted: Mounted, tmp_path: Path
) -> None:
    flags = narrow_flags()
    if flags is None:
        pytest.skip("gcc builds no programs of 32 bits here")
    for name in set(FACTS) - {"plusplus"}:
        run(build(name, tmp_path, *NO_DEVICE, *flags), env=environment)
        assert names(mounted) == [], name
    find = build("find", tmp_path, *NO_DEVICE, *flags)
    program("leave", "alloc", 100, "from 64 bits", "exit")
    program("leave", "alloc", 100, "from 64 bits", "exit")
    run(find, "from 64 bits", "2", env=environment)
    assert names(mounted) == []


def compiles(command: list[str], directory: Path, name: str) -> None:
    (directory / name).write_text(USER)
    done = subprocess.run([*command, "-fsyntax-only", name], cwd=directory, capture_output=True,
                          text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), command


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_header_is_clean_in_every_standard_of_c(compiler: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    both = [f"-I{HEADERS}", f"-I{UAPI}", "-DWITH_NEW"]
    for standard in C:
        compiles([compiler, f"-std={standard}", *WARNINGS, *both], tmp_path, "user.c")


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_header_is_clean_in_every_standard_of_cpp(compiler: str, tmp_path: Path) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    both = [f"-I{HEADERS}", f"-I{UAPI}", "-DWITH_NEW"]
    for standard in CPP:
        compiles([compiler, f"-std={standard}", *WARNINGS, *both], tmp_path, "user.cc")


def test_the_header_alone_is_enough_for_the_device(tmp_path: Path) -> None:
    shutil.copy(HEADERS / "mbuff.h", tmp_path)
    compiles(["gcc", "-std=gnu89", *WARNINGS, "-I."], tmp_path, "user.c")
    compiles(["g++", "-std=c++98", *WARNINGS, "-I."], tmp_path, "user.cc")
