"""Whether a running application serves what it should: compared over its endpoints."""

from __future__ import annotations

from agent_manager.migrating.backup import Backup
from agent_manager.migrating.containing import Changed, contained
from agent_manager.migrating.differences import MISSING, Difference
from agent_manager.migrating.endpoints import EndpointSource
from agent_manager.migrating.grouping import WITHOUT_CONTEXT
from agent_manager.migrating.source import SourceConversation
from agent_manager.migrating.verifying import Verified


async def verify_served(url: str, backup: Backup, stored: Verified | None = None) -> Verified:
    """Compares what an application serves with a backup.

    Args:
        stored: what was found of the store that it serves from: what was changed or deleted there may be otherwise,
            and it may have named the conversations. None where it serves what stands in the backup.

    Raises:
        SourceUnreadable: nothing answers, or something else does.
    """
    verified = Verified()
    async with EndpointSource(url) as application:
        served = {one.id: _with_kinds(one) async for one in application.conversations()}
    for conversation in backup.read():
        if stored is not None and conversation.id in stored.hidden:
            continue
        verified.conversations += 1
        verified.messages += len(conversation.messages)
        verified.tasks += len(conversation.tasks)
        found = served.get(conversation.id)
        if found is not None:
            _with_kinds(conversation).metadata, conversation.events = None, []  # the endpoints have no place for them
            if conversation.id == WITHOUT_CONTEXT:
                conversation.messages = []
            verified.differences += contained(conversation, found, _changed(conversation.id, stored))
        elif conversation.id != WITHOUT_CONTEXT:
            verified.differences.append(Difference(conversation.id, "conversation", "is there", MISSING))
    return verified


def _changed(conversation: str, stored: Verified | None) -> Changed:
    if stored is None:
        return Changed()
    changed = stored.changed.get(conversation, Changed())
    return Changed(changed.fields | {"name"}, changed.tasks)


def _with_kinds(conversation: SourceConversation) -> SourceConversation:
    """The same with every message and task saying that it is one, as an application's classes do by themselves."""
    for message in conversation.messages:
        message.wire.setdefault("kind", "message")
    for task in conversation.tasks:
        task.setdefault("kind", "task")
        status = task.get("status")
        said = status.get("message") if isinstance(status, dict) else None
        for one in (said, *(task.get("history") or ())):
            if isinstance(one, dict):
                one.setdefault("kind", "message")
    return conversation
