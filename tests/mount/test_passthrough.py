# SPDX-License-Identifier: MIT
"""Bytes never cross the daemon, whatever opens, closes, removes and reclaims go on beside them."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Mounted, needs_root, run, wait_for

pytestmark = needs_root


def test_no_byte_crosses_the_daemon(mounted: Mounted) -> None:
    before = mounted.counts("READ", "WRITE")
    path = mounted.path / "a"
    for size in (1, 4096, 65536, (1 << 20) + 1):
        path.write_bytes(b"x" * size)
        assert len(path.read_bytes()) == size
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[size - 1] = 0
            assert mapped[size - 1] == 0
    run("cp", path, mounted.path / "b")
    run("dd", f"if={path}", f"of={mounted.path / 'c'}", "bs=1M")
    assert mounted.info()["passthrough"] is True
    assert os.getxattr(path, "user.mbuff.passthrough") == b"1"
    assert mounted.counts("READ", "WRITE") == before == [0, 0]


def test_opening_again_asks_nobody(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.write_bytes(b"x")
    path.read_bytes()
    before = mounted.info()["messages"]
    for _ in range(100):
        path.read_bytes()
        path.stat()
    after = mounted.info()["messages"]
    opens = {name: after["OPEN"][name] - before["OPEN"][name] for name in ("received", "answered")}
    assert opens == {"received": 100, "answered": 100}
    asked = {name: numbers["received"] - numbers["answered"] for name, numbers in after.items()}
    was = {name: numbers["received"] - numbers["answered"] for name, numbers in before.items()}
    # Reading may have moved the time of last access, for which stat has to ask.
    assert {name for name in asked if asked[name] > was.get(name, 0)} <= {"GETATTR", "FORGET"}


def test_messages_of_each_operation(mounted: Mounted) -> None:
    """What the kernel asks the server, counted; a change that adds a round trip shows here."""
    path = mounted.path / "a"

    def asked(operation: Callable[[], object]) -> dict[str, int]:
        before = mounted.info()["messages"]
        operation()
        after = mounted.info()["messages"]
        return {name: count for name, numbers in after.items()
                if (count := numbers["received"] - numbers["answered"]
                    - before.get(name, {"received": 0})["received"]
                    + before.get(name, {"answered": 0})["answered"]) and name != "FORGET"}

    def make() -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 4096)
        os.close(fd)

    # What the server has granted the channel does itself (channel/granted.c).
    assert asked((mounted.path / "none").exists) == {}
    assert asked(make) == {}
    assert asked(mounted.path.stat) == {}
    assert asked(lambda: os.close(os.open(path, os.O_RDWR))) == {}
    assert asked(path.stat) == {}
    with path.open("r+b", buffering=0) as file:
        assert asked(lambda: [file.write(bytes(4096)) for _ in range(50)]) == {}
        assert asked(lambda: os.fsync(file.fileno())) == {}
    assert asked(lambda: path.write_bytes(b"x")) == {}  # with O_TRUNC
    assert asked(lambda: os.truncate(path, 100)) == {}
    assert asked(lambda: os.truncate(path, 2 << 20)) == {"SETATTR": 1}
    assert asked(lambda: os.truncate(path, 100)) == {"SETATTR": 1}
    assert asked(lambda: os.rename(path, mounted.path / "b")) == {"RENAME": 1}
    assert asked(mounted.path.stat) == {}
    assert asked((mounted.path / "b").unlink) == {}
    assert asked(path.exists) == {}


def test_listing_again_asks_nobody(mounted: Mounted) -> None:
    for number in range(200):
        (mounted.path / f"area-{number}").touch()
    run("ls", "-l", mounted.path)
    run("ls", "-l", mounted.path)
    names = ("LOOKUP", "READDIRPLUS", "READDIR", "GETATTR")
    before = mounted.counts(*names)
    listed = run("ls", "-l", mounted.path).stdout.splitlines()
    assert len(listed) == 201
    assert mounted.counts(*names) == before
    (mounted.path / "new").touch()
    assert "new" in run("ls", mounted.path).stdout.splitlines()


def test_poll_says_ready_at_once(mounted: Mounted) -> None:
    (mounted.path / "a").touch()
    with (mounted.path / "a").open("r+b") as file:
        poller = select.poll()
        poller.register(file, select.POLLIN | select.POLLOUT)
        assert poller.poll(0) == [(file.fileno(), select.POLLIN | select.POLLOUT)]


def test_umount_is_refused_while_a_mapping_lives(fresh: Mounted) -> None:
    (fresh.path / "a").write_bytes(b"x")
    with (fresh.path / "a").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    done = subprocess.run(["umount", fresh.path], capture_output=True, text=True, check=False)
    assert "busy" in done.stderr
    mapped.close()
    run("umount", fresh.path)


def test_writes_do_not_ask_for_attributes_that_are_not_there(mounted: Mounted) -> None:
    path = mounted.path / "a"
    before = mounted.info()["messages"].get("GETXATTR", {"received": 0, "answered": 0})
    with path.open("wb", buffering=0) as file:
        for _ in range(20):
            file.write(b"x")
            os.fstat(file.fileno())
    after = mounted.info()["messages"]["GETXATTR"]
    assert after["received"] > before["received"]
    assert after["received"] - before["received"] == after["answered"] - before["answered"]
    with pytest.raises(OSError) as caught:
        os.getxattr(path, "security.capability")
    assert caught.value.errno == errno.ENODATA


def test_sizes_and_names_are_true_at_once_for_everybody(mounted: Mounted) -> None:
    """Names and attributes are cached for an hour; another process changes them all."""
    path = mounted.path / "a"
    script = ("import os, sys\n"
              "path = sys.argv[1]\n"
              "for line in sys.stdin:\n"
              "    exec(line)\n"
              "    print('done', flush=True)\n")
    with subprocess.Popen([sys.executable, "-c", script, path], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as other:
        def there(line: str) -> None:
            assert other.stdin and other.stdout
            other.stdin.write(line + "\n")
            other.stdin.flush()
            assert other.stdout.readline() == "done\n"

        there("f = open(path, 'wb', buffering=0)")
        assert path.stat().st_size == 0
        for size in (1, 2, 5000, 100_000):
            there(f"f.seek({size - 1}); f.write(b'x')")
            assert path.stat().st_size == size
        there("os.truncate(path, 10)")
        assert path.stat().st_size == 10
        there("os.rename(path, path + 'b')")
        assert os.listdir(mounted.path) == ["ab"]
        assert not path.exists()
        there("os.unlink(path + 'b'); open(path, 'wb').write(b'12')")
        assert path.stat().st_size == 2
        there("os.chmod(path, 0o611)")
        assert path.stat().st_mode & 0o777 == 0o611


def test_no_open_fails_while_the_file_is_truncated_renamed_and_removed(mounted: Mounted) -> None:
    """50 threads open one path; a backing id that is wrong for a moment would be EIO."""
    path, other = mounted.path / "a", mounted.path / "b"
    stop = threading.Event()
    errors: list[str] = []
    opened = [0] * 50

    def opener(number: int) -> None:
        flags = (os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_CREAT)
        while not stop.is_set():
            try:
                fd = os.open(path, flags[number % 4], 0o644)
            except FileNotFoundError:
                continue
            except OSError as error:
                errors.append(f"open: {error}")
                return
            opened[number] += 1
            try:
                os.pwrite(fd, b"x", 0) if number % 4 != 1 else os.pread(fd, 1, 0)
            except OSError as error:
                errors.append(f"use: {error}")
            os.close(fd)

    threads = [threading.Thread(target=opener, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    try:
        rounds = 0
        while not errors and (rounds < 300 or sum(opened) < 500):
            rounds += 1
            for change in (lambda: os.truncate(path, 5000), lambda: os.rename(path, other),
                           lambda: os.unlink(path), lambda: os.unlink(other)):
                try:
                    change()
                except FileNotFoundError:
                    continue
    except OSError as error:
        errors.append(f"change: {error}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


def test_reclaimed_inodes_open_again(mounted: Mounted) -> None:
    """drop_caches makes the kernel forget nodes, and the channel their backing ids."""
    paths = [mounted.path / f"area-{number}" for number in range(50)]
    for path in paths:
        path.write_bytes(path.name.encode())
    with paths[0].open("rb") as kept:
        for _ in range(5):
            drop_caches()
            assert [path.read_bytes() for path in paths] == [path.name.encode() for path in paths]
        assert kept.read() == b"area-0"
    wait_for(lambda: (drop_caches(), mounted.info()["channel"]["backing"] == 0)[1],
             "no backing id is left")


def used(mounted: Mounted) -> int:
    found = os.statvfs(mounted.state.store)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_memory_is_back_after_rm(mounted: Mounted, request: pytest.FixtureRequest) -> None:
    """64 MiB areas, made and removed: never two at once in the store, and nothing left."""
    before = used(mounted)
    path = mounted.path / "a"
    for _ in range(1000 if request.config.getoption("--soak") else 60):
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, 64 << 20)
        os.close(fd)
        path.unlink()
        assert used(mounted) - before < 64 << 20
    wait_for(lambda: used(mounted) <= before, "all memory is back")


@pytest.mark.parametrize("holder", ["descriptor", "mapping"])
def test_memory_is_back_after_the_last_user(mounted: Mounted, holder: str) -> None:
    before = used(mounted)
    path = mounted.path / "a"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 8 << 20)
    mapped = mmap.mmap(fd, 0) if holder == "mapping" else None
    if mapped:
        os.close(fd)
    path.unlink()
    assert used(mounted) - before == 8 << 20
    if mapped:
        mapped[0] = 1
        mapped.close()
    else:
        os.close(fd)
    wait_for(lambda: used(mounted) <= before, "all memory is back")


def map_alone(path: Path, size: int, writable: bool) -> ctypes.Array[ctypes.c_char]:
    """A mapping without a descriptor beside it, as C makes them; Python's mmap keeps one."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    address = libc.mmap(None, ctypes.c_size_t(size), 3 if writable else 1, mmap.MAP_SHARED, fd,
                        ctypes.c_long(0))
    os.close(fd)
    assert address not in (None, ctypes.c_void_p(-1).value)
    return (ctypes.c_char * size).from_address(address)


