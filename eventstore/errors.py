"""Every error that a user of the store can cause or meet, and the mapping from SQLSTATE and psycopg's errors.

::

    EventStoreError
    ├── InputError                 what was given cannot be stored or understood
    │   ├── InvalidEvent           a value in an event: unknown role, NUL character, NaN, …
    │   ├── EventTooLarge          an event's content is beyond the size limit
    │   ├── InvalidId              a text that should be a UUID, a name, a tenant, …
    │   ├── InvalidCursor          a cursor of a page that is damaged, or was made for another list
    │   ├── SettingsError          a setting or environment variable
    │   └── StoreClosed            the store is not open, was closed while it was used, or belongs to a parent process
    ├── NotFound                   nothing has the id that was asked for
    ├── Forbidden                  the user may not write there
    ├── ConflictError              what was given contradicts what the log holds
    │   ├── WrongExpectedVersion   the conversation is not at the version the writer believed
    │   ├── EventIdConflict        another event is stored under the same id
    │   └── ConversationIsDeleted  the conversation takes no events until it is reactivated
    ├── RetryableError             nothing was written; the same call may succeed when repeated
    │   ├── ConversationLocked     another transaction holds the conversation
    │   ├── DeadlockDetected       two transactions waited for each other
    │   ├── ProjectionChanged      read tables are made by another version of their projection now
    │   └── StatementTimeout       a statement took longer than it may
    ├── NotCaughtUp                a read table has not yet reached the position asked for
    ├── RebuildError               read tables cannot be rebuilt, swapped or taken back
    ├── IsolationError             a transaction whose snapshot is too old to be safe
    ├── ServerError                the server cannot do it, whatever was given
    │   ├── ServerUnreachable      no connection could be made
    │   │   ├── LoginRefused       the server is there, and refuses the login or knows no such database
    │   │   └── ServerStarting     it is starting or stopping
    │   ├── ConnectionLost         the connection broke; an append may or may not have happened
    │   ├── DiskFull               the server has no room left
    │   ├── PermissionDenied       the login lacks a right
    │   ├── UnsuitableServer       wrong version, encoding or kind of server
    │   └── EmbeddedServerError    the embedded server cannot be started or stopped
    └── SchemaError                the database's schema and this code do not fit
        ├── SchemaMissing          no migrations have been applied
        ├── SchemaTooOld           the code is newer
        ├── SchemaTooNew           the database is newer
        └── MigrationFailed        dbmate refused, and said why
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

# Every error that a user of the store can cause or meet, as one tree


class EventStoreError(Exception):
    """Root of all errors of the event store. Its text says what was wrong and what to do."""


def printable(text: str, longest: int = 300) -> str:
    """The text as it may be shown anywhere: on one line, without control characters, its middle cut if it is long."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-longest // 2 :]}"


class InputError(EventStoreError):
    """What was given cannot be stored or understood. Nothing was written."""


class InvalidEvent(InputError):
    """A value in an event cannot be stored.

    Attributes:
        path: where in the event the value stands, such as ``content.parts[2].text``.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(printable(f"{path}: ") + reason)
        self.path = path
        self.reason = reason


class EventTooLarge(InputError):
    """An event's content is larger than the limit.

    Attributes:
        size: bytes of the content as JSON in UTF-8.
        limit: bytes allowed (``EVENTSTORE_MAX_CONTENT_BYTES``).
    """

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} takes {size:,} bytes as JSON, the limit is {limit:,}: "
            "store the large part elsewhere and refer to it, or raise EVENTSTORE_MAX_CONTENT_BYTES"
        )
        self.size = size
        self.limit = limit


class InvalidId(InputError):
    """A text that should name something (a UUID, a tenant, …) does not."""


class InvalidCursor(InputError):
    """A cursor that is damaged, or was made for a list with another order, other filters or of another kind."""


class SettingsError(InputError):
    """A setting has a value that cannot be used."""


class StoreClosed(InputError):
    """The store is not open, was closed while it was used, or belongs to the parent of a forked process."""

    def __init__(self, *, is_forked: bool = False) -> None:
        super().__init__(
            "the store was opened by the parent of this process: open it again in the child"
            if is_forked
            else "the store is not open: use 'with' or 'async with', and use it only within"
        )


class NotFound(EventStoreError):
    """Nothing has the id that was asked for."""


class Forbidden(EventStoreError):
    """The user may not write to a conversation, or there is none: which of them is not told. Nothing was written.

    Attributes:
        conversation_id: the conversation.
    """

    def __init__(self, conversation_id: object) -> None:
        super().__init__(
            f"no conversation that you may write has the id {conversation_id}, or it is not yours to share or delete: "
            "ask its owner, or begin one of your own; nothing was written"
        )
        self.conversation_id = conversation_id


class ConflictError(EventStoreError):
    """What was given contradicts what the log holds. Nothing was written."""


class WrongExpectedVersion(ConflictError):
    """The conversation is not at the version that the writer believed.

    Attributes:
        conversation_id: the conversation.
        expected: what the writer expected, as given.
        actual: the conversation's version when the append looked; 0 where it has no events.
    """

    def __init__(self, conversation_id: object, expected: object, actual: int) -> None:
        super().__init__(
            f"conversation {conversation_id} is at version {actual}, not at {expected}: "
            "read what has been added since, decide again, and append with the new version"
        )
        self.conversation_id = conversation_id
        self.expected = expected
        self.actual = actual


class EventIdConflict(ConflictError):
    """Another event is stored under the same id in the same conversation.

    Attributes:
        conversation_id: the conversation.
        event_id: the id that both events claim.
        differences: what differs, such as ``content, metadata.occurred_at``; empty if it is not known.
    """

    def __init__(self, conversation_id: object, event_id: object, differences: str = "") -> None:
        differ = f" (they differ in {printable(differences)})" if differences else ""
        super().__init__(
            f"conversation {conversation_id} already holds another event under the id {event_id}{differ}: "
            "repeat an append only with the same event, or give the new event an id of its own"
        )
        self.conversation_id = conversation_id
        self.event_id = event_id
        self.differences = differences


class ConversationIsDeleted(ConflictError):
    """The conversation is deleted, and accepts no such event until it is reactivated.

    Attributes:
        conversation_id: the conversation.
    """

    def __init__(self, conversation_id: object) -> None:
        super().__init__(
            f"conversation {conversation_id} exists and is deleted; nothing was written: reactivate it (append a "
            f'ConversationReactivated, or PATCH /v1/conversations/{conversation_id} with {{"is_active": true}}), then '
            "repeat the call, or use another conversation"
        )
        self.conversation_id = conversation_id


class RetryableError(EventStoreError):
    """Nothing was written; the same call may succeed when repeated."""


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A transaction that holds the lock of a conversation, as far as the login may see it.

    Attributes:
        pid: the process id of its backend; None for a prepared transaction.
        application: the ``application_name`` of its session, or the name of the prepared transaction.
        state: the state of its session, such as ``idle in transaction``; None if the login may not see it.
        since: when its transaction began; None if the login may not see it.
    """

    pid: int | None
    application: str
    state: str | None
    since: datetime | None

    def __str__(self) -> str:
        process = "a prepared transaction" if self.pid is None else f"process {self.pid}"
        name = f" ({printable(self.application, 80)!r})" if self.application else ""
        since = f" since {self.since:%Y-%m-%d %H:%M:%S%z}" if self.since else ""
        return f"{process}{name}{f', {self.state}' if self.state else ''}{since}"


