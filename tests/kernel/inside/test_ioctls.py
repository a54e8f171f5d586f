# SPDX-License-Identifier: MIT
"""What the ioctls of /dev/mbuff make of arguments that are wrong: one errno each, and no change."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from mbufffs.backends import registry as abi
from mbufffs.backends.registry import Registry
from tests.kernel.inside.old_ioctl import ALLOCATE, DEALLOCATE, INFO, SELECT, old
from tests.kernel.inside.raw_ioctl import (
    COMMANDS,
    PAGE,
    address_of,
    call,
    call_at,
    libc,
    refused,
    size_of,
    text,
    which,
)

pytestmark = pytest.mark.rt

UNMAPPED = PAGE  # nobody can map the first pages
KERNEL = 0xFFFF888000000000
CHANGE_MODE = 1
BY_NAME = (abi._IOC_OPEN, abi._IOC_RESIZE, abi._IOC_CHANGE, abi._IOC_REMOVE, abi._IOC_STAT,
           abi._IOC_NOTIFY, abi._IOC_KIND)  # or by number, as their structures begin with both
OLD_COMMANDS = (INFO, ALLOCATE, DEALLOCATE, SELECT)
WRONG_NAMES = {
    b"": errno.EINVAL, b"/": errno.EINVAL, b"/a": errno.EINVAL, b"a/": errno.EINVAL,
    b"a//b": errno.EINVAL, b".": errno.EINVAL, b"..": errno.EINVAL, b"./a": errno.EINVAL,
    b"a/..": errno.EINVAL, b"a/./b": errno.EINVAL, b"\0": errno.EINVAL, b"a\0": errno.EINVAL,
    b"a\0b": errno.EINVAL, b"x" * 256: errno.ENAMETOOLONG, b"a/" + b"x" * 256: errno.ENAMETOOLONG,
    b"x/" * 2047 + b"xx": errno.ENAMETOOLONG,
}


@pytest.fixture
def registry(loaded: None) -> Iterator[Registry]:
    """Nothing that this file asks for may change what areas there are."""
    registry = Registry.open()
    area = registry.create(b"there", size=PAGE)
    before, used = registry.attributes(area), registry.usage()
    yield registry
    left = list(registry.areas())
    assert registry.usage() == used
    for _, found in left:
        registry.remove(found.id)
    registry.close()
    assert left == [(b"there", before)]


def area_of(registry: Registry) -> int:
    return registry.find(b"there").id


def create(address: int, length: int, *, flags: int = 0, size: int = 0, mode: int = 0o600,
           uid: int = abi._NOBODY, gid: int = abi._NOBODY, reserved: int = 0,
           area: int = 0) -> bytes:
    return abi._CREATE.pack(address, length, flags, size, mode, uid, gid, reserved, area)


def asks(command: int, begin: bytes) -> bytes:
    """The structure of a command, with zeros behind what it begins with."""
    return begin + bytes(size_of(command) - len(begin))


def test_a_pointer_to_nothing_is_efault(registry: Registry) -> None:
    for command in (*COMMANDS.values(), *OLD_COMMANDS):
        for address in (0, UNMAPPED, KERNEL, 2**64 - 1, 2**63):
            refused(errno.EFAULT, call_at, registry.fd, command, address)


def test_a_structure_that_ends_behind_a_mapping_is_efault(registry: Registry) -> None:
    memory = mmap.mmap(-1, 2 * PAGE)
    start = address_of(memory)
    assert libc.mprotect(ctypes.c_void_p(start + PAGE), PAGE, 0) == 0
    for command in (*COMMANDS.values(), *OLD_COMMANDS):
        refused(errno.EFAULT, call_at, registry.fd, command, start + PAGE - 4)


def test_a_name_at_an_unmapped_address_is_efault(registry: Registry) -> None:
    for address in (0, UNMAPPED, KERNEL):
        refused(errno.EFAULT, call, registry.fd, abi._IOC_CREATE, create(address, 3))
        for command in BY_NAME:
            refused(errno.EFAULT, call, registry.fd, command,
                    asks(command, which(name=address, length=3)))
        buffer, good = text(b"new")
        for names in ((address, good), (good, address)):
            refused(errno.EFAULT, call, registry.fd, abi._IOC_RENAME,
                    abi._RENAME.pack(*names, 3, 3, 0, 0))
        del buffer


def test_owners_at_an_unmapped_address_are_efault(registry: Registry) -> None:
    area = area_of(registry)
    old(registry, ALLOCATE, b"there", PAGE)
    try:
        for address in (0, UNMAPPED, KERNEL):
            refused(errno.EFAULT, call, registry.fd, abi._IOC_STAT,
                    asks(abi._IOC_STAT, which(area) + struct.pack("=QI", address, 1)))
    finally:
        old(registry, DEALLOCATE, b"there")


@pytest.mark.parametrize(("name", "code"), WRONG_NAMES.items(),
                         ids=[repr(name[:12]) for name in WRONG_NAMES])
def test_a_wrong_name_has_one_errno_in_every_command(registry: Registry, name: bytes,
                                                     code: int) -> None:
    buffer, address = text(name)
    refused(code, registry.create, name)
    refused(code, registry.rename, name, b"other")
    refused(code, registry.rename, b"there", name)
    if name:
        named = which(name=address, length=len(name))
        for command in BY_NAME:
            refused(code, call, registry.fd, command, asks(command, named))
    del buffer


def test_a_length_beyond_all_names_is_too_long(registry: Registry) -> None:
    buffer, address = text(b"x" * 8192)
    for length in (4096, 8192, 2**31, 2**32 - 1):
        refused(errno.ENAMETOOLONG, call, registry.fd, abi._IOC_CREATE, create(address, length))
    del buffer


def test_the_longest_name_and_component_are_fine(registry: Registry) -> None:
    for name in (b"x" * 255, b"x/" * 2047 + b"x", b"\xff\n\\!"):
        area = registry.create(name, exclusive=True)
        assert registry.find(name).id == area
        registry.remove(area)


def test_number_and_name_together_are_einval(registry: Registry) -> None:
    buffer, address = text(b"there")
    both = which(area_of(registry), address, 5)
    for command in BY_NAME:
        refused(errno.EINVAL, call, registry.fd, command, asks(command, both))
    refused(errno.EINVAL, call, registry.fd, abi._IOC_NOTIFY, which(area_of(registry), address, 0))
    refused(errno.EINVAL, call, registry.fd, abi._IOC_FORGET, which(0, address, 5))
    del buffer


def test_what_is_reserved_must_be_0(registry: Registry) -> None:
    area = area_of(registry)
    buffer, address = text(b"new")
    for command in (*BY_NAME, abi._IOC_FORGET):
        refused(errno.EINVAL, call, registry.fd, command,
                asks(command, which(area, reserved=1)))
    for request, command in (
            (which(area) + struct.pack("=II", 0, 1), abi._IOC_KIND),
            (which(area) + struct.pack("=II", 0, 1), abi._IOC_REMOVE),
            (create(address, 3, reserved=1), abi._IOC_CREATE),
            (create(address, 3, area=area), abi._IOC_CREATE),
            (abi._RENAME.pack(address, address, 3, 3, 0, 1), abi._IOC_RENAME)):
        refused(errno.EINVAL, call, registry.fd, command, request)
    del buffer


def test_unknown_flags_are_einval(registry: Registry) -> None:
    area = area_of(registry)
    buffer, address = text(b"new")
    for bit in range(1, 32):
        if bit >= 3:
            refused(errno.EINVAL, call, registry.fd, abi._IOC_CREATE,
                    create(address, 3, flags=1 << bit))
        refused(errno.EINVAL, call, registry.fd, abi._IOC_REMOVE,
                which(area) + struct.pack("=II", 1 << bit, 0))
        refused(errno.EINVAL, call, registry.fd, abi._IOC_LIST,
                abi._LIST.pack(0, address, 3, 1 << bit))
        if bit >= 2:
            refused(errno.EINVAL, call, registry.fd, abi._IOC_OPEN,
                    which(area) + struct.pack("=II", 0, 1 << bit))
        if bit >= 4:
            refused(errno.EINVAL, call, registry.fd, abi._IOC_RENAME,
                    abi._RENAME.pack(address, address, 3, 3, 1 << bit, 0))
    for valid in (0x20, 0x80000000):
        refused(errno.EINVAL, call, registry.fd, abi._IOC_CHANGE,
                which(area) + struct.pack("=IIIIqq", valid, 0, 0, 0, 0, 0))
    for ways in (3, 5, 6, 7):
        refused(errno.EINVAL, registry.rename, b"there", b"new", ways)
    for flags in (os.O_ACCMODE, os.O_TRUNC, os.O_CREAT, os.O_NONBLOCK, os.O_PATH, os.O_DIRECT):
        refused(errno.EINVAL, registry.open_area, area, flags)
    del buffer


def test_bits_beyond_permissions_are_einval(registry: Registry) -> None:
    buffer, address = text(b"new")
    for mode in (0o10000, 0o100644, 2**31):
        refused(errno.EINVAL, call, registry.fd, abi._IOC_CREATE, create(address, 3, mode=mode))
        refused(errno.EINVAL, call, registry.fd, abi._IOC_CHANGE,
                which(area_of(registry)) + struct.pack("=IIIIqq", CHANGE_MODE, mode, 0, 0, 0, 0))
    del buffer


def test_unknown_commands_are_enotty(registry: Registry) -> None:
    for number in (0x0E, 0x3F, 0x44, 0xFF):
        for way in range(4):
            refused(errno.ENOTTY, call, registry.fd, abi._number(way, number, 32), bytes(32))
    for command in COMMANDS.values():
        refused(errno.ENOTTY, call, registry.fd, command + (8 << 16), bytes(256))
        refused(errno.ENOTTY, call, registry.fd, command ^ 0x100, bytes(256))


def test_numbers_of_no_area_are_enoent(registry: Registry) -> None:
    for area in (0, area_of(registry) + 1, 2**32, 2**63, 2**64 - 1):
        refused(errno.ENOENT, registry.attributes, area)
        refused(errno.ENOENT, registry.open_area, area, os.O_RDWR)
        refused(errno.ENOENT, registry.resize, area, 0)
        refused(errno.ENOENT, registry.remove, area)
        refused(errno.ENOENT, registry.remove, area, hold=True)
        refused(errno.ENOENT, registry.forget, area)
        refused(errno.ENOENT, registry.notify, area)
        refused(errno.ENOENT, registry.change, area)
    refused(errno.ENOENT, registry.find, b"not there")
    refused(errno.ENOENT, registry.rename, b"not there", b"new")
    refused(errno.ENOENT, registry.rename, b"there", b"not there", abi.RENAME_EXCHANGE)


def test_an_area_is_no_directory_and_a_directory_no_area(registry: Registry) -> None:
    refused(errno.ENOTDIR, registry.create, b"there/below")
    refused(errno.ENOTDIR, registry.rename, b"there", b"there/below")
    area = registry.create(b"directory/below")
    refused(errno.EISDIR, registry.create, b"directory")
    refused(errno.EISDIR, registry.rename, b"there", b"directory")
    registry.remove(area)


def test_a_name_that_exists_is_found_as_it_is_or_eexist(registry: Registry) -> None:
    area = area_of(registry)
    assert registry.create(b"there", size=100 * PAGE, mode=0o777, uid=1) == area
    refused(errno.EEXIST, registry.create, b"there", exclusive=True)
    other = registry.create(b"other")
    refused(errno.EEXIST, registry.rename, b"other", b"there", abi.RENAME_NOREPLACE)
    registry.remove(other)


def test_sizes_beyond_limit_and_files(registry: Registry) -> None:
    area = area_of(registry)
    limit = registry.usage().max_bytes
    for size in {limit + 1, max(2**31, limit + 1), 2**40, 2**62, 2**63 - 2 * PAGE}:
        refused(errno.ENOSPC, registry.create, b"new", size=size)
        refused(errno.ENOSPC, registry.resize, area, size)
    for size in (2**63 - 1, 2**63, 2**64 - 1):
        refused(errno.EFBIG, registry.create, b"new", size=size)
        refused(errno.EFBIG, registry.resize, area, size)
    refused(errno.ENOENT, registry.find, b"new")


def test_owners_nobody_can_have_are_einval(registry: Registry) -> None:
    for field in (16, 20):  # uid and gid, behind which, valid and mode
        values = [CHANGE_MODE << 1 | CHANGE_MODE << 2, 0, 0, 0]
        values[2 if field == 16 else 3] = 2**32 - 1
        refused(errno.EINVAL, call, registry.fd, abi._IOC_CHANGE,
                which(area_of(registry)) + struct.pack("=IIIIqq", *values, 0, 0))


def test_a_list_without_room_for_one_is_einval_and_fills_what_fits(registry: Registry) -> None:
    area = area_of(registry)
    buffer = ctypes.create_string_buffer(4096)
    address = ctypes.addressof(buffer)
    entry = abi._ENTRY_HEAD.size + abi._ATTRIBUTES.size + 8
    for room in (0, 1, entry - 1):
        refused(errno.EINVAL, call, registry.fd, abi._IOC_LIST, abi._LIST.pack(0, address, room, 0))
    refused(errno.EINVAL, call, registry.fd, abi._IOC_LIST, abi._LIST.pack(0, address, 2**31, 0))
    refused(errno.EFAULT, call, registry.fd, abi._IOC_LIST, abi._LIST.pack(0, UNMAPPED, 4096, 0))
    assert call(registry.fd, abi._IOC_LIST, abi._LIST.pack(0, address, entry, 0)) == entry
    for after in (area, 2**32, 2**64 - 1):
        assert call(registry.fd, abi._IOC_LIST, abi._LIST.pack(after, address, 4096, 0)) == 0


def test_owners_without_room_are_counted(registry: Registry) -> None:
    request = abi._STAT_HEAD.pack(area_of(registry), 0, 0, 0, UNMAPPED, 2**32 - 1, 0)
    assert call(registry.fd, abi._IOC_STAT, request + bytes(abi._ATTRIBUTES.size)) == 0


def test_a_created_number_that_cannot_be_told_makes_no_area(registry: Registry) -> None:
    """The structure lies in memory that can be read but not written."""
    buffer, address = text(b"new")
    memory = mmap.mmap(-1, PAGE)
    memory[:abi._CREATE.size] = create(address, 3)
    start = address_of(memory)
    assert libc.mprotect(ctypes.c_void_p(start), PAGE, mmap.PROT_READ) == 0
    refused(errno.EFAULT, call_at, registry.fd, abi._IOC_CREATE, start)
    refused(errno.ENOENT, registry.find, b"new")
    del buffer
