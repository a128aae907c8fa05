"""The checks of the server, the database and the store in it, over one connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic, time
from typing import Any

import psycopg
from psycopg import sql

from agent_manager.audit.notes import KeyInvalid
from agent_manager.audit.sealer import read_keys
from agent_manager.backup.archive import Archive
from agent_manager.backup.erasures import RECEIPTS_NOT_APPLIED, RECEIPTS_NOT_IN_LOG, columns_of
from agent_manager.backup.targets import open_target
from agent_manager.doctor.finding import Finding, Severity
from agent_manager.settings import ServerSettings
from eventstore.database.connection import APP, BOOKKEEPING, LOGIN_IS_EXEMPT, PROJECTOR
from eventstore.database.dbmate import settings_text
from eventstore.database.migrate import check_versions
from eventstore.database.queries import query
from eventstore.database.schema_comparison import (
    CATALOG,
    CatalogDifference,
    Comparison,
    SyncConnection,
    compare_catalog,
    describe,
    expected_facts,
    exposures,
    lack_of_roles,
    remedy,
)
from eventstore.errors import SchemaError, translate
from eventstore.schema_check import LOG_INTEGRITY, log_problem

_SET_ROLE = query("eventstore.database", "set_role")
_SECONDS = 30.0
"""For all checks together."""
_STATEMENT_SECONDS = 5.0
_CLOCK_SECONDS = 2.0
"""A difference that network time protocols do not leave; tokens and backups use this machine's clock."""


@dataclass(frozen=True)
class Limits:
    """The age in seconds from which on a lag, a transaction, a lock or an append is a problem."""

    warning: float = 60
    critical: float = 600


@dataclass(frozen=True)
class Check:
    """A check of the database.

    Attributes:
        role: the role that it needs; None is the login.
        needs_schema: whether it can only be made if the schema exists and all migrations are applied.
    """

    if_ok: str
    role: str | None = None
    needs_schema: bool = True


CHECKS = {
    "primary": Check("the server accepts writes", needs_schema=False),
    "server_version": Check("the server's version is supported", needs_schema=False),
    "durability": Check("no setting loses data", needs_schema=False),
    "checksums": Check("data checksums are on", needs_schema=False),
    "archiving": Check("WAL can be archived", needs_schema=False),
    "standbys": Check("appends do not wait for a missing standby", needs_schema=False),
    "replication_slots": Check("no slot is unused", needs_schema=False),
    "wal_size": Check("pg_wal is not large", needs_schema=False),
    "connections": Check("there are free connections", needs_schema=False),
    "notify_queue": Check("the queue of notifications is not full", needs_schema=False),
    "wraparound": Check("no database runs out of transaction ids", needs_schema=False),
    "collation": Check("the collation's version has not changed", needs_schema=False),
    "clock": Check("the clocks of the server and this machine agree", needs_schema=False),
    "transactions": Check("no transaction is open for long", needs_schema=False),
    "prepared_transactions": Check("no prepared transaction is left", needs_schema=False),
    "vacuum_horizon": Check("nothing keeps dead rows", needs_schema=False),
    "login": Check("row-level security holds for the logins", needs_schema=False),
    "migrations": Check("all migrations are applied", APP, needs_schema=False),
    "roles": Check("roles, owners and rights are as the migrations make them"),
    "row_level_security": Check("row-level security is in force on every table"),
    "triggers": Check("the triggers that keep the log append-only are enabled"),
    "schema": Check("tables, functions and keys are as the migrations make them"),
    "autovacuum": Check("autovacuum is on"),
    "unlogged_tables": Check("all tables survive a crash"),
    "indexes": Check("all indexes are valid"),
    "appends": Check("no append is open for long"),
    "locks": Check("no session waits long for a lock"),
    "integrity": Check("the log has all events that were applied", APP),
    "digests": Check("the newest events are as they were appended", PROJECTOR),
    "future_events": Check("no event is from the future", PROJECTOR),
    "workers": Check("a worker is running", PROJECTOR),
    "lag": Check("the read tables are up to date", PROJECTOR),
    "parked": Check("no conversation is parked", PROJECTOR),
    "sealed_log": Check("the log is sealed, if it has a key", PROJECTOR),
    "retention": Check("the retention rules are applied", APP),
}
"""The checks of the database, in order. The others are queries of the same name."""

