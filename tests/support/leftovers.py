"""The leftovers of a run of the tests: files in its temporary folder, processes, and open sockets."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

_SECONDS = 20.0
"""The time that servers have to end by themselves if their last user was killed."""
_PREFIX = "est-"
_KEPT_SECONDS = 3600
"""The time that the folder of a run that failed or was killed stays, to be looked into."""


class TemporaryFolder:
    """The temporary folder of one run, which every process that it starts inherits; it is locked while the run lasts.

    A run that fails leaves it, and a run that is killed. A later run removes it.
    """

    def __init__(self) -> None:
        self._before = os.environ.get("TMPDIR")
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            _remove_if_old(folder)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path.chmod(0o755)  # root's embedded servers run as another account
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.path)

    def leftovers(self) -> list[str]:
        """Describe what is left: files other than pytest's own, and processes that live in the folder."""
        deadline = time.monotonic() + _SECONDS
        while (processes := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        files = [str(file) for file in self.path.iterdir() if not file.name.startswith("pytest-of-")]
        files += map(str, _in_memory(self.path))
        return [f"process {process.pid}: {_command(process)}" for process in processes] + files

    def close(self, *, keep: bool) -> None:
        """Remove the folder unless it is to be looked into."""
        tempfile.tempdir = None
        if self._before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = self._before
        if not keep:
            _remove(self.path)
        os.close(self._lock)

    def _processes(self) -> list[psutil.Process]:
        """Processes that inherited the folder's name, or whose working directory is in it, as PostgreSQL's is."""
        own = {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
        return [process for process in psutil.process_iter() if process.pid not in own and self._lives_here(process)]

    def _lives_here(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            inside = any(map(Path(process.cwd()).is_relative_to, (self.path, *_in_memory(self.path))))
            return inside or process.environ().get("TMPDIR") == str(self.path)
        return False


def _in_memory(folder: Path) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{folder.name}-*"))


def _remove(folder: Path) -> None:
    for each in (*_in_memory(folder), folder):
        shutil.rmtree(each, ignore_errors=True)


def _remove_if_old(folder: Path) -> None:
    """Remove the folder of a run that ended some time ago."""
    with suppress(OSError):  # another run has removed it, or another account owns it
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
                _remove(folder)
        finally:
            os.close(lock)


def open_sockets() -> list[str]:
    """Describe the sockets of this process that have an address: those that listen or are connected."""
    found = psutil.Process().net_connections(kind="all")
    return [f"socket {each.laddr} {each.raddr or ''} {each.status}" for each in found if each.laddr]


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:200]
    return "ended meanwhile"
