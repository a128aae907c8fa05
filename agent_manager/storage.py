"""Storage of a manager: the log of one tenant, and the one on a PostgreSQL server.

Lists come from the read tables and from the events after them, so they contain everything that was appended before, and
no read waits for the workers. Tables and log are read under different roles, hence in two statements: first the tables,
then the log from their position.

The other logs are :mod:`agent_manager.memory_log` and :mod:`agent_manager.dual_write`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int4, Int8

from agent_manager.accepted_messages import Key
from agent_manager.errors import ManagerClosed
from eventstore import ANY, Append, Appended, AppendResult, Caller, Event, EventStore, ExpectedVersion, NewEvent
from eventstore.database.queries import query
from eventstore.errors import ConnectionLost, RetryableError, ServerError, ServerUnreachable
from eventstore.json_text import from_json, to_json
from eventstore.read import RawRows, horizon
from projections.read_your_writes import fetch_at_least
from projections.reading import caller_of

PAGE = 1000
"""Largest number of events of a conversation in one read."""
TAIL = 20_000
"""Events after the tables that a list reads. If the tables are further behind, it waits until they contain what the
tenant itself appended before these."""
WAIT_SECONDS = 60.0
MAX_TRACKED = 500
"""Conversations whose latest position is tracked; for all others, the highest one is."""

LISTED = ("message.added", "task.created", "task.status_changed", "task.artifact_added", "task.artifact_extended")
"""Types of the events that applications list."""

_RETRY_PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each retry of an append whose connection was lost."""


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """The status of a message's lease.

    Attributes:
        holder: the id of the manager that has the lease.
        expires_at: the time when it ends unless it is renewed; None for a lease that does not expire.
        version: the version of the conversation after the lease was taken.
    """

    holder: UUID
    expires_at: datetime | None
    version: int


class Log(Protocol):
    """The log of one tenant.

    Attributes:
        user: the user whose permissions apply; empty for the whole tenant.
        actor: the actor of all appended events; empty to keep each event's own.
    """

    tenant: str
    user: str = ""
    actor: str = ""

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """See :meth:`eventstore.EventStore.append`."""

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        """Return, of each of these conversations, at most ``limit`` events after its version, in order."""

    async def conversations(self) -> dict[UUID, int]:
        """Return the versions of the conversations, in the order in which they began."""

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        """Return the versions of the conversations that have tasks."""

    async def pending(self) -> set[Key]:
        """Return the messages that await an answer."""

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        """Return the latest of the listed events after a position, oldest first."""

    async def position(self) -> int:
        """Return the position up to which the log is final."""

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        """Take the leases of messages that no other holder has; return the status of all."""

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        """Renew leases; return those that the holder still has."""

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        """End leases that the holder has."""


