"""A conversation and its tasks as the log has them, and the events of the tasks of a source.

The events of a task are those that the recorder makes of an agent's updates (:mod:`agent_manager.agents.recorder`). If
a member of the task cannot be restored from them, such as two artifacts of one id, ``extra`` holds it as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeGuard, get_args
from uuid import UUID

from agent_manager.a2a import Json, artifact_event
from agent_manager.agents.agent import StatusUpdate, TaskSnapshot
from agent_manager.agents.recorder import RecordedTask, Recording
from agent_manager.conversation import ConversationFold, TaskEvent, TaskFold
from agent_manager.importers.source import canonical_task, text_member
from agent_manager.storage import PAGE, Log
from eventstore import (
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationReactivated,
    ConversationRenamed,
    Event,
    EventData,
    MessageAdded,
    TaskCreated,
    TaskDescribed,
)
from eventstore.ids import own_given_id
from eventstore.json_text import json_equal

_MEMBERS_OF_EVENTS = ("id", "status", "artifacts", "metadata")
"""Members of a task that events have a place for; all others are in ``extra``."""


def is_task_event(data: EventData) -> TypeGuard[TaskEvent]:
    """Return whether an event is one of a task."""
    return isinstance(data, get_args(TaskEvent))


def folded(task_id: UUID, first: Event, events: Sequence[TaskEvent]) -> TaskFold:
    """Return the task that its events make; ``first`` is the event of the log that holds the first of them."""
    fold = TaskFold(task_id, first)
    for data in events:
        fold.apply(first, data)
    return fold


def new_task_events(tenant: str, conversation_id: UUID, task_id: UUID, task: Json) -> list[TaskEvent]:
    """Return the events of a task that the log does not have."""
    given_id = text_member(task, "id")
    recorded = Recording(tenant, conversation_id).events_of(TaskSnapshot(task | {"id": given_id}))
    events = [event.data.model_copy(update={"task_id": task_id}) for event in recorded if is_task_event(event.data)]
    first = events[0]
    assert isinstance(first, TaskCreated)
    events[0] = first = first.model_copy(update={"given_id": given_id if given_id != str(task_id) else None})
    if lost := _lost_members(task_id, events, task):
        events[0] = first.model_copy(update={"extra": (first.extra or {}) | lost})
    return events


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
        recorded = [event.data for event in recording.events_of(StatusUpdate(given_id, None, status))]
        events += [data.model_copy(update={"task_id": task_id}) for data in recorded if is_task_event(data)]
    artifacts, artifacts_before = task.get("artifacts"), before.get("artifacts") or []
    events += [
        artifact_event(task_id, artifact, append=False, last_chunk=True)
        for artifact in (artifacts if isinstance(artifacts, list) else [])
        if isinstance(artifact, dict) and not any(json_equal(artifact, known) for known in artifacts_before)
    ]
    if lost := _lost_members(task_id, [*stored, *events], task):
        events.append(TaskDescribed(task_id=task_id, extra=extra | lost))
    return events


def _lost_members(task_id: UUID, events: Sequence[TaskEvent], task: Json) -> Json:
    """Return the members that the events do not restore; None for a member that they would add."""
    restored = _task_of(task_id, events)
    names = (task.keys() | restored.keys()) - {"id"}
    return {name: task.get(name) for name in names if not json_equal(task.get(name), restored.get(name))}


def _task_of(task_id: UUID, events: Sequence[TaskEvent]) -> Json:
    """Return the task that its events make, in the canonical form, although no log holds them."""
    nil = UUID(int=0)
    event = Event(0, datetime.now(UTC), 0, 1, nil, nil, "", "task.created", "", {}, {}, None, b"")
    return canonical_task(folded(task_id, event, events).wire([]))


# A conversation as the log has it, and which of it the store's own users have changed since it was taken over

MIGRATED = "migrated"
"""The member of an event's metadata that says that a migration brought it."""


