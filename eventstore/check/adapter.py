"""What the checker asks of a store and of a reader: the two classes to write in order to check another one.

Name them as ``module:Class``. Each is made with the URL of a database and the name of a schema, in every process of the
check and in the checker itself. See ``README.md`` for how to write one.
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
    """What a store can do beyond appending events to one conversation. The checker tries what its store can do."""

    SEVERAL = "several conversations in one append"
    EXPECTED = "expected versions"
    REPEAT = "repeating an append under the same ids; another event under a stored id is refused"
    INVALID = "refusing what cannot be stored"
    TRANSACTION = "appending in a transaction of the caller's own"


class Given(NamedTuple):
    """An event to append."""

    id: UUID
    content: dict[str, Any]


class Write(NamedTuple):
    """Events for one conversation."""

    tenant: str
    conversation: UUID
    events: tuple[Given, ...]
    expected: ExpectedVersion


class Place(NamedTuple):
    """Where an event was put, as the store acknowledged it."""

    position: int
    version: int


class Seen(NamedTuple):
    """An event as it was delivered, or as it stands in the log.

    Attributes:
        intact: its content is :func:`content_of` its id.
    """

    position: int
    tenant: str
    conversation: UUID
    version: int
    id: UUID
    intact: bool


Batch: TypeAlias = tuple[Sequence[Seen], int]
"""Events in order, and the position up to which a checkpoint in the same database may go after them."""


class Refused(Exception):
    """To be raised where nothing was written, and the store said so; its text is the reason."""


class WrongVersion(Refused):
    """To be raised where the conversation is not at the version expected. Nothing was written."""


class Unknown(Exception):
    """To be raised where it is not known whether anything was written, or where reading was interrupted."""


class Transaction(Protocol):
    """A transaction of the caller's own. Every method may raise :class:`Refused` or :class:`Unknown`."""

    async def append(self, write: Write) -> Sequence[Place]:
        """Appends in it."""

    async def savepoint(self) -> None:
        """Sets the only savepoint."""

    async def roll_back_to_savepoint(self) -> None:
        """Undoes what was done since."""

    async def commit(self) -> None:
        """Ends it; :class:`Refused` says that it was rolled back."""

    async def roll_back(self) -> None:
        """Ends it."""

    async def prepare(self, name: str) -> None:
        """Prepares it for a two-phase commit."""

    async def finish_prepared(self, name: str, *, commit: bool) -> None:
        """The second phase."""


class Store(Protocol):
    """A store to append to."""

    abilities: frozenset[Ability]

    def __init__(self, url: str, schema: str) -> None: ...

    async def create(self) -> None:
        """Makes what the store needs; called once, when the schema exists and before anybody opens it."""

    async def open(self) -> None:
        """Connects; :class:`Unknown` says that the server is away."""

    async def close(self) -> None:
        """Disconnects."""

    async def append(self, writes: Sequence[Write]) -> Sequence[Place]:
        """Appends all of it or nothing, and returns a place for each event in the order given."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """A transaction of the caller's own; leaving it unfinished rolls it back."""

    def log(self) -> AsyncGenerator[Seen, None]:
        """Every event that is stored, in order of position, as plainly as can be; called once, at rest."""


class Reader(Protocol):
    """A way to read the log."""

    def __init__(self, url: str, schema: str) -> None: ...

    async def open(self) -> None:
        """Connects; :class:`Unknown` says that the server is away."""

    async def close(self) -> None:
        """Disconnects."""

    def subscribe(self, after: int, tenant: str | None) -> AsyncGenerator[Seen, None]:
        """Every event beyond a position, of a tenant or of all, those to come included."""

    def batches(self, after: int) -> AsyncGenerator[Batch, None]:
        """The same for a consumer that keeps its checkpoint in the same database."""


def content_of(event_id: UUID) -> dict[str, Any]:
    """The content of a check's event, which follows from its id: most are short, one in 256 is of 20 kB."""
    byte, length = event_id.bytes[0], event_id.bytes[1]
    return {"event": event_id.hex, "text": event_id.hex * (600 if byte == 0 else length // 16)}


def load(what: str, name: str) -> Any:
    """The class that ``module:Class`` names; modules of the working directory are found too.

    Raises:
        InputError: there is none.
    """
    module, _, member = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), member)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{what} {name}: {error}: expected module:Class, such as eventstore.check.ours:Log") from error
