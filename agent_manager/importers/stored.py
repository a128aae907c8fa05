"""Conversations as the log has them, and the events of the tasks of a source.

The events of a task are those that the recorder makes of an agent's updates (:mod:`agent_manager.agents.recorder`). If
a member of the task cannot be restored from them, such as two artifacts of one id, ``extra`` holds it as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

from agent_manager.a2a import Json, artifact_event
from agent_manager.agent_registry import AGENTS, url_of
from agent_manager.agents.agent import StatusUpdate, TaskSnapshot
from agent_manager.agents.recorder import RecordedTask, Recording
from agent_manager.conversation_fold import ConversationFold, TaskEvent, TaskFold
from agent_manager.importers.source import (
    SourceConversation,
    SourceEvent,
    SourceMessage,
    canonical_card,
    canonical_message,
    canonical_task,
    original_name,
    text_member,
)
from agent_manager.storage import PAGE, Log
from eventstore import (
    AgentRegistered,
    AgentUnregistered,
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationReactivated,
    ConversationRenamed,
    Event,
    MessageAdded,
    NewEvent,
    TaskCreated,
    TaskDescribed,
    conversation_uuid,
    sent_message,
)
from eventstore.ids import own_given_id
from eventstore.json_text import json_equal

MIGRATED = "migrated"
"""The member of the metadata of events that a migration appended."""
EVENT_ID = "source_id"
"""The member of the metadata of a source's event (:class:`SourceEvent`) that holds its id at the source."""

TaskKey: TypeAlias = tuple[str, int]
"""A task's id, and the number of earlier tasks of its conversation with the same id."""


@dataclass(slots=True)
class LocalChanges:
    """The changes that users of the store made to a conversation since its import; these may differ from the source.

    Attributes:
        members: of the conversation: ``name``, ``is_active``.
        agents: the URLs of agents that they have registered or unregistered.
    """

    members: set[str] = field(default_factory=set)
    tasks: set[TaskKey] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.members or self.tasks)


def keyed_tasks(tasks: list[Json]) -> Iterator[tuple[TaskKey, Json]]:
    """Yield tasks with their keys."""
    occurrences: Counter[str] = Counter()
    for task in tasks:
        given_id = text_member(task, "id")
        yield (given_id, occurrences[given_id]), task
        occurrences[given_id] += 1


@dataclass(slots=True)
class StoredTask:
    """A task of the log.

    Attributes:
        is_changed: whether any of its events is not from a migration.
    """

    wire: Json = field(default_factory=dict)
    events: list[TaskEvent] = field(default_factory=list)
    is_changed: bool = False


@dataclass(slots=True)
class StoredConversation:
    """A conversation of the log.

    Attributes:
        version: 0 if the log does not have it.
        migrated_messages: the indexes of the messages that a migration appended.
        event_times: of messages and of the application's events; None if a migration did not know it.
        changes: what was set last by events that are not from a migration.
        agents: the cards in it by URL, if it is the one in which agents are registered.
        ignored: contents of its events that were not applied, and why.
    """

    id: UUID
    conversation: SourceConversation
    version: int = 0
    is_deleted: bool = False
    is_migrated: bool = False
    migrated_messages: list[int] = field(default_factory=list)
    event_times: dict[UUID, datetime | None] = field(default_factory=dict)
    tasks: dict[UUID, StoredTask] = field(default_factory=dict)
    changes: LocalChanges = field(default_factory=LocalChanges)
    agents: dict[str, Json] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def apply(self, event: Event) -> None:
        """Apply the conversation's next event, apart from what :class:`ConversationFold` makes of it."""
        data, is_migrated = event.data, event.raw_metadata.get(MIGRATED) is True
        time = event.metadata.occurred_at if is_migrated else event.occurred_at
        conversation = self.conversation
        if not self.version:
            self.is_migrated, conversation.created_at = is_migrated, time
        self.version = event.version
        if isinstance(data, ApplicationEvent) or EVENT_ID in event.raw_metadata:
            self.event_times[event.id] = time
            given_id = event.raw_metadata.get(EVENT_ID, str(event.id))
            conversation.events.append(SourceEvent(given_id, event.event_type, event.content, event.occurred_at))
        if isinstance(data, TaskEvent):
            task = self.tasks.setdefault(data.task_id, StoredTask())
            task.events.append(data)
            task.is_changed |= not is_migrated
        elif isinstance(data, MessageAdded):
            if is_migrated:
                self.migrated_messages.append(len(conversation.messages))
            self.event_times[event.id] = time
            conversation.messages.append(SourceMessage(canonical_message(sent_message(data)), time))
        elif isinstance(data, ConversationCreated):
            given_id = data.given_id
            if given_id not in (None, str(self.id)) and not own_given_id(event.tenant_id, self.id, given_id):
                self.ignored.append(f"event {event.id}: its given_id {given_id!r} is the name of another conversation")
            if data.name:
                _toggle(self.changes.members, "name", changed=not is_migrated)
        elif isinstance(data, ConversationRenamed):
            _toggle(self.changes.members, "name", changed=not is_migrated)
        elif isinstance(data, ConversationArchived | ConversationReactivated):
            _toggle(self.changes.members, "is_active", changed=not is_migrated)
        elif isinstance(data, AgentRegistered | AgentUnregistered):
            _toggle(self.changes.agents, data.url, changed=not is_migrated)


def _toggle(changes: set[str], name: str, *, changed: bool) -> None:
    (changes.add if changed else changes.discard)(name)