ERASURES = Check("no erasure is undone", PROJECTOR)
"""The check that also reads receipts beside the backups."""
_OF_ROLES = ("role", "membership", "owner of", "rights on")
_OF_RLS = ("row-level security on", "policy", "definition of")


class DatabaseExamination:
    """The run of all checks over one connection. Each is a transaction that only reads, and is rolled back."""

    def __init__(
        self,
        connection: SyncConnection,
        settings: ServerSettings,
        limits: Limits,
        projections: Sequence[str],
    ) -> None:
        self._connection = connection
        self._schema = settings.db_schema
        self._parameters = {
            "warning": limits.warning,
            "critical": limits.critical,
            "allow_superuser": settings.allow_superuser,
            "tables": [name for kind, name in expected_facts() if kind == "table"],
            "projections": list(projections),
            "schema": self._schema,
            "bookkeeping": BOOKKEEPING,
            "retention_seconds": settings.retention_hours * 3600,
        }
        self._deadline = monotonic() + _SECONDS
        self._comparison: Comparison | None = None
        self._unusable = "the schema cannot be examined"
        self._settings = settings
        connection.read_only = True

    def run(self) -> list[Finding]:
        """Return the problems that were found, and what could not be checked."""
        special: dict[str, Callable[[], list[Finding]]] = {
            "clock": self._clock,
            "migrations": self._migrations,
            "roles": self._roles,
            "row_level_security": self._row_level_security,
            "triggers": lambda: self._differences("triggers"),
            "schema": lambda: self._differences("schema"),
            "integrity": self._integrity,
            "sealed_log": self._sealed_log,
        }
        found: list[Finding] = []
        for name, check in CHECKS.items():
            found += self._run(name, check, special.get(name) or partial(self._query, name))
        return found

    def erasures(self) -> list[Finding]:
        """Return a finding if the log holds what receipts beside the backups say was erased."""
        if not self._settings.backup_dir:
            return []
        archive = Archive(open_target(self._settings.backup_dir))
        ids = archive.erasure_ids()

        def work() -> list[Finding]:
            rows = self._connection.execute(RECEIPTS_NOT_IN_LOG, {"ids": ids}).fetchall()
            records = archive.erasures(each for (each,) in rows)
            unapplied = self._connection.execute(RECEIPTS_NOT_APPLIED, columns_of(records)).fetchall()
            if not unapplied:
                return []
            what = f"the log holds what was erased by {len(unapplied)} erasure(s) of which the backups have receipts"
            return [Finding("erasures", Severity.CRITICAL, what, "eventstore erase apply")]

        return self._run("erasures", ERASURES, work)

    def _run(self, name: str, check: Check, work: Callable[[], list[Finding]]) -> list[Finding]:
        if check.needs_schema and self._unusable:
            return [Finding(name, Severity.NOT_CHECKED, self._unusable, "see the check migrations")]
        if monotonic() >= self._deadline:
            return [Finding(name, Severity.NOT_CHECKED, f"the checks before it took {_SECONDS:g} s")]
        try:
            with self._transaction(check.role):
                return work()
        except psycopg.errors.QueryCanceled:
            why = f"it took longer than {_STATEMENT_SECONDS:g} s"
            return [Finding(name, Severity.NOT_CHECKED, why, "repeat it when there is less load")]
        except psycopg.errors.InsufficientPrivilege as error:
            login = sql.Identifier(self._connection.info.user).as_string()
            role = f"eventstore_app, {PROJECTOR}" if check.role or check.needs_schema else "pg_monitor"
            return [Finding(name, Severity.NOT_CHECKED, _first_line(error), f"GRANT {role} TO {login}")]
        except psycopg.OperationalError as error:
            if self._connection.closed:
                raise translate(error) from error
            return [Finding(name, Severity.NOT_CHECKED, _first_line(error))]
        except psycopg.Error as error:  # such as a function that is missing, which another check names
            return [Finding(name, Severity.NOT_CHECKED, _first_line(error), "see the check schema")]

    @contextmanager
    def _transaction(self, role: str | None) -> Iterator[None]:
        connection = self._connection
        with connection.transaction(force_rollback=True):
            connection.execute(settings_text(self._schema).encode())
            milliseconds = max(1, round(1000 * min(_STATEMENT_SECONDS, self._deadline - monotonic())))
            limits = "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', '1s', true)"
            connection.execute(limits, (str(milliseconds),))
            if role is not None:
                self._set_role(role)
            yield

    def _set_role(self, role: str) -> None:
        """Set a role until the transaction ends, unless the log belongs to the login itself."""
        parameters = {
            "role": role,
            "path": f"{self._schema}, pg_temp",
            "right": "SET" if self._connection.info.server_version >= 160000 else "MEMBER",
            "table": f"{self._schema}.{BOOKKEEPING}",
        }
        _, current = self._connection.execute(_SET_ROLE, parameters).fetchone() or (None, None)
        if current is None and self._comparison is not None and self._comparison.has_roles:
            raise psycopg.errors.InsufficientPrivilege(f"the login may not become the role {role}")

    def _execute(self, name: str) -> list[tuple[Any, ...]]:
        text = sql.SQL(query("agent_manager.doctor", name))
        return self._connection.execute(text.format(**self._parameters)).fetchall()

    def _query(self, name: str) -> list[Finding]:
        rows = self._execute(name)
        return [Finding(name, Severity(severity), finding, remedy) for severity, finding, remedy in rows]

    def _clock(self) -> list[Finding]:
        before = time()
        row = self._connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        after = time()
        assert row is not None
        ahead = float(row[0]) - (before + after) / 2
        if abs(ahead) - (after - before) / 2 < _CLOCK_SECONDS:
            return []
        what = f"the server's clock is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
        return [Finding("clock", Severity.WARNING, what, "synchronise both with chrony or systemd-timesyncd")]

    def _migrations(self) -> list[Finding]:
        [(exists, is_usable)] = self._execute("schema_state")
        if not exists:
            what = f"the database has no schema of the store yet ({self._schema})"
            return [
                Finding("migrations", Severity.CRITICAL, what, "eventstore migrate up, or correct EVENTSTORE_SCHEMA")
            ]
        if not is_usable:
            raise psycopg.errors.InsufficientPrivilege(f"the login may not use the schema {self._schema}")
        table = sql.Identifier(self._schema, BOOKKEEPING)
        rows = self._connection.execute(sql.SQL("SELECT version FROM {}").format(table)).fetchall()
        try:
            check_versions({str(version) for (version,) in rows})
        except SchemaError as error:
            return [Finding.of_error("migrations", error)]
        self._comparison = compare_catalog(self._connection.execute(CATALOG).fetchall())
        self._unusable = ""
        return []

    def _roles(self) -> list[Finding]:
        assert self._comparison is not None
        lacking = lack_of_roles(self._comparison)
        return [Finding.of_error("roles", each) for each in lacking] + self._differences("roles")

    def _row_level_security(self) -> list[Finding]:
        assert self._comparison is not None
        found = self._differences("row_level_security")
        if self._connection.execute(LOGIN_IS_EXEMPT).fetchone() == (False,):  # otherwise the check login says so
            exposed = exposures(self._connection, self._schema, self._comparison)
            found += [Finding.of_error("row_level_security", each) for each in exposed]
        return found

    def _differences(self, check: str) -> list[Finding]:
        """Return a finding if the schema differs from what the migrations create, in what a check is about."""
        assert self._comparison is not None
        differences = [each for each in self._comparison.differences if _check_of(each) == check]
        if not differences:
            return []
        is_critical = check == "row_level_security" or any(each.is_structural for each in differences)
        severity = Severity.CRITICAL if is_critical else Severity.WARNING
        return [
            Finding(check, severity, f"not as the migrations make it: {describe(differences)}", remedy(differences))
        ]

    def _integrity(self) -> list[Finding]:
        row = self._connection.execute(LOG_INTEGRITY).fetchone()
        problem = log_problem(*row or (False, False, 0, 0))
        return [Finding.of_error("integrity", problem)] if problem else []

    def _sealed_log(self) -> list[Finding]:
        if self._settings.audit_key is None:
            return []
        try:
            keys = read_keys(self._settings)
        except KeyInvalid as error:
            return [Finding.of_error("sealed_log", error)]
        found = self._query("sealed_log") if keys.private else []
        if keys.private and self._settings.audit_key.stat().st_mode & 0o077:
            what = f"others than its owner may read the private key in {self._settings.audit_key}"
            found.append(Finding("sealed_log", Severity.WARNING, what, f"chmod 600 {self._settings.audit_key}"))
        return found


def _check_of(difference: CatalogDifference) -> str:
    if difference.kind in _OF_ROLES:
        return "roles"
    if difference.kind in _OF_RLS:
        return "row_level_security"
    return "triggers" if difference.kind == "trigger" else "schema"


def _first_line(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error) or type(error).__name__).splitlines()[0]
