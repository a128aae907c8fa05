"""The interface of a store and of a reader: two classes to write in order to check another store.

They are named as ``module:Class``. Each is made with the URL of a database and the name of a schema, in every process
of the check and in the checker itself. ``README.md`` explains how to write one.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeAlias
from uuid import UUID

from eventstore.errors import InputError
from eventstore.events import ExpectedVersion


class Ability(StrEnum):
    """An optional ability of a store, beyond appending to one conversation. The checker tries only what is declared."""

    SEVERAL = "several conversations in one append"
    EXPECTED = "expected versions"
    REPEAT = "repeating an append under the same ids; another event under a stored id is refused"
    INVALID = "refusing what cannot be stored"
    TRANSACTION = "appending in a transaction of the caller's own"


class CheckEvent(NamedTuple):
    """An event to append."""

    id: UUID
    content: dict[str, Any]


class Write(NamedTuple):
    """Events to append to one conversation."""

    tenant: str
    conversation: UUID
    events: tuple[CheckEvent, ...]
    expected: ExpectedVersion


class AppendedEvent(NamedTuple):
    """Position and version of an event, as the store acknowledged it."""

    position: int
    version: int


class ReadEvent(NamedTuple):
    """An event as a reader received it, or as the log contains it.

    Attributes:
        intact: whether the content is :func:`content_of` the id.
    """

    position: int
    tenant: str
    conversation: UUID
    version: int
    id: UUID
    intact: bool


Batch: TypeAlias = tuple[Sequence[ReadEvent], int]
"""Events in order, and the position up to which a checkpoint in the same database may move after them."""


class Refused(Exception):
    """An error of a write that the store refused: nothing was written; the text is the reason."""


class WrongVersion(Refused):
    """An error of a write to a conversation that is not at the expected version: nothing was written."""


class OutcomeUnknown(Exception):
    """An error of a write whose outcome is unknown, or of a reading that was interrupted."""


class Transaction(Protocol):
    """A transaction of the caller's own. Every method may raise :class:`Refused` or :class:`OutcomeUnknown`."""

    async def append(self, write: Write) -> Sequence[AppendedEvent]:
        """Append in the transaction."""

    async def savepoint(self) -> None:
        """Set the only savepoint."""

    async def roll_back_to_savepoint(self) -> None:
        """Undo everything since the savepoint."""

    async def commit(self) -> None:
        """Commit; :class:`Refused` means that the transaction was rolled back."""

    async def roll_back(self) -> None:
        """Roll back."""

    async def prepare(self, name: str) -> None:
        """Prepare the transaction for a two-phase commit."""

    async def finish_prepared(self, name: str, *, commit: bool) -> None:
        """Commit or roll back a prepared transaction."""


class Store(Protocol):
    """A store to append to."""

    abilities: frozenset[Ability]

    def __init__(self, url: str, schema: str) -> None: ...

    async def create(self) -> None:
        """Create what the store needs; called once, in an existing schema, before any process opens the store."""

    async def open(self) -> None:
        """Connect; :class:`OutcomeUnknown` means that the server is unreachable."""

    async def close(self) -> None:
        """Disconnect."""

    async def append(self, writes: Sequence[Write]) -> Sequence[AppendedEvent]:
        """Append all writes or nothing; return an item for each event, in order."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction of the caller's own; leaving it unfinished rolls it back."""

    def log(self) -> AsyncGenerator[ReadEvent, None]:
        """Yield every stored event in order of position, as plainly as possible; called once, without writers."""


class Reader(Protocol):
    """A way to read the log."""

    def __init__(self, url: str, schema: str) -> None: ...

    async def open(self) -> None:
        """Connect; :class:`OutcomeUnknown` means that the server is unreachable."""

    async def close(self) -> None:
        """Disconnect."""

    def subscribe(self, after: int, tenant: str | None) -> AsyncGenerator[ReadEvent, None]:
        """Yield every event after a position, of one tenant or of all, including events to come."""

    def batches(self, after: int) -> AsyncGenerator[Batch, None]:
        """Yield the same in batches, for a consumer that keeps its checkpoint in the same database."""


def content_of(event_id: UUID) -> dict[str, Any]:
    """Return the content of a check's event, which follows from its id: mostly short, 20 kB for one in 256."""
    byte, length = event_id.bytes[0], event_id.bytes[1]
    return {"event": event_id.hex, "text": event_id.hex * (600 if byte == 0 else length // 16)}


def load_class(role: str, name: str) -> Any:
    """Return the class that ``module:Class`` names; modules of the working directory are found too.

    Raises:
        InputError: it does not exist.
    """
    module, _, member = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), member)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{role} {name}: {error}: expected module:Class, such as tools.checker.eventstore_adapter:EventStoreLog"
        ) from error
