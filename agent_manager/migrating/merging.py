"""What goes back: everything in the store, and whatever of the backup the store should have lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from agent_manager.migrating.agents import by_url
from agent_manager.migrating.backup import Backup
from agent_manager.migrating.containing import Changed, contained, keyed
from agent_manager.migrating.differences import MISSING, Difference
from agent_manager.migrating.exporting import StoreSource, changed_since, exported
from agent_manager.migrating.matching import matches
from agent_manager.migrating.source import SourceConversation
from agent_manager.migrating.stored import Stored
from agent_manager.migrating.verifying import Verified
from agent_manager.migrating.wire import Json
from eventstore import conversation_uuid
from eventstore.errors import InputError


def merged(backup: SourceConversation, store: SourceConversation) -> SourceConversation:
    """The store's conversation, with the messages and tasks in it that only the backup has, each in its place."""
    found = matches(backup.messages, [message.wire for message in store.messages])
    messages = list(store.messages)
    behind, added = 0, 0
    for message, known in zip(backup.messages, found, strict=True):
        if known is None:
            messages.insert(behind, message)
            added += 1
            behind += 1
        else:
            behind = max(behind, known + added + 1)
    known_tasks = {key for key, _ in keyed(store.tasks)}
    known_events = {(event.type, event.id) for event in store.events}
    return SourceConversation(
        backup.id,
        store.name,
        store.is_active,
        store.metadata,
        store.created_at or backup.created_at,
        messages,
        store.tasks + [task for key, task in keyed(backup.tasks) if key not in known_tasks],
        events=[event for event in backup.events if (event.type, event.id) not in known_events] + store.events,
    )


class MergedSource:
    """A backup and the store as one source: first the conversations of the backup, then those begun since.

    Attributes:
        hidden: conversations that were deleted in the store, and stay so.
        versions: of the store's conversations, when they were read.
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
        left = dict.fromkeys(await self._store.ids())
        for conversation in self._backup.read():
            try:
                conversation_id = conversation_uuid(self._tenant, conversation.id)
            except InputError:  # it could not go into the store
                yield conversation
                continue
            stored = await self._read(conversation_id)
            left.pop(conversation_id, None)
            if not stored.version:
                yield conversation
            elif not stored.is_deleted:
                yield merged(conversation, exported(stored))
        for conversation_id in left:
            stored = await self._read(conversation_id)
            if not stored.is_deleted:
                yield exported(stored)

    async def agents(self) -> list[Json]:
        """See :class:`Source`: those that are registered in the store."""
        return list(by_url(await self._store.agents()).values())

    async def pending(self) -> int:
        """See :class:`Source`."""
        return await self._store.pending()

    async def _read(self, conversation_id: UUID) -> Stored:
        stored = await self._store.stored(conversation_id)
        self.versions[conversation_id] = stored.version
        self.ignored += [f"conversation {stored.given_id!r}: {why}" for why in stored.ignored]
        if stored.is_deleted:
            self.hidden.add(stored.given_id)
        return stored


async def verify_merged(restored: Backup, backup: Backup, store: StoreSource, merging: MergedSource) -> Verified:
    """Whether what goes back holds all of the backup, and all of the store as it was when it was read."""
    verified = Verified()
    kept = {conversation.id: conversation for conversation in restored.read()}
    changed: dict[str, Changed] = {}
    for conversation_id, version in merging.versions.items():
        stored = await store.stored(conversation_id, version)
        if stored.version and not stored.is_deleted:
            changed[stored.given_id] = changed_since(stored)
            _look(verified, exported(stored), kept, Changed())
    for conversation in backup.read():
        if conversation.id not in merging.hidden:
            since = changed.get(conversation.id, Changed())
            _look(verified, conversation, kept, since)
            if since:
                verified.changed[conversation.id] = since
    verified.conversations = len(kept)
    verified.messages = sum(len(conversation.messages) for conversation in kept.values())
    verified.tasks = sum(len(conversation.tasks) for conversation in kept.values())
    return verified


async def written_meanwhile(store: StoreSource, merging: MergedSource) -> list[str]:
    """The conversations of the store that have been written to since they were read."""
    found = []
    for conversation_id in await store.ids():
        stored = await store.stored(conversation_id)
        if stored.version != merging.versions.get(conversation_id):
            found.append(stored.given_id)
    return found


def _look(
    verified: Verified, sought: SourceConversation, kept: dict[str, SourceConversation], changed: Changed
) -> None:
    found = kept.get(sought.id)
    if found is None:
        verified.differences.append(Difference(sought.id, "conversation", "is there", MISSING))
    else:
        verified.differences += contained(sought, found, changed)
