# SPDX-License-Identifier: MIT
"""The keeper: the process that holds the mount, runs the channel, and keeps a server alive.

It decides nothing about areas. It changes rarely, so that the server can be replaced under it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mbufffs import mounts, store
from mbufffs.backends.registry import DEVICE, Registry
from mbufffs.channel import Channel, messages
from mbufffs.errors import Unavailable, one_line
from mbufffs.memory import contiguous
from mbufffs.state import state_of
from mbufffs.uring import Permission

log = logging.getLogger(__name__)

Announce = Callable[[OSError | None], None]  # told once how the mount went: None is well

BACKENDS = ("auto", "shmem", "device")
OOM_SCORE = "-900"  # the OOM killer takes nearly everybody else first; only root may say so
FAILURES_MAX = 8  # servers in a row that may end by themselves without having answered anything
LIVED = 10.0  # seconds after which it was no failure to start
DYING = 1.0  # seconds that the kernel may take to end a connection
BACKOFF = 0.05  # seconds before the second of them, doubled each time


@dataclass(frozen=True)
class Settings:
    """What a mount is to be; the command line's options after parsing.

    `limit` in bytes, None for the default: half of the memory. `huge`: huge pages where they fit.
    """

    mountpoint: str
    backend: str = "auto"
    limit: int | None = None
    store: str | None = None
    passthrough: bool = True
    huge: bool = True
    io_uring: bool = True
    nonempty: bool = False
    allow_other: bool = True


def _python(module: str) -> list[str]:
    """The command that runs a module of ours; the working directory is no place to import from."""
    return [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", module]


def _registry(backend: str) -> Registry | None:
    """The kernel module's registry, if areas are to be there."""
    if backend == "shmem":
        return None
    try:
        return Registry.open()
    except OSError as error:
        if backend == "auto" and error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV,
                                                 errno.EACCES, errno.EPERM):
            return None
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            raise Unavailable(f"there is no {DEVICE}: load the kernel module with: "
                              "modprobe mbuff") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PermissionError(error.errno, "is for root and the group mbuff alone",
                                  DEVICE) from None
        raise


