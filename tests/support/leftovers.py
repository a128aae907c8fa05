"""The leftovers of a run of the tests: files in its temporary folder, processes, and open sockets."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

_SECONDS = 20.0
"""For servers whose last user was killed, which end by themselves."""


class TemporaryFolder:
    """The temporary folder of one run, which every process that it starts inherits."""

    def __init__(self) -> None:
        self._before = os.environ.get("TMPDIR")
        self.path = Path(tempfile.mkdtemp(prefix="est-"))
        self.path.chmod(0o755)  # root's embedded servers run as another account
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.path)

    def leftovers(self) -> list[str]:
        """Describe what is left: files other than pytest's own, and processes that live in the folder."""
        deadline = time.monotonic() + _SECONDS
        while (processes := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        files = [str(file) for file in self.path.iterdir() if not file.name.startswith("pytest-of-")]
        files += map(str, self._in_memory())
        return [f"process {process.pid}: {_command(process)}" for process in processes] + files

    def close(self, *, keep: bool) -> None:
        """Remove the folder unless it is to be looked into."""
        tempfile.tempdir = None
        if self._before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = self._before
        if not keep:
            for folder in (self.path, *self._in_memory()):
                shutil.rmtree(folder, ignore_errors=True)

    def _in_memory(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"{self.path.name}-*"))

    def _processes(self) -> list[psutil.Process]:
        """Processes that inherited the folder's name, or whose working directory is in it, as PostgreSQL's is."""
        own = {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
        return [process for process in psutil.process_iter() if process.pid not in own and self._lives_here(process)]

    def _lives_here(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            inside = any(map(Path(process.cwd()).is_relative_to, (self.path, *self._in_memory())))
            return inside or process.environ().get("TMPDIR") == str(self.path)
        return False


def open_sockets() -> list[str]:
    """Describe the sockets of this process that have an address: those that listen or are connected."""
    found = psutil.Process().net_connections(kind="all")
    return [f"socket {each.laddr} {each.raddr or ''} {each.status}" for each in found if each.laddr]


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:200]
    return "ended meanwhile"
