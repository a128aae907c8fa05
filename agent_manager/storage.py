"""What a manager stores conversations in: the interface, and PostgreSQL.

On the server, lists are the read tables and, beyond them, the end of the log: they hold everything that was appended
before, and nobody waits for the workers. Log and tables are read under different roles, hence in two statements; the
tables first, and then the log from where they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol, TypeAlias
from uuid import UUID

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int4, Int8

from agent_manager.errors import ManagerClosed
from eventstore import ANY, AppendResult, Caller, Event, EventStore, ExpectedVersion, NewEvent
from eventstore.database.queries import query
from eventstore.errors import ConnectionLost, RetryableError, ServerError, ServerUnreachable
from eventstore.read import RawRows, horizon
from projections.read_your_writes import fetch_with_position
from projections.reading import caller_of

# What a tenant has written: the positions that its reads must hold

CONVERSATIONS = 500
"""The latest that are told apart; for all others one position is kept."""


class AppendedPositions:
    """The highest positions that were appended for a tenant, by conversation.

    Reads wait for the tables to hold these. The tables follow the log in partitions of the conversations; so a read
    waits only for the partitions that its tenant wrote to, however much others write to the rest.

    Attributes:
        by_conversation: the highest position of each of the conversations that were written to last.
        earlier: the highest position of all others; 0 if there are none.
    """

    def __init__(self) -> None:
        self.by_conversation: dict[UUID, int] = {}
        self.earlier = 0

    @property
    def position(self) -> int:
        """The highest of all; 0 if nothing was written."""
        return max(self.earlier, max(self.by_conversation.values(), default=0))

    def note(self, result: AppendResult) -> None:
        """Note what was appended."""
        for conversation, position in {event.conversation_id: event.position for event in result.events}.items():
            self.by_conversation[conversation] = max(position, self.by_conversation.pop(conversation, 0))
        while len(self.by_conversation) > CONVERSATIONS:
            self.note_position(self.by_conversation.pop(next(iter(self.by_conversation))))

    def note_position(self, position: int) -> None:
        """Note that something was appended at a position, to a conversation that is not known."""
        self.earlier = max(self.earlier, position)


# What the manager asks of a log, and the one that is on a server

TAIL = 20_000
"""Events beyond the tables that a list looks at; if tables are behind by more positions, what the tenant itself wrote
before these is waited for."""
WAIT_SECONDS = 60.0
PAGE = 1000
"""Events of a conversation that are read at a time, at most."""

LISTED = ("message.added", "task.created", "task.status_changed", "task.artifact_added", "task.artifact_extended")
"""Types of the events that applications list."""

_PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each further try of an append whose connection was lost."""

_EVENTS_OF = query("agent_manager", "events_of")


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A message that awaits an answer."""

    conversation: UUID
    event_id: UUID
    given_id: str | None
    since: datetime
    position: int


Key: TypeAlias = tuple[UUID, UUID]
"""A message: its conversation, and the id of its event, which is unique only there."""


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """The lease of a message.

    Attributes:
        holder: who has it.
        expires_at: when it ends unless it is renewed; None for one that does not expire.
        version: the conversation's, after the lease was taken.
    """

    holder: UUID
    expires_at: datetime | None
    version: int


class Log(Protocol):
    """The log of one tenant."""

    @property
    def tenant(self) -> str:
        """Whose."""

    @property
    def user(self) -> str:
        """The user on whose behalf it is written; empty for the whole tenant."""

    @property
    def actor(self) -> str:
        """The actor of all that is appended; empty leaves that to the events."""

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """See :meth:`eventstore.EventStore.append`."""

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        """Of each of these conversations the events beyond its version, at most ``limit``, in order."""

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

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        """Take the leases of messages, of each unless another holder has it; return who has them."""

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        """Renew leases; return those that the holder still has."""

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        """End leases, as far as the holder has them."""


class ClosableLog:
    """A log that raises :class:`ManagerClosed` while it is closed, whichever method is called."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.is_closed = False

    def __getattr__(self, name: str) -> Any:
        if self.is_closed:
            raise ManagerClosed
        return getattr(self._log, name)


