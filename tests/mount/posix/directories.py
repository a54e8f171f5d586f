# SPDX-License-Identifier: MIT
"""Cases of reading directories: positions, changes meanwhile, types, inode numbers; and statvfs."""

from __future__ import annotations

import os

from tests.mount.posix.calls import Directory
from tests.mount.posix.registry import case
from tests.mount.posix.side import Side

KINDS = ("file", "empty", "full", "symlink", "dangling", "fifo", "socket")


@case
def types_and_inode_numbers(side: Side) -> None:
    for kind in KINDS:
        side.make(kind, f"a-{kind}")
    with os.scandir(".") as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    side.note("types", [(e.name, e.is_file(follow_symlinks=False), e.is_dir(follow_symlinks=False),
                         e.is_symlink()) for e in found])
    side.note("inodes", [e.inode() == os.lstat(e.name).st_ino for e in found])
    side.note("all different", len({e.inode() for e in found}) == len(found))


@case
def the_two_that_are_always_there(side: Side) -> None:
    os.makedirs("d/e")
    for path in (".", "d", "d/e"):
        stream = Directory(path)
        names = stream.rest()
        stream.close()
        side.note("first two", sorted(names[:2]))
        side.note("all", sorted(names))
    side.note("inodes", (os.stat("d/e/..").st_ino == os.stat("d").st_ino,
                         os.stat("d/.").st_ino == os.stat("d").st_ino,
                         os.stat("d/e/../..").st_ino == os.stat(".").st_ino))


@case
def positions_can_be_told_and_sought(side: Side) -> None:
    for number in range(2000):
        os.close(os.open(f"file-with-a-rather-long-name-{number:05}", os.O_CREAT))
    stream = Directory(".")
    places, names = [], []
    while True:
        places.append(stream.tell())
        name = stream.read()
        if name is None:
            break
        names.append(name)
    side.note("each once", (len(names), len(set(names))))
    for index in (0, 1, 2, 3, 500, 1500, 2001, 2002, 1000, 7):
        stream.seek(places[index])
        side.note(f"from {index}", stream.rest() == names[index:])
    stream.rewind()
    side.note("rewound", stream.rest() == names)
    # Positions stay those of their entries when others go.
    for number in range(0, 2000, 2):
        os.unlink(f"file-with-a-rather-long-name-{number:05}")
    # Those that are gone may still be shown until the stream is rewound.
    stream.seek(places[700])
    side.note("after removals", [name for name in stream.rest() if not _is_even(name)]
              == [name for name in names[700:] if not _is_even(name)])
    stream.rewind()
    side.note("rewound", len(stream.rest()))
    stream.close()


def _is_even(name: str) -> bool:
    return name not in (".", "..") and int(name[-5:]) % 2 == 0


@case
def rewinding_shows_what_is_new(side: Side) -> None:
    side.make("file", "a")
    stream = Directory(".")
    side.note("first", sorted(stream.rest()))
    side.make("file", "b")
    os.unlink("a")
    stream.rewind()
    side.note("then", sorted(stream.rest()))
    os.rename("b", "c")
    stream.rewind()
    side.note("then", sorted(stream.rest()))
    stream.close()
    fd = os.open(".", os.O_RDONLY)
    side.note("listdir", sorted(os.listdir(fd)))
    side.make("file", "d")
    side.note("listdir", sorted(os.listdir(fd)))


@case
def changes_while_reading(side: Side) -> None:
    for number in range(500):
        os.close(os.open(f"f{number}", os.O_CREAT))
    stream = Directory(".")
    names = [stream.read() for _ in range(50)]
    for number in range(100, 200):
        os.rename(f"f{number}", f"g{number}")
    for number in range(200, 300):
        os.unlink(f"f{number}")
    names += stream.rest()
    stream.close()
    untouched = {f"f{n}" for n in (*range(100), *range(300, 500))}
    side.note("what stays is there once", sorted(n for n in names if n in untouched))
    side.note("nothing twice", len(names) == len(set(names)))


@case
def removing_while_reading(side: Side) -> None:
    for number in range(3000):
        os.close(os.open(f"{number}", os.O_CREAT))
    with os.scandir(".") as entries:
        for entry in entries:
            os.unlink(entry.name)
    side.note("left", os.listdir("."))


@case
def making_while_reading(side: Side) -> None:
    """A reader must come to an end although every name it sees makes another one."""
    for number in range(100):
        os.close(os.open(f"f{number}", os.O_CREAT))
    seen = 0
    with os.scandir(".") as entries:
        for entry in entries:
            seen += 1
            if seen > 5000:
                break
            os.rename(entry.name, f"{entry.name}-renamed")
    side.note("it ends", seen <= 5000)


@case
def deeper_than_a_path_can_say(side: Side) -> None:
    top = os.getcwd()
    for depth in range(60):
        os.mkdir(f"{depth:0200}")
        os.chdir(f"{depth:0200}")
    side.opens("f", os.O_CREAT | os.O_RDWR)
    side.do("getcwd", lambda: len(os.getcwd()) and None)
    side.listdir(".")
    for depth in reversed(range(60)):
        side.do("listdir", lambda: [name[-2:] for name in os.listdir(".")])
        os.chdir("..")
        if depth == 59:
            os.unlink(f"{depth:0200}/f")
        os.rmdir(f"{depth:0200}")
    side.note("back", os.getcwd() == top)


@case
def a_directory_is_not_a_file(side: Side) -> None:
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    side.do("read", lambda: os.read(fd, 10))
    side.do("lseek", lambda: os.lseek(fd, 0, os.SEEK_SET))
    side.do("lseek to nowhere", lambda: os.lseek(fd, -5, os.SEEK_SET))
    side.do("fsync", lambda: os.fsync(fd))
    side.make("file", "f")
    file = os.open("f", os.O_RDONLY)
    side.do("listdir of a file", lambda: os.listdir(file))
    side.do("fchdir to a file", lambda: os.fchdir(file))


@case
def far_offsets(side: Side) -> None:
    for number in range(10):
        os.close(os.open(f"{number}", os.O_CREAT))
    fd = os.open(".", os.O_RDONLY)
    for offset in (1 << 40, (1 << 62) + 5):
        side.do("lseek", lambda offset=offset: os.lseek(fd, offset, os.SEEK_SET))
        stream = Directory(".")
        stream.seek(offset)
        side.do("read", stream.rest)
        stream.close()


@case
def the_file_system_itself(side: Side) -> None:
    side.make("file", "f")
    for path in (".", "f"):
        found = os.statvfs(path)
        side.note("fixed", (found.f_bsize, found.f_frsize, found.f_namemax))
        side.note("sane", (found.f_blocks >= found.f_bfree >= found.f_bavail > 0,
                           found.f_files >= found.f_ffree >= 0))
    for name in ("PC_NAME_MAX", "PC_LINK_MAX", "PC_PIPE_BUF", "PC_CHOWN_RESTRICTED",
                 "PC_NO_TRUNC", "PC_SYMLINK_MAX", "PC_FILESIZEBITS"):
        if name in os.pathconf_names:
            side.do("pathconf", os.pathconf, ".", name)
    before = os.statvfs(".").f_bfree
    fd = os.open("f", os.O_RDWR)
    os.write(fd, bytes(1 << 20))
    side.note("used", (before - os.statvfs(".").f_bfree) * os.statvfs(".").f_frsize)
    side.note("blocks", os.fstat(fd).st_blocks)
    os.ftruncate(fd, 0)
    side.note("blocks", os.fstat(fd).st_blocks)
    side.note("block size", os.fstat(fd).st_blksize)
    side.note("and a directory's", os.stat(".").st_blksize)
