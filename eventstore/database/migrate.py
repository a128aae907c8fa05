"""The schema: applying, reverting and checking dbmate's migrations.

The migrations are dbmate files in ``db/migrations``. dbmate applies them (:mod:`eventstore.database.dbmate`). What is
applied is read here directly from its bookkeeping table, ``eventstore_migrations`` in the store's own schema. A row
with the version 0 records that migrations were reverted on request: only a request applies them again.

Runs exclude each other by an advisory lock in a separate transaction. This also works behind a pooler, where a
session's lock would stay with the session when another client gets it. A run reads the applied versions after it has
the lock, and again after dbmate has ended.
"""

from __future__ import annotations

import re
import secrets
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from eventstore.database.connection import (
    BOOKKEEPING,
    LOGIN_IS_EXEMPT,
    connect_options,
    refuse_exempt,
    refuse_unsuitable,
    unreachable,
)
from eventstore.database.dbmate import (
    LOCK_TIMEOUT,
    LockTimeout,
    guard_text,
    migrations_folder,
    run_dbmate,
    settings_text,
)
from eventstore.database.migrate_roles import LOGIN_ROLES, OWNER_OF_LOG, RolesPlan
from eventstore.database.queries import query
from eventstore.database.schema_comparison import SyncConnection, inspect
from eventstore.errors import (
    EventStoreError,
    MigrationFailed,
    PermissionDenied,
    RetryableError,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
    UnsuitableServer,
    translated,
)
from eventstore.settings import Settings

_WOULD_LOSE = "ES020"
"""The SQLSTATE of the query ``refuse_to_lose``."""

_REVERTED = "0"
"""The version that stands for a request to revert: the lowest, so that dbmate never takes it for the latest one."""
_REQUIRES = f"{_REVERTED} "
"""The beginning of a version that stands for a requirement: a migration that code must know follows."""
_ATTEMPTS = 40
"""The number of attempts of a change of a table that does not get its lock."""
_PAUSE_SECONDS = 0.5
"""The pause between two attempts of a migration: as long as appends may have waited behind the last one."""
_DRAIN_SECONDS = 10.0
"""The time that transactions of the former owner have before their sessions are ended."""
_POLL_SECONDS = 0.02
_DOES_NOT_FIT = re.compile(r"\(42(?!501)\w{3}\)$")
"""The end of dbmate's error if the schema lacks what a migration needs, or has it already: SQLSTATEs of class 42."""
_OTHER_BASELINE = (
    "use the version of flowagents-eventstore that made it, or begin with an empty database (--data-dir, DATABASE_URL "
    "or EVENTSTORE_SCHEMA)"
)
_END_SESSIONS = query("eventstore.database", "other_sessions")
_RECORD = query("eventstore.database", "record_migration")
_OLDER_SESSIONS = query("eventstore.database", "older_sessions")
_DOES_NOT_INHERIT = query("eventstore.database", "does_not_inherit")


@dataclass(frozen=True)
class Migration:
    """A migration; its version is the digits with which its file name begins."""

    version: str
    name: str
    applied: bool


def known_versions() -> dict[str, str]:
    """Return the names of the migrations in this version of the code by version, in order."""
    return {
        path.name.split("_", 1)[0]: path.stem.split("_", 1)[1] for path in sorted(migrations_folder().glob("*.sql"))
    }


def newer_versions(recorded: set[str]) -> list[str]:
    """Return the applied migrations that the code does not know."""
    return sorted(version for version in recorded - known_versions().keys() if not version.startswith(_REVERTED))


