"""A process that has imported the command line, and forks itself for each command.

The imports take two seconds of a processor, which is most of what a command takes. What the imports themselves do is
tested with processes that are started (``support.processes.run``).
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, BinaryIO, Self

from support.environment import child_environment


class ForkedProcess:
    """A command in a process and a session of its own, with the methods of :class:`subprocess.Popen` that tests use."""

    def __init__(self, arguments: Sequence[str], connection: socket.socket) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._answers = connection
        self.pid = self._receive()

    def poll(self) -> int | None:
        """Return the exit code, or None if the process is running."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once the process has ended.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        if self.returncode is None:
            self._answers.settimeout(timeout)
            try:
                self.returncode = self._receive()
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _receive(self) -> int:
        if not (answer := self._answers.recv(_NUMBER)):
            raise RuntimeError("the fork server has ended")
        return int.from_bytes(answer, "big", signed=True)


_NUMBER = 8
"""The size of an answer in bytes: a process id, and then an exit code."""


class ForkServer:
    """The process that forks; it ends when it is closed, or with the process that made it."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair()
        command = [sys.executable, "-c", "from support.fork_server import serve; serve()"]
        self._process = subprocess.Popen(command, stdin=theirs, env=child_environment(), start_new_session=True)
        theirs.close()

    def start(
        self, arguments: Sequence[str], out: BinaryIO, err: BinaryIO, environment: dict[str, str]
    ) -> ForkedProcess:
        """Run the command ``eventstore`` in a new process, in the present directory."""
        mine, theirs = socket.socketpair()
        with theirs:
            descriptors = [theirs.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(self._requests, [b"f"], descriptors)
        request = {"arguments": arguments, "directory": os.getcwd(), "environment": environment}
        mine.sendall(json.dumps(request).encode() + b"\n")
        return ForkedProcess(arguments, mine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.close()
        self._process.wait(30)


def serve() -> None:
    """Fork a process for each request on standard input, which runs the command, until there are no more requests."""
    from agent_manager.cli import main
    from agent_manager.cli.main import MODULES

    for module in MODULES.values():
        import_module(f"agent_manager.cli.{module}")
    gc.freeze()  # the last collection of a child would look through what was imported, and so copy it
    requests = socket.socket(fileno=os.dup(0))
    watched = selectors.DefaultSelector()
    watched.register(requests, selectors.EVENT_READ)
    while True:
        for key, _ in watched.select():
            if key.fileobj is requests:
                message, descriptors, _, _ = socket.recv_fds(requests, 1, 3)
                if not message:
                    return
                connection = socket.socket(fileno=descriptors[0])
                request = json.loads(connection.makefile().readline())
                if (pid := os.fork()) == 0:
                    for each in list(watched.get_map().values()):
                        _close(each)
                    watched.close()
                    connection.close()
                    _become(request, *descriptors[1:])
                    main()
                    return
                for descriptor in descriptors[1:]:
                    os.close(descriptor)
                _answer(connection, pid)
                watched.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))
            else:
                pid, connection = key.data
                _answer(connection, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                watched.unregister(key.fileobj)
                _close(key)


def _close(watched: selectors.SelectorKey) -> None:
    if watched.data is None:
        watched.fileobj.close()
    else:
        os.close(watched.fd)
        watched.data[1].close()


def _answer(connection: socket.socket, number: int) -> None:
    """Send a number, which nobody may be waiting for."""
    with suppress(OSError):
        connection.sendall(number.to_bytes(_NUMBER, "big", signed=True))


def _become(request: dict[str, Any], out: int, err: int) -> None:
    """Make this process what the request wants."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    sys.argv = ["eventstore", *request["arguments"]]
    tempfile.tempdir = None
