"""Every error that a user of the store can cause or meet, as one tree.

::

    EventStoreError
    ├── InputError                 what was given cannot be stored or understood
    │   ├── InvalidEvent           a value in an event: unknown role, NUL character, NaN, …
    │   ├── EventTooLarge          an event's content is beyond the size limit
    │   ├── InvalidId              a text that should be a UUID, a name, a tenant, …
    │   ├── InvalidCursor          a cursor of a page that is damaged, or was made for another list
    │   ├── SettingsError          a setting or environment variable
    │   └── StoreClosed            the store is not open, or was closed while it was used
    ├── NotFound                   nothing has the id that was asked for
    ├── Forbidden                  the user may not write there
    ├── ConflictError              what was given contradicts what the log holds
    │   ├── WrongExpectedVersion   the conversation is not at the version the writer believed
    │   └── EventIdConflict        another event is stored under the same id
    ├── RetryableError             nothing was written; the same call may succeed when repeated
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
    """The store is not open, or was closed while it was used."""

    def __init__(self) -> None:
        super().__init__("the store is not open: use 'with' or 'async with', and use it only within")


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
    """

    def __init__(self, conversation_id: object, event_id: object) -> None:
        super().__init__(
            f"conversation {conversation_id} already holds another event under the id {event_id}: "
            "repeat an append only with the same event, or give the new event an id of its own"
        )
        self.conversation_id = conversation_id
        self.event_id = event_id


class RetryableError(EventStoreError):
    """Nothing was written; the same call may succeed when repeated."""


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
    """No connection to the server could be made."""


class LoginRefused(ServerUnreachable):
    """The server refuses the login, or has no such database."""


class ServerStarting(ServerUnreachable):
    """The server is starting, recovering or stopping, and accepts no connections now."""


class ConnectionLost(ServerError):
    """The connection broke. An append under way may or may not have happened: repeat it with the same ids."""


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
