# SPDX-License-Identifier: MIT
"""The examples do what they say, each alone and across languages; how fast is not asked here."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LANGUAGES = ["c", "python", "shell"]
READERS = [
    ("c", "read_live"),
    ("python", "read_live"),
    ("python", "read_numpy"),
    ("shell", "read_live"),
]
# Where a carry runs through bytes, and where a byte of the counter is a newline (9 + 1, 2559 + 1).
STARTS = [0, 9, 255, 2559, 2**32 - 1, 2**56 - 1]
PATIENCE = "60"  # seconds; only a test that fails waits for so long

Command = Callable[..., list[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C examples, built once."""
    if not shutil.which("make") or not shutil.which("cc"):
        pytest.skip("the C examples need make and a C compiler")
    directory = tmp_path_factory.mktemp("examples")
    subprocess.run(["make", "-s", "-C", EXAMPLES / "c", f"BUILD={directory}"], check=True)
    return directory


@pytest.fixture
def command(request: pytest.FixtureRequest) -> Command:
    """The words that start an example."""

    def words(language: str, task: str, *arguments: object) -> list[str]:
        if language == "c":
            program = [str(request.getfixturevalue("build") / task)]
        elif language == "python":
            if task == "read_numpy":
                pytest.importorskip("numpy", reason="read_numpy.py needs numpy")
            program = [sys.executable, "-W", "error", str(EXAMPLES / f"python/{task}.py")]
        else:
            program = [str(EXAMPLES / f"shell/{task}.sh")]
        return program + [str(argument) for argument in arguments]

    return words


@pytest.fixture
def environment(area_directory: Path) -> dict[str, str]:
    return {**os.environ, "MBUFF_DIR": str(area_directory), "LC_ALL": "C"}


@pytest.fixture
def run(command: Command, environment: dict[str, str]) -> Run:
    """Runs an example to its end."""

    def to_the_end(
        *words: object, under: tuple[str, ...] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*under, *command(*words)],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return to_the_end