class ServerLog:
    """The log on a server.

    Attributes:
        written: what was appended through it.
        count: called with the number of events of each append.
    """

    def __init__(self, store: EventStore, tenant: str | None = None, *, caller: Caller | None = None) -> None:
        self.store = store
        self.caller = caller_of(store, tenant, caller)
        self.tenant = self.caller.tenant
        self.user = self.caller.user or ""
        self.actor = ""
        self.written = AppendedPositions()
        self.count: Callable[[int], None] = lambda events: None

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """Append events. If the server was away, try again as long as that ends within the time of an append.

        Raises:
            ConnectionLost: one of the tries was sent, so the events may be stored.
            EventStoreError: as :meth:`eventstore.EventStore.append` raises it.
        """
        loop, settings = asyncio.get_running_loop(), self.store.settings
        last_try_at = loop.time() + settings.append_seconds - settings.connect_timeout
        pauses = iter(_PAUSES)
        lost: ConnectionLost | None = None
        while True:
            try:
                result = await self.store.append(
                    conversation_id, events, expected=expected, tenant=self.tenant, user=self.caller.user
                )
            except (RetryableError, ServerError) as error:
                if isinstance(error, ConnectionLost):
                    lost = error
                pause = next(pauses, None) if isinstance(error, ConnectionLost | ServerUnreachable) else None
                if pause is None or loop.time() + pause > last_try_at:
                    if lost is not None and lost is not error:
                        raise lost from error
                    raise
                await asyncio.sleep(pause)
            else:
                self.written.note(result)
                self.count(len(events))
                return result

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        """Of each of these conversations the events beyond its version, at most ``limit``, in order."""
        given = {
            "tenant": self.tenant,
            "conversations": list(versions),
            "versions": [Int4(version) for version in versions.values()],
            "limit": Int4(limit),
        }
        rows = await self.store.log(self.caller).fetch(_EVENTS_OF, given, cursor=RawRows)
        return [Event.from_row(row) for row in rows]

    async def conversations(self) -> dict[UUID, int]:
        """Conversations in the order in which they began, with their versions."""
        rows, applied = await self._tables("conversations", ("conversations",))
        found = {conversation: (created_at, conversation, version) for conversation, version, created_at in rows}
        for conversation, version, created_at, _, is_listed in await self._tail("tail_conversations", applied):
            if is_listed:
                begun = found.get(conversation, (created_at,))[0]
                found[conversation] = (min(begun, created_at), conversation, version)
        return {conversation: version for _, conversation, version in sorted(found.values())}

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        """Conversations that have tasks, with their versions."""
        rows, applied = await self._tables("task_conversations", ("conversations", "tasks"))
        found: dict[UUID, int] = dict(rows)
        for conversation, version, _, has_tasks, _ in await self._tail("tail_conversations", applied):
            if has_tasks or conversation in found:
                found[conversation] = version
        return found

    async def pending(self) -> list[PendingRow]:
        """Messages that await an answer, oldest first."""
        rows, applied = await self._tables("pending", ("pending",))
        tail = await self._tail("tail_pending", applied)
        answered = {(row[0], row[1]) for row in tail if row[5]}
        asked = {(row[0], row[1]): PendingRow(*row[:5]) for row in (*rows, *tail) if not (len(row) > 5 and row[5])}
        return sorted((row for key, row in asked.items() if key not in answered), key=lambda row: row.position)

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        """The latest of the events that are listed, beyond a position, oldest first."""
        read = self.store.read_log(
            after=after, types=LISTED, tenant=self.tenant, user=self.caller.user, backwards=True, limit=limit
        )
        return [event async for event in read][::-1]

    async def position(self) -> int:
        """Up to where it is final."""
        return await horizon(self.store.log(self.caller))

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        """Take the leases of messages, of each unless another holder has it; return who has them."""
        rows = await self._service("lease_answers", keys, holder, seconds=seconds)
        return {(conversation, message): LeaseStatus(*leased) for conversation, message, *leased in rows}

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        """Renew leases; return those that the holder still has."""
        rows = await self._service("renew_answer_leases", keys, holder, seconds=seconds)
        return {(conversation, message) for conversation, message in rows}

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        """End leases, as far as the holder has them."""
        await self._service("release_answers", keys, holder)

    async def _service(self, name: str, keys: Collection[Key], holder: UUID, **more: Any) -> list[TupleRow]:
        """Call a function that is the service's to call, with the conversations and messages of leases."""
        given = {
            "tenant": self.tenant,
            "conversations": [conversation for conversation, _ in keys],
            "messages": [message for _, message in keys],
            "holder": holder,
            **more,
        }
        text = query("agent_manager", name)
        return await self.store.pool.fetch(text, given, caller=Caller(self.tenant))

    async def _tables(self, name: str, projections: tuple[str, ...]) -> tuple[list[TupleRow], int]:
        """Return what the tables hold, and the position up to which they hold the tenant's events."""
        text, given = query("agent_manager", name), {"tenant": self.tenant}
        at_least = max(0, self.written.position - TAIL)
        return await fetch_with_position(self.store, self.caller, text, given, projections, at_least, WAIT_SECONDS)

    async def _tail(self, name: str, applied: int) -> list[TupleRow]:
        """What the log holds beyond a position."""
        given = {"tenant": self.tenant, "applied": Int8(applied), "tail": Int8(TAIL)}
        return await self.store.log(self.caller).fetch(query("agent_manager", name), given)


class UserLog(ServerLog):
    """The same log, as a user sees it and writes to it.

    Args:
        user: None is the whole tenant.
        actor: who causes what is written; empty leaves that to the events.
        count: called with the number of events of each append.
    """

    def __init__(self, log: ServerLog, user: str | None, actor: str, count: Callable[[int], None]) -> None:
        super().__init__(log.store, caller=Caller(log.tenant, user))
        self.written = log.written
        self.count = count
        self.actor = actor

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """See :meth:`eventstore.EventStore.append`."""
        if self.actor:
            events = [replace(event, actor=self.actor) for event in events]
        return await super().append(conversation_id, events, expected)
