# SPDX-License-Identifier: MIT
"""`mbufffs info`: what an area is and who holds it, or how the mount does."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from typing import Any

import click

from mbufffs import area, client, holders, mounts, pagemap
from mbufffs.cli import mountpoint as mountpoints
from mbufffs.cli import names as area_names
from mbufffs.cli import table
from mbufffs.cli.ls import group, user

PREFIX = "user.mbuff."


@click.command(short_help="Tell what an area is and who holds it, or about the mount.")
@click.argument("name", required=False, shell_complete=area_names.complete)
@click.option("--json", "as_json", is_flag=True, help="A JSON object with the documented keys.")
@click.option("--extents", "with_extents", is_flag=True,
              help="Also where in physical memory the area lies, piece by piece; as root.")
@mountpoints.option
def info(name: str | None, as_json: bool, with_extents: bool, mountpoint: str) -> None:
    """Tell what the area NAME is and which processes hold it; without NAME, about the mount.

    Processes of other users, and physical addresses, are seen by root alone.

    \b
    Examples:
      mbufffs info
      mbufffs info frame
      mbufffs info frame --json | jq .passthrough
      mbufffs info --json | jq .messages
      mbufffs info frame --extents
    """
    if with_extents and name is None:
        raise click.UsageError("--extents needs the NAME of an area")
    if name is None:
        _, answer = client.served(mounts.resolved(mountpoint))
        facts, rows = answer, _mount_rows(answer)
    else:
        root = mountpoints.live(mountpoint)
        known = mountpoints.name_of(mountpoint, root, name)
        facts = _area(root, known)
        if with_extents:
            # Of memory without pages, which is reserved, the kernel's map of pages knows nothing.
            found = ([pagemap.Extent(0, facts["phys"], facts["size"])] if facts["phys"]
                     else pagemap.extents(os.path.join(root, known)))
            facts["extents"] = [extent._asdict() for extent in found]
        rows = _area_rows(facts)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        table.show(("what", "value"), rows)


def _attribute(path: str, key: str) -> str | None:
    """The text of an attribute of ours; None where this area has none."""
    with contextlib.suppress(OSError):
        return os.getxattr(path, PREFIX + key).decode("utf-8", "replace")
    return None


def _flag(path: str, key: str) -> bool | None:
    text = _attribute(path, key)
    return None if text is None else text == "1"


def _physical(path: str) -> int | None:
    """Where contiguous or reserved memory begins; None for others, and for who may not know."""
    return int(_attribute(path, "phys") or "0", 16) or None


def _area(root: str, name: str) -> dict[str, Any]:
    path = os.path.join(root, name)
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory, not an area", path)
    return {
        **area_names.as_json(name),
        "path": path if area_names.is_utf8(path) else area_names.shown(path),
        "size": status.st_size,
        "backend": _attribute(path, "backend"),
        "kind": _attribute(path, "kind"),
        "phys": _physical(path),
        "passthrough": _flag(path, "passthrough"),
        "locked": _flag(path, "locked"),
        "owners": json.loads(_attribute(path, "owners") or "[]"),
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "open_by": _open_by(path),
    }


def _open_by(path: str) -> list[dict[str, Any]]:
    ways: dict[tuple[int, str], list[str]] = {}
    for holder in holders.holders_of_area(path):
        ways.setdefault((holder.pid, area_names.shown(holder.command)), []).append(holder.how)
    return [{"pid": pid, "command": command, "how": how} for (pid, command), how in ways.items()]


def _size(size: int) -> str:
    short = area.format_size(size)
    return f"{size} ({short})" if len(short) < min(6, len(str(size))) else str(size)


def _said(value: object) -> str:
    """A value as people read it, one line and printable."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int):
        return area_names.shown(str(value))
    return json.dumps(value)


def _owner(owner: dict[str, Any]) -> str:
    """A counted holder, as people read it."""
    name = area_names.shown(owner["name"])
    if owner["kind"] == "module":
        who = f"module {name}"
    elif owner["pid"]:
        who = f"{owner['pid']} ({name})"
    else:
        who = f"a program that has ended ({name})"
    return who if owner["count"] == 1 else f"{who}, {owner['count']} times"


def _area_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    escaped = "name_bytes" in facts
    rows = [
        (key, facts[key] if escaped else area_names.shown(facts[key])) for key in ("name", "path")]
    rows.append(("size", _size(facts["size"])))
    rows += [(key, _said(facts[key])) for key in ("backend", "kind")]
    if facts["phys"] is not None:
        rows.append(("phys", hex(facts["phys"])))
    rows += [(key, _said(facts[key])) for key in ("passthrough", "locked")]
    rows += [("owner", _owner(owner)) for owner in facts["owners"]]
    rows += [("mode", facts["mode"]), ("uid", user(facts["uid"])), ("gid", group(facts["gid"]))]
    rows += [
        ("open_by", f"{held['pid']} ({held['command']}): {', '.join(held['how'])}")
        for held in facts["open_by"]]
    rows += [
        ("extent", f"{extent['offset']:#x}: {extent['length']:#x} bytes at {extent['physical']:#x}")
        for extent in facts.get("extents", ())]
    return rows


def _mount_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in facts.items():
        if key in ("limit", "used") and isinstance(value, int):
            rows.append((key, _size(value)))
        elif key == "uptime":
            rows.append((key, f"{float(value):.0f} s"))
        elif key == "messages" and isinstance(value, dict):
            rows += [
                (f"{key}.{message}",
                 f"{count['received']} received, {count['answered']} answered by the channel")
                for message, count in sorted(value.items())]
        elif key == "contiguous" and isinstance(value, dict):
            rows.append((key, f"up to {area.format_size(value['block'])} in one piece, " + (
                f"and {area.format_size(value['cma_free'])} of CMA" if value["cma_total"]
                else "and no CMA for more")))
        elif key == "channel" and isinstance(value, dict):
            rows += [(f"{key}.{name}", _said(count)) for name, count in value.items()]
        elif value != "":
            rows.append((key, _said(value)))
    return rows
