"""Which server, if any, is running on a data directory.

``postmaster.pid`` survives a crash, and its process id may by then belong to anything. What counts is ``server.lock``:
every process of the server inherits the descriptor that holds it, so that the kernel keeps it exactly as long as one
of them lives, in whatever container. The file only tells which process to talk to; and as a net, for a server that
somebody started by hand, a living postgres whose working folder is the data directory.
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

# A killed postmaster's other processes notice within moments, unless one is busy with a long statement.
SECONDS_FOR_ORPHANS = 5.0
SECONDS_TO_SETTLE = 30.0
_POLL = 0.02


@dataclass(frozen=True)
class Postmaster:
    """What a ``postmaster.pid`` says, which may not be written to its end yet.

    ``listens`` is empty unless the server listens on TCP.
    """

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
        # A server in single-user mode negates its process id.
        return Postmaster(abs(int(pid)), int(started or 0), int(port or 0), listens, status)
    except (FileNotFoundError, ValueError):
        return None


def find_server(data_dir: Path, account: Account) -> Postmaster | None:
    """The server of this data directory, or None if nothing of one is left.

    Waits for a server that has only just been started, and for the remaining processes of one that was killed. Those
    that stay are asked to quit, as the postmaster would have done: what they had committed is safe.

    Raises:
        EmbeddedServerError: remaining processes do not go, or a server was started by other means.
    """
    pgdata = data_dir / "pgdata"
    begun, told = time.monotonic(), False
    while not is_free(data_dir / "server.lock"):
        found = read_postmaster(pgdata)
        if found is not None and _is_postmaster(found, pgdata, account):
            return found
        waited = time.monotonic() - begun
        if waited > SECONDS_TO_SETTLE:
            left = ", ".join(str(process.pid) for process in _orphans(pgdata, account)) or "in another container"
            raise EmbeddedServerError(f"a killed server's processes still use {pgdata} ({left}): end them")
        if waited > SECONDS_FOR_ORPHANS and not told:
            told = True
            for process in _orphans(pgdata, account):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGQUIT)
        # Waiting for the lock itself would leave no way to see the new server's file, or to give up.
        time.sleep(_POLL)
    found = read_postmaster(pgdata)
    # A postmaster that was killed lets go of the lock some moments before it is gone.
    if found is not None and _is_postmaster(found, pgdata, account) and not ends_at_once(pgdata):
        raise EmbeddedServerError(
            f"a PostgreSQL server started by other means (process {found.pid}) uses {pgdata}: "
            "stop it, or name it in DATABASE_URL"
        )
    return None


def await_ready(pgdata: Path, pid: int) -> bool:
    """Wait until the server accepts connections, through crash recovery however long; False if it ends before.

    A server that is being stopped is told not to wait for its sessions.
    """
    process = _process(pid)
    hurried = False
    while process is not None:
        found = read_postmaster(pgdata)
        status = found.status if found is not None and found.pid == pid else ""
        if status in ("ready", "standby"):
            return True
        if status == "stopping" and not hurried:
            hurried = True
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
        # The server tells nobody else when it is ready, so its file is looked at until it is, or the process has gone.
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(_POLL)
            return False
    return False


def ends_at_once(pgdata: Path) -> bool:
    """Whether the postmaster has gone, or is just going because it was killed."""
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
        here = _works_in(process, pgdata, account)
        # The clock may have been set since the start: it decides only where nothing better is known.
        return abs(process.create_time() - found.started) < 60 if here is None else here
    except psutil.NoSuchProcess:
        return False


def _works_in(process: psutil.Process, folder: Path, account: Account) -> bool | None:
    """Whether the process has this working folder; None where that cannot be learnt."""
    try:
        where = process.cwd()
    except psutil.AccessDenied:
        where = _ask_as(account, process.pid)
    try:
        return os.path.samefile(where, folder) if where else None
    except FileNotFoundError:
        return False


def _ask_as(account: Account, pid: int) -> str:
    # Root in a container commonly lacks the right to look at other accounts' processes; the account itself has it.
    if not (account.other and sys.platform == "linux"):
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = account.run(["readlink", f"/proc/{pid}/cwd"])
        return done.stdout.rstrip("\n") if done.returncode == 0 else ""
    return ""


def _orphans(pgdata: Path, account: Account) -> list[psutil.Process]:
    """Server processes without a postmaster. They name themselves ``postgres: …``; a new postmaster does not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            title = process.cmdline()[:1]
            if title and title[0].startswith("postgres:") and _works_in(process, pgdata, account):
                found.append(process)
    return found
