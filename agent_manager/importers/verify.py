"""Verification that the store, or a running application, has everything that a backup has.

Messages and conversations are read from the read tables, as the application reads them; tasks and agents from the log.
What users of the store have changed since the import (a name, an archived conversation, a task that continued) is not a
difference, and neither is what happened to a conversation that they deleted. Messages never change: each must be there
as it was, in its order.
"""

from __future__ import annotations

from typing import Any

from agent_manager.importers.a2a_demo import WITHOUT_CONTEXT, EndpointSource
from agent_manager.importers.backup import Backup
from agent_manager.importers.backup_loader import missing_agents, stored_agents
from agent_manager.importers.comparison import MISSING, LocalChanges, Verification, differences
from agent_manager.importers.source import SourceConversation
from agent_manager.importers.store_source import MergedSource, StoreSource, exported, local_changes
from agent_manager.importers.stored import Stored, StoredMessage, read_stored
from agent_manager.storage import ServerLog
from eventstore import EventStore, conversation_uuid
from eventstore.concurrency import gather_or_raise
from eventstore.errors import InputError, NotFound
from projections import Reader, catch_up


async def verify_backup(store: EventStore, tenant: str, backup: Backup) -> Verification:
    """Compare a backup with the store, after bringing the read tables up to date."""
    await catch_up(store)
    reader = Reader(store, tenant)
    result = Verification()
    agents = await stored_agents(ServerLog(store, tenant))
    for url, card in missing_agents(backup.agents, agents).items():
        result.differences += differences("", f"agents[{url!r}]", card, agents.cards.get(url, MISSING))
    for batch in backup.read_batches():
        found = await gather_or_raise(_read(reader, conversation) for conversation in batch)
        for conversation, stored in zip(batch, found, strict=True):
            result.count(conversation)
            if stored is None:
                result.compare(conversation, None)
            elif stored.is_deleted:
                result.hidden.add(conversation.id)
            else:
                changes = local_changes(stored)
                result.compare(conversation, exported(stored), changes)
                if changes:
                    result.changed[conversation.id] = changes
    return result


async def _read(reader: Reader, source: SourceConversation) -> Stored | None:
    """Return a conversation with messages and members from the read tables and the rest from the log."""
    try:
        conversation_id = conversation_uuid(reader.tenant, source.id)
        row = await reader.conversation(conversation_id)
    except (NotFound, InputError):
        return None
    stored = await read_stored(ServerLog(reader.store, reader.tenant), conversation_id)
    if not stored.is_deleted:
        stored.given_id, stored.name, stored.metadata = row.given_id or str(row.id), row.name, row.metadata
        stored.is_active = row.is_active
        times = {message.event_id: message.time for message in stored.messages}
        stored.messages = [
            StoredMessage(message.id, message.sent, message.created_at if times.get(message.id) else None)
            for message in await reader.messages(conversation_id)
        ]
    return stored


async def verify_served(url: str, backup: Backup, stored: Verification | None = None) -> Verification:
    """Compare what an application serves with a backup.

    Args:
        stored: the comparison of the store that it serves from. What was changed or deleted there may differ, and the
            store may have named the conversations. None if the application serves what is in the backup.

    Raises:
        SourceUnreadable: nothing answers, or another kind of server.
    """
    result = Verification()
    async with EndpointSource(url) as application:
        served = {found.id: _with_kinds(found) async for found in application.conversations()}
    for conversation in backup.read():
        if stored is not None and conversation.id in stored.hidden:
            continue
        result.count(conversation)
        found = served.get(conversation.id)
        if conversation.id == WITHOUT_CONTEXT:
            conversation.messages = []
            if found is None:
                continue
        conversation.metadata, conversation.events = None, []  # the endpoints do not give them
        changes = LocalChanges()
        if stored is not None:
            since_import = stored.changed.get(conversation.id, changes)
            changes = LocalChanges(since_import.fields | {"name"}, since_import.tasks)
        result.compare(_with_kinds(conversation), found, changes)
    return result


def _with_kinds(conversation: SourceConversation) -> SourceConversation:
    """Give every message and task its ``kind``, which the classes of an application add on their own."""
    messages: list[Any] = [message.wire for message in conversation.messages]
    for task in conversation.tasks:
        task.setdefault("kind", "task")
        status = task.get("status")
        messages += [status.get("message") if isinstance(status, dict) else None, *(task.get("history") or ())]
    for message in messages:
        if isinstance(message, dict):
            message.setdefault("kind", "message")
    return conversation


async def verify_merged(restored: Backup, backup: Backup, store: StoreSource, merged: MergedSource) -> Verification:
    """Check that a merged backup holds all of the backup, and all of the store as it was when it was read."""
    result = Verification()
    conversations = {conversation.id: conversation for conversation in restored.read()}
    for conversation in conversations.values():
        result.count(conversation)
    changes: dict[str, LocalChanges] = {}
    for conversation_id, version in merged.versions.items():
        stored = await store.stored(conversation_id, version)
        if stored.version and not stored.is_deleted:
            changes[stored.given_id] = local_changes(stored)
            result.compare(exported(stored), conversations.get(stored.given_id))
    for conversation in backup.read():
        if conversation.id not in merged.hidden:
            since_import = changes.get(conversation.id, LocalChanges())
            result.compare(conversation, conversations.get(conversation.id), since_import)
            if since_import:
                result.changed[conversation.id] = since_import
    return result
