# SPDX-License-Identifier: MIT
"""`mbufffs doctor`: says whether and how a mount would work here, and what would change it."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Literal

import click

from mbufffs import client, diagnosis, machine, mounts
from mbufffs.cli import mountpoint as mountpoints
from mbufffs.cli import table
from mbufffs.cli.names import shown
from mbufffs.diagnosis import Check
from mbufffs.errors import Exit

Finding = tuple[bool | Literal["warn"], str, str]  # ok, found and fix of a Check

_ELSEWHERE = "mbufffs mount ANOTHER-DIRECTORY"
_WORDS = {True: "ok", False: "fail", "warn": "warn"}


@click.command(short_help="Check what this machine offers for a mount.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object with all checks.")
@mountpoints.option
def doctor(as_json: bool, mountpoint: str) -> int:
    """Check what this machine offers, and name the command that provides what it lacks.

    The last line says how a mount would work: with passthrough, where programs use the memory
    itself, or through the page cache. Exit code 9 if no mount is possible. Nothing is changed.

    \b
    Examples:
      mbufffs doctor
      mbufffs doctor --json | jq -r '.checks[] | select(.ok != true) | .fix'
    """
    found = diagnosis.checks(machine.look())
    found.append(mountpoint_check(mounts.resolved(mountpoint)))
    possible = diagnosis.mountable(found)
    mode, advice = diagnosis.verdict(found)
    if as_json:
        click.echo(json.dumps({
            "checks": [dataclasses.asdict(check) for check in found], "mountable": possible,
            "mode": mode, "advice": advice}, indent=2))
    else:
        table.show(("result", "check"), [_row(check) for check in found])
        click.echo(shown(advice))
    return Exit.OK if possible else Exit.UNAVAILABLE


def _row(check: Check) -> tuple[str, str]:
    text = f"{check.check}: {shown(check.found)}"
    if check.ok is not True:
        text += f"; needed: {check.needed}"
        if check.fix:
            text += f"; try: {shown(check.fix)}"
    return _WORDS[check.ok], text


def mountpoint_check(path: str) -> Check:
    """What is at the mount point; never more than a warning, as there are other directories."""
    mount = mounts.mount_at(path)
    ok, found, fix = _mounted(path, mount) if mount is not None else _unmounted(path)
    return Check("mount point", ok, f"{path} {found}", "an empty directory, or none yet", fix)


def _mounted(path: str, mount: mounts.Mount) -> Finding:
    if mount.fstype != mounts.FSTYPE:
        return "warn", f"has a {mount.fstype} mounted on it", _ELSEWHERE
    if mounts.is_dead(path):
        return "warn", "has a mount whose keeper has died", f"mbufffs mount {path}"
    try:
        keeper = client.served(path)[1].get("keeper")
    except OSError:
        return True, "is mounted; its keeper does not answer this user", ""
    return True, f"is mounted by keeper {keeper}", ""


def _unmounted(path: str) -> Finding:
    try:
        entries = os.listdir(path)
    except FileNotFoundError:
        return True, "does not exist; mount makes it", ""
    except NotADirectoryError:
        return "warn", "is a file", _ELSEWHERE
    except OSError as error:
        return "warn", f"cannot be read: {error.strerror}", _ELSEWHERE
    if entries:
        return "warn", "is not empty", f"mbufffs mount -o nonempty {path}"
    return True, "is an empty directory", ""