def unmap(mapped: ctypes.Array[ctypes.c_char]) -> None:
    ctypes.CDLL(None).munmap(ctypes.byref(mapped), ctypes.c_size_t(len(mapped)))


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("removal", ["rm", "mv"])
def test_a_mapping_outlives_the_removal_of_its_area(
        mounted: Mounted, writable: bool, removal: str) -> None:
    """A mapping holds the backing file and not the FUSE file: the area looks closed, and is not."""
    size = 8 << 20
    path = mounted.path / "a"
    path.write_bytes(b"x" * size)
    before = used(mounted)
    mapped = map_alone(path, size, writable)
    if removal == "rm":
        path.unlink()
    else:
        (mounted.path / "b").touch()
        os.rename(mounted.path / "b", path)
    drop_caches()
    # Not through the pointer: were the pages gone, SIGBUS would end all tests.
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        assert os.pread(memory.fileno(), size, ctypes.addressof(mapped)) == b"x" * size
    if writable:
        mapped[size - 1] = b"y"
        assert mapped[size - 1] == b"y"
    unmap(mapped)
    wait_for(lambda: before - used(mounted) >= size, "the memory is back")


def test_replacing_gives_memory_back(mounted: Mounted) -> None:
    before = used(mounted)
    for name in ("a", "b"):
        with (mounted.path / name).open("wb") as file:
            os.ftruncate(file.fileno(), 8 << 20)
    os.rename(mounted.path / "a", mounted.path / "b")
    wait_for(lambda: used(mounted) - before == 8 << 20, "one of the two is freed")


