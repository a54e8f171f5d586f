# SPDX-License-Identifier: MIT
"""`mbufffs create`: a new area with its memory, or nothing at all."""

from __future__ import annotations

import contextlib
import errno
import os

import click

from mbufffs import area
from mbufffs.cli import mountpoint as mountpoints


class _Create(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)  # the parser takes its list apart
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            # A negative size looks like an option.
            for word in given:
                if word.startswith(error.option_name) and word[1:2].isdigit():
                    area.parse_size(word)
            raise


def _mode(_context: click.Context, _parameter: click.Parameter, given: str | None) -> int | None:
    if given is None:
        return None
    try:
        mode = int(given, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise click.BadParameter(f"{given!r} is not an octal mode, as in 600 or 0664")
    return mode


@click.command(cls=_Create, short_help="Create an area with its memory.")
@click.argument("name")
@click.argument("size")
@click.option("--mode", metavar="OCTAL", callback=_mode,
              help="Permissions, whatever the umask is; without it 666 less the umask.")
@click.option("--kind", type=click.Choice(["pages", "contiguous"]), default="pages",
              help="contiguous: one piece of physical memory, of the kernel module.")
@click.option("--parents", "-p", is_flag=True, help="Make missing directories of the name.")
@mountpoints.option
def create(name: str, size: str, mode: int | None, kind: str, parents: bool,
           mountpoint: str) -> None:
    """Create the area NAME with SIZE bytes, all of them zero and in memory.

    SIZE is a number of bytes, or a number with K, M, G or T (powers of 1024). An area that
    exists is an error; if the memory is not there, no name is left behind.

    \b
    Examples:
      mbufffs create frame 4M
      mbufffs create --mode 660 --parents cam0/frame 64K
      mbufffs create --kind contiguous dma 1M
    """
    wanted = area.parse_size(size)
    root = mountpoints.live(mountpoint)
    path = os.path.join(root, mountpoints.name_of(mountpoint, root, name))
    made = _make_parents(root, path) if parents else []
    try:
        _create(path, wanted, mode, kind)
    except BaseException:
        for directory in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        raise


def _make_parents(root: str, path: str) -> list[str]:
    """Makes the missing directories; those that it made, topmost first."""
    made: list[str] = []
    directory = root
    for part in os.path.relpath(path, root).split("/")[:-1]:
        directory = os.path.join(directory, part)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
            made.append(directory)
    return made


def _create(path: str, size: int, mode: int | None, kind: str) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        raise FileNotFoundError(
            errno.ENOENT, "has a directory that does not exist; --parents makes it", path
        ) from None
    try:
        if mode is not None:
            os.fchmod(fd, mode)
        if kind != "pages":
            _set_kind(path, fd, kind)
        if size:
            os.ftruncate(fd, size)
    except BaseException as error:
        os.unlink(path)
        if kind == "contiguous" and isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise OSError(
                error.errno, f"no {area.format_size(size)} of contiguous memory are free; "
                "mbufffs doctor tells how much there can be", path) from None
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise OSError(
                error.errno, f"{area.format_size(size)} do not fit; mbufffs info tells the limit",
                path) from None
        raise
    finally:
        os.close(fd)


def _set_kind(path: str, fd: int, kind: str) -> None:
    try:
        os.setxattr(fd, "user.mbuff.kind", kind.encode())
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise OSError(error.errno, f"memory of kind {kind} is the kernel module's; this mount "
                      "keeps areas without it", path) from None
