# SPDX-License-Identifier: MIT
"""A virtual machine that runs one script on one kernel, over this machine's own files.

Its root is this machine's, read-only, with overlays on some directories; only the directory of
the run can be written. The verdict comes in files there; the console has only the kernel's words.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel import console, debug
from tests.kernel.kernels import CACHE, REPOSITORY, Kernel, locked

RUNS = CACHE / "runs"
BOOT_SECONDS = 300  # 6 to 35 where nothing else runs; the processor is emulated, and may be shared
RESERVED, RESERVED_BYTES = 0x30000000, 16 << 20  # memory kept from the kernel, for areas
_BIN = Path(__file__).parent / "bin"  # what virtme-ng finds before what is installed
_MARK = "MBUFF_RUN"  # in the environment of every process of a run, so that nobody else's is ended

_INSIDE = """\
# Made by tests/kernel/machine.py: what the virtual machine does, and what it leaves.
: > {run}/started
export MBUFF_RUN_DIRECTORY={run}
cd {repository}
(
{script}
) > {run}/output 2>&1 < /dev/null
status=$?
if [ -e /sys/kernel/debug/kmemleak ]; then
  # A block counts as lost only when it is older than five seconds; two scans, as its document says.
  sleep 6
  echo scan > /sys/kernel/debug/kmemleak; echo scan > /sys/kernel/debug/kmemleak
  cat /sys/kernel/debug/kmemleak > {run}/kmemleak
fi
cat /proc/sys/kernel/tainted > {run}/tainted
dmesg > {run}/dmesg
echo $status > {run}/status
"""


@dataclass(frozen=True)
class Run:
    """What came of a run. It is good only with status 0 and nothing in wrong."""

    directory: Path
    status: int | None  # of the script; None if it did not get to its end
    output: str
    wrong: list[str]  # what the kernel complained of, and what became of the machine
    seconds: float


def _start_time(pid: int) -> str:
    """What tells a process from another that got its id later; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _end_processes(directory: Path) -> None:
    """Ends the processes of this run: those with its mark in their environment."""
    mark = f"{_MARK}={directory}".encode()
    while True:
        left = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    left.append(int(entry.name))
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def clear_leftovers() -> None:
    """Removes runs whose process has ended, with machines that still run. Others are left alone."""
    with locked("runs"):
        for directory in RUNS.iterdir() if RUNS.exists() else ():
            with contextlib.suppress(OSError, ValueError, KeyError):
                owner = json.loads((directory / "owner").read_text())
                if _start_time(owner["pid"]) == owner["started"]:
                    continue
            _end_processes(directory)
            shutil.rmtree(directory, ignore_errors=True)


def _new_directory(kernel: Kernel) -> Path:
    owner = {"pid": os.getpid(), "started": _start_time(os.getpid())}
    with locked("runs"):
        RUNS.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            directory = RUNS / f"{kernel.name}-{os.getpid()}-{number}"
            if not directory.exists():
                break
        directory.mkdir()
        (directory / "owner").write_text(json.dumps(owner))
    return directory


@contextlib.contextmanager
def _machine(kernel: Kernel, directory: Path, memory: str,
             append: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    programs = Path(sys.executable).parent
    command = [programs / "vng", "--run", kernel.image, "--disable-kvm", "--verbose",
               "--cpus", "2", "--memory", memory, f"--rwdir={directory}", "--append", "oops=panic"]
    # Of the kernels here, only the debug kernel has CMA.
    contiguous = ("cma=128M",) if kernel.name == debug.NAME else ()
    for option in (f"memmap={RESERVED_BYTES >> 20}M$0x{RESERVED:x}", *contiguous, *append):
        command += ["--append", option]
    command += ["--", "sh", directory / "inside.sh"]
    environment = {**os.environ, _MARK: str(directory), "TMPDIR": str(directory),
                   "PATH": f"{_BIN}:{programs}:{os.environ['PATH']}"}
    with (directory / "console").open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, env=environment, cwd=directory, start_new_session=True)
    try:
        yield process
    finally:
        _end_processes(directory)
        process.wait()


def _wait(process: subprocess.Popen[bytes], directory: Path, seconds: float, echo: bool) -> str:
    """Waits until the machine has ended; returns what was wrong with it, or nothing."""
    end = time.monotonic() + BOOT_SECONDS
    started = False
    shown = 0
    while process.poll() is None:
        if not started and (directory / "started").exists():
            started = True
            end = time.monotonic() + seconds + 60  # for the way down
        if time.monotonic() > end:
            return (f"the machine was still running after {seconds} s" if started
                    else f"the machine did not boot within {BOOT_SECONDS} s")
        if echo and (directory / "output").exists():
            new = (directory / "output").read_bytes()[shown:]
            shown += len(new)
            sys.stdout.write(new.decode(errors="replace"))
            sys.stdout.flush()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    if not (directory / "started").exists():
        return "the machine ended before it had booted"
    if not (directory / "status").exists():
        return "the machine ended before the script had"
    return ""


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def run(kernel: Kernel, script: str, *, seconds: float, memory: str = "1G",
        append: tuple[str, ...] = (), echo: bool = False) -> Run:
    """Boots, runs a shell script in the repository's directory, and judges what came of it."""
    assert kernel.image, f"{kernel.name} has no image"
    directory = _new_directory(kernel)
    (directory / "inside.sh").write_text(_INSIDE.format(
        run=directory, repository=REPOSITORY, script=script.strip()))
    begin = time.monotonic()
    with _machine(kernel, directory, memory, append) as process:
        ended = _wait(process, directory, seconds, echo)
    said = _text(directory / "console")
    wrong = console.complaints(said)
    if wrong:
        wrong.append(console.excerpt(said, wrong[0]))
    if tainted := console.taints(int(_text(directory / "tainted") or 0)):
        wrong.append(f"the kernel is tainted: {', '.join(tainted)}")
    if leaks := _text(directory / "kmemleak"):
        wrong.append(f"kmemleak:\n{leaks}")
    if ended:
        tail = "\n".join(said.splitlines()[-60:])
        wrong.append(f"{ended}; the end of its console:\n{tail}")
    status = None if ended else int(_text(directory / "status"))
    return Run(directory, status, _text(directory / "output"), wrong, time.monotonic() - begin)
