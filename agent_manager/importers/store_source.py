"""Sources that read the store: its conversations alone, and merged with those of a backup."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from agent_manager.a2a import Json
from agent_manager.agent_registry import AGENTS
from agent_manager.importers.backup import Backup
from agent_manager.importers.backup_loader import EVENT_ID, cards_by_url, stored_agents
from agent_manager.importers.comparison import LocalChanges, keyed_tasks, match_messages
from agent_manager.importers.source import (
    SourceConversation,
    SourceEvent,
    SourceMessage,
    canonical_card,
    canonical_message,
    canonical_task,
    original_name,
)
from agent_manager.importers.stored import Stored, read_stored
from agent_manager.storage import ServerLog
from eventstore import EventStore, conversation_uuid
from eventstore.errors import InputError
from projections import Reader, all_items, catch_up


class StoreSource:
    """The conversations of a tenant that are not deleted, in the order in which they began."""

    def __init__(self, store: EventStore, tenant: str) -> None:
        self.name = "the store"
        self._store = store
        self._tenant = tenant
        self._log = ServerLog(store, tenant)

    async def ids(self) -> list[UUID]:
        """Return the ids of all conversations, deleted ones included."""
        await catch_up(self._store)
        reserved = conversation_uuid(self._tenant, AGENTS)
        rows = all_items(
            Reader(self._store, self._tenant).conversations, by="created", newest_first=False, deleted=True
        )
        return [row.id async for row in rows if row.id != reserved]

    async def stored(self, conversation_id: UUID, until_version: int | None = None) -> Stored:
        """Return a conversation as the log has it now, or as it was at a version."""
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


class MergedSource:
    """The conversations of a backup, merged with those in the store, and then those that began since.

    Attributes:
        hidden: conversations that were deleted in the store, and stay deleted.
        versions: the versions at which the store's conversations were read.
        ignored: what was not applied of events in the log, and why.
    """

    def __init__(self, backup: Backup, store: StoreSource, tenant: str) -> None:
        self.name = f"{backup.source}, and the store"
        self.hidden: set[str] = set()
        self.versions: dict[UUID, int] = {}
        self.ignored: list[str] = []
        self._backup = backup
        self._store = store
        self._tenant = tenant

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        """See :class:`Source`."""
        only_stored = dict.fromkeys(await self._store.ids())
        for conversation in self._backup.read():
            try:
                conversation_id = conversation_uuid(self._tenant, conversation.id)
            except InputError:  # it could not be stored under this id
                yield conversation
                continue
            only_stored.pop(conversation_id, None)
            stored = await self._read(conversation_id)
            if not stored.version:
                yield conversation
            elif not stored.is_deleted:
                yield _merged(conversation, exported(stored))
        for conversation_id in only_stored:
            stored = await self._read(conversation_id)
            if not stored.is_deleted:
                yield exported(stored)

    async def agents(self) -> list[Json]:
        """See :class:`Source`: the agents that are registered in the store."""
        return list(cards_by_url(await self._store.agents()).values())

    async def pending(self) -> int:
        """See :class:`Source`."""
        return 0

    async def written_since(self) -> list[str]:
        """Return the conversations of the store that were written to since they were read."""
        written = []
        for conversation_id in await self._store.ids():
            stored = await self._store.stored(conversation_id)
            if stored.version != self.versions.get(conversation_id):
                written.append(stored.given_id)
        return written

    async def _read(self, conversation_id: UUID) -> Stored:
        stored = await self._store.stored(conversation_id)
        self.versions[conversation_id] = stored.version
        self.ignored += [f"conversation {stored.given_id!r}: {reason}" for reason in stored.ignored]
        if stored.is_deleted:
            self.hidden.add(stored.given_id)
        return stored


def _merged(backup: SourceConversation, store: SourceConversation) -> SourceConversation:
    """Return the store's conversation with what only the backup has; each message goes behind its predecessor."""
    matches = match_messages(backup.messages, [message.wire for message in store.messages])
    messages = list(store.messages)
    behind, added = 0, 0
    for message, match in zip(backup.messages, matches, strict=True):
        if match is None:
            messages.insert(behind, message)
            added += 1
            behind += 1
        else:
            behind = max(behind, match + added + 1)
    stored_tasks = {key for key, _ in keyed_tasks(store.tasks)}
    stored_events = {(event.type, event.id) for event in store.events}
    return SourceConversation(
        backup.id,
        store.name,
        store.is_active,
        store.metadata,
        store.created_at or backup.created_at,
        messages,
        store.tasks + [task for key, task in keyed_tasks(backup.tasks) if key not in stored_tasks],
        events=[event for event in backup.events if (event.type, event.id) not in stored_events] + store.events,
    )


def exported(stored: Stored) -> SourceConversation:
    """Return a conversation of the log in the form of sources."""
    name, metadata = original_name(stored.name, stored.metadata)
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
                event.raw_metadata.get(EVENT_ID, str(event.id)), event.event_type, event.content, event.occurred_at
            )
            for event in stored.events.values()
        ],
    )


def local_changes(stored: Stored) -> LocalChanges:
    """Return what users of the store have changed in a conversation since its import."""
    tasks = list(stored.tasks.values())
    keys = [key for key, _ in keyed_tasks([task.wire([]) for task in tasks])]
    return LocalChanges(set(stored.changed), {key for key, task in zip(keys, tasks, strict=True) if task.changed})