def check_versions(recorded: set[str], *, accept_newer: bool = True) -> None:
    """Refuse a schema with whose migrations the code does not work.

    Args:
        recorded: the versions in the bookkeeping table.
        accept_newer: whether to accept further migrations that leave what the code needs as it is.

    Raises:
        SchemaMissing: no migration was applied.
        SchemaTooNew: there are migrations that the code does not know, and it may not work with them.
        SchemaTooOld: migrations of the code are missing.
    """
    known, newer = known_versions(), newer_versions(recorded)
    applied = {version for version in recorded if not version.startswith(_REVERTED)}
    if not applied:
        raise SchemaMissing("the database has no schema of the store yet: eventstore migrate up")
    required = {version.removeprefix(_REQUIRES) for version in recorded if version.startswith(_REQUIRES)}
    if newer and (not accept_newer or required - known.keys()):
        raise SchemaTooNew(
            f"the database has migrations that this version does not know ({', '.join(newer)})"
            f"{' and cannot work with' if accept_newer else ''}: upgrade flowagents-eventstore"
        )
    if missing := [f"{version}_{name}" for version, name in known.items() if version not in applied]:
        lacks = f"the database lacks {len(missing)} migration(s), first {missing[0]}"
        if newer:  # which nothing is applied before
            raise SchemaTooOld(f"{lacks}, and has others that this version does not know: {_OTHER_BASELINE}")
        raise SchemaTooOld(f"{lacks}: eventstore migrate up")


