"""The data directory of the embedded server, the start of the server on it, its login and its database."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from eventstore.database.connection_refusal import ACCEPTED, STARTING, refusal_sqlstate
from eventstore.database.embedded import keeper
from eventstore.database.embedded.installation import CLEAN_ENVIRONMENT, Account, Binaries, account_name
from eventstore.database.embedded.locks import is_free, open_private, replace_file
from eventstore.database.embedded.postmaster import await_ready, find_server, read_postmaster
from eventstore.errors import DiskFull, EmbeddedServerError, ServerError

LOGIN = "eventstore"
SUPERUSER = "postgres"
SOCKET_PORT = 5432


def socket_folder(data_dir: Path, account: Account) -> Path:
    """Return the folder of the server's socket. It is short: the path of a socket may have at most 107 bytes."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:16]
    return Path(f"/tmp/eventstore-{account.uid}-{digest}")


_ATTEMPTS = 5  # a server that was found may be stopping, and a new one may be killed while it starts
_FAILURES = ("FATAL:", "PANIC:", "error", "No space left on device")


@dataclass(frozen=True)
class Cluster:
    """A data directory and the server on it. It is used with ``start.lock`` held.

    Attributes:
        account: the account that owns the data and runs the server.
        pg_port: the TCP port for a start; None does not listen.
        start_lock: the descriptor of the held lock, which initdb and the keeper inherit in case this process is killed.
    """

    data_dir: Path
    account: Account
    binaries: Binaries
    pg_port: int | None
    start_lock: int

    @property
    def pgdata(self) -> Path:
        """PostgreSQL's data directory."""
        return self.data_dir / "pgdata"

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self.data_dir / "server.log"

    def find_or_start(self) -> bool:
        """Wait until the server accepts connections; return True if it was running, False if it was started."""
        for _ in range(_ATTEMPTS):
            running = find_server(self.data_dir, self.account)
            if running is None:
                if self._start():
                    return False
                continue
            if is_free(self.data_dir / "keeper.lock"):
                with self._log() as log:
                    self._run_keeper(log, running.pid, [], {}, ())
            if await_ready(self.pgdata, running.pid):
                return True
        raise EmbeddedServerError(f"the server is stopped or killed again and again: see {self.log_file}")

    def _start(self) -> bool:
        """Start the server. Return False if it was killed during its start."""
        self._create()
        self._write_access_rules()
        socket_dir = self._create_socket_folder()
        environment = dict(CLEAN_ENVIRONMENT)
        if (stale := read_postmaster(self.pgdata)) is not None:
            # The process in an old postmaster.pid is known not to be a server of this data. The variable makes
            # PostgreSQL ignore that process, but still check for shared memory in use; without it, a reused process
            # id prevents the start (CreateLockFile in PostgreSQL's miscinit.c).
            environment["PG_GRANDPARENT_PID"] = str(stale.pid)
        with self._log() as log, self.account.path_to(self.pgdata) as (path, descriptors):
            offset = os.fstat(log).st_size
            pid = self._run_keeper(log, None, self._command(path, socket_dir), environment, descriptors)
            if await_ready(self.pgdata, pid):
                return True
            output = os.pread(log, 1024 * 1024, offset).decode(errors="replace")
        if any(failure in output for failure in _FAILURES):
            raise start_error("the server did not start", output, self.data_dir)
        return False

    def _run_keeper(
        self, log: int, adopt: int | None, command: list[str], environment: dict[str, str], descriptors: tuple[int, ...]
    ) -> int:
        """Run a new keeper with a command, or with the process that it adopts; return the server's process id."""
        account = self.account
        settings = keeper.KeeperSettings(
            data_dir=str(self.data_dir),
            start_lock=self.start_lock,
            adopt=adopt,
            command=command,
            descriptors=list(descriptors),
            environment=environment,
            user=account.uid if account.other else None,
            group=account.gid if account.other else None,
            groups=list(account.groups) if account.other else None,
            socket_dir=str(socket_folder(self.data_dir, account)),
        )
        done = subprocess.run(
            [sys.executable, "-I", keeper.__file__],
            input=json.dumps(settings).encode(),
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            pass_fds=(self.start_lock, *descriptors),
            start_new_session=True,
            check=False,
        )
        answer = json.loads(done.stdout or b"{}")
        if "pid" not in answer:
            reason = answer.get("error", f"see {self.log_file}")
            raise EmbeddedServerError(f"the server's keeper did not start: {reason}")
        return int(answer["pid"])

    @contextmanager
    def _log(self) -> Iterator[int]:
        # The keeper also reads it, to truncate it.
        fd = open_private(self.log_file, os.O_RDWR | os.O_APPEND)
        try:
            yield fd
        finally:
            os.close(fd)

    def _create(self) -> None:
        """Create the data directory atomically, unless it exists."""
        if self.pgdata.exists() and os.listdir(self.pgdata):
            self._check()
            return
        partial = self.data_dir / "pgdata.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        if self.account.other:
            os.chown(partial, self.account.uid, self.account.gid, follow_symlinks=False)
        self._initdb(partial)
        partial.rename(self.pgdata)
        _flush(self.data_dir)

    def _write_access_rules(self) -> None:
        """Write who may log in: over the socket the store's users by peer, over TCP one role by password."""
        uids = sorted({0, os.geteuid(), self.data_dir.stat().st_uid})
        names = [account_name(uid) for uid in uids]
        if self.binaries.major >= 16:
            roles, local = ["all"], [f"all peer map={LOGIN}"]
        else:  # a map cannot name all roles: the others need a password here, too
            roles, local = [SUPERUSER, LOGIN], [f"{SUPERUSER},{LOGIN} peer map={LOGIN}", "all scram-sha-256"]
        maps = [f"{LOGIN} {_quoted(name)} {role}\n" for name in names for role in roles]
        rules = "".join(f"local all {rule}\n" for rule in local) + f"host all {LOGIN} 127.0.0.1/32 scram-sha-256\n"
        note = "# Rewritten at each start of the embedded server.\n"
        for name, text in (("pg_hba.conf", rules), ("pg_ident.conf", "".join(maps))):
            replace_file(self.pgdata / name, note + text, self.account.uid, self.account.gid)

    def _create_socket_folder(self) -> Path:
        """Create the socket's private folder, with a link that gives sockets of all ports the same path."""
        folder = socket_folder(self.data_dir, self.account)
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.account.other and os.lstat(folder).st_uid == 0:
            os.chown(folder, self.account.uid, self.account.gid, follow_symlinks=False)
        check_socket_folder(folder, self.account)
        # A killed server leaves its socket's lock file, and the process id in it may have been reused.
        for stale in folder.glob(".s.PGSQL.*"):
            stale.unlink()
        if self.pg_port not in (None, SOCKET_PORT):
            (folder / f".s.PGSQL.{SOCKET_PORT}").symlink_to(f".s.PGSQL.{self.pg_port}")
        return folder

    def _command(self, pgdata: str, socket_dir: Path) -> list[str]:
        """Return the command that starts the server. Tuning is left to ``postgresql.conf`` and ``ALTER SYSTEM``."""
        settings = {
            "listen_addresses": "" if self.pg_port is None else "127.0.0.1",
            "port": str(self.pg_port or SOCKET_PORT),
            "unix_socket_directories": str(socket_dir),
            "unix_socket_permissions": "0700",
            "unix_socket_group": "",
            "logging_collector": "off",
            "log_destination": "stderr",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self.binaries["postgres"], "-D", pgdata, *options]

    def password(self) -> str:
        """Return the login's password for TCP, created at the first call."""
        fd = open_private(self.data_dir / "password")
        with os.fdopen(fd, "r+", encoding="ascii") as file:
            password = file.read().strip()
            if not password:
                password = secrets.token_urlsafe(24)
                file.write(password + "\n")
        return password

    def _check(self) -> None:
        marker = self.pgdata / "PG_VERSION"
        if not marker.is_file():
            raise EmbeddedServerError(
                f"{self.pgdata} is not a PostgreSQL data directory: move it away, or choose another EVENTSTORE_DATA_DIR"
            )
        major = marker.read_text(encoding="ascii", errors="replace").strip()
        if major != str(self.binaries.major):
            raise EmbeddedServerError(
                f"{self.pgdata} was made by PostgreSQL {major}, but the installed one is {self.binaries.version}: "
                f"dump it with version {major} (or use pg_upgrade), or choose another EVENTSTORE_DATA_DIR"
            )

    def _initdb(self, folder: Path) -> None:
        locale = ["--locale=C", "--encoding=UTF8"]
        if self.binaries.major >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options = ["-U", SUPERUSER, *locale, "--auth-local=peer", "--auth-host=reject"]
        with self.account.path_to(folder) as (path, descriptors):
            done = self.account.run([self.binaries["initdb"], "-D", path, *options], (self.start_lock, *descriptors))
        if done.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise start_error(f"initdb could not create {self.pgdata}", done.stdout, self.data_dir)


