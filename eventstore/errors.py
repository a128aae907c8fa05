"""The errors of the event store, and the translation of psycopg's errors into them.

::

    EventStoreError
    ├── InputError                 a value cannot be stored or understood
    │   ├── InvalidEvent           a value in an event: unknown role, NUL character, NaN, …
    │   ├── EventTooLarge          the content of an event is larger than the limit
    │   ├── InvalidId              a text is not a UUID, or not usable as an id
    │   ├── InvalidCursor          the cursor of a page is damaged, or belongs to another list
    │   ├── SettingsError          a setting or environment variable
    │   └── StoreClosed            the store is not open, was closed while it was used, or belongs to a parent process
    ├── NotFound                   nothing has this id
    ├── Forbidden                  the user may not write to the conversation
    ├── ConflictError              the log contradicts the append
    │   ├── WrongExpectedVersion   the conversation is not at the expected version
    │   ├── EventIdConflict        another event is stored under the same id
    │   ├── ConversationIsDeleted  the conversation accepts no events until it is reactivated
    │   └── OnLegalHold            a legal hold forbids the erasure
    ├── RetryableError             nothing was written; the same call may succeed when repeated
    │   ├── ConversationLocked     another transaction holds the lock of the conversation
    │   ├── DeadlockDetected       two transactions waited for each other
    │   ├── FileDeleted            a file was deleted between its upload and the event that refers to it
    │   ├── ProjectionChanged      read tables are made by another version of their projection now
    │   ├── RecoveryConflict       a standby canceled a read to go on following its primary
    │   └── StatementTimeout       a statement was canceled at its time limit
    ├── NotCaughtUp                a read table has not reached a position yet
    │   └── ProjectionPaused       an administrator has paused its projection
    ├── RebuildError               read tables cannot be rebuilt, swapped or swapped back
    ├── IsolationError             the snapshot of a transaction is too old to be safe
    ├── ServerError                the server cannot do it, whatever the input
    │   ├── ServerUnreachable      no connection could be made
    │   │   ├── LoginRefused       the server refuses the login, or has no such database
    │   │   └── ServerStarting     the server is starting or stopping
    │   ├── ConnectionLost         the connection broke; an append may have happened
    │   ├── DiskFull               the server's disk is full
    │   ├── PermissionDenied       the login lacks a privilege
    │   ├── UnsuitableServer       wrong version, encoding or kind of server
    │   └── EmbeddedServerError    the embedded server cannot be started or stopped
    └── SchemaError                the database's schema and this code do not fit
        ├── SchemaMissing          no migrations have been applied
        ├── SchemaTooOld           the code is newer
        ├── SchemaTooNew           the database is newer, and the code may not work with it
        └── MigrationFailed        dbmate could not apply or revert a migration
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


class EventStoreError(Exception):
    """The root of all errors of the event store. The text says what is wrong and what to do."""


class InputError(EventStoreError):
    """A value cannot be stored or understood. Nothing was written."""


class InvalidEvent(InputError):
    """A value in an event cannot be stored.

    Attributes:
        path: the place of the value in the event, such as ``content.parts[2].text``.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(printable(f"{path}: ") + reason)
        self.path = path
        self.reason = reason


class EventTooLarge(InputError):
    """The content of an event is larger than the limit.

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
    """A text is not a UUID, or cannot be used as an id."""


class InvalidCursor(InputError):
    """A cursor is damaged, or was made for another list, or for another order or other filters."""


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
    """Nothing has this id."""


def conversation_not_found(conversation: object) -> NotFound:
    """Return the error for a conversation that does not exist, or that the caller may not see."""
    return NotFound(f"no conversation has the id {str(conversation)!r}: the list of conversations shows the ids")


class Forbidden(EventStoreError):
    """The user may not write to a conversation, or it does not exist: the error does not say which.

    Nothing was written.

    Attributes:
        conversation_id: the conversation.
    """

    def __init__(self, conversation_id: object) -> None:
        super().__init__(
            f"conversation {conversation_id} does not exist, or you lack permission for this operation: "
            "ask its owner for access, or use another conversation; nothing was written"
        )
        self.conversation_id = conversation_id


class ConflictError(EventStoreError):
    """The log contradicts the append. Nothing was written."""


class WrongExpectedVersion(ConflictError):
    """The conversation is not at the expected version.

    Attributes:
        conversation_id: the conversation.
        expected: the expected version, as it was passed.
        actual: the version of the conversation; 0 if it has no events.
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
        event_id: the id of both events.
        differences: the members that differ, such as ``content, metadata.occurred_at``; empty if they are unknown.
    """

    def __init__(self, conversation_id: object, event_id: object, differences: str = "") -> None:
        differ = f" (they differ in {printable(differences)})" if differences else ""
        super().__init__(
            f"conversation {conversation_id} already holds another event under the id {event_id}{differ}: "
            "repeat an append only with the same event, or give the new event another id"
        )
        self.conversation_id = conversation_id
        self.event_id = event_id
        self.differences = differences


class ConversationIsDeleted(ConflictError):
    """The conversation is deleted, and accepts no event of this type until it is reactivated.

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