@pytest.mark.timeout(900)
def test_rounds_of_create_write_unlink_grow_nothing(
        mounted: Mounted, request: pytest.FixtureRequest) -> None:
    info = mounted.info()

    def descriptors() -> list[int]:
        return [len(os.listdir(f"/proc/{info[role]}/fd")) for role in ("keeper", "server")]

    def resident() -> int:
        pages = [int(Path(f"/proc/{info[role]}/statm").read_text().split()[1])
                 for role in ("keeper", "server")]
        return sum(pages) * mmap.PAGESIZE

    def rounds(count: int) -> None:
        for number in range(count):
            path = mounted.path / f"area-{number % 7}"
            path.write_bytes(b"x" * 100)
            path.unlink()

    rounds(1000)
    wait_for(lambda: mounted.info()["channel"]["backing"] == 0, "the kernel has forgotten")
    fds, memory = descriptors(), resident()
    rounds(100_000 if request.config.getoption("--soak") else 4000)
    wait_for(lambda: mounted.info()["channel"]["backing"] == 0, "the kernel has forgotten")
    # The keeper closes the connection of a question a moment after its answer is there.
    wait_for(lambda: all(now <= was for now, was in zip(descriptors(), fds, strict=True)),
             "no descriptor more than before")
    assert resident() - memory < 4 << 20
    wait_for(lambda: not list((mounted.state.store / "hidden").iterdir()), "no removed area left")
    wait_for(lambda: mounted.info()["used"] <= info["used"], "the memory is back")


