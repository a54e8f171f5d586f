# SPDX-License-Identifier: MIT
"""What a file at the mount does, by the table of operations: names, sizes, bytes, rights."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Callable

import pytest

from tests.conftest import Mounted, needs_root, run


def error_of(function: Callable[..., object], *args: object, **options: object) -> int | None:
    with pytest.raises(OSError) as caught:
        function(*args, **options)
    return caught.value.errno


def test_a_created_file_is_empty_and_takes_no_memory(mounted: Mounted) -> None:
    (mounted.path / "a").touch()
    found = (mounted.path / "a").stat()
    assert (found.st_size, found.st_blocks) == (0, 0)


def test_truncate_allocates_every_page(mounted: Mounted) -> None:
    run("truncate", "-s", "1M", mounted.path / "a")
    assert (mounted.path / "a").stat().st_blocks * 512 == 1 << 20
    assert (mounted.path / "a").read_bytes() == bytes(1 << 20)


@pytest.mark.parametrize("sizes", [(0, 1), (1, 4096), (100, 5000), (5000, 100), (4097, 1 << 21)])
def test_growing_and_shrinking_keep_what_stays_and_zero_what_comes(
        mounted: Mounted, sizes: tuple[int, int]) -> None:
    before, after = sizes
    path = mounted.path / "a"
    path.write_bytes(b"\xff" * before)
    os.truncate(path, after)
    assert path.read_bytes() == (b"\xff" * before)[:after] + bytes(max(0, after - before))
    pages = -(-after // mmap.PAGESIZE)
    assert path.stat().st_blocks * 512 == pages * mmap.PAGESIZE


def test_dd_cp_cmp_mv_and_shred_work(mounted: Mounted) -> None:
    source, copy = mounted.path / "b", mounted.path / "c"
    run("dd", "if=/dev/urandom", f"of={source}", "bs=64k", "count=100")
    run("cp", source, copy)
    run("cmp", source, copy)
    run("mv", copy, mounted.path / "d")
    run("cmp", source, mounted.path / "d")
    run("shred", "-u", mounted.path / "d")
    assert [entry.name for entry in mounted.path.iterdir()] == ["b"]


def test_df_shows_limit_and_use(mounted: Mounted) -> None:
    before = os.statvfs(mounted.path)
    (mounted.path / "a").touch()
    os.truncate(mounted.path / "a", 8 << 20)
    after = os.statvfs(mounted.path)
    assert (before.f_bfree - after.f_bfree) * after.f_frsize == 8 << 20
    if mounted.settings.limit:
        assert after.f_blocks * after.f_frsize == mounted.settings.limit


def test_two_mappings_see_each_others_bytes(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as one, path.open("r+b") as two, \
            mmap.mmap(one.fileno(), 0) as first, mmap.mmap(two.fileno(), 0) as second:
        first[5000] = 7
        assert second[5000] == 7
        two.seek(5000)
        assert two.read(1) == b"\x07"


@needs_root
@pytest.mark.parametrize("way", ["truncate", "write", "fallocate"])
def test_beyond_the_limit_is_enospc_and_changes_nothing(mounted: Mounted, way: str) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"kept")
    free = os.statvfs(mounted.path).f_bfree
    beyond = (mounted.settings.limit or 0) + 4096
    if way == "truncate":
        assert error_of(os.truncate, path, beyond) == errno.ENOSPC
    elif way == "fallocate":
        with path.open("r+b") as file:
            assert error_of(os.posix_fallocate, file.fileno(), 0, beyond) == errno.ENOSPC
    else:
        big = os.open(mounted.path / "big", os.O_CREAT | os.O_RDWR)
        os.ftruncate(big, free * 4096)
        assert error_of(os.pwrite, big, b"x", free * 4096) == errno.ENOSPC
        os.close(big)
        os.unlink(mounted.path / "big")
    assert path.read_bytes() == b"kept"


@pytest.mark.parametrize(("size", "code"), [(-1, errno.EINVAL), (1 << 62, None)])
def test_sizes_that_cannot_be_are_refused(mounted: Mounted, size: int, code: int | None) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"kept")
    found = error_of(os.truncate, path, size)
    assert found == code if code else found in (errno.EFBIG, errno.ENOSPC)
    assert path.read_bytes() == b"kept"


def test_fallocate_grows_keeps_size_and_punches(mounted: Mounted) -> None:
    path = mounted.path / "c"
    run("fallocate", "-l", "2M", path)
    assert (path.stat().st_size, path.stat().st_blocks * 512) == (2 << 20, 2 << 20)
    run("fallocate", "-n", "-o", "2M", "-l", "1M", path)
    assert (path.stat().st_size, path.stat().st_blocks * 512) == (2 << 20, 3 << 20)
    run("fallocate", "-p", "-o", "0", "-l", "1M", path)
    assert (path.stat().st_size, path.stat().st_blocks * 512) == (2 << 20, 2 << 20)


def test_posix_fallocate_allocates(new_mount: Callable[..., Mounted]) -> None:
    mounted = new_mount(huge=False)  # in a huge page the hole before may have memory
    with (mounted.path / "a").open("wb") as file:
        os.posix_fallocate(file.fileno(), 4096, 1 << 20)
        assert os.fstat(file.fileno()).st_blocks * 512 == 1 << 20


@pytest.mark.parametrize(("name", "code"), [
    (b"x" * 256, errno.ENAMETOOLONG), (b"x" * 1100, errno.ENAMETOOLONG), (b"", errno.ENOENT),
    (b".", errno.EISDIR), (b"..", errno.EISDIR)])
def test_names_that_cannot_be_are_refused(mounted: Mounted, name: bytes, code: int) -> None:
    path = os.fsencode(mounted.path) + b"/" + name
    flags = os.O_CREAT | os.O_WRONLY
    if name == b"":
        assert error_of(os.open, b"", flags) == code
    else:
        assert error_of(os.open, path, flags) == code


@pytest.mark.parametrize("name", [b"x" * 255, b"a\nb", b"\xff\xfe", b"-rf", b" ", b"a\tb"])
def test_names_are_bytes(mounted: Mounted, name: bytes) -> None:
    path = os.fsencode(mounted.path) + b"/" + name
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    assert os.listdir(os.fsencode(mounted.path)) == [name]
    os.unlink(path)
    assert not os.path.exists(path)


def test_ls_shows_odd_names_escaped(mounted: Mounted) -> None:
    (mounted.path / "a\nb").touch()
    assert run("ls", "-b", mounted.path, env={**os.environ, "LC_ALL": "C"}).stdout == "a\\nb\n"


def test_mode_owner_and_times_are_kept(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.touch(mode=0o600)
    path.chmod(0o4751)
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o4751
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_001, 2_000_000_002)


@needs_root
def test_an_area_belongs_to_who_made_it(mounted: Mounted) -> None:
    run("setpriv", "--reuid", "1234", "--regid", "2345", "--clear-groups",
        "touch", mounted.path / "a")
    found = (mounted.path / "a").stat()
    assert (found.st_uid, found.st_gid) == (1234, 2345)


@needs_root
def test_others_rights_are_the_mode(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    other = ("setpriv", "--reuid", "1234", "--regid", "2345", "--clear-groups")
    with pytest.raises(AssertionError, match="Permission denied"):
        run(*other, "cat", path)
    with pytest.raises(AssertionError, match="Operation not permitted"):
        run(*other, "rm", "-f", path)
    path.chmod(0o644)
    assert run(*other, "cat", path).stdout == "secret"


@needs_root
def test_who_opens_with_o_creat_what_came_meanwhile_is_asked_for_his_rights(
        mounted: Mounted) -> None:
    """The kernel takes the answer to CREATE for a file that the caller has made."""
    path, within = mounted.path / "late", mounted.state.store / "areas" / "late"
    mounted.path.chmod(0o1777)
    for mode, code in ((0o600, errno.EACCES), (0o666, 0)):
        assert not path.exists()  # which is remembered
        within.write_bytes(b"bytes")
        within.chmod(mode)
        child = os.fork()
        if not child:
            os.setgroups([])
            os.setuid(65534)
            try:
                os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            except OSError as error:
                os._exit(error.errno)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
        assert within.read_bytes() == (b"bytes" if code else b"")
        path.unlink()


@needs_root
def test_a_setgid_directory_gives_its_group(mounted: Mounted) -> None:
    directory = mounted.path / "cam0"
    directory.mkdir()
    os.chown(directory, 0, 777)
    directory.chmod(0o2775)
    (directory / "frame").touch()
    (directory / "sub").mkdir()
    assert (directory / "frame").stat().st_gid == 777
    assert (directory / "sub").stat().st_gid == 777
    assert (directory / "sub").stat().st_mode & stat.S_ISGID


@needs_root
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR,
                                  stat.S_IFBLK])
def test_mknod_makes_every_kind(mounted: Mounted, kind: int) -> None:
    path = mounted.path / "node"
    os.mknod(path, kind | 0o640, os.makedev(1, 3))
    found = path.stat()
    assert stat.S_IFMT(found.st_mode) == kind
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        assert found.st_rdev == os.makedev(1, 3)
        assert error_of(os.open, path, os.O_RDONLY) == errno.EACCES  # nodev


def test_symlinks_and_hard_links(mounted: Mounted) -> None:
    (mounted.path / "a").write_bytes(b"bytes")
    (mounted.path / "s").symlink_to("a")
    os.link(mounted.path / "a", mounted.path / "h")
    assert os.readlink(mounted.path / "s") == "a"
    assert (mounted.path / "s").read_bytes() == b"bytes"
    assert (mounted.path / "h").stat().st_ino == (mounted.path / "a").stat().st_ino
    assert (mounted.path / "a").stat().st_nlink == 2
    (mounted.path / "a").unlink()
    assert (mounted.path / "h").stat().st_nlink == 1
    assert (mounted.path / "h").read_bytes() == b"bytes"


def test_rename_replaces_and_the_replaced_lives_while_open(mounted: Mounted) -> None:
    (mounted.path / "a").write_bytes(b"new")
    (mounted.path / "b").write_bytes(b"old")
    with (mounted.path / "b").open("rb") as replaced:
        os.rename(mounted.path / "a", mounted.path / "b")
        assert (mounted.path / "b").read_bytes() == b"new"
        assert replaced.read() == b"old"
        assert os.fstat(replaced.fileno()).st_nlink == 0
    assert os.listdir(mounted.path) == ["b"]


def test_rename_can_refuse_to_replace_and_can_exchange(mounted: Mounted) -> None:
    a, b = mounted.path / "a", mounted.path / "b"
    a.write_bytes(b"a")
    b.write_bytes(b"b")
    assert run("mv", "-n", a, b).returncode == 0
    assert (a.read_bytes(), b.read_bytes()) == (b"a", b"b")
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.renameat2(-100, bytes(a), -100, bytes(b), 1) == -1
    assert ctypes.get_errno() == errno.EEXIST
    assert libc.renameat2(-100, bytes(a), -100, bytes(b), 2) == 0
    assert (a.read_bytes(), b.read_bytes()) == (b"b", b"a")


def test_areas_in_directories(mounted: Mounted) -> None:
    directory = mounted.path / "cam0"
    directory.mkdir()
    (directory / "frame").write_bytes(b"frame")
    assert error_of(os.rmdir, directory) == errno.ENOTEMPTY
    os.rename(directory, mounted.path / "cam1")
    assert (mounted.path / "cam1/frame").read_bytes() == b"frame"
    assert sorted(os.listdir(mounted.path / "cam1")) == ["frame"]
    assert os.path.samefile(mounted.path / "cam1" / "..", mounted.path)


def test_a_listing_of_many_names_has_each_once(mounted: Mounted) -> None:
    names = {f"area-{number:05}" for number in range(3000)}
    for name in names:
        (mounted.path / name).touch()
    listed = os.listdir(mounted.path)
    assert len(listed) == 3000
    assert set(listed) == names


def test_removing_while_listing_skips_nothing(mounted: Mounted) -> None:
    for number in range(2000):
        (mounted.path / f"area-{number}").touch()
    with os.scandir(mounted.path) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert os.listdir(mounted.path) == []


def test_an_open_area_outlives_its_name(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"before")
    with path.open("r+b") as file:
        path.unlink()
        assert not path.exists()
        os.ftruncate(file.fileno(), 8192)
        assert os.pread(file.fileno(), 6, 0) == b"before"
        assert os.fstat(file.fileno()).st_size == 8192
        path.write_bytes(b"another")
        assert os.pread(file.fileno(), 6, 0) == b"before"


def test_o_append_o_direct_and_splice_work(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"x" * 4096)
    with path.open("ab") as file:
        file.write(b"tail")
    assert path.read_bytes()[-4:] == b"tail"
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as buffer:
        assert os.preadv(fd, [buffer], 0) == 4096
        assert buffer[:] == b"x" * 4096
    os.close(fd)
    run("cp", "--sparse=never", path, mounted.path / "b")
    assert (mounted.path / "b").read_bytes() == path.read_bytes()
