# SPDX-License-Identifier: MIT
"""`mbufffs ls`: areas by name, in all directories of the mount."""

from __future__ import annotations

import contextlib
import datetime
import grp
import json
import os
import pwd
import stat

import click

from mbufffs import area
from mbufffs.cli import mountpoint as mountpoints
from mbufffs.cli import names as area_names
from mbufffs.cli import table
from mbufffs.cli.edge import first_failure, told


@click.command(short_help="List areas.")
@click.option("--long", "-l", "long", is_flag=True, help="Mode, owners, size and time as well.")
@click.option("--json", "as_json", is_flag=True, help="A JSON list with an object for each area.")
@mountpoints.option
@area_names.argument("[NAME...]", required=False)
def ls(names: tuple[str, ...], long: bool, as_json: bool, mountpoint: str) -> int:
    """List areas: all of them, or each NAME and what is below it.

    Only areas are listed. Directories, links and the like are shown by ls(1), as everywhere.
    Characters that would garble the line are escaped as by `ls -b`.

    \b
    Examples:
      mbufffs ls
      mbufffs ls -l cam0
      mbufffs ls --json | jq -r '.[] | select(.size > 1048576) | .name'
    """
    root = mountpoints.live(mountpoint)
    failures: list[int] = []

    def failed(error: OSError) -> None:
        failures.append(told(error))

    found: dict[str, os.stat_result] = {}
    for given in names or ("",):
        try:
            name = mountpoints.name_of(mountpoint, root, given) if names else ""
            path = os.path.join(root, name)
            status = os.stat(path)
            if not stat.S_ISDIR(status.st_mode):
                found[name] = status
                continue
            for below, entry in area_names.areas(root, name, failed):
                with contextlib.suppress(FileNotFoundError):
                    found[below] = entry.stat(follow_symlinks=False)
        except OSError as error:
            failed(error)
    ordered = sorted(found, key=os.fsencode)
    if as_json:
        click.echo(json.dumps([_json(name, found[name]) for name in ordered], indent=2))
    elif long:
        table.show(
            ("mode", "owner", "group", "size", "modified", "name"),
            [_row(name, found[name]) for name in ordered], numbers=("size",))
    else:
        click.echo("".join(area_names.shown(name) + "\n" for name in ordered), nl=False)
    return first_failure(failures)


def _json(name: str, status: os.stat_result) -> dict[str, object]:
    return {
        **area_names.as_json(name), "size": status.st_size,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}", "uid": status.st_uid, "gid": status.st_gid,
        "mtime": status.st_mtime,
    }


def _row(name: str, status: os.stat_result) -> tuple[str, ...]:
    modified = datetime.datetime.fromtimestamp(int(status.st_mtime)).astimezone()
    return (
        stat.filemode(status.st_mode), user(status.st_uid), group(status.st_gid),
        area.format_size(status.st_size) if table.on_terminal() else str(status.st_size),
        modified.isoformat(), area_names.shown(name))


def user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
