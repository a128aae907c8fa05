"""The keeper of the embedded server: a small process that starts it and stops it when nobody uses it any more.

It is run by its path, in isolated mode, and imports nothing but the standard library: it stays small, and neither
the caller's folder nor its ``PYTHONPATH`` decides what a process runs that may be root's. See ``embedded`` for how
its locks work together with those of the users.

It reads an order from standard input, detaches, and answers one line of JSON on standard output: the process id of
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
SECONDS_BETWEEN_LOOKS = 300


class Order(TypedDict):
    """What a keeper is asked to do.

    ``adopt`` is the process id of a server that runs already, or None. ``start_lock`` and ``hand_on`` are descriptors:
    the one is let go of when the server has been started, the others are for the server alone.
    """

    data_dir: str
    start_lock: int
    adopt: int | None
    command: list[str]
    hand_on: list[int]
    environment: dict[str, str]
    user: int | None
    group: int | None
    groups: list[int] | None
    socket_dir: str


class Keeper:
    """Holds ``keeper.lock`` for its whole life, which is that of the server."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.gone = threading.Event()
        self.is_unused = False
        self.pid = 0

    def run(self) -> None:
        """Start or adopt the server, and stay until it has gone."""
        # A keeper whose server was killed may need a moment longer to leave.
        self._lock("keeper.lock")
        try:
            await_end = self._adopt() if self.order["adopt"] else self._start()
        except OSError as error:
            self._answer({"error": str(error)})
            return
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        self._answer({"pid": self.pid})
        for work in (lambda: self._follow(await_end), self._stop_when_unused):
            threading.Thread(target=work, daemon=True).start()
        while not self.gone.wait(SECONDS_BETWEEN_LOOKS):
            bound_log(sys.stderr.fileno(), LOG_LIMIT, LOG_KEPT)
        if self.is_unused:
            shutil.rmtree(self.order["socket_dir"], ignore_errors=True)

    def stop(self) -> None:
        """Ask the server to end its sessions, write everything out and exit (a fast shutdown)."""
        if not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)

    def _start(self) -> Callable[[], object]:
        # Every process of the server inherits this lock, so it is free exactly when none of them is left.
        lock = self._lock("server.lock")
        server = subprocess.Popen(
            self.order["command"],
            cwd="/",
            env=self.order["environment"],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=[lock, *self.order["hand_on"]],
            user=self.order["user"],
            group=self.order["group"],
            extra_groups=self.order["groups"],
        )
        os.close(lock)
        self.pid = server.pid
        return server.wait

    def _adopt(self) -> Callable[[], object]:
        self.pid = self.order["adopt"] or 0
        return lambda: self._lock("server.lock")

    def _stop_when_unused(self) -> None:
        self._lock("users.lock")
        # The lock is kept until this process has ended: new users wait, and then start the server again, with a new
        # folder for its socket.
        self.is_unused = True
        self.stop()

    def _follow(self, await_end: Callable[[], object]) -> None:
        await_end()
        self.gone.set()

    def _lock(self, name: str) -> int:
        path = os.path.join(self.order["data_dir"], name)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def _answer(self, answer: dict[str, int] | dict[str, str]) -> None:
        """Report to the process that ordered the start, and let go of what it handed on."""
        for fd in (self.order["start_lock"], *self.order["hand_on"]):
            os.close(fd)
        # Whoever ordered it may have been killed meanwhile; then the keeper itself will find nobody using the server.
        with contextlib.suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), json.dumps(answer).encode())
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, sys.stdin.fileno())
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def bound_log(fd: int, limit: int, kept: int) -> None:
    """Cut a log of more than ``limit`` bytes down to its last ``kept`` bytes.

    The server goes on writing to the same file, at its end because it was opened for appending. Lines that it writes
    in the instant of cutting may be lost.
    """
    size = os.fstat(fd).st_size
    if size <= limit:
        return
    tail = os.pread(fd, kept, size - kept)
    os.ftruncate(fd, 0)
    os.write(fd, tail[tail.find(b"\n") + 1 :])


def main() -> None:
    """Detach, and keep the server that standard input describes."""
    order: Order = json.load(sys.stdin)
    # The caller need not remember to collect this process when it ends, because it is not its child.
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    Keeper(order).run()


if __name__ == "__main__":
    main()
