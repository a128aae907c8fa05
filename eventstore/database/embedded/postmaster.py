"""Finding the server that runs on a data directory.

``postmaster.pid`` survives a crash, and its process id may then belong to any process. ``server.lock`` decides instead:
every process of the server inherits its descriptor, so the kernel keeps the lock exactly as long as one of them lives,
in whatever container. The file only tells the process id. A server that was started by other means is recognised by a
running postgres whose working directory is the data directory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from eventstore.database.embedded.installation import Account
from eventstore.database.embedded.locks import is_free
from eventstore.errors import EmbeddedServerError

# The children of a killed postmaster end within moments, unless one runs a long statement.
SECONDS_FOR_ORPHANS = 5.0
SECONDS_TO_SETTLE = 30.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Postmaster:
    """The contents of a ``postmaster.pid``, which may be incomplete. ``listens`` is empty unless it listens on TCP."""

    pid: int
    started: int
    port: int
    listens: str
    status: str


def read_postmaster(pgdata: Path) -> Postmaster | None:
    """Read ``postmaster.pid``; None if it is missing or empty.

    Its lines are described in PostgreSQL's ``src/include/utils/pidfile.h``.
    """
    try:
        lines = (pgdata / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        pid, _, started, port, _, listens, _, status, *_ = [line.strip() for line in lines] + [""] * 8
        # A server in single-user mode writes its process id with a minus sign.
        return Postmaster(abs(int(pid)), int(started or 0), int(port or 0), listens, status)
    except (FileNotFoundError, ValueError):
        return None


def find_server(data_dir: Path, account: Account) -> Postmaster | None:
    """Return the server of a data directory, or None if no process of one is left.

    Waits for a server that is starting, and for the remaining processes of one that was killed. Those that remain for
    long get SIGQUIT, as from the postmaster: what they have committed is safe.
    """
    pgdata = data_dir / "pgdata"
    begin, has_signalled = time.monotonic(), False
    while not is_free(data_dir / "server.lock"):
        found = read_postmaster(pgdata)
        if found is not None and _is_postmaster(found, pgdata, account):
            return found
        waited = time.monotonic() - begin
        if waited > SECONDS_TO_SETTLE:
            remaining = ", ".join(str(process.pid) for process in _orphans(pgdata, account)) or "in another container"
            raise EmbeddedServerError(f"a killed server's processes still use {pgdata} ({remaining}): end them")
        if waited > SECONDS_FOR_ORPHANS and not has_signalled:
            has_signalled = True
            for process in _orphans(pgdata, account):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGQUIT)
        # Waiting for the lock itself would prevent seeing a new server's file, and the timeout.
        time.sleep(_POLL_SECONDS)
    found = read_postmaster(pgdata)
    # A killed postmaster releases the lock some moments before it has ended.
    if found is not None and _is_postmaster(found, pgdata, account) and not has_ended_or_is_ending(pgdata):
        raise EmbeddedServerError(
            f"a PostgreSQL server started by other means (process {found.pid}) uses {pgdata}: "
            "stop it, or name it in DATABASE_URL"
        )
    return None


def await_ready(pgdata: Path, pid: int) -> bool:
    """Wait until the server accepts connections, without limit for crash recovery; return False if it ends before.

    A server that is stopping gets SIGINT, so that it does not wait for its sessions.
    """
    process = _process(pid)
    has_signalled = False
    while process is not None:
        found = read_postmaster(pgdata)
        status = found.status if found is not None and found.pid == pid else ""
        if status in ("ready", "standby"):
            return True
        if status == "stopping" and not has_signalled:
            has_signalled = True
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
        # The server reports its readiness only in its file, so the file is polled.
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(_POLL_SECONDS)
            return False
    return False


def has_ended_or_is_ending(pgdata: Path) -> bool:
    """Return whether the postmaster has ended, or ends within a second because it was killed."""
    found = read_postmaster(pgdata)
    process = None if found is None else _process(found.pid)
    if process is not None:
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(1)
            return True
    return process is None


def _process(pid: int) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None


def _is_postmaster(found: Postmaster, pgdata: Path, account: Account) -> bool:
    process = _process(found.pid)
    if process is None:
        return False
    try:
        if not process.name().startswith("postgres"):
            return False
        works_here = _works_in(process, pgdata, account)
        # The clock may have been set since the start, so it is used only if the directory is unknown.
        return abs(process.create_time() - found.started) < 60 if works_here is None else works_here
    except psutil.NoSuchProcess:
        return False


def _works_in(process: psutil.Process, folder: Path, account: Account) -> bool | None:
    """Return whether a process has this working directory, or None if that is unknown."""
    try:
        directory = process.cwd()
    except psutil.AccessDenied:
        directory = _cwd_as(account, process.pid)
    try:
        return os.path.samefile(directory, folder) if directory else None
    except FileNotFoundError:
        return False


def _cwd_as(account: Account, pid: int) -> str:
    # Root in a container often may not inspect the processes of other accounts; the account itself may.
    if not (account.other and sys.platform == "linux"):
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = account.run(["readlink", f"/proc/{pid}/cwd"])
        return done.stdout.rstrip("\n") if done.returncode == 0 else ""
    return ""


def _orphans(pgdata: Path, account: Account) -> list[psutil.Process]:
    """Return server processes without a postmaster. Their titles are ``postgres: …``; a new postmaster's is not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            title = process.cmdline()[:1]
            if title and title[0].startswith("postgres:") and _works_in(process, pgdata, account):
                found.append(process)
    return found
