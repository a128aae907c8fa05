"""The store as a source: its conversations as the application had them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from agent_manager.agent_registry import AGENTS
from agent_manager.importers.backup_loader import EVENT_ID, stored_agents
from agent_manager.importers.comparison import Changed, keyed
from agent_manager.importers.source import (
    Json,
    SourceConversation,
    SourceEvent,
    SourceMessage,
    canonical_card,
    canonical_message,
    canonical_task,
    full_name,
)
from agent_manager.importers.stored import Stored, read_stored
from agent_manager.storage import ServerLog
from eventstore import EventStore, conversation_uuid
from projections import Reader, catch_up, every


def exported(stored: Stored) -> SourceConversation:
    """A conversation of the log as a source gives it."""
    name, metadata = full_name(stored.name, stored.metadata)
    sent = [message.sent for message in stored.messages]
    return SourceConversation(
        stored.given_id,
        name,
        stored.is_active,
        metadata,
        stored.created_at,
        [SourceMessage(canonical_message(message.sent), message.time) for message in stored.messages],
        [canonical_task(task.wire(sent)) for task in stored.tasks.values()],
        events=[
            SourceEvent(
                event.raw_metadata.get(EVENT_ID, str(event.id)), event.event_type, event.content,
                event.occurred_at,
            )
            for event in stored.events.values()
        ],
    )  # fmt: skip


def changed_since(stored: Stored) -> Changed:
    """What the store's own users have changed since a migration."""
    tasks = list(stored.tasks.values())
    keys = [key for key, _ in keyed([task.wire([]) for task in tasks])]
    return Changed(set(stored.changed), {key for key, task in zip(keys, tasks, strict=True) if task.changed})


class StoreSource:
    """The conversations of one tenant that are not hidden, in the order in which they began."""

    def __init__(self, store: EventStore, tenant: str) -> None:
        self.name = "the store"
        self._store = store
        self._tenant = tenant
        self._log = ServerLog(store, tenant)

    async def ids(self) -> list[UUID]:
        """Of all conversations, hidden ones included."""
        await catch_up(self._store)
        reserved = conversation_uuid(self._tenant, AGENTS)
        listed = every(Reader(self._store, self._tenant).conversations, by="created", newest_first=False, deleted=True)
        return [row.id async for row in listed if row.id != reserved]

    async def stored(self, conversation_id: UUID, until_version: int | None = None) -> Stored:
        """A conversation of the log, as it is or was."""
        return await read_stored(self._log, conversation_id, until_version)

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        """See :class:`Source`."""
        for conversation_id in await self.ids():
            stored = await self.stored(conversation_id)
            if not stored.is_deleted:
                yield exported(stored)

    async def agents(self) -> list[Json]:
        """See :class:`Source`."""
        return [canonical_card(card) for card in (await stored_agents(self._log)).cards.values()]

    async def pending(self) -> int:
        """See :class:`Source`."""
        return 0
