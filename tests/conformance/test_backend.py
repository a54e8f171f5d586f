# SPDX-License-Identifier: MIT
"""What every backend promises (mbufffs/backends/__init__.py), proved without a mount."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable

import pytest

from mbufffs.backends import ROOT, Backend, Caller, shmem
from mbufffs.backends.nodes import PathNodes
from mbufffs.backends.registry import Registry
from tests.conformance.conftest import AGAIN, LIMIT, ME


def fails(code: int, function: Callable[..., object], *args: object, **options: object) -> None:
    with pytest.raises(OSError) as caught:
        function(*args, **options)
    assert caught.value.errno == code


def area(backend: Backend, name: bytes, data: bytes = b"", parent: int = ROOT) -> int:
    made, new = backend.create(parent, name, 0o644, ME, exclusive=True)
    assert new
    if data:
        assert backend.write(made.node, 0, data) == len(data)
    return made.node


def names(backend: Backend, node: int = ROOT) -> list[bytes]:
    return [name for name, _, _ in backend.entries(node, 0) if name not in (b".", b"..")]


def resize(backend: Backend, node: int, size: int) -> None:
    fd = backend.open(node, os.O_RDWR)
    try:
        backend.resize(fd, size)
    finally:
        os.close(fd)


def has_links(backend: Backend) -> bool:
    """Hard and symbolic links, FIFOs and sockets; the kernel module has areas and nothing else."""
    return backend.name == "shmem"


def test_a_new_area_is_empty(backend: Backend) -> None:
    node = area(backend, b"a")
    found = backend.lookup(ROOT, b"a")
    assert (found.node, found.stat.st_size, found.stat.st_blocks, found.links) == (node, 0, 0, 1)
    assert stat.S_ISREG(found.stat.st_mode)


def test_a_missing_name_is_enoent(backend: Backend) -> None:
    fails(errno.ENOENT, backend.lookup, ROOT, b"a")
    fails(errno.ENOENT, backend.unlink, ROOT, b"a", ME)
    fails(errno.ENOENT, backend.rename, ROOT, b"a", ROOT, b"b", 0, 0, ME)


def test_a_long_name_is_enametoolong(backend: Backend) -> None:
    fails(errno.ENAMETOOLONG, backend.create, ROOT, b"x" * 256, 0o644, ME, exclusive=True)
    area(backend, b"x" * 255)


def test_second_create_of_the_same_name_is_eexist(backend: Backend) -> None:
    node = area(backend, b"a")
    fails(errno.EEXIST, backend.create, ROOT, b"a", 0o644, ME, exclusive=True)
    found, new = backend.create(ROOT, b"a", 0o644, ME, exclusive=False)
    assert (found.node, new) == (node, False)


def test_a_node_means_the_same_to_the_next_server(
        reopened: Callable[[], Backend]) -> None:
    first = reopened()
    directory = first.mkdir(ROOT, b"cam0", 0o750, ME).node
    node = area(first, b"frame", b"bytes", parent=directory)
    second = reopened()
    assert second.read(node, 0, 10) == b"bytes"
    assert second.lookup(directory, b"frame").node == node
    assert second.attributes(ROOT).node == ROOT
    first.rename(ROOT, b"cam0", ROOT, b"cam1", 0, 0, ME)
    assert second.attributes(node).stat.st_size == 5
    assert second.lookup(directory, b"..").node == ROOT


def test_the_parent_of_the_root_is_the_root(backend: Backend) -> None:
    assert backend.lookup(ROOT, b"..").node == ROOT
    assert backend.lookup(ROOT, b".").node == ROOT


def test_resize_allocates_every_page(backend: Backend) -> None:
    node = area(backend, b"a")
    resize(backend, node, 1 << 20)
    assert backend.attributes(node).stat.st_blocks * 512 == 1 << 20
    resize(backend, node, 5000)
    assert backend.attributes(node).stat.st_size == 5000
    assert backend.read(node, 0, 5000) == bytes(5000)


def test_resize_beyond_the_limit_changes_nothing(backend: Backend) -> None:
    if backend.statvfs().f_blocks * backend.statvfs().f_frsize != LIMIT:
        pytest.skip("a limit needs root")
    node = area(backend, b"a", b"kept")
    for size in (LIMIT + 4096, LIMIT - 4096 + 1, 1 << 40):
        before = backend.statvfs().f_bfree
        if size < LIMIT:
            other = area(backend, b"b")
            resize(backend, other, 8192)
            fails(errno.ENOSPC, resize, backend, node, size)
            backend.unlink(ROOT, b"b", ME)
            continue
        fails(errno.ENOSPC, resize, backend, node, size)
        assert backend.statvfs().f_bfree == before
    assert backend.attributes(node).stat.st_size == 4


def test_allocate_keeps_size_or_grows(backend: Backend) -> None:
    node = area(backend, b"a")
    fd = backend.open(node, os.O_RDWR)
    if backend.name == "device":
        # Its areas have their memory below their size, and no other.
        fails(errno.EOPNOTSUPP, backend.allocate, fd, 1, 0, 8192)
    else:
        backend.allocate(fd, 1, 0, 8192)  # FALLOC_FL_KEEP_SIZE
        assert (os.fstat(fd).st_size, os.fstat(fd).st_blocks) == (0, 16)
    backend.allocate(fd, 0, 0, 8192)
    assert os.fstat(fd).st_size == 8192
    assert os.fstat(fd).st_blocks == 16
    os.close(fd)


def test_the_modules_areas_have_one_name_and_are_regular_files(backend: Backend) -> None:
    if backend.name != "device":
        return
    node = area(backend, b"a")
    fails(errno.EPERM, backend.link, node, ROOT, b"b", ME)
    fails(errno.EPERM, backend.symlink, ROOT, b"b", b"a", ME)
    fails(errno.EPERM, backend.mknod, ROOT, b"b", stat.S_IFIFO | 0o600, 0, ME)
    assert names(backend) == [b"a"]


def test_change_sets_what_is_given_and_nothing_else(backend: Backend) -> None:
    node = area(backend, b"a")
    before = backend.attributes(node).stat
    after = backend.change(node, mode=0o600).stat
    assert stat.S_IMODE(after.st_mode) == 0o600
    assert (after.st_mtime_ns, after.st_uid) == (before.st_mtime_ns, before.st_uid)
    after = backend.change(node, mtime_ns=5).stat
    assert (after.st_mtime_ns, after.st_atime_ns) == (5, before.st_atime_ns)
    assert stat.S_IMODE(after.st_mode) == 0o600


def test_a_removed_area_lives_until_it_is_forgotten(backend: Backend) -> None:
    told: list[tuple[int, int]] = []
    backend.on_hidden = lambda *removed: told.append(removed)
    node = area(backend, b"a", b"bytes")
    backend.unlink(ROOT, b"a", ME)
    assert told == [(node, os.sysconf("SC_PAGESIZE"))]
    assert names(backend) == []
    assert backend.read(node, 0, 10) == b"bytes"
    assert backend.attributes(node).links == 0
    assert backend.hidden() == [node]
    last = backend.forget(node)
    assert last is not None
    os.close(last)
    assert backend.hidden() == []
    fails(errno.ESTALE, backend.attributes, node)


def test_a_removed_area_is_found_by_the_next_server(reopened: Callable[[], Backend]) -> None:
    first = reopened()
    node = area(first, b"a", b"bytes")
    first.unlink(ROOT, b"a", ME)
    second = reopened()
    assert second.hidden() == [node]
    assert second.read(node, 0, 10) == b"bytes"
    assert second.attributes(node).links == 0


def test_a_removed_area_cannot_be_linked_again(backend: Backend) -> None:
    node = area(backend, b"a")
    backend.unlink(ROOT, b"a", ME)
    fails(errno.ENOENT if has_links(backend) else errno.EPERM, backend.link, node, ROOT, b"b", ME)


def test_a_replaced_area_lives_until_it_is_forgotten(backend: Backend) -> None:
    area(backend, b"a", b"new")
    old = area(backend, b"b", b"old")
    backend.rename(ROOT, b"a", ROOT, b"b", 0, 0, ME)
    assert backend.read(backend.lookup(ROOT, b"b").node, 0, 10) == b"new"
    assert backend.read(old, 0, 10) == b"old"
    assert backend.attributes(old).links == 0


def test_a_replacement_that_fails_hides_nothing(backend: Backend) -> None:
    backend.mkdir(ROOT, b"d", 0o755, ME)
    node = area(backend, b"b", b"kept")
    fails(errno.ENOTDIR, backend.rename, ROOT, b"d", ROOT, b"b", 0, 0, ME)
    assert backend.hidden() == []
    assert backend.attributes(node).links == 1


def test_hard_links_share_a_node(backend: Backend) -> None:
    if not has_links(backend):
        return
    node = area(backend, b"a", b"bytes")
    linked = backend.link(node, ROOT, b"b", ME)
    assert (linked.node, linked.links) == (node, 2)
    backend.unlink(ROOT, b"a", ME)
    assert backend.attributes(node).links == 1
    assert backend.hidden() == []
    backend.rename(ROOT, b"b", ROOT, b"c", 0, 0, ME)
    assert backend.read(node, 0, 10) == b"bytes"


def test_symlinks_keep_their_target(backend: Backend) -> None:
    if not has_links(backend):
        return
    node = backend.symlink(ROOT, b"s", b"../some/\xff", ME).node
    assert backend.readlink(node) == b"../some/\xff"
    backend.rename(ROOT, b"s", ROOT, b"t", 0, 0, ME)
    assert backend.readlink(node) == b"../some/\xff"


def test_directories_are_removed_when_empty(backend: Backend) -> None:
    directory = backend.mkdir(ROOT, b"d", 0o755, ME).node
    area(backend, b"a", parent=directory)
    fails(errno.ENOTEMPTY, backend.rmdir, ROOT, b"d", ME)
    fails(errno.EISDIR, backend.unlink, ROOT, b"d", ME)
    backend.unlink(directory, b"a", ME)
    backend.rmdir(ROOT, b"d", ME)
    assert names(backend) == []


def test_rename_flags(backend: Backend) -> None:
    a, b = area(backend, b"a"), area(backend, b"b")
    fails(errno.EEXIST, backend.rename, ROOT, b"a", ROOT, b"b", 1, 0, ME)
    backend.rename(ROOT, b"a", ROOT, b"b", 2, 0, ME)
    assert (backend.lookup(ROOT, b"a").node, backend.lookup(ROOT, b"b").node) == (b, a)
    fails(errno.ENOENT, backend.rename, ROOT, b"a", ROOT, b"c", 2, 1, ME)
    fails(errno.EINVAL, backend.rename, ROOT, b"a", ROOT, b"c", 8, 2, ME)


def test_a_listing_can_be_read_on_from_any_offset(reopened: Callable[[], Backend]) -> None:
    backend = reopened()
    for number in range(200):
        area(backend, b"area-%d" % number)
    whole = [(name, offset) for name, _, offset in backend.entries(ROOT, 0)]
    assert len({name for name, _ in whole}) == 202
    rest = [name for name, _, _ in reopened().entries(ROOT, whole[99][1])]
    assert rest == [name for name, _ in whole[100:]]


def test_removing_while_listing_skips_nothing(reopened: Callable[[], Backend]) -> None:
    backend = reopened()
    wanted = {b"area-%d" % number for number in range(60)}
    for name in wanted:
        area(backend, name)
    node = backend.lookup(ROOT, b"area-7").node
    for number in range(5 if has_links(backend) else 0):
        backend.link(node, ROOT, b"linked-%d" % number, ME)
        wanted.add(b"linked-%d" % number)
    seen: list[bytes] = []
    offset = 0
    while page := list(itertools.islice(reopened().entries(ROOT, offset), 7)):
        offset = page[-1][2]
        for name, _, _ in page:
            if name not in (b".", b".."):
                seen.append(name)
                if not name.startswith(b"linked") and name != b"area-7":
                    backend.unlink(ROOT, name, ME)
    assert len(seen) == len(wanted)
    assert set(seen) == wanted


def test_what_has_gone_leaves_no_hint(backend: Backend) -> None:
    if not isinstance(getattr(backend, "_nodes", None), PathNodes):
        return  # no other has such a table
    for _ in range(100):
        node = area(backend, b"a")
        directory = backend.mkdir(ROOT, b"d", 0o755, ME).node
        backend.unlink(ROOT, b"a", ME)
        backend.rmdir(ROOT, b"d", ME)
        for gone in (node, directory):
            if (last := backend.forget(gone)) is not None:
                os.close(last)
    assert len(backend._nodes._seen) < 10


# Sent again: the request of a server that died may have been done already.

def test_what_is_done_already_succeeds_again(backend: Backend) -> None:
    node = area(backend, b"a", b"bytes")
    found, new = backend.create(ROOT, b"a", 0o644, AGAIN, exclusive=True)
    assert (found.node, new) == (node, True)
    directory = backend.mkdir(ROOT, b"d", 0o755, ME).node
    assert backend.mkdir(ROOT, b"d", 0o755, AGAIN).node == directory
    area(backend, b"h")
    if has_links(backend):
        backend.unlink(ROOT, b"h", ME)
        backend.symlink(ROOT, b"s", b"target", ME)
        backend.symlink(ROOT, b"s", b"target", AGAIN)
        backend.mknod(ROOT, b"p", stat.S_IFIFO | 0o600, 0, ME)
        backend.mknod(ROOT, b"p", stat.S_IFIFO | 0o600, 0, AGAIN)
        backend.link(node, ROOT, b"h", ME)
        assert backend.link(node, ROOT, b"h", AGAIN).links == 2
    backend.unlink(ROOT, b"h", ME)
    backend.unlink(ROOT, b"h", AGAIN)
    backend.rmdir(ROOT, b"d", ME)
    backend.rmdir(ROOT, b"d", AGAIN)
    backend.rename(ROOT, b"a", ROOT, b"b", 0, 0, ME)
    backend.rename(ROOT, b"a", ROOT, b"b", 0, 0, AGAIN)
    assert sorted(names(backend)) == ([b"b", b"p", b"s"] if has_links(backend) else [b"b"])


def test_what_is_not_done_yet_is_done_when_sent_again(backend: Backend) -> None:
    node = backend.create(ROOT, b"a", 0o644, AGAIN, exclusive=True)[0].node
    if has_links(backend):
        backend.link(node, ROOT, b"h", AGAIN)
    else:
        area(backend, b"h")
    backend.mkdir(ROOT, b"d", 0o755, AGAIN)
    backend.rename(ROOT, b"a", ROOT, b"b", 0, 0, AGAIN)
    backend.unlink(ROOT, b"h", AGAIN)
    backend.rmdir(ROOT, b"d", AGAIN)
    assert names(backend) == [b"b"]


def test_what_is_something_else_is_still_eexist_when_sent_again(backend: Backend) -> None:
    area(backend, b"a")
    other = area(backend, b"b")
    fails(errno.EEXIST, backend.mkdir, ROOT, b"a", 0o755, AGAIN)
    if has_links(backend):
        fails(errno.EEXIST, backend.symlink, ROOT, b"a", b"x", AGAIN)
        fails(errno.EEXIST, backend.link, other, ROOT, b"a", AGAIN)


@pytest.mark.parametrize("done", [False, True])
def test_an_exchange_sent_again_is_done_once(
        reopened: Callable[[], Backend], done: bool) -> None:
    first = reopened()
    a, b = area(first, b"a"), area(first, b"b")
    # An older exchange of the same names must not be taken for this one.
    first.rename(ROOT, b"a", ROOT, b"b", 2, 6, ME)
    first.rename(ROOT, b"a", ROOT, b"b", 2, 7, ME)
    if done:
        first.rename(ROOT, b"a", ROOT, b"b", 2, 8, ME)
    second = reopened()
    second.rename(ROOT, b"a", ROOT, b"b", 2, 8, AGAIN)
    assert (second.lookup(ROOT, b"a").node, second.lookup(ROOT, b"b").node) == (b, a)


def test_an_exchange_noted_and_not_done_is_done(backend: Backend, monkeypatch: pytest.MonkeyPatch
                                                ) -> None:
    a, b = area(backend, b"a"), area(backend, b"b")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shmem, "rename_at", killed)
        patched.setattr(Registry, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            backend.rename(ROOT, b"a", ROOT, b"b", 2, 3, ME)
    backend.rename(ROOT, b"a", ROOT, b"b", 2, 3, AGAIN)
    assert (backend.lookup(ROOT, b"a").node, backend.lookup(ROOT, b"b").node) == (b, a)


def test_owner_and_set_id_bits_are_those_asked_for(backend: Backend) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes areas for others")
    caller = Caller(1234, 2345)
    made = backend.mknod(ROOT, b"a", stat.S_IFREG | 0o6755, 0, caller).stat
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (1234, 2345, 0o6755)
    directory = backend.mkdir(ROOT, b"d", 0o755, caller).node
    backend.change(directory, gid=777, mode=0o2755)
    inner, _ = backend.create(directory, b"x", 0o644, caller, exclusive=True)
    assert (inner.stat.st_uid, inner.stat.st_gid) == (1234, 777)
    sub = backend.mkdir(directory, b"sub", 0o755, caller)
    assert sub.stat.st_gid == 777
    assert sub.stat.st_mode & stat.S_ISGID


def test_facts_of_an_area(backend: Backend) -> None:
    facts = backend.facts(area(backend, b"a"))
    assert facts["kind"] == "pages"
    assert facts["backend"] == backend.name
    assert facts["owners"] == "[]"
