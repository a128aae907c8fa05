"""What a conversation of a source adds to the log: the events for what the log does not have."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from uuid import UUID

from agent_manager.importing.times import read_time
from agent_manager.migrating.matching import MessageIds, is_same_task, matches, task_ids
from agent_manager.migrating.naming import fitted
from agent_manager.migrating.source import SourceConversation
from agent_manager.migrating.stored import MIGRATED, Stored
from agent_manager.migrating.tasks import begun, gone_on
from agent_manager.migrating.wire import message_id
from eventstore import (
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationReactivated,
    ConversationRenamed,
    Metadata,
    NewEvent,
    message_from_sent,
)
from eventstore.ids import derived_uuid

ACTOR = "importer"
"""Who takes over conversations, tasks and agents; a message is of its role."""
EVENT_ID = "source_id"
"""Where in the metadata of an application's event stands how its source calls it."""


def plan(source: SourceConversation, stored: Stored, tenant: str, zone: tzinfo = UTC) -> list[NewEvent]:
    """Return the events that are missing. What the store's own users have changed since is left as it is.

    Args:
        zone: of times without an offset.

    Raises:
        InputError: something cannot be stored.
    """
    return [
        *_conversation(source, stored, tenant),
        *_messages(source, stored, tenant),
        *_tasks(source, stored, tenant, zone),
        *_events(source, stored, tenant),
        *_activity(source, stored),
    ]


def event_uuid(tenant: str, conversation_id: UUID, given_id: str) -> UUID:
    """The id of an event that is neither message nor task, in the log."""
    return derived_uuid("migration", tenant, str(conversation_id), "event", given_id)


def _conversation(source: SourceConversation, stored: Stored, tenant: str) -> Iterator[NewEvent]:
    name, metadata = fitted(source)
    if not stored.version:
        created = ConversationCreated(
            name=name, given_id=source.id if source.id != str(stored.id) else None, metadata=metadata
        )
        yield NewEvent(
            created, derived_uuid("migration", tenant, str(stored.id), "created"), ACTOR, _about(source.created_at)
        )
    elif name != stored.name and "name" not in stored.changed:
        yield NewEvent(ConversationRenamed(name=name), actor=ACTOR, metadata=_about(None))


def _messages(source: SourceConversation, stored: Stored, tenant: str) -> Iterator[NewEvent]:
    ids = MessageIds(tenant, stored)
    found = matches(source.messages, [message.sent for message in stored.messages])
    for message, known in zip(source.messages, found, strict=True):
        if known is None:
            added = message_from_sent(message.wire, given_id=message_id(message.wire) or None)
            yield NewEvent(added, ids.next(message.wire), str(added.role), _about(message.time))


def _tasks(source: SourceConversation, stored: Stored, tenant: str, zone: tzinfo) -> Iterator[NewEvent]:
    for place, (task_id, task) in enumerate(task_ids(source, tenant, stored.id)):
        known = stored.tasks.get(task_id)
        if known is None:
            events = begun(tenant, stored.id, task_id, task)
        elif known.changed or is_same_task(known.wire([]), source, place):
            continue
        else:
            events = gone_on(tenant, stored.id, task_id, known.events, task)
        status = task.get("status")
        moment = read_time(status.get("timestamp"), zone) if isinstance(status, dict) else None
        for data in events:
            yield NewEvent(data, actor=ACTOR, metadata=_about(moment))


def _events(source: SourceConversation, stored: Stored, tenant: str) -> Iterator[NewEvent]:
    for event in source.events:
        event_id = event_uuid(tenant, stored.id, event.id)
        if event_id not in stored.events:
            about = Metadata(occurred_at=event.time, **{MIGRATED: True, EVENT_ID: event.id})
            yield NewEvent(ApplicationEvent(event.type, event.content), event_id, ACTOR, about)


def _activity(source: SourceConversation, stored: Stored) -> Iterator[NewEvent]:
    if source.is_active != stored.is_active and "is_active" not in stored.changed:
        data = ConversationReactivated() if source.is_active else ConversationArchived()
        yield NewEvent(data, actor=ACTOR, metadata=_about(None))


def _about(moment: datetime | None) -> Metadata:
    return Metadata(occurred_at=moment, **{MIGRATED: True})