class ConversationLocked(RetryableError):
    """Another transaction holds a conversation, and did not end in time (``EVENTSTORE_APPEND_SECONDS``).

    Attributes:
        conversation_id: the conversation.
        holders: the transactions that hold it; empty if they ended meanwhile or could not be found out.
    """

    def __init__(self, conversation_id: object, seconds: float, holders: Sequence[LockHolder] = ()) -> None:
        held_by = "; ".join(map(str, holders)) or "another transaction"
        super().__init__(
            f"conversation {conversation_id} was locked for {seconds:g} s by {held_by}: "
            "end that transaction, then repeat the append; nothing was written"
        )
        self.conversation_id = conversation_id
        self.holders = tuple(holders)


class DeadlockDetected(RetryableError):
    """Two transactions waited for each other and the server ended this one."""


class ProjectionChanged(RetryableError):
    """Read tables are made by another version of their projection now: somebody has rebuilt them."""


class StatementTimeout(RetryableError):
    """A statement took longer than it may (``EVENTSTORE_STATEMENT_SECONDS``), or somebody cancelled it."""


class NotCaughtUp(EventStoreError):
    """A read table has not yet reached the position that was asked for."""


class RebuildError(EventStoreError):
    """Read tables cannot be rebuilt, swapped or taken back. The live ones are as they were."""


class IsolationError(EventStoreError):
    """The log was used in a transaction whose snapshot is too old to be safe."""


class ServerError(EventStoreError):
    """The server cannot do it, whatever was given."""


class ServerUnreachable(ServerError):
    """No connection to the server could be made. An append was not sent."""


class LoginRefused(ServerUnreachable):
    """The server refuses the login, or has no such database."""


class ServerStarting(ServerUnreachable):
    """The server is starting, recovering or stopping, and accepts no connections now."""


class ConnectionLost(ServerError):
    """The connection broke, or the server did not answer. An append that was sent may have happened: repeat it.

    Attributes:
        event_ids: the ids of the events that may have been stored, if it was an append. Repeating the append with the
            same ids is harmless.
    """

    def __init__(self, message: str = "", event_ids: Sequence[UUID] = ()) -> None:
        super().__init__(message)
        self.event_ids = tuple(event_ids)


class DiskFull(ServerError):
    """The server has no room left. Nothing was written."""


class PermissionDenied(ServerError):
    """The login lacks a right that the operation needs."""


class UnsuitableServer(ServerError):
    """The server's version, encoding or kind does not carry the store."""


class EmbeddedServerError(ServerError):
    """The embedded server cannot be started or stopped."""


class SchemaError(EventStoreError):
    """The database's schema and this code do not fit."""


class SchemaMissing(SchemaError):
    """No migrations have been applied to the database."""


class SchemaTooOld(SchemaError):
    """The code is newer than the database's schema."""


class SchemaTooNew(SchemaError):
    """The database's schema is newer than the code."""


class MigrationFailed(SchemaError):
    """dbmate could not apply or revert a migration; its own words are in the text."""


# From psycopg's errors to the store's own, so that callers never depend on the driver

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


def is_missing_role(error: psycopg.Error) -> bool:
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