class Keeper:
    def __init__(self, settings: Settings) -> None:
        if settings.backend not in BACKENDS:
            raise Unavailable(f"there is no backend {settings.backend!r}; there are: "
                              + ", ".join(BACKENDS))
        self.settings = settings
        self._registry: Registry | None = None
        self.state = state_of(settings.mountpoint, settings.store)
        self.failed: str | None = None  # why it gave up
        self._server: subprocess.Popen[bytes] | None = None
        self._servers = 0
        self._server_started = -math.inf
        self._failures = 0
        self._replies = 0  # of all servers, when the present one started
        self._start_at: float | None = None
        self._uring = Permission()
        self._stop = False
        self._announced = False
        self._started = time.monotonic()

    def _open(self) -> None:
        settings, state = self.settings, self.state
        # First the mount point: "already mounted" says more than "in use".
        mounts.prepare_mountpoint(settings.mountpoint, nonempty=settings.nonempty)
        state.make()
        self._lock = state.lock()
        empty = not any((part / "areas").exists() for part in (state.store, state.directories))
        try:
            self._registry = _registry(settings.backend)
            self._mount()
        except OSError:
            if empty:
                store.discard(state, areas=False)
            raise

    def _mount(self) -> None:
        settings, state = self.settings, self.state
        self._locked = True
        if self._registry is None:
            self._locked = store.prepare(state, settings.limit, huge=settings.huge)
        else:
            store.prepare_for_device(state, settings.limit)
            # One for all servers: what happens while there is none is kept for the next.
            self._events = self._registry.events()
        options = ["allow_other"] if settings.allow_other else []
        passthrough = settings.passthrough and os.geteuid() == 0
        rings = (passthrough and settings.io_uring and self._registry is None
                 and self._uring.take())
        self._device = mounts.mount_fuse(settings.mountpoint, options)
        areas = 0
        if self._registry is None and os.geteuid() == 0:
            # For what servers grant; it stays open as long as the device does.
            areas = os.open(state.store / "areas", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._channel = Channel(self._device,
                                passthrough=passthrough,
                                rings=rings,
                                elsewhere=self._registry is not None,
                                areas=areas)
        with contextlib.suppress(FileNotFoundError):
            state.control.unlink()
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The name of a socket has 107 bytes, which a long mount point would exceed.
        directory = os.open(state.directory, os.O_PATH | os.O_CLOEXEC)
        self._control.bind(f"/proc/self/fd/{directory}/{state.control.name}")
        os.close(directory)
        state.control.chmod(0o666)
        self._control.listen(16)

    def run(self, announce: Announce) -> int:
        """Serves until the mount is gone. `announce(None)` once it answers."""
        # Areas can fill the memory, and killing the mount's processes would free none of it.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
        self._announce = announce
        wakeup, sleep = socket.socketpair()
        wakeup.setblocking(False)
        sleep.setblocking(False)
        signal.set_wakeup_fd(sleep.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            self._open()
            self._serve(wakeup)
        finally:
            self._uring.give_back()
        return 1 if self.failed else 0

    def _serve(self, wakeup: socket.socket) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._channel.fileno(), selectors.EVENT_READ, self._on_channel)
        selector.register(self._control, selectors.EVENT_READ, self._on_control)
        selector.register(wakeup, selectors.EVENT_READ, lambda: wakeup.recv(4096))
        try:
            self._start_server()
            while self._channel.state != "ended" and not self._stop:
                timeout = None
                if self._start_at is not None:
                    timeout = max(0.0, self._start_at - time.monotonic())
                for key, _ in selector.select(timeout):
                    key.data()
                if self._start_at is not None and time.monotonic() >= self._start_at:
                    self._start_server()
            if self._channel.error:
                self.failed = ("the kernel refuses io_uring for FUSE "
                               f"({os.strerror(self._channel.error)}); mount with -o noio_uring")
                log.error("%s", self.failed)
        finally:
            self._close()

    def _on_signal(self, *_: Any) -> None:
        self._stop = True

    def _on_channel(self) -> None:
        os.read(self._channel.fileno(), 8)
        if self._channel.ready and not self._announced:
            self._uring.give_back()
            self._announced = True
            self._announce(None)
        if self._channel.state == "idle" and self._server is not None:
            self._bury()

    # Servers

    @property
    def _store(self) -> Path:
        return self.state.store if self._registry is None else self.state.directories

    def _start_server(self) -> None:
        self._start_at = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [*_python("mbufffs.server"), "--socket", str(theirs.fileno()),
                       "--store", str(self._store)]
            inherited = [theirs.fileno(), self._lock]
            if self._registry is not None:
                command += ["--registry", str(self._registry.fd), "--events", str(self._events)]
                inherited += [self._registry.fd, self._events]
            if self.settings.passthrough and os.geteuid() == 0:
                command += ["--device", str(self._device)]
                inherited.append(self._device)
            if self._locked:
                command.append("--locked")
            self._server = subprocess.Popen(command, pass_fds=inherited, stdin=subprocess.DEVNULL)
        self._servers += 1
        self._server_started = time.monotonic()
        self._replies = self._channel.counters()["replies"]
        try:
            self._channel.attach(ours.fileno())
        except OSError as error:
            ours.close()
            if error.errno != errno.ENODEV:  # the mount has just gone
                raise
            return
        ours.detach()

    def _bury(self) -> None:
        """The server's socket has ended: see to its end, and plan the next one."""
        server, self._server = self._server, None
        assert server is not None
        try:
            server.wait(1)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        killed = server.returncode in (-signal.SIGKILL, -signal.SIGTERM)
        # With what it has granted, it may have been asked for nothing.
        answered = (self._channel.counters()["replies"] > self._replies
                    or time.monotonic() > self._server_started + LIVED)
        log.warning("server %d ended (%s)", server.pid,
                    f"signal {-server.returncode}" if server.returncode < 0
                    else f"exit code {server.returncode}")
        if killed or answered:
            self._failures = 0
            self._start_at = time.monotonic()
            return
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            self.failed = f"{self._failures} servers in a row ended at their start"
            log.error("%s; giving up", self.failed)
            self._stop = True
            return
        self._start_at = time.monotonic() + BACKOFF * 2 ** (self._failures - 1)

    # Questions

    def _on_control(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            connection, _ = self._control.accept()
            with connection:
                connection.settimeout(1)
                if json.loads(connection.recv(4096)).get("ask") == "info":
                    connection.sendall(json.dumps(self.info()).encode())

    def info(self) -> dict[str, Any]:
        counters = self._channel.counters()
        if self._registry is None:
            found = os.statvfs(self.state.store)
            limit = found.f_blocks * found.f_frsize
            used = limit - found.f_bfree * found.f_frsize
        else:
            usage = self._registry.usage()
            limit, used = usage.max_bytes, usage.used_bytes
        reason = ""
        if not self._channel.passthrough:
            if not self.settings.passthrough:
                reason = "switched off by the mount option nopassthrough"
            elif os.geteuid() != 0:
                reason = "passthrough needs root (CAP_SYS_ADMIN)"
            else:
                reason = "the kernel has no FUSE passthrough (Linux 6.9, CONFIG_FUSE_PASSTHROUGH)"
        return {
            "mountpoint": self.settings.mountpoint,
            "store": str(self._store),
            "backend": "shmem" if self._registry is None else "device",
            "passthrough": self._channel.passthrough,
            "passthrough_reason": reason,
            "io_uring": self._channel.rings,
            "locked": self._locked,
            "keeper": os.getpid(),
            "server": self._server.pid if self._server else None,
            "restarts": self._servers - 1,
            "uptime": round(time.monotonic() - self._started, 3),
            "limit": limit,
            "used": used,
            "contiguous": None if self._registry is None else asdict(contiguous()),
            "messages": messages(counters),
            "channel": {name: counters[name] for name in (
                "ringed", "resent", "dropped", "malformed", "interrupted", "kept", "nodes",
                "backing")},
        }

    def _close(self) -> None:
        """Leaves no dead mount, no server and no socket behind; areas stay in the store."""
        if self._channel.state != "ended" or self._channel.error:
            try:
                mounts.unmount(self.settings.mountpoint)
            except OSError:
                # Somebody has files open there: they keep working, the name goes.
                with contextlib.suppress(OSError):
                    mounts.unmount(self.settings.mountpoint, lazy=True)
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        self._wait_for_kernel()
        self._control.close()
        with contextlib.suppress(FileNotFoundError):
            self.state.control.unlink()

    def _wait_for_kernel(self) -> None:
        """Until it has given back what it has of us, so that the store is free when we have gone.

        Not for a mount that lives on elsewhere: in another mount namespace, say, or by open files.
        """
        end = time.monotonic() + DYING
        while self._channel.state != "ended" and time.monotonic() < end:
            time.sleep(0.01)
        if self._channel.state == "ended" and not self._channel.error:
            self._channel.close()


def run(settings: Settings, announce: Announce = lambda _: None) -> int:
    """Serves in this process until the mount is gone; returns its exit code."""
    keeper = Keeper(settings)
    code = keeper.run(announce)
    if keeper.failed:
        announce(OSError(errno.EIO, f"{keeper.failed}; the last words are in {keeper.state.log}"))
    return code


def start(settings: Settings) -> None:
    """Starts a keeper in the background; returns when the mount answers.

    OSError with the keeper's own words when it could not mount.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as answer:
        command = [*_python("mbufffs.keeper"), str(writer), json.dumps(asdict(settings))]
        # It forks at once, so that this process is left with no child to wait for.
        subprocess.run(command, pass_fds=[writer], start_new_session=True, cwd="/", check=False,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        os.close(writer)
        words = answer.read()
    if not words:
        raise OSError(errno.EIO, "the keeper died before the mount answered")
    failure = json.loads(words)
    if failure:
        raise OSError(failure["errno"], failure["text"])
    os.statvfs(settings.mountpoint)


def _log_to(path: Path) -> None:
    """Sends this process's words, and those of its servers, to the mount's log."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(fd, standard)
    os.close(fd)


def main() -> int:
    """`python -m mbufffs.keeper FD SETTINGS`: start() runs it and reads from FD how it went."""
    if os.fork():
        os._exit(0)
    told = os.fdopen(int(sys.argv[1]), "w")
    settings = Settings(**json.loads(sys.argv[2]))

    def announce(error: OSError | None) -> None:
        if told.closed:
            return
        with told:
            json.dump({"errno": error.errno, "text": one_line(error)} if error else {}, told)

    try:
        # Before anything is made: a mount point that will not do leaves no trace.
        mounts.prepare_mountpoint(settings.mountpoint, nonempty=settings.nonempty)
        state = state_of(settings.mountpoint, settings.store)
        state.make()
        _log_to(state.log)
        logging.basicConfig(format="%(asctime)s keeper[%(process)d] %(levelname)s %(message)s")
        return run(settings, announce)
    except OSError as error:
        announce(error)
        log.error("%s", one_line(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
