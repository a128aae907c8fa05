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
from agent_manager.importers.comparison import MISSING, LocalChanges, Verification, differences
from agent_manager.importers.source import SourceConversation, SourceMessage, canonical_message, original_name
from agent_manager.importers.stored import StoredConversation, missing_agents, read_agents, read_stored
from agent_manager.storage import ServerLog
from eventstore import EventStore, conversation_uuid
from eventstore.errors import InputError, NotFound
from projections import Reader, catch_up

IN_STORE = "are in the store as they were"


async def verify_backup(store: EventStore, tenant: str, backup: Backup) -> Verification:
    """Compare a backup with the store, after bringing the read tables up to date."""
    await catch_up(store)
    reader, log = Reader(store, tenant), ServerLog(store, tenant)
    result = Verification()
    agents = await read_agents(log)
    for url, card in missing_agents(backup.agents, agents).items():
        result.differences += differences("", f"agents[{url!r}]", card, agents.agents.get(url, MISSING))

    async def find(source: SourceConversation) -> StoredConversation | None:
        """Return a conversation with messages and members from the read tables and the rest from the log."""
        try:
            row = await reader.conversation(conversation_uuid(tenant, source.id))
        except (NotFound, InputError):
            return None
        stored = await read_stored(log, row.id)
        if not stored.is_deleted:
            found = stored.conversation
            found.id, found.is_active = row.given_id or str(row.id), row.is_active
            found.name, found.metadata = original_name(row.name, row.metadata)
            found.messages = [
                SourceMessage(
                    canonical_message(message.sent), message.created_at if stored.event_times.get(message.id) else None
                )
                for message in await reader.messages(row.id)
            ]
        return stored

    async for conversation, stored in backup.read_with(find):
        result.count(conversation)
        if stored is None:
            result.compare(conversation, None)
        elif stored.is_deleted:
            result.hidden.add(conversation.id)
        else:
            result.compare(conversation, stored.conversation, stored.changes)
            if stored.changes:
                result.changed[conversation.id] = stored.changes
    return result


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
            changes = LocalChanges(since_import.members | {"name"}, since_import.tasks)
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