def test_a_gigabyte_being_allocated_holds_nobody_up(new_mount: Callable[..., Mounted]) -> None:
    """While one client allocates, others do whole rounds; counted, not timed."""
    mounted = new_mount(huge=False)  # huge pages are there before one round is over
    done = threading.Event()

    def allocate() -> None:
        with (mounted.path / "big").open("wb") as file:
            os.ftruncate(file.fileno(), 1 << 30)
        done.set()

    thread = threading.Thread(target=allocate)
    thread.start()
    rounds = 0
    while not done.is_set():
        (mounted.path / "small").write_bytes(b"x")
        (mounted.path / "small").unlink()
        rounds += 1
    thread.join()
    mounted.stop()
    assert rounds > 20


def test_changes_of_one_area_keep_their_order(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.touch()
    with path.open("r+b") as file:
        grow = threading.Thread(target=lambda: os.ftruncate(file.fileno(), 512 << 20))
        grow.start()
        wait_for(lambda: path.stat().st_blocks or not grow.is_alive(), "growing has begun")
        os.ftruncate(file.fileno(), 4096)
        grow.join()
    assert path.stat().st_size == 4096
    assert path.stat().st_blocks * 512 == 4096


def test_clients_cannot_use_the_reserved_attribute(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.touch()
    value = (0).to_bytes(8, "little") + (1 << 20).to_bytes(8, "little") + bytes(8)
    for call in (lambda: os.setxattr(path, "user.mbuff.fallocate", value),
                 lambda: os.removexattr(path, "user.mbuff.fallocate")):
        with pytest.raises(PermissionError):
            call()
    assert path.stat().st_size == 0


def test_attributes_tell_about_the_area(mounted: Mounted) -> None:
    path = mounted.path / "a"
    path.touch()
    found = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    locked = b"1" if mounted.info()["locked"] else b"0"
    assert found == {
        "user.mbuff.backend": b"shmem", "user.mbuff.kind": b"pages",
        "user.mbuff.locked": locked, "user.mbuff.owners": b"[]",
        "user.mbuff.passthrough": b"1"}
    with pytest.raises(PermissionError):
        os.setxattr(path, "user.mbuff.backend", b"device")
    os.setxattr(path, "user.mbuff.kind", b"pages")
    for name, value, code in (
            ("user.mbuff.kind", b"contiguous", errno.EOPNOTSUPP),  # the kernel module's alone
            ("user.mbuff.kind", b"x", errno.EINVAL), ("user.other", b"x", errno.EOPNOTSUPP)):
        with pytest.raises(OSError) as caught:
            os.setxattr(path, name, value)
        assert caught.value.errno == code


MUTEX = r"""
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
struct shared { pthread_mutex_t mutex; long count; };
int main(int argc, char **argv) {
	pthread_mutexattr_t attr;
	for (int i = 0; i < 5; i++) {
		int fd = open(argv[1], O_RDWR);
		struct shared *s = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (i == 0) {
			pthread_mutexattr_init(&attr);
			pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
			pthread_mutex_init(&s->mutex, &attr);
		} else if (fork() == 0) {
			for (int n = 0; n < 100000; n++) {
				pthread_mutex_lock(&s->mutex);
				s->count++;
				pthread_mutex_unlock(&s->mutex);
			}
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
	int fd = open(argv[1], O_RDONLY);
	struct shared *s = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
	printf("%ld\n", s->count);
}
"""


def test_a_mutex_is_shared_across_processes(mounted: Mounted, tmp_path: Path) -> None:
    (tmp_path / "mutex.c").write_text(MUTEX)
    run("cc", "-pthread", "-o", tmp_path / "mutex", tmp_path / "mutex.c")
    (mounted.path / "m").write_bytes(bytes(4096))
    assert run(tmp_path / "mutex", mounted.path / "m").stdout == "400000\n"


def test_aborting_the_connection_ends_everything(fresh: Mounted) -> None:
    (fresh.path / "a").write_bytes(b"kept")
    info = fresh.info()
    device = fresh.path.stat().st_dev
    run("unshare", "-m", "--propagation", "private", "sh", "-c",
        "mount -t fusectl none /sys/fs/fuse/connections && "
        f"echo 1 >/sys/fs/fuse/connections/{os.minor(device)}/abort")
    wait_for(lambda: not os.path.exists(f"/proc/{info['keeper']}"), "the keeper has ended")
    fresh.start()
    assert (fresh.path / "a").read_bytes() == b"kept"


def test_umount_ends_everything_and_the_areas_stay(fresh: Mounted) -> None:
    (fresh.path / "a").write_bytes(b"kept")
    info = fresh.info()
    run("umount", fresh.path)
    for role in ("keeper", "server"):
        wait_for(lambda role=role: not os.path.exists(f"/proc/{info[role]}"), f"{role} has ended")
    fresh.start()
    assert (fresh.path / "a").read_bytes() == b"kept"


def test_a_second_keeper_of_one_store_is_refused(
        fresh: Mounted, new_mount: Callable[..., Mounted]) -> None:
    with pytest.raises(OSError, match="in use by another keeper"):
        new_mount(store=fresh.state.directory.name)
    with pytest.raises(OSError, match=r"in use by another keeper|is already mounted"):
        fresh.start()


def test_an_idle_mount_makes_no_message(mounted: Mounted) -> None:
    info = mounted.info()

    def wakeups() -> int:
        total = 0
        for role in ("keeper", "server"):
            for task in Path(f"/proc/{info[role]}/task").iterdir():
                for line in (task / "status").read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches"):
                        total += int(line.split()[1])
        return total

    before = wakeups()
    threading.Event().wait(1.5)
    assert wakeups() - before <= 2


def test_json_of_info_is_json(mounted: Mounted) -> None:
    assert json.loads(json.dumps(mounted.info()))["channel"]["malformed"] == 0


def test_growing_beyond_free_memory_is_enomem(mounted: Mounted) -> None:
    """Not the OOM killer: a mount without a limit below the free memory refuses by itself."""
    assert ctypes.sizeof(ctypes.c_void_p) == 8
    from mbufffs.backends import shmem

    class Small(shmem.ShmemBackend):
        pass

    backend = Small(mounted.state.store, locked=True)
    fd = os.open(mounted.state.store / "areas" / "x", os.O_RDWR | os.O_CREAT)
    try:
        available = shmem.memory_available
        shmem.memory_available = lambda: 100 << 20
        with pytest.raises(OSError) as caught:
            backend.resize(fd, 50 << 20)
        assert caught.value.errno == errno.ENOMEM
        assert os.fstat(fd).st_size == 0
        backend.resize(fd, 20 << 20)
    finally:
        shmem.memory_available = available
        os.close(fd)
        os.unlink(mounted.state.store / "areas" / "x")