def check_socket_folder(folder: Path, account: Account) -> None:
    """Refuse a folder that another account owns or can write to."""
    try:
        about = os.lstat(folder)
    except FileNotFoundError:
        raise EmbeddedServerError(
            f"{folder} was removed while the server was running: end all programs that use the server, and start again"
        ) from None
    private = about.st_uid == account.uid and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(about.st_mode) or not private:
        raise EmbeddedServerError(f"{folder} does not belong to {account.name} alone: remove it, and start again")


def start_error(what: str, output: str, data_dir: Path) -> ServerError:
    """Return the error for the output of initdb or of the server."""
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return DiskFull(f"{what}: no space is left for {data_dir}: make room, and start again")
    failures = re.findall(r"(?:FATAL|PANIC|error): *(.+)", output)
    reason = failures[-1] if failures else (output.strip().splitlines() or ["no output"])[-1]
    if "could not bind" in output and "Address already in use" in output:
        return EmbeddedServerError(f"{what}: the TCP port is in use: choose another EVENTSTORE_PG_PORT, or none")
    advice = f"see {data_dir / 'server.log'}"
    if "shared memory block" in reason:
        advice = "end the processes that still use it, and start again"
    elif "ownership" in reason:
        advice = f"restore its owner with chown -R ({data_dir / 'pgdata'})"
    return EmbeddedServerError(f"{what}: {reason}: {advice}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _flush(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# The contents of the server: a login without superuser rights, and its database

_POLL_SECONDS = 0.05


def provision(socket_dir: Path, database: str, password: str | None) -> str:
    """Create the login and its database if they are missing, and return the server's version.

    Args:
        socket_dir: the folder of the server's socket.
        database: the name of the database.
        password: the login's new password for TCP; None leaves it unchanged.
    """
    with _connected(socket_dir) as connection:
        if not _exists(connection, "SELECT FROM pg_roles WHERE rolname = %s", LOGIN):
            connection.execute(  # pg_monitor: eventstore doctor sees all sessions and the write-ahead log
                sql.SQL("CREATE ROLE {} LOGIN CREATEROLE NOSUPERUSER IN ROLE pg_monitor").format(sql.Identifier(LOGIN))
            )
        if not _exists(connection, "SELECT FROM pg_database WHERE datname = %s", database):
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    sql.Identifier(database), sql.Identifier(LOGIN)
                )
            )
        if password is not None:
            _set_password(connection, password)
        major, minor = divmod(connection.info.server_version, 10000)
        return f"{major}.{minor}"


def _connected(socket_dir: Path) -> psycopg.Connection[tuple[object, ...]]:
    """Connect as the superuser. Wait during recovery, which also follows when a server process was killed."""
    # Every parameter that PG* variables could change is set.
    conninfo = make_conninfo(
        host=str(socket_dir),
        port=SOCKET_PORT,
        user=SUPERUSER,
        dbname="postgres",
        sslmode="disable",
        gssencmode="disable",
        options="",
        connect_timeout=60,
    )
    while True:
        try:
            return psycopg.connect(conninfo, autocommit=True)
        except psycopg.OperationalError:
            if refusal_sqlstate(conninfo) not in (STARTING, ACCEPTED):
                raise
        sleep(_POLL_SECONDS)


def _exists(connection: psycopg.Connection[tuple[object, ...]], query: str, name: str) -> bool:
    return connection.execute(query.encode(), [name]).fetchone() is not None


def _set_password(connection: psycopg.Connection[tuple[object, ...]], password: str) -> None:
    # Hashed here, so that the server and its log never receive the password itself.
    hashed = connection.pgconn.encrypt_password(password.encode(), LOGIN.encode(), b"scram-sha-256")
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(LOGIN), sql.Literal(hashed.decode())))