@pytest.fixture
def start(command: Command, environment: dict[str, str]) -> Iterator[Start]:
    """Starts an example that is running beside the test, and is gone after it."""
    started: list[subprocess.Popen[str]] = []

    def beside(*words: object) -> subprocess.Popen[str]:
        # A session of its own, so that its children can be ended with it.
        started.append(
            subprocess.Popen(
                command(*words),
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield beside
    for process in started:
        with process:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit status 1 and one line on standard error that holds the words, and nothing else."""
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1), result
    for word in words:
        assert word in result.stderr


def next_line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def counter_of(area: Path) -> int:
    with area.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def set_counter(area: Path, value: int, tail: bytes = b"") -> None:
    area.write_bytes(value.to_bytes(8, "little") + tail)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_c_examples_build_without_a_warning(compiler: str, tmp_path: Path) -> None:
    for tool in "make", compiler:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    subprocess.run(
        ["make", "-s", "-C", EXAMPLES / "c", f"CC={compiler}", f"BUILD={tmp_path}"], check=True
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "create",
        "list",
        "read_live",
        "share_mutex",
        "write_counter",
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_create_makes_an_area_of_that_size_full_of_zeros(
    language: str, run: Run, area: Path
) -> None:
    result = run(language, "create", area.name, 10000)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert area.read_bytes() == bytes(10000)


@pytest.mark.parametrize(
    "size", ["", "0", "-1", "1.5", "many", "4k", "9223372036854775808", "99999999999999999999999"]
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_create_refuses_a_bad_size_and_makes_nothing(
    language: str, size: str, run: Run, area: Path
) -> None:
    assert_refused(run(language, "create", area.name, size), "create")
    assert not area.exists()


@pytest.mark.parametrize("language", LANGUAGES)
def test_create_refuses_a_name_that_exists_and_leaves_its_bytes(
    language: str, run: Run, area: Path
) -> None:
    area.write_bytes(b"kept")
    assert_refused(run(language, "create", area.name, 64), str(area), "File exists", "rm it first")
    assert area.read_bytes() == b"kept"


@pytest.mark.parametrize("language", LANGUAGES)
def test_create_that_gets_no_memory_leaves_no_name(language: str, run: Run, area: Path) -> None:
    # A limit on the length of files fails the second step alone, on any file system.
    limited = ("prlimit", "--fsize=4096", "env", "--ignore-signal=XFSZ")
    assert_refused(
        run(language, "create", area.name, 8192, under=limited), str(area), "File too large"
    )
    assert not area.exists()


@pytest.mark.parametrize("task", ["create", "list"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_without_a_mount_the_error_tells_how_to_mount(
    language: str, task: str, run: Run, tmp_path: Path
) -> None:
    arguments = ["any", 4096] if task == "create" else []
    result = run(language, task, *arguments, MBUFF_DIR=str(tmp_path / "nothing"))
    assert_refused(result, "nothing", "No such file or directory", "try: mbufffs mount")


@pytest.mark.parametrize(
    ("language", "task"), [*((language, "write_counter") for language in LANGUAGES), *READERS]
)
def test_missing_area_is_refused_and_not_made(
    language: str, task: str, run: Run, area: Path
) -> None:
    assert_refused(
        run(language, task, area.name, 1),
        str(area),
        "No such file or directory",
        f"create {area.name} 4096",
    )
    assert not area.exists()


@pytest.mark.parametrize("size", [0, 7])
@pytest.mark.parametrize(
    ("language", "task"), [*((language, "write_counter") for language in LANGUAGES), *READERS]
)
def test_area_too_small_for_the_counter_is_refused(
    language: str, task: str, size: int, run: Run, area: Path
) -> None:
    area.write_bytes(bytes(size))
    assert_refused(run(language, task, area.name, 1), str(area), "too small")
    assert area.read_bytes() == bytes(size)


@pytest.mark.parametrize("count", ["", "0", "-1", "many"])
@pytest.mark.parametrize(
    ("language", "task"), [*((language, "write_counter") for language in LANGUAGES), *READERS]
)
def test_bad_count_is_refused(language: str, task: str, count: str, run: Run, area: Path) -> None:
    set_counter(area, 5)
    assert_refused(run(language, task, area.name, count), f"usage: {task}", "NAME")
    assert counter_of(area) == 5


@pytest.mark.parametrize("value", STARTS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_writer_adds_to_the_counter_and_touches_nothing_beside_it(
    language: str, value: int, run: Run, area: Path
) -> None:
    tail = b"\xaa" * 4096
    set_counter(area, value, tail)
    result = run(language, "write_counter", area.name, 3)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{value + 3}\n", "")
    assert area.read_bytes() == (value + 3).to_bytes(8, "little") + tail


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_shell_writer_stores_the_counter_in_one_write(
    shell: str, environment: dict[str, str], area: Path, tmp_path: Path
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    set_counter(area, 9)
    log = tmp_path / "writes"
    # The delay parts the pieces in which a shell's printf may write into the pipe.
    slowed = ["--trace=write", "--inject=write:delay_exit=100000"]
    tracer = ["strace", "-f", "-qq", "-y", *slowed, "-o", str(log)]
    writer = [shell, str(EXAMPLES / "shell/write_counter.sh"), area.name, "1"]
    subprocess.run([*tracer, *writer], env=environment, capture_output=True, timeout=60, check=True)
    writes = [line for line in log.read_text().splitlines() if area.name in line]
    assert len(writes) == 1
    assert "= 8" in writes[0]


@pytest.mark.parametrize("value", STARTS)
@pytest.mark.parametrize(("language", "task"), READERS)
def test_reader_prints_the_value_that_is_there(
    language: str, task: str, value: int, run: Run, area: Path
) -> None:
    set_counter(area, value, b"\xaa" * 5)  # a length that is no multiple of 8
    result = run(language, task, area.name, 1)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{value}\n", "")


@pytest.mark.parametrize("reading", READERS)
@pytest.mark.parametrize("writer", LANGUAGES)
def test_reader_of_one_language_sees_what_another_writes(
    writer: str, reading: tuple[str, str], run: Run, start: Start, area: Path
) -> None:
    assert run(writer, "create", area.name, 4096).returncode == 0
    reader = start(*reading, area.name, 3, PATIENCE)
    assert next_line(reader.stdout) == "0\n"
    for value in 1, 2:
        assert run(writer, "write_counter", area.name, 1).returncode == 0
        assert next_line(reader.stdout) == f"{value}\n"
    assert reader.wait() == 0


@pytest.mark.parametrize(("language", "task"), READERS)
def test_reader_follows_a_writer_that_runs(
    language: str, task: str, start: Start, area: Path
) -> None:
    set_counter(area, 0)
    writer = start("c", "write_counter", area.name, 1000000, 1)  # far longer than the reader
    reader = start(language, task, area.name, 10, PATIENCE)
    values = [int(next_line(reader.stdout)) for _ in range(10)]
    assert values == sorted(set(values))
    assert reader.wait() == 0
    assert writer.poll() is None


@pytest.mark.parametrize(("language", "task"), READERS)
def test_reader_ends_when_its_time_is_over(language: str, task: str, run: Run, area: Path) -> None:
    set_counter(area, 41)
    result = run(language, task, area.name, 2, 0)
    assert (result.returncode, result.stdout) == (1, "41\n")
    assert "1 of 2 values after 0 s" in result.stderr


@pytest.mark.parametrize("language", LANGUAGES)
def test_list_prints_size_and_name_of_areas_in_directories_too(
    language: str, run: Run, area: Path
) -> None:
    area.mkdir()
    try:
        (area / "frame one").write_bytes(bytes(123))
        (area / "empty").touch()
        (area / "link").symlink_to("empty")
        result = run(language, "list")
        assert (result.returncode, result.stderr) == (0, "")
        listed = [line for line in result.stdout.splitlines() if area.name in line]
        assert sorted(listed) == [f"0 {area.name}/empty", f"123 {area.name}/frame one"]
    finally:
        shutil.rmtree(area)


@pytest.mark.parametrize("language", LANGUAGES)
def test_list_prints_a_name_that_is_not_utf_8(
    language: str, area: Path, command: Command, environment: dict[str, str]
) -> None:
    name = os.fsencode(area.name) + b"-\xff"
    path = os.path.join(os.fsencode(area.parent), name)
    with open(path, "wb") as file:
        file.write(b"x")
    try:
        lines = subprocess.check_output(command(language, "list"), env=environment, timeout=60)
        assert b"1 " + name in lines.splitlines()
    finally:
        os.unlink(path)


def test_four_processes_lose_no_increment_under_the_shared_mutex(run: Run, area: Path) -> None:
    assert run("c", "create", area.name, 4096).returncode == 0
    result = run("c", "share_mutex", area.name, 4, 100000)
    assert (result.returncode, result.stdout, result.stderr) == (0, "400000\n", "")
    for language, task in READERS:
        assert run(language, task, area.name, 1).stdout == "400000\n"


def test_killed_processes_leave_the_mutex_to_the_others(start: Start, area: Path) -> None:
    area.write_bytes(bytes(4096))
    parent = start("c", "share_mutex", area.name, 6, 10**15)
    children: list[int] = []
    while len(children) < 6:
        assert parent.poll() is None
        text = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text()
        children = [int(word) for word in text.split()]
    for left, child in enumerate(children, 1):
        # 1,000 increments more have to come from those who are alive.
        goal = counter_of(area) + 1000
        deadline = time.monotonic() + 30
        while counter_of(area) < goal:
            assert time.monotonic() < deadline, f"the counter stands still after {left - 1} deaths"
        os.kill(child, signal.SIGKILL)
    output, error = parent.communicate(timeout=60)
    assert parent.returncode == 1  # the increments of the dead are missing, and it says so
    assert int(output) == counter_of(area)
    assert error.count("\n") == 1


@pytest.mark.parametrize("numbers", [("4", "0"), ("0", "4"), ("many", "4"), ("4", "-1")])
def test_share_mutex_refuses_bad_numbers(numbers: tuple[str, str], run: Run, area: Path) -> None:
    assert_refused(run("c", "share_mutex", area.name, *numbers), "usage: share_mutex NAME")


def test_share_mutex_refuses_a_missing_and_a_small_area(run: Run, area: Path) -> None:
    assert_refused(
        run("c", "share_mutex", area.name, 2, 2), str(area), "No such file or directory", "mount"
    )
    area.write_bytes(bytes(64))
    assert_refused(run("c", "share_mutex", area.name, 2, 2), str(area), "too small")


@pytest.mark.parametrize(
    ("language", "task"),
    [
        *(
            (language, task)
            for language in LANGUAGES
            for task in ("create", "write_counter", "list")
        ),
        *READERS,
        ("c", "share_mutex"),
    ],
)
def test_wrong_number_of_arguments_shows_the_usage(language: str, task: str, run: Run) -> None:
    assert_refused(run(language, task, "a", "1", "1", "1", "1"), f"usage: {task}")
