"""From psycopg's errors to the store's own, so that callers never depend on the driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from eventstore.errors import (
    ConflictError,
    ConnectionLost,
    DeadlockDetected,
    DiskFull,
    EventStoreError,
    Forbidden,
    InputError,
    IsolationError,
    LoginRefused,
    PermissionDenied,
    ProjectionChanged,
    RetryableError,
    SchemaMissing,
    ServerError,
    ServerStarting,
    ServerUnreachable,
    StatementTimeout,
    StoreClosed,
    UnsuitableServer,
)

_BY_SQLSTATE: dict[str, tuple[type[EventStoreError], str]] = {
    "53100": (DiskFull, "make room on the server's disk, then repeat the call; nothing of this call was written"),
    "53200": (RetryableError, "touch fewer conversations in one transaction, or raise max_locks_per_transaction"),
    "53300": (ServerUnreachable, "raise max_connections or lower EVENTSTORE_POOL_SIZE"),
    "40P01": (DeadlockDetected, "nothing was written; repeat the transaction"),
    "40001": (RetryableError, "nothing was written; repeat the transaction"),
    "55P03": (RetryableError, "nothing was written; repeat the transaction"),
    "57014": (
        StatementTimeout,
        "ask for less at a time, or raise EVENTSTORE_STATEMENT_SECONDS, or EVENTSTORE_APPEND_SECONDS for appends",
    ),
    "42501": (
        PermissionDenied,
        "grant the login the role eventstore_app, or apply the migrations with this login; if the role is missing, as "
        "after restoring a dump without roles, a superuser first runs eventstore migrate roles",
    ),
    "42P01": (SchemaMissing, "apply the migrations: eventstore migrate up"),
    "42883": (SchemaMissing, "apply the migrations: eventstore migrate up"),
    "25006": (
        UnsuitableServer,
        "connect to the primary, or RESET default_transaction_read_only of the login and the database: "
        "this server or session only reads",
    ),
    "ES001": (ConflictError, "read what has been added since, and decide again; nothing was written"),
    "ES002": (ConflictError, "give the new event an id of its own; nothing was written"),
    "ES005": (InputError, "correct it; nothing was written"),
    "ES008": (ConflictError, "append conversation.reactivated first; nothing was written"),
    "ES006": (ProjectionChanged, "repeat the call"),
    "ES004": (UnsuitableServer, "connect to the primary"),
    "ES003": (IsolationError, "use a READ COMMITTED transaction, PostgreSQL's default"),
    "57P03": (ServerStarting, "the server is starting or stopping; repeat the call in a moment"),
    "3D000": (LoginRefused, "create the database, or correct its name in DATABASE_URL"),
}
_BY_CLASS: dict[str, tuple[type[EventStoreError], str]] = {
    "08": (ConnectionLost, "repeat the call with the same ids: what was stored stays, what was not is stored then"),
    "22": (InputError, "correct the value; nothing was written"),
    "54": (InputError, "split or shorten it; nothing was written"),
    "28": (LoginRefused, "correct the user or password in DATABASE_URL or POSTGRES_USER, POSTGRES_PASSWORD"),
    "57": (ConnectionLost, "repeat the call with the same ids: what was stored stays, what was not is stored then"),
}

FORBIDDEN = "ES007"
"""SQLSTATE of an append that its user may not make; the error's detail names the conversation."""


def translate(error: psycopg.Error) -> EventStoreError:
    """The store's error for one of the driver's."""
    said = _first_line(error)
    if isinstance(error, PoolTimeout):
        return ServerUnreachable(f"no connection to the server could be had in time: {said}")
    if isinstance(error, PoolClosed):
        return StoreClosed()
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return ConnectionLost(f"{said}: {_BY_CLASS['08'][1]}")
        return ServerError(said)
    if state == FORBIDDEN:
        return Forbidden(UUID(json.loads(error.diag.message_detail or "{}")["conversation_id"]))
    if is_notify_queue_full(error):
        return RetryableError(
            f"{said}: nothing was written; repeat the call, and end the session that listens and reads nothing: "
            "SELECT pid, usename FROM pg_stat_activity WHERE state = 'idle in transaction'"
        )
    kind, advice = _BY_SQLSTATE.get(state) or _BY_CLASS.get(state[:2]) or (ServerError, f"SQLSTATE {state}")
    return kind(f"{said}: {advice}")


def is_notify_queue_full(error: psycopg.Error) -> bool:
    """Whether a commit failed because the server's queue of notifications is full, which is nobody's input."""
    return error.sqlstate == "54000" and error.diag.source_function == "PreCommit_Notify"


def is_for_want_of_role(error: psycopg.Error) -> bool:
    """Whether the session's role may not do it: refused by the server itself, not by a function of the store."""
    return error.sqlstate == "42501" and error.diag.source_function == "aclcheck_error"


@contextmanager
def translated() -> Iterator[None]:
    """Raises the store's error where the driver raises its own."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def _first_line(error: Exception) -> str:
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return (primary or str(error).strip() or type(error).__name__).splitlines()[0]