async def read_stored(log: Log, conversation_id: UUID, until_version: int | None = None) -> StoredConversation:
    """Return a conversation as the log has it now, or as it was at a version."""
    fold = ConversationFold(conversation_id)
    conversation = SourceConversation(str(conversation_id))
    stored = StoredConversation(conversation_id, conversation)
    async for event in _read_events(log, conversation_id):
        if until_version is not None and event.version > until_version:
            break
        fold.apply(event)
        stored.apply(event)
    conversation.id, conversation.is_active, stored.is_deleted = fold.given_id, fold.is_active, fold.is_deleted
    conversation.name, conversation.metadata = original_name(fold.name, fold.metadata)
    stored.agents = fold.agents
    for task_id, task in stored.tasks.items():
        folded = fold.tasks[task_id]
        messages = [message for message in fold.messages.values() if message.get("taskId") == folded.given_id]
        task.wire = canonical_task(folded.wire(messages))
    conversation.tasks = [task.wire for task in stored.tasks.values()]
    keys = (key for key, _ in keyed_tasks(conversation.tasks))
    stored.changes.tasks = {key for key, task in zip(keys, stored.tasks.values(), strict=True) if task.is_changed}
    return stored


async def _read_events(log: Log, conversation_id: UUID) -> AsyncIterator[Event]:
    version = 0
    while events := await log.events_of({conversation_id: version}):
        for event in events:
            yield event
        version = events[-1].version
        if len(events) < PAGE:
            return


# The registered agents, which the log holds as events of a reserved conversation


async def read_agents(log: Log) -> StoredConversation:
    """Return the conversation in which agents are registered."""
    return await read_stored(log, conversation_uuid(log.tenant, AGENTS))


def missing_agents(cards: list[Json], stored: StoredConversation) -> dict[str, Json]:
    """Return the agents that the log does not have as they are, unless users of the store have changed them since."""
    return {
        url: card
        for url, card in cards_by_url(cards).items()
        if url not in stored.changes.agents
        and not (url in stored.agents and json_equal(canonical_card(stored.agents[url]), canonical_card(card)))
    }


def cards_by_url(cards: list[Json]) -> dict[str, Json]:
    """Return cards by the URL, or else the name, in them. An application may list an agent twice."""
    return {url_of(card) or text_member(card, "name"): card for card in cards}


# The events of a task

_MEMBERS_OF_EVENTS = ("id", "status", "artifacts", "metadata")
"""Members of a task that events have a place for; all others are in ``extra``."""


def new_task_events(tenant: str, conversation_id: UUID, task_id: UUID, task: Json) -> list[TaskEvent]:
    """Return the events of a task that the log does not have."""
    given_id = text_member(task, "id")
    recorded = Recording(tenant, conversation_id).events_of(TaskSnapshot(task | {"id": given_id}))
    first, *further = _with_task_id(recorded, task_id)
    assert isinstance(first, TaskCreated)
    first = first.model_copy(update={"given_id": given_id if given_id != str(task_id) else None})
    if lost := _lost_members(task_id, [first, *further], task):
        first = first.model_copy(update={"extra": (first.extra or {}) | lost})
    return [first, *further]


def further_task_events(
    tenant: str, conversation_id: UUID, task_id: UUID, stored: Sequence[TaskEvent], task: Json
) -> list[TaskEvent]:
    """Return the events that a stored task lacks because it has changed at its source."""
    before = _task_of(task_id, stored)
    events: list[TaskEvent] = []
    extra, extra_before = (
        {name: value for name, value in version.items() if name not in _MEMBERS_OF_EVENTS} for version in (task, before)
    )
    if not json_equal([extra, task.get("metadata")], [extra_before, before.get("metadata")]):
        metadata = task.get("metadata") if isinstance(task.get("metadata"), dict) else None
        events.append(TaskDescribed(task_id=task_id, extra=extra, metadata=metadata))
    status = task.get("status")
    if isinstance(status, dict) and not json_equal(status, before.get("status")):
        given_id = text_member(task, "id")
        recording = Recording(tenant, conversation_id, known_task={given_id: RecordedTask()}.get)
        events += _with_task_id(recording.events_of(StatusUpdate(given_id, None, status)), task_id)
    artifacts, artifacts_before = task.get("artifacts"), before.get("artifacts") or []
    events += [
        artifact_event(task_id, artifact, append=False, last_chunk=True)
        for artifact in (artifacts if isinstance(artifacts, list) else [])
        if isinstance(artifact, dict) and not any(json_equal(artifact, known) for known in artifacts_before)
    ]
    if lost := _lost_members(task_id, [*stored, *events], task):
        events.append(TaskDescribed(task_id=task_id, extra=extra | lost))
    return events


def _with_task_id(recorded: list[NewEvent], task_id: UUID) -> list[TaskEvent]:
    return [
        event.data.model_copy(update={"task_id": task_id}) for event in recorded if isinstance(event.data, TaskEvent)
    ]


def _lost_members(task_id: UUID, events: Sequence[TaskEvent], task: Json) -> Json:
    """Return the members that the events do not restore; None for a member that they would add."""
    restored = _task_of(task_id, events)
    names = (task.keys() | restored.keys()) - {"id"}
    return {name: task.get(name) for name in names if not json_equal(task.get(name), restored.get(name))}


def _task_of(task_id: UUID, events: Sequence[TaskEvent]) -> Json:
    """Return the task that its events make, in the canonical form, although no log holds them."""
    nil = UUID(int=0)
    event = Event(0, datetime.now(UTC), 0, 1, nil, nil, "", "task.created", "", {}, {}, None, b"")
    fold = TaskFold(task_id, event)
    for data in events:
        fold.apply(event, data)
    return canonical_task(fold.wire([]))
