"""The command line in separate processes, which a test may interrupt or kill at any instant."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from support.environment import child_environment
from support.fork_server import ForkedProcess, ForkServer
from support.waiting import until

EVENTSTORE = [sys.executable, "-c", "from agent_manager.cli import main; main()"]
"""The command ``eventstore``, of the source tree."""


def run(
    *arguments: str, stdin: str | None = None, seconds: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        [*EVENTSTORE, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=seconds,
        env=child_environment(**environment),
        check=False,
    )


class Running:
    """A command that runs, in a session of its own, its output in files."""

    def __init__(self, folder: Path, program: list[str] | ForkServer, *arguments: str, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.out")))
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        variables = child_environment(**environment)
        self._process: subprocess.Popen[bytes] | ForkedProcess
        with self._out.open("wb") as out, self._err.open("wb") as err:
            if isinstance(program, ForkServer):
                self._process = program.start(arguments, out, err, variables)
            else:
                self._process = subprocess.Popen(
                    [*program, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=variables,
                    start_new_session=True,
                )

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def out(self) -> str:
        """The standard output so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """Return the standard error so far."""
        return self._err.read_text(encoding="utf-8")

    @property
    def warnings(self) -> list[str]:
        """The lines of standard error so far that are not log lines of the level INFO."""
        return [line for line in self.err.splitlines() if not re.match(r"\S+Z INFO ", line)]

    def until_printed(self, text: str) -> None:
        """Wait until the process has printed a text."""
        until(lambda: text in self.out or self.ended, f"{text!r} is printed")
        assert text in self.out, f"it ended with {self._process.returncode} before it printed {text!r}: {self.err}"

    @property
    def ended(self) -> bool:
        """True if the process has ended."""
        return self._process.poll() is not None

    def interrupt(self, number: int = signal.SIGINT, seconds: float = 30) -> int:
        """Send a signal, as Ctrl-C does, and return the exit code."""
        self._process.send_signal(number)
        return self._process.wait(seconds)

    def wait(self, seconds: float = 60) -> int:
        """Wait until the process has ended; return its exit code."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(30)


class Commands:
    """Starts commands, and leaves none behind."""

    def __init__(self, folder: Path, program: list[str] | ForkServer) -> None:
        self._folder = folder
        self._program = program
        self._running: list[Running] = []

    def start(self, *arguments: str, **environment: str) -> Running:
        """Start a command; in an interpreter of its own, if variables of the interpreter are given."""
        is_forked = isinstance(self._program, ForkServer)
        of_python = any(name.startswith("PYTHON") for name in environment)
        program = EVENTSTORE if is_forked and of_python else self._program
        running = Running(self._folder, program, *arguments, **environment)
        self._running.append(running)
        return running

    def close(self) -> None:
        """Ends those that still run."""
        for running in self._running:
            if not running.ended:
                with suppress(subprocess.TimeoutExpired):
                    running.interrupt(signal.SIGTERM, 20)
                running.kill()


@contextmanager
def commands(folder: Path, program: list[str] | ForkServer = EVENTSTORE) -> Iterator[Commands]:
    """Commands of a program, or ``eventstore`` from a fork server, that run at most until the end of the block."""
    started = Commands(folder, program)
    try:
        yield started
    finally:
        started.close()


def server_processes(data_dir: Path) -> list[psutil.Process]:
    """Processes of the embedded server of a data directory, by the lock that every one of them inherits."""
    lock = os.stat(data_dir / "server.lock")
    found: list[Any] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name().startswith("postgres") and _holds(process.pid, (lock.st_dev, lock.st_ino)):
                found.append(process)
    return found


def _holds(pid: int, file: tuple[int, int]) -> bool:
    folder = f"/proc/{pid}/fd"
    for descriptor in os.listdir(folder):
        with suppress(OSError):
            about = os.stat(f"{folder}/{descriptor}")
            if (about.st_dev, about.st_ino) == file:
                return True
    return False
