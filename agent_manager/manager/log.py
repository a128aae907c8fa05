"""What the manager asks of a log, and the one that is on a server.

On the server, lists are the read tables and, beyond them, the end of the log: they hold everything that was appended
before, and nobody waits for the workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int4, Int8

from eventstore import ANY, AppendResult, Event, EventStore, ExpectedVersion, NewEvent
from eventstore.caller import checked_tenant
from eventstore.database.queries import query
from eventstore.paging import RawRows
from eventstore.read import horizon
from projections.position import fetch_at_least

TAIL = 20_000
"""Events beyond the tables that a list looks at; tables that are behind by more positions are waited for."""
WAIT_SECONDS = 60.0
PAGE = 1000
"""Events of a conversation that are read at a time."""

LISTED = ("message.added", "task.created", "task.status_changed", "task.artifact_added", "task.artifact_extended")
"""Types of the events that applications list."""

_EVENTS_OF = query("agent_manager.manager", "events_of")


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A message that awaits an answer."""

    conversation: UUID
    event_id: UUID
    given_id: str | None
    since: datetime
    position: int


class Log(Protocol):
    """The log of one tenant."""

    @property
    def tenant(self) -> str:
        """Whose."""

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """See :meth:`eventstore.EventStore.append`."""

    async def events_of(self, versions: Mapping[UUID, int]) -> list[Event]:
        """Of each of these conversations the events beyond its version, at most :data:`PAGE`, in order."""

    async def conversations(self) -> dict[UUID, int]:
        """Conversations in the order in which they began, with their versions."""

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        """Conversations that have tasks, with their versions."""

    async def pending(self) -> list[PendingRow]:
        """Messages that await an answer, oldest first."""

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        """The latest of the events that are listed, beyond a position, oldest first."""

    async def position(self) -> int:
        """Up to where it is final."""


class ServerLog:
    """The log on a server.

    Attributes:
        written: the highest position that was appended through it.
    """

    def __init__(self, store: EventStore, tenant: str | None = None) -> None:
        self.store = store
        self.tenant = store.tenant if tenant is None else checked_tenant(tenant)
        self.written = 0

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """See :meth:`eventstore.EventStore.append`."""
        result = await self.store.append(conversation_id, events, expected=expected, tenant=self.tenant)
        self.written = max(self.written, result.position)
        return result

    async def events_of(self, versions: Mapping[UUID, int]) -> list[Event]:
        """Of each of these conversations the events beyond its version, at most :data:`PAGE`, in order."""
        given = {
            "tenant": self.tenant,
            "conversations": list(versions),
            "versions": [Int4(version) for version in versions.values()],
            "limit": Int4(PAGE),
        }
        return [Event.from_row(row) for row in await self.store.pool.fetch(_EVENTS_OF, given, cursor=RawRows)]

    async def conversations(self) -> dict[UUID, int]:
        """Conversations in the order in which they began, with their versions."""
        return dict(await self._fetch("conversations", ("conversations",)))

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        """Conversations that have tasks, with their versions."""
        return dict(await self._fetch("task_conversations", ("conversations", "tasks")))

    async def pending(self) -> list[PendingRow]:
        """Messages that await an answer, oldest first."""
        return [PendingRow(*row) for row in await self._fetch("pending", ("pending",))]

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        """The latest of the events that are listed, beyond a position, oldest first."""
        read = self.store.read_log(after=after, types=LISTED, tenant=self.tenant, backwards=True, limit=limit)
        return [event async for event in read][::-1]

    async def position(self) -> int:
        """Up to where it is final."""
        return await horizon(self.store.pool)

    async def _fetch(self, name: str, projections: tuple[str, ...]) -> list[TupleRow]:
        text = query("agent_manager.manager", name)
        given = {"tenant": self.tenant, "tail": Int8(TAIL)}
        return await fetch_at_least(self.store, text, given, projections, max(0, self.written - TAIL), WAIT_SECONDS)
