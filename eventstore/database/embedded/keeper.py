"""The keeper of the embedded server: a small process that starts the server and stops it after its last user.

It is run by its path, in isolated mode, and imports only the standard library: so it stays small, and the caller's
folder and ``PYTHONPATH`` do not determine what a process of root runs. ``embedded_server.py`` explains the locks.

It reads its settings from standard input, detaches, and writes one line of JSON to standard output: the process id of
the server, or an error. Standard error is the server's log, opened for reading and appending.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TypedDict

LOG_LIMIT = 16 * 1024 * 1024
LOG_KEPT = 1024 * 1024
CHECK_LOG_SECONDS = 300


class KeeperSettings(TypedDict):
    """The settings of a keeper, as JSON on its standard input.

    ``adopt`` is the process id of a running server, or None to start one. ``start_lock`` and ``descriptors`` are
    inherited descriptors: the first is closed when the server has been started, the others are for the server.
    """

    data_dir: str
    start_lock: int
    adopt: int | None
    command: list[str]
    descriptors: list[int]
    environment: dict[str, str]
    user: int | None
    group: int | None
    groups: list[int] | None
    socket_dir: str


class Keeper:
    """A keeper, which holds ``keeper.lock`` as long as it and the server live."""

    def __init__(self, settings: KeeperSettings) -> None:
        self.settings = settings
        self.has_ended = threading.Event()
        self.is_unused = False
        self.pid = 0

    def run(self) -> None:
        """Start or adopt the server, and wait until it has ended."""
        # The keeper of a killed server may need a moment longer to end.
        self._lock("keeper.lock")
        try:
            await_end = self._adopt() if self.settings["adopt"] else self._start()
        except OSError as error:
            self._report({"error": str(error)})
            return
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        self._report({"pid": self.pid})
        for work in (lambda: self._follow(await_end), self._stop_when_unused):
            threading.Thread(target=work, daemon=True).start()
        while not self.has_ended.wait(CHECK_LOG_SECONDS):
            bound_log(sys.stderr.fileno(), LOG_LIMIT, LOG_KEPT)
        if self.is_unused:
            shutil.rmtree(self.settings["socket_dir"], ignore_errors=True)

    def stop(self) -> None:
        """Request a fast shutdown of the server."""
        if not self.has_ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)

    def _start(self) -> Callable[[], object]:
        # Every process of the server inherits this lock, so it is free exactly when none is left.
        lock = self._lock("server.lock")
        server = subprocess.Popen(
            self.settings["command"],
            cwd="/",
            env=self.settings["environment"],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=[lock, *self.settings["descriptors"]],
            user=self.settings["user"],
            group=self.settings["group"],
            extra_groups=self.settings["groups"],
        )
        os.close(lock)
        self.pid = server.pid
        return server.wait

    def _adopt(self) -> Callable[[], object]:
        self.pid = self.settings["adopt"] or 0
        return lambda: self._lock("server.lock")

    def _stop_when_unused(self) -> None:
        self._lock("users.lock")
        # The lock is kept until this process has ended: new users wait, and then start the server again, with a new
        # folder for its socket.
        self.is_unused = True
        self.stop()

    def _follow(self, await_end: Callable[[], object]) -> None:
        await_end()
        self.has_ended.set()

    def _lock(self, name: str) -> int:
        path = os.path.join(self.settings["data_dir"], name)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def _report(self, result: dict[str, int] | dict[str, str]) -> None:
        """Report to the process that started the keeper, and close the inherited descriptors."""
        for fd in (self.settings["start_lock"], *self.settings["descriptors"]):
            os.close(fd)
        # That process may have been killed meanwhile; then the keeper itself finds that the server has no users.
        with contextlib.suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), json.dumps(result).encode())
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, sys.stdin.fileno())
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def bound_log(fd: int, limit: int, kept: int) -> None:
    """Truncate a log of more than ``limit`` bytes to its last ``kept`` bytes.

    The server appends to the same file meanwhile. Lines that it writes at the moment of truncation may be lost.
    """
    size = os.fstat(fd).st_size
    if size <= limit:
        return
    tail = os.pread(fd, kept, size - kept)
    os.ftruncate(fd, 0)
    os.write(fd, tail[tail.find(b"\n") + 1 :])


def main() -> None:
    """Detach, and run the keeper with the settings from standard input."""
    settings: KeeperSettings = json.load(sys.stdin)
    # The keeper is not a child of the caller, which would have to wait for it.
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    Keeper(settings).run()


if __name__ == "__main__":
    main()
