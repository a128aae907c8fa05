"""Verifying that the store, or a running application, has all that a backup has.

Messages and conversations are read from the read tables, as the application reads them, tasks and agents from the log.
What the store's own users have changed since it was taken over (a name, an archiving, a task that went on) is not a
difference, nor is what became of a conversation that they deleted. A message never changes, so each must be there as it
was, in its order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_manager.importers.a2a_demo import WITHOUT_CONTEXT, EndpointSource
from agent_manager.importers.backup import Backup
from agent_manager.importers.backup_loader import missing_agents, stored_agents
from agent_manager.importers.comparison import MISSING, Changed, Difference, contained, differing
from agent_manager.importers.source import SourceConversation
from agent_manager.importers.store_source import changed_since, exported
from agent_manager.importers.stored import StoredMessage, read_stored
from agent_manager.storage import ServerLog
from eventstore import EventStore, conversation_uuid
from eventstore.concurrency import gather_or_raise
from eventstore.errors import InputError, NotFound
from projections import Reader, catch_up

# Whether the store holds what a backup holds: every conversation, message and task compared, member by member

_AT_ONCE = 8


@dataclass(slots=True)
class Verified:
    """What was compared.

    Attributes:
        conversations, messages, tasks: that were looked for.
        differences: what is not there, or not as it was.
        changed: what the store's own users have changed since, by conversation.
        hidden: conversations that they have deleted.
    """

    conversations: int = 0
    messages: int = 0
    tasks: int = 0
    differences: list[Difference] = field(default_factory=list)
    changed: dict[str, Changed] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)

    @property
    def differing(self) -> list[str]:
        """The conversations that differ, each once."""
        return list(dict.fromkeys(one.conversation for one in self.differences))


async def verify_backup(store: EventStore, tenant: str, backup: Backup) -> Verified:
    """Compares a backup with the store, whose read tables are brought up first."""
    await catch_up(store)
    reader = Reader(store, tenant)
    verified = Verified()
    agents = await stored_agents(ServerLog(store, tenant))
    for url, card in missing_agents(backup.agents, agents).items():
        verified.differences += differing("", f"agents[{url!r}]", card, agents.cards.get(url, MISSING))
    group: list[SourceConversation] = []
    for conversation in backup.read():
        group.append(conversation)
        if len(group) == _AT_ONCE:
            await _group(reader, group, verified)
            group = []
    await _group(reader, group, verified)
    return verified


async def _group(reader: Reader, group: list[SourceConversation], verified: Verified) -> None:
    found = await gather_or_raise(_one(reader, conversation, verified) for conversation in group)
    for source, differences in zip(group, found, strict=True):
        verified.conversations += 1
        verified.messages += len(source.messages)
        verified.tasks += len(source.tasks)
        verified.differences += differences


async def _one(reader: Reader, source: SourceConversation, verified: Verified) -> list[Difference]:
    try:
        conversation_id = conversation_uuid(reader.tenant, source.id)
        row = await reader.conversation(conversation_id)
    except (NotFound, InputError):
        return [Difference(source.id, "conversation", "is there", MISSING)]
    stored = await read_stored(ServerLog(reader.store, reader.tenant), conversation_id)
    if stored.is_deleted:
        verified.hidden.add(source.id)
        return []
    changed = changed_since(stored)
    stored.given_id, stored.name, stored.metadata = row.given_id or str(row.id), row.name, row.metadata
    stored.is_active = row.is_active
    known = {message.event_id: message.time for message in stored.messages}
    stored.messages = [
        StoredMessage(read.id, read.sent, read.created_at if known.get(read.id) else None)
        for read in await reader.messages(conversation_id)
    ]
    differences = list(contained(source, exported(stored), changed))
    if source.id != stored.given_id:
        differences.append(Difference(source.id, "id", source.id, stored.given_id))
    if changed:
        verified.changed[source.id] = changed
    return differences


# Whether a running application serves what it should: compared over its endpoints


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
