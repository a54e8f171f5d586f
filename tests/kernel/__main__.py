# SPDX-License-Identifier: MIT
"""By hand: `python -m tests.kernel` with build, static, script or pytest."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from tests.kernel import debug, inside, machine, modules
from tests.kernel.kernels import BOOTED, WANTED, Kernel, Unavailable, fetch


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.kernel")
    parser.add_argument("--memory", default="1G", help="of the machine (1G)")
    parser.add_argument("--seconds", type=float, default=900, help="that the script may take")
    parser.add_argument("--append", action="append", default=[], help="a kernel parameter")
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", help="build kmod/ and examples/kernel/ for a kernel")
    build.add_argument("kernel", choices=[*WANTED, debug.NAME])
    verbs.add_parser("static", help="what sparse, clang's analyzer and checkpatch say")
    script = verbs.add_parser("script", help="build, boot, and run a shell script inside")
    script.add_argument("kernel", choices=[*BOOTED, debug.NAME])
    script.add_argument("script", type=Path)
    pytest = verbs.add_parser("pytest", help="build, boot, and run tests/kernel/inside")
    pytest.add_argument("kernel", choices=[*BOOTED, debug.NAME])
    pytest.add_argument("options", nargs=argparse.REMAINDER, help="for pytest")
    return parser.parse_args()


def _run(kernel: Kernel, script: str, arguments: argparse.Namespace) -> int:
    machine.clear_leftovers()
    done = machine.run(kernel, script, seconds=arguments.seconds, memory=arguments.memory,
                       append=tuple(arguments.append), echo=True)
    print(f"status {done.status}, {done.seconds:.0f} s, all of it in {done.directory}")
    for complaint in done.wrong:
        print(f"wrong: {complaint}")
    return done.status or bool(done.wrong) if done.status is not None else 1


def main() -> int:
    # So that whoever ends us ends our machine too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    arguments = _arguments()
    try:
        if arguments.verb == "static":
            return subprocess.run(["sh", Path(__file__).with_name("static.sh"),
                                   fetch("6.12").headers, debug.source()], check=False).returncode
        kernel = debug.fetch() if arguments.kernel == debug.NAME else fetch(arguments.kernel)
        print(modules.build(kernel), flush=True)
    except (Unavailable, modules.BuildFailed) as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.verb == "build":
        return 0
    if arguments.verb == "script":
        script = f"{inside.environment(kernel)}\nsh {arguments.script.resolve()}"
    else:
        script = inside.script(kernel, arguments.options, seconds=arguments.seconds)
    return _run(kernel, script, arguments)


if __name__ == "__main__":
    sys.exit(main())
