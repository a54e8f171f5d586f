# SPDX-License-Identifier: MIT
"""Who has CAP_SYS_ADMIN: by the process behind a request, over what is ours."""

from __future__ import annotations

import os
import subprocess

import pytest

from mbufffs.privileges import has_cap_sys_admin
from tests.conftest import needs_root


def of_a_process(*command: str) -> bool:
    with subprocess.Popen([*command, "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        return has_cap_sys_admin(process.pid)


@needs_root
@pytest.mark.parametrize(("command", "has"), [
    (["env"], True),
    (["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"], False),
    (["setpriv", "--reuid=65534", "--clear-groups"], False),
    (["unshare", "--user", "--map-root-user"], False),
])
def test_a_process_has_it_where_we_are(command: list[str], has: bool) -> None:
    assert of_a_process(*command) is has


def test_one_that_has_ended_has_none() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert not has_cap_sys_admin(child)