class ClosableLog:
    """A log whose methods raise :class:`ManagerClosed` while it is closed."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.is_closed = False

    def __getattr__(self, name: str) -> Any:
        if self.is_closed:
            raise ManagerClosed
        return getattr(self._log, name)


def appended_event(tenant: str, event: NewEvent, place: Appended) -> Event:
    """Return an event as a read of the log would, from what was appended and its result."""
    # Copied through JSON, so that later changes to the caller's objects do not reach the event.
    content, metadata = (
        from_json(to_json(part, "content")) for part in (event.data.to_content(), event.metadata.to_content())
    )
    return Event(
        place.position, place.timestamp, place.version, event.schema_version, place.conversation_id, event.id, tenant,
        event.data.event_type, event.actor, content, metadata, b"", b"",  # salt and digest are the log's own
    )  # fmt: skip


async def append_persistently(store: EventStore, caller: Caller, appends: Sequence[Append]) -> AppendResult:
    """Append to conversations at once. If the server was unreachable, retry within the time limit of an append.

    Raises:
        ConnectionLost: one of the attempts was sent, so the events may be stored.
        EventStoreError: as :meth:`eventstore.EventStore.append_all` raises it.
    """
    loop, settings = asyncio.get_running_loop(), store.settings
    last_attempt_at = loop.time() + settings.append_seconds - settings.connect_timeout
    pauses = iter(_RETRY_PAUSES)
    lost: ConnectionLost | None = None
    while True:
        try:
            return await store.append_all(appends, tenant=caller.tenant, user=caller.user)
        except (RetryableError, ServerError) as error:
            if isinstance(error, ConnectionLost):
                lost = error
            pause = next(pauses, None) if isinstance(error, ConnectionLost | ServerUnreachable) else None
            if pause is None or loop.time() + pause > last_attempt_at:
                if lost is not None and lost is not error:
                    raise lost from error
                raise
            await asyncio.sleep(pause)


class AppendedPositions:
    """The highest positions that were appended for a tenant, by conversation.

    Reads wait until the tables contain these positions. The tables follow the log in partitions of the conversations,
    so a read only waits for the partitions to which its tenant appended.

    Attributes:
        by_conversation: the highest position of each of the latest conversations.
        earlier: the highest position of all others; 0 if there are none.
    """

    def __init__(self) -> None:
        self.by_conversation: dict[UUID, int] = {}
        self.earlier = 0

    @property
    def position(self) -> int:
        """The highest of all positions; 0 if nothing was appended."""
        return max(self.earlier, max(self.by_conversation.values(), default=0))

    def note(self, result: AppendResult) -> None:
        """Add the positions of appended events."""
        for conversation, position in {event.conversation_id: event.position for event in result.events}.items():
            self.by_conversation[conversation] = max(position, self.by_conversation.pop(conversation, 0))
        while len(self.by_conversation) > MAX_TRACKED:
            self.note_position(self.by_conversation.pop(next(iter(self.by_conversation))))

    def note_position(self, position: int) -> None:
        """Add a position of an unknown conversation."""
        self.earlier = max(self.earlier, position)


class ServerLog(Log):
    """The log on a server.

    Attributes:
        written: the positions that were appended through it.
        count: called with the number of events of each append.
    """

    def __init__(self, store: EventStore, tenant: str | None = None) -> None:
        self.store = store
        self.caller = caller_of(store, tenant, None)
        self.tenant = self.caller.tenant
        self.written = AppendedPositions()
        self.count: Callable[[int], None] = lambda events: None

    def acting_for(self, user: str | None, actor: str, count: Callable[[int], None]) -> ServerLog:
        """Return the same log with the permissions of a user, None for the whole tenant."""
        log = copy(self)
        log.caller, log.user, log.actor, log.count = Caller(self.tenant, user), user or "", actor, count
        return log

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """Append events; see :func:`append_persistently`."""
        if self.actor:
            events = [replace(event, actor=self.actor) for event in events]
        result = await append_persistently(self.store, self.caller, [Append(conversation_id, events, expected)])
        self.written.note(result)
        self.count(len(events))
        return result

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        parameters = {
            "tenant": self.tenant,
            "conversations": list(versions),
            "versions": [Int4(version) for version in versions.values()],
            "limit": Int4(limit),
        }
        text = query("agent_manager", "events_of")
        rows = await self.store.log(self.caller).fetch(text, parameters, cursor=RawRows)
        return [Event.from_row(row) for row in rows]

    async def conversations(self) -> dict[UUID, int]:
        rows, applied = await self._tables("conversations", ("conversations",))
        found = {conversation: (created_at, conversation, version) for conversation, version, created_at in rows}
        for conversation, version, created_at, _, is_listed in await self._tail("tail_conversations", applied):
            if is_listed or conversation in found:
                begun = found.get(conversation, (created_at,))[0]
                found[conversation] = (min(begun, created_at), conversation, version)
        return {conversation: version for _, conversation, version in sorted(found.values())}

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        rows, applied = await self._tables("task_conversations", ("conversations", "tasks"))
        found: dict[UUID, int] = dict(rows)
        for conversation, version, _, has_tasks, _ in await self._tail("tail_conversations", applied):
            if has_tasks or conversation in found:
                found[conversation] = version
        return found

    async def pending(self) -> set[Key]:
        rows, applied = await self._tables("pending", ("pending",))
        tail = await self._tail("tail_pending", applied)
        added, answered = ({(row[0], row[1]) for row in tail if row[2] is is_answer} for is_answer in (False, True))
        return ({(conversation, message) for conversation, message in rows} | added) - answered

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        read = self.store.read_log(
            after=after, types=LISTED, tenant=self.tenant, user=self.caller.user, backwards=True, limit=limit
        )
        return [event async for event in read][::-1]

    async def position(self) -> int:
        return await horizon(self.store.log(self.caller))

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        rows = await self._call_service("lease_answers", keys, holder, seconds=seconds)
        return {(conversation, message): LeaseStatus(*status) for conversation, message, *status in rows}

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        rows = await self._call_service("renew_answer_leases", keys, holder, seconds=seconds)
        return {(conversation, message) for conversation, message in rows}

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        await self._call_service("release_answers", keys, holder)

    async def _call_service(self, name: str, keys: Collection[Key], holder: UUID, **more: Any) -> list[TupleRow]:
        """Call an SQL function for leases, which only the service may call."""
        parameters = {
            "tenant": self.tenant,
            "conversations": [conversation for conversation, _ in keys],
            "messages": [message for _, message in keys],
            "holder": holder,
            **more,
        }
        return await self.store.pool.fetch(query("agent_manager", name), parameters, caller=Caller(self.tenant))

    async def _tables(self, name: str, projections: tuple[str, ...]) -> tuple[list[TupleRow], int]:
        """Return rows of the primary's tables, and the position up to which they contain the tenant's events."""
        text, parameters = query("agent_manager", name), {"tenant": self.tenant}
        at_least = max(0, self.written.position - TAIL)
        return await fetch_at_least(
            self.store, self.caller, text, parameters, projections, at_least, WAIT_SECONDS, on_primary=True
        )

    async def _tail(self, name: str, applied: int) -> list[TupleRow]:
        parameters = {"tenant": self.tenant, "applied": Int8(applied), "tail": Int8(TAIL)}
        return await self.store.log(self.caller).fetch(query("agent_manager", name), parameters)