class Migrator:
    """Applies and reverts migrations in one schema of one database.

    Args:
        stopping: ends a run that waits for another process, or for a lock, once it is set.
    """

    def __init__(self, url: str, settings: Settings, stopping: threading.Event | None = None) -> None:
        self._url = url
        self._settings = settings
        self._stopping = stopping or threading.Event()
        self._schema = settings.db_schema
        self._bookkeeping = sql.Identifier(self._schema, BOOKKEEPING)

    def status(self) -> list[Migration]:
        """Return all migrations of the code and the database, in order."""
        known = known_versions()
        with self._transaction() as connection:
            applied = self._applied(connection)
        return [
            Migration(version, known.get(version, "unknown to this version"), version in applied)
            for version in sorted(known.keys() | applied)
        ]

    def up(self, *, for_service: bool = False) -> list[str]:
        """Apply the missing migrations. Concurrent calls are safe.

        Args:
            for_service: whether to refuse, before anything is applied, a login that a store would refuse, and
                migrations that were reverted on request.

        Returns:
            The versions that were applied.

        Raises:
            MigrationFailed: dbmate fails; the failing migration is rolled back.
            RetryableError: the run was stopped while it waited.
            SchemaTooNew: the database has migrations that this code does not know, and it may not work with them.
            SchemaTooOld: migrations were reverted on request, or migrations are missing before such newer ones.
            PermissionDenied: the login may not create the database, or does not inherit the owner's rights.
            UnsuitableServer: the login is exempt from row-level security.
        """
        self._create_database()
        known = set(known_versions())
        with self._transaction() as connection:
            if for_service and not self._settings.allow_superuser:
                refuse_exempt(connection.info.user, connection.execute(LOGIN_IS_EXEMPT).fetchone(), self._settings)
            before, is_reverted = self._check_newer(connection), self._is_reverted(connection)
            if known <= before and not is_reverted:
                return []
            if for_service and is_reverted and before != known:
                raise SchemaTooOld(
                    f"eventstore migrate down has reverted migrations, last {min(known - before)}: "
                    "eventstore migrate up applies them again"
                )
            _refuse_not_inheriting(connection)
        self._create_bookkeeping()
        with self._run() as (connection, key):
            before = self._check_newer(connection)
            connection.execute(sql.SQL("DELETE FROM {} WHERE version = %s").format(self._bookkeeping), (_REVERTED,))
            if known <= before:
                return []
            try:
                self._dbmate("migrate", connection, key, known - before)
            except MigrationFailed as error:
                if not before or not _DOES_NOT_FIT.search(str(error)):
                    raise
                raise MigrationFailed(
                    f"{error}; if a version before the first release made this database, with migrations that have "
                    f"changed since: {_OTHER_BASELINE}"
                ) from None
            self._expect(known, connection)
            return sorted(known - before)

    def down(self, *, destroy_events: bool = False) -> str | None:
        """Revert the latest migration, and record that this was requested.

        Args:
            destroy_events: whether to drop a log that holds events, or the tenants, users and keys.

        Returns:
            Its version; None if there is nothing to revert.

        Raises:
            MigrationFailed: dbmate fails, or irreplaceable rows would be lost.
        """
        with self._run() as (connection, key):
            applied = self._applied(connection)
            if not applied:
                return None
            latest = max(applied)
            if latest not in known_versions():
                check_versions(applied, accept_newer=False)
            if not destroy_events:
                self._refuse_to_lose(latest, connection)
            self._dbmate("down", connection, key, {latest}, destroy_events=destroy_events)
            self._expect(applied - {latest}, connection)
            record = sql.SQL("INSERT INTO {} VALUES (%s) ON CONFLICT DO NOTHING").format(self._bookkeeping)
            connection.execute(record, (_REVERTED,))
            return latest

    def refuse_to_lose(self) -> None:
        """Refuse if reverting all migrations would lose irreplaceable rows."""
        with self._transaction(write=True) as connection:
            for version in sorted(self._applied(connection) & set(known_versions()), reverse=True):
                self._refuse_to_lose(version, connection)

    def findings(self) -> list[str]:
        """Return a sentence for each problem of a schema whose migrations are all applied."""
        with self._transaction() as connection:
            if not set(known_versions()) <= (applied := self._applied(connection)):
                return []
            return inspect(connection, self._schema, is_newer=bool(newer_versions(applied)))

    def make_roles(self) -> list[str]:
        """Create the roles and the row-level security that a migration by a login with CREATEROLE creates.

        Returns:
            The statements that were executed; empty if nothing was missing.

        Raises:
            SchemaError: migrations are missing.
            PermissionDenied: the login may not execute all statements; the text lists those for a superuser.
            RetryableError: the tables were in use for too long.
        """
        with self._run() as (lock, _):
            check_versions(self._applied(lock), accept_newer=False)
            self._refuse_single_session()
            row = lock.execute(OWNER_OF_LOG).fetchone()
            assert row is not None
            login, own = str(row[0]), _backend(lock)
            newest = max(self._applied(lock))
            done = self._apply_roles(login, RolesPlan.make_usable, newest)
            with self._transaction() as connection:
                if RolesPlan(connection, self._schema, login).needs_owner():
                    connection.execute(_END_SESSIONS, {"login": login, "own": [own, _backend(connection)]})
            done += self._apply_roles(login, RolesPlan.hand_over, newest)
            if done:
                self._await_transactions(login, own)
            return done + self._apply_roles(login, RolesPlan.end_former_owner, newest)

    def _await_transactions(self, login: str, own: int) -> None:
        """Wait until the login's current transactions have ended; end the sessions of those that take too long."""
        with self.connect() as connection:  # in autocommit mode, so each query sees the current sessions
            row = connection.execute("SELECT clock_timestamp()").fetchone()
            parameters = {"login": login, "own": [own, _backend(connection)], "now": row and row[0]}
            deadline = time.monotonic() + _DRAIN_SECONDS
            while connection.execute(_OLDER_SESSIONS, parameters).fetchall():
                if time.monotonic() > deadline:
                    connection.execute(_END_SESSIONS, parameters)
                    return
                time.sleep(_POLL_SECONDS)

    def _apply_roles(self, login: str, step: Callable[[RolesPlan], None], newest: str) -> list[str]:
        for _ in range(_ATTEMPTS - 1):
            with suppress(RetryableError):
                return self._try_roles(login, step, newest)
        return self._try_roles(login, step, newest)

    def _try_roles(self, login: str, step: Callable[[RolesPlan], None], newest: str) -> list[str]:
        with self._transaction(write=True) as connection:
            connection.execute("SELECT set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))
            plan = RolesPlan(connection, self._schema, login)
            step(plan)
            if plan.refused:
                raise PermissionDenied(
                    f"the login {connection.info.user} may not do all of this; nothing was changed in this step. "
                    f"A superuser can: {'; '.join(plan.refused)}"
                )
            if plan.done:
                connection.execute(_RECORD.format(schema=self._schema, version=newest, act="roles_migrated").encode())
            return plan.done

    def connect(self, url: str | None = None) -> SyncConnection:
        """Open a connection in autocommit mode, as the login of the settings.

        Raises:
            ServerUnreachable: the server does not answer, or refuses the login.
            UnsuitableServer: the server is too old, or its database is not in UTF-8.
        """
        connection = self._open(url or self._url)
        try:
            with translated():
                connection.execute("SET exit_on_error = off")  # some statements may fail
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self, url: str) -> SyncConnection:
        """Open a connection on which nothing has run."""
        try:
            options = connect_options(url, self._settings)
            connection = psycopg.connect(url, autocommit=True, prepare_threshold=None, **options)
        except psycopg.Error as error:
            raise unreachable(url, error) from error
        try:
            refuse_unsuitable(connection.info)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[SyncConnection]:
        """Begin a transaction on a new connection, with the settings on which migrations rely."""
        with self.connect() as connection, translated():
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.read_only = False if write else None
            with connection.transaction():
                connection.execute(settings_text(self._schema).encode())
                yield connection

    @contextmanager
    def _run(self) -> Iterator[tuple[SyncConnection, int]]:
        """Begin a transaction that excludes other runs in the schema, and holds a lock of a random key."""
        digest = sha256(f"eventstore migrations {self._schema}".encode()).digest()
        key = secrets.randbits(63)
        with self._transaction(write=True) as connection:
            of_schema = (int.from_bytes(digest[:8], signed=True),)
            # Polled, because a statement that waits cannot be stopped from another thread.
            while connection.execute("SELECT pg_try_advisory_xact_lock(%s)", of_schema).fetchone() != (True,):
                self._stopping.wait(_POLL_SECONDS)
                self._refuse_if_stopping()
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
            yield connection, key

    def _dbmate(
        self, command: str, connection: SyncConnection, key: int, versions: set[str], *, destroy_events: bool = False
    ) -> None:
        """Run dbmate; again, after a pause for others, while a migration does not get a lock."""
        self._refuse_single_session()
        run = partial(
            run_dbmate, command, connection, self._schema, BOOKKEEPING, key,
            versions=versions, destroy_events=destroy_events,
        )  # fmt: skip
        for _ in range(_ATTEMPTS - 1):
            try:
                return run()
            except LockTimeout:
                self._refuse_if_stopping()
                time.sleep(_PAUSE_SECONDS)
        try:
            run()
        except LockTimeout as error:
            raise MigrationFailed(
                f"{error}, {_ATTEMPTS} times: a transaction uses the table for too long, such as a backup or a report: "
                "find it in pg_stat_activity, wait until it ends or end it, and repeat the command"
            ) from None

    def _refuse_if_stopping(self) -> None:
        if self._stopping.is_set():
            raise RetryableError("the migration was stopped while it waited for another process: repeat the command")

    def _refuse_single_session(self) -> None:
        """Refuse a pooler whose only session has the run's transaction: dbmate would wait for it for ever."""
        with closing(self._open(self._url)) as second:  # a query could wait here too
            second.pgconn.send_query(b"SELECT")
            if not select.select([second.pgconn.socket], [], [], self._settings.connect_timeout)[0]:
                raise UnsuitableServer(
                    f"no second session to migrate with within {self._settings.connect_timeout} s: "
                    "give the pooler a larger pool, or connect to the server itself"
                )

    def _expect(self, versions: set[str], connection: SyncConnection) -> None:
        if (found := self._applied(connection)) != versions:
            differing = ", ".join(sorted(found ^ versions))
            raise MigrationFailed(
                f"dbmate reports success, but {self._schema}.{BOOKKEEPING} differs from what was to be applied at "
                f"{differing}: connect to the server itself, not through a proxy"
            )

    def _create_database(self) -> None:
        """Create the database if it is missing.

        That is looked up in the server's list of databases: the error of a refused connection is in the server's
        language.
        """
        try:
            self.connect().close()
        except UnsuitableServer:
            raise
        except EventStoreError as refused:
            if isinstance(refused.__cause__, psycopg.errors.ConnectionTimeout):
                raise  # no server, whatever the name of the database
            name = str(conninfo_to_dict(self._url)["dbname"])
            try:
                connection = self.connect(make_conninfo(self._url, dbname="postgres"))
            except EventStoreError:
                raise refused from None
            with connection, translated():
                if connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None:
                    raise
                try:
                    # Of two concurrent calls one fails.
                    connection.execute(
                        sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(sql.Identifier(name))
                    )
                except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    return
                except psycopg.errors.InsufficientPrivilege as error:
                    user = connection.info.user
                    raise PermissionDenied(
                        f"the database {name} does not exist, and the login {user} may not create it: "
                        f'as a superuser, CREATE DATABASE "{name}" OWNER "{user}"'
                    ) from error

    def _create_bookkeeping(self) -> None:
        """Create the schema and dbmate's table in it, if they are missing, as dbmate would."""
        schema, table = sql.Identifier(self._schema), self._bookkeeping
        with self._run() as (connection, _):
            find = "SELECT FROM pg_namespace WHERE nspname = %s"
            has_schema = connection.execute(find, (self._schema,)).fetchone() is not None
            try:
                if not has_schema:
                    connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
                if not self._has_bookkeeping(connection):
                    connection.execute(sql.SQL("CREATE TABLE {} (version varchar PRIMARY KEY)").format(table))
            except psycopg.errors.InsufficientPrivilege as error:
                login = sql.Identifier(connection.info.user).as_string()
                database = sql.Identifier(connection.info.dbname).as_string()
                remedy = f"GRANT CREATE, TEMPORARY ON DATABASE {database} TO {login} WITH GRANT OPTION"
                if has_schema:
                    remedy += f"; GRANT USAGE, CREATE ON SCHEMA {schema.as_string()} TO {login} WITH GRANT OPTION"
                raise PermissionDenied(
                    f"the login {connection.info.user} may not create objects in the schema {self._schema}: "
                    f"eventstore migrate up as a login that may, or as a superuser, {remedy}"
                ) from error

    def _has_bookkeeping(self, connection: SyncConnection) -> bool:
        name = f"{self._schema}.{BOOKKEEPING}"
        return connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone() == (True,)

    def _check_newer(self, connection: SyncConnection) -> set[str]:
        """Return the applied migrations; refuse those that the code does not know if it does not work with them."""
        if newer_versions(recorded := self._recorded(connection)):
            check_versions(recorded)
        return self._applied(connection)

    def _applied(self, connection: SyncConnection) -> set[str]:
        return {version for version in self._recorded(connection) if not version.startswith(_REVERTED)}

    def _is_reverted(self, connection: SyncConnection) -> bool:
        return _REVERTED in self._recorded(connection)

    def _recorded(self, connection: SyncConnection) -> set[str]:
        if not self._has_bookkeeping(connection):
            return set()
        rows = connection.execute(sql.SQL("SELECT version FROM {}").format(self._bookkeeping)).fetchall()
        return {str(version) for (version,) in rows}

    def _refuse_to_lose(self, version: str, connection: SyncConnection) -> None:
        """Refuse as the migration itself would in dbmate's transaction, but before anything is reverted."""
        try:
            with connection.transaction(force_rollback=True):  # which also releases the locks
                connection.execute(guard_text(version, self._schema).encode())
        except psycopg.Error as error:
            if error.sqlstate == _WOULD_LOSE:
                raise MigrationFailed(str(error.diag.message_primary)) from error
            raise


def _refuse_not_inheriting(connection: SyncConnection) -> None:
    """Refuse a login that would lose its rights to an object when a migration gives it to the owner's role."""
    is_per_grant = connection.info.server_version >= 160000  # before 16, all memberships of a role inherit or none
    row = connection.execute(_DOES_NOT_INHERIT, {"right_to_set": "SET" if is_per_grant else "MEMBER"}).fetchone()
    if row != (True,):
        return
    login = sql.Identifier(connection.info.user).as_string()
    remedy = f"ALTER ROLE {login} INHERIT"
    if is_per_grant:
        remedy += f"; GRANT {', '.join(LOGIN_ROLES)} TO {login} WITH INHERIT TRUE (if these roles exist)"
    raise PermissionDenied(
        f"the login {connection.info.user} does not inherit the rights of its roles, so it cannot migrate. "
        f"A superuser can: {remedy}"
    )


def _backend(connection: SyncConnection) -> int:
    """Return the process id of the session that the connection's transaction uses."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])