class OnLegalHold(ConflictError):
    """A legal hold forbids the erasure. Nothing was erased.

    Attributes:
        hold_id: the hold.
        conversation_id: the conversation that it is on; None if it is on a user or on the whole tenant.
        user: the user that it is on; None if it is on a conversation or on the whole tenant.
        reason: why it was placed.
    """

    def __init__(self, hold_id: UUID, conversation_id: UUID | None, user: str | None, reason: str) -> None:
        subject = f"conversation {conversation_id}" if conversation_id else f"user {user}" if user else "the tenant"
        super().__init__(
            f"the legal hold {hold_id} on {printable(subject)} ({printable(reason, 120)}) forbids the erasure; nothing "
            f"was erased: once it is not needed any more, release it (eventstore hold remove {hold_id})"
        )
        self.hold_id = hold_id
        self.conversation_id = conversation_id
        self.user = user
        self.reason = reason


class RetryableError(EventStoreError):
    """Nothing was written; the same call may succeed when repeated."""


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A transaction that holds the lock of a conversation.

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
    """Another transaction held the lock of a conversation for too long (``EVENTSTORE_APPEND_SECONDS``).

    Attributes:
        conversation_id: the conversation.
        holders: the transactions that hold the lock; empty if they have ended or could not be determined.
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
    """Read tables are made by another version of their projection now: they were rebuilt."""


class FileDeleted(RetryableError):
    """A file that an event refers to was deleted between its upload and the append: nothing referred to it."""


class RecoveryConflict(RetryableError):
    """A standby canceled a read that delayed the replay of a change for too long (``max_standby_streaming_delay``).

    The change removes rows or tables that the read still needed.
    """


class StatementTimeout(RetryableError):
    """A statement was canceled, at its time limit (``EVENTSTORE_STATEMENT_SECONDS``) or by an administrator."""


class NotCaughtUp(EventStoreError):
    """A read table has not reached the required position yet."""


class ProjectionPaused(NotCaughtUp):
    """An administrator has paused a projection: its read tables stay as they are until it is resumed."""


class RebuildError(EventStoreError):
    """Read tables cannot be rebuilt, swapped or swapped back. The live ones are unchanged."""


class IsolationError(EventStoreError):
    """The log was used in a transaction whose snapshot may be too old."""


class ServerError(EventStoreError):
    """The server cannot do it, whatever the input."""


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
    """The server's disk is full. Nothing was written."""


class PermissionDenied(ServerError):
    """The login lacks a privilege that the operation needs."""


class UnsuitableServer(ServerError):
    """The server has a version, encoding or kind that the store does not support."""


class EmbeddedServerError(ServerError):
    """The embedded server cannot be started or stopped."""


class SchemaError(EventStoreError):
    """The database's schema and this code do not fit."""


class SchemaMissing(SchemaError):
    """No migrations have been applied to the database."""


class SchemaTooOld(SchemaError):
    """The code is newer than the database's schema."""


class SchemaTooNew(SchemaError):
    """The database's schema is newer than the code, which may not work with it."""


class MigrationFailed(SchemaError):
    """dbmate could not apply or revert a migration; the text contains its message."""


