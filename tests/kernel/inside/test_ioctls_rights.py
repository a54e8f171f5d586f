# SPDX-License-Identifier: MIT
"""What an ordinary user in the device's group may do to areas: mode and owner decide."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mbufffs.backends import registry as abi
from mbufffs.backends.registry import Registry
from tests.kernel.inside.conftest import Module, given_back
from tests.kernel.inside.old_ioctl import ALLOCATE, DEALLOCATE, INFO, SELECT, old
from tests.kernel.inside.raw_ioctl import NOBODY, PAGE, refused

pytestmark = pytest.mark.rt

GROUP = 7777  # of the device
OTHER_GROUP = 7778


@pytest.fixture(scope="module")
def loaded() -> Iterator[None]:
    module = Module(Path(os.environ["MBUFF_MODULE"]))
    module.insmod()
    os.chown("/dev/mbuff", 0, GROUP)
    os.chmod("/dev/mbuff", 0o660)
    yield
    module.unload()


@pytest.fixture
def root(loaded: None) -> Iterator[Registry]:
    with given_back(counted=True) as registry:
        yield registry


@pytest.fixture
def as_nobody() -> Callable[[Callable[[Registry], None]], None]:
    """Runs a function in a process of nobody, who is in the device's group and no other."""
    def run(function: Callable[[Registry], None]) -> None:
        child = os.fork()
        if not child:
            status = 1
            try:
                os.setgroups([GROUP])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                function(Registry.open())
                status = 0
            except BaseException as error:
                os.write(2, f"as nobody: {error!r}\n".encode())
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0

    return run


AsNobody = Callable[[Callable[[Registry], None]], None]


def test_who_is_not_in_the_group_opens_nothing(root: Registry) -> None:
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setgid(OTHER_GROUP)
        os.setuid(NOBODY)
        try:
            Registry.open()
        except PermissionError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_an_area_without_rights_is_closed_on_both_paths(root: Registry,
                                                        as_nobody: AsNobody) -> None:
    area = root.create(b"root", size=PAGE, mode=0o600)
    root.create(b"victim", size=PAGE, mode=0o600)

    def tries(registry: Registry) -> None:
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            refused(errno.EACCES, registry.open_area, area, flags)
        refused(errno.EACCES, registry.resize, area, 0)
        refused(errno.EACCES, registry.notify, area)
        refused(errno.EPERM, registry.remove, area)
        refused(errno.EPERM, registry.remove, area, hold=True)
        refused(errno.EPERM, registry.rename, b"root", b"mine")
        refused(errno.EPERM, registry.change, area)
        refused(errno.EPERM, registry.change, area, mode=0o666)
        refused(errno.EPERM, registry.change, area, uid=NOBODY)
        refused(errno.EPERM, registry.change, area, mtime_ns=0)
        refused(errno.EPERM, registry.rename, b"root", b"new", abi.RENAME_TREE)
        for command in (SELECT, INFO, ALLOCATE, DEALLOCATE):
            refused(errno.EACCES, old, registry, command, b"root", PAGE)
        mine = registry.create(b"mine", size=PAGE)
        refused(errno.EPERM, registry.rename, b"mine", b"root")
        refused(errno.EPERM, registry.rename, b"mine", b"root", abi.RENAME_EXCHANGE)
        refused(errno.EPERM, registry.rename, b"root", b"mine", abi.RENAME_EXCHANGE)
        registry.remove(mine)

    before = root.attributes(area)
    as_nobody(tries)
    assert root.attributes(area) == before
    assert [name for name, _ in root.areas()] == [b"root", b"victim"]


def test_a_right_to_read_is_none_to_write(root: Registry, as_nobody: AsNobody) -> None:
    area = root.create(b"root", size=PAGE, mode=0o604)
    root.change(area, gid=OTHER_GROUP)

    def tries(registry: Registry) -> None:
        fd = registry.open_area(area, os.O_RDONLY)
        for flags in (os.O_WRONLY, os.O_RDWR):
            refused(errno.EACCES, registry.open_area, area, flags)
            refused(errno.EACCES, os.open, f"/proc/self/fd/{fd}", flags)
        refused(errno.EACCES, registry.resize, area, 0)
        refused(errno.EACCES, old, registry, SELECT, b"root")
        refused(errno.EACCES, os.truncate, f"/proc/self/fd/{fd}", 0)

    as_nobody(tries)
    assert root.attributes(area).size == PAGE


def test_a_right_to_write_is_none_to_remove(root: Registry, as_nobody: AsNobody) -> None:
    area = root.create(b"root", size=PAGE, mode=0o666)

    def tries(registry: Registry) -> None:
        registry.resize(area, 2 * PAGE)
        registry.notify(area)
        old(registry, ALLOCATE, b"root", PAGE)
        old(registry, DEALLOCATE, b"root")
        refused(errno.EPERM, registry.remove, area)
        refused(errno.EPERM, registry.rename, b"root", b"mine")
        refused(errno.EPERM, registry.change, area, mode=0o777)

    as_nobody(tries)
    assert root.find(b"root").size == 2 * PAGE


def test_a_hidden_user_needs_privilege(root: Registry, as_nobody: AsNobody) -> None:
    area = root.create(b"root", size=PAGE, mode=0o666)

    def tries(registry: Registry) -> None:
        refused(errno.EPERM, registry.open_area, area, os.O_RDWR, weak=True)

    as_nobody(tries)


def test_an_owner_gives_away_nothing_that_chown_would_not(root: Registry,
                                                          as_nobody: AsNobody) -> None:
    def tries(registry: Registry) -> None:
        refused(errno.EPERM, registry.create, b"mine", uid=0)
        refused(errno.EPERM, registry.create, b"mine", gid=OTHER_GROUP)
        area = registry.create(b"mine", gid=GROUP, mode=0o2770)
        assert registry.attributes(area).mode == stat.S_IFREG | 0o2770
        refused(errno.EPERM, registry.change, area, uid=0)
        refused(errno.EPERM, registry.change, area, gid=OTHER_GROUP)
        registry.change(area, mode=0o640, gid=NOBODY)
        registry.rename(b"mine", b"still mine")

    as_nobody(tries)
    found = root.find(b"still mine")
    assert (found.uid, found.gid, found.mode) == (NOBODY, NOBODY, stat.S_IFREG | 0o640)


def test_a_removed_area_stays_as_closed_as_it_was(root: Registry, as_nobody: AsNobody) -> None:
    area = root.create(b"root", size=PAGE, mode=0o600)
    root.remove(area, hold=True)

    def tries(registry: Registry) -> None:
        refused(errno.EACCES, registry.open_area, area, os.O_RDONLY)
        refused(errno.EACCES, registry.resize, area, 0)
        refused(errno.ENOENT, registry.forget, area)
        assert not list(registry.areas(held=True))

    as_nobody(tries)
    root.forget(area)


def test_the_old_interface_makes_areas_with_the_rights_of_the_device(
        root: Registry, as_nobody: AsNobody) -> None:
    def allocates(registry: Registry) -> None:
        old(registry, ALLOCATE, b"shared", PAGE)

    as_nobody(allocates)
    found = root.find(b"shared")
    assert (found.uid, found.gid, found.mode) == (NOBODY, GROUP, stat.S_IFREG | 0o660)


def test_listeners_of_ordinary_users_are_limited(root: Registry, as_nobody: AsNobody) -> None:
    def listens(registry: Registry) -> None:
        for _ in range(256):
            registry.events()
        refused(errno.EUSERS, registry.events)

    as_nobody(listens)
    os.close(root.events())