def is_migrated(event: Event) -> bool:
    """Whether a migration brought an event."""
    return event.raw_metadata.get(MIGRATED) is True


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of the log.

    Attributes:
        time: when it happened; None where a migration brought it, and its source did not know.
        is_migrated: whether a migration brought it.
    """

    event_id: UUID
    sent: Json
    time: datetime | None
    is_migrated: bool = False


@dataclass(slots=True)
class StoredTask:
    """A task of the log.

    Attributes:
        changed: whether any event of it is not from a migration.
    """

    fold: TaskFold
    events: list[TaskEvent] = field(default_factory=list)
    changed: bool = False

    def wire(self, messages: list[Json]) -> Json:
        """Return the task as A2A JSON, given the messages of its conversation."""
        return self.fold.wire([each for each in messages if each.get("taskId") == self.fold.given_id])


class Stored:
    """A conversation of the log, with what distinguishes migrated events from others; of version 0 if there is none.

    Attributes:
        is_migrated: whether a migration began it.
        changed: which of ``name`` and ``is_active`` were set last by an event that is not from a migration.
        events: the application's events, by their ids.
        ignored: contents of its events that were not applied, and why.
    """

    def __init__(self, conversation_id: UUID) -> None:
        self.id = conversation_id
        self.version = 0
        self.is_migrated = False
        self.given_id = ""
        self.name = ""
        self.is_active = True
        self.is_deleted = False
        self.metadata: Json | None = None
        self.created_at: datetime | None = None
        self.changed: set[str] = set()
        self.messages: list[StoredMessage] = []
        self.tasks: dict[UUID, StoredTask] = {}
        self.events: dict[UUID, Event] = {}
        self.ignored: list[str] = []
        self._fold = ConversationFold(conversation_id)

    def apply(self, event: Event) -> None:
        """Apply the conversation's next event."""
        fold, data, migrated = self._fold, event.data, is_migrated(event)
        time = event.metadata.occurred_at if migrated else event.occurred_at
        if not self.version:
            self.is_migrated, self.created_at = migrated, time
        fold.apply(event)
        self.version, self.given_id, self.name, self.metadata = fold.version, fold.given_id, fold.name, fold.metadata
        self.is_active, self.is_deleted = fold.is_active, fold.is_deleted
        if isinstance(data, MessageAdded):
            self.messages.append(StoredMessage(event.id, fold.messages[event.id], time, migrated))
        elif is_task_event(data):
            task = self.tasks.setdefault(data.task_id, StoredTask(fold.tasks[data.task_id]))
            task.events.append(data)
            task.changed |= not migrated
        elif isinstance(data, ConversationCreated):
            if data.given_id not in (None, str(self.id)) and not own_given_id(event.tenant_id, self.id, data.given_id):
                problem = f"its given_id {data.given_id!r} is the name of another conversation"
                self.ignored.append(f"event {event.id}: {problem}")
            if data.name:
                self._set("name", migrated)
        elif isinstance(data, ConversationRenamed):
            self._set("name", migrated)
        elif isinstance(data, ConversationArchived | ConversationReactivated):
            self._set("is_active", migrated)
        elif isinstance(data, ApplicationEvent):
            self.events[event.id] = event

    def _set(self, what: str, migrated: bool) -> None:
        if migrated:
            self.changed.discard(what)
        else:
            self.changed.add(what)


async def read_events(log: Log, conversation_id: UUID) -> AsyncIterator[Event]:
    """The events of a conversation, in order of version."""
    version = 0
    while events := await log.events_of({conversation_id: version}):
        for event in events:
            yield event
        version = events[-1].version
        if len(events) < PAGE:
            return


async def read_stored(log: Log, conversation_id: UUID, until_version: int | None = None) -> Stored:
    """The conversation as the log has it now, or as it was at a version."""
    stored = Stored(conversation_id)
    async for event in read_events(log, conversation_id):
        if until_version is not None and event.version > until_version:
            break
        stored.apply(event)
    return stored