def printable(text: str, longest: int = 300) -> str:
    """Return a text on one line, without control characters, and without its middle part if it is long."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-longest // 2 :]}"


# Translation of psycopg's errors, so that callers do not depend on the driver

_BY_SQLSTATE: dict[str, tuple[type[EventStoreError], str]] = {
    "53100": (DiskFull, "make room on the server's disk, then repeat the call; nothing of this call was written"),
    "53200": (RetryableError, "touch fewer conversations in one transaction, or raise max_locks_per_transaction"),
    "53300": (
        ServerUnreachable,
        "raise max_connections or the login's CONNECTION LIMIT, or lower EVENTSTORE_POOL_SIZE",
    ),
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
    "ES002": (ConflictError, "give the new event another id; nothing was written"),
    "ES005": (InputError, "correct it; nothing was written"),
    "ES008": (ConflictError, "append conversation.reactivated first; nothing was written"),
    "ES006": (ProjectionChanged, "repeat the call"),
    "ES011": (FileDeleted, "repeat the call, with the file; nothing was written"),
    "ES009": (ProjectionPaused, "eventstore resume lets the workers continue"),
    "ES003": (IsolationError, "use a READ COMMITTED transaction, PostgreSQL's default"),
    "57P03": (ServerStarting, "the server is starting or stopping; repeat the call in a moment"),
    "3D000": (LoginRefused, "create the database, or correct its name in DATABASE_URL or POSTGRES_DB"),
}
_BY_CLASS: dict[str, tuple[type[EventStoreError], str]] = {
    "08": (ConnectionLost, "repeat the call with the same ids: what was stored stays, what was not is stored then"),
    "22": (InputError, "correct the value; nothing was written"),
    "54": (InputError, "split or shorten it; nothing was written"),
    "28": (LoginRefused, "correct the user or password in DATABASE_URL or POSTGRES_USER, POSTGRES_PASSWORD"),
    "57": (ConnectionLost, "repeat the call with the same ids: what was stored stays, what was not is stored then"),
}

FORBIDDEN = "ES007"
"""SQLSTATE of a forbidden append; the error's detail names the conversation."""
HELD = "ES010"
"""SQLSTATE of an erasure that a legal hold forbids; the error's detail names the hold."""


def by_sqlstate(state: str) -> tuple[type[EventStoreError], str]:
    """Return the error for an SQLSTATE, and what to do about it."""
    return _BY_SQLSTATE.get(state) or _BY_CLASS.get(state[:2]) or (ServerError, f"SQLSTATE {state}")


def translate(error: psycopg.Error) -> EventStoreError:
    """Return the store's error for one of the driver's."""
    message = error.diag.message_primary or str(error).strip() or type(error).__name__
    message = message.splitlines()[0]
    if isinstance(error, PoolTimeout):
        return ServerUnreachable(f"no connection to the server became free in time: {message}")
    if isinstance(error, PoolClosed):
        return StoreClosed()
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return ConnectionLost(f"{message}: {_BY_CLASS['08'][1]}")
        if isinstance(error, psycopg.DataError):  # the driver cannot send a value, such as a text with a NUL character
            return InputError(f"{message}: {_BY_CLASS['22'][1]}")
        return ServerError(message)
    if state == FORBIDDEN:
        return Forbidden(UUID(json.loads(error.diag.message_detail or "{}")["conversation_id"]))
    if state == HELD:
        held = json.loads(error.diag.message_detail or "{}")
        conversation_id = held["conversation_id"] and UUID(held["conversation_id"])
        return OnLegalHold(UUID(held["id"]), conversation_id, held["user"], held["reason"])
    if is_notify_queue_full(error):
        return RetryableError(
            f"{message}: nothing was written; repeat the call, and end the session that listens without reading: "
            "SELECT pid, usename FROM pg_stat_activity WHERE state = 'idle in transaction'"
        )
    if is_recovery_conflict(error):
        return RecoveryConflict(
            f"{message}: repeat the call; if that occurs often, set hot_standby_feedback to on, or raise "
            "max_standby_streaming_delay, on the standby"
        )
    kind, advice = by_sqlstate(state)
    return kind(f"{message}: {advice}")


def is_notify_queue_full(error: psycopg.Error) -> bool:
    """Return whether a commit failed because the server's queue of notifications is full."""
    return error.sqlstate == "54000" and error.diag.source_function == "PreCommit_Notify"


def is_recovery_conflict(error: psycopg.Error) -> bool:
    """Return whether the recovery of a standby has canceled a statement or ended a session."""
    interrupts = ("ProcessInterrupts", "ProcessRecoveryConflictInterrupt")
    return error.sqlstate in ("40001", "40P01") and error.diag.source_function in interrupts


def is_missing_role(error: psycopg.Error) -> bool:
    """Return whether the session's role lacks a privilege, as opposed to a refusal by a function of the store."""
    return error.sqlstate == "42501" and error.diag.source_function == "aclcheck_error"


@contextmanager
def translated() -> Iterator[None]:
    """Translate the errors that the driver raises in the block."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error
