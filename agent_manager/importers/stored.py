"""A conversation and its tasks as the log has them.

The events are those that an agent's own words become (:mod:`agent_manager.agents.recorder`). Where a task would not
come back from them as it was, as where two of its artifacts have one id, its ``extra`` holds the member as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeGuard, get_args
from uuid import UUID

from agent_manager.a2a import artifact_event
from agent_manager.agents.agent import StatusUpdate, TaskSnapshot
from agent_manager.agents.recorder import RecordedTask, Recording
from agent_manager.conversation import ConversationFold, TaskEvent, TaskFold
from agent_manager.importers.source import Json, canonical_task, text_member
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
from eventstore.json_text import equal

# Tasks of a source as events, and back: what A2A has a place for in its place, and nothing left out

_PLACED = ("id", "status", "artifacts", "metadata")


def is_task_event(data: EventData) -> TypeGuard[TaskEvent]:
    """Whether an event is one of a task."""
    return isinstance(data, get_args(TaskEvent))


def folded(task_id: UUID, first: Event, events: Sequence[TaskEvent]) -> TaskFold:
    """The task that its events make; ``first`` is the event in the log that the first of them stands in."""
    fold = TaskFold(task_id, first)
    for data in events:
        fold.apply(first, data)
    return fold


def begun(tenant: str, conversation_id: UUID, task_id: UUID, task: Json) -> list[TaskEvent]:
    """The events of a task that the log does not have."""
    given_id = text_member(task, "id")
    recording = Recording(tenant, conversation_id)
    seen = [event.data for event in recording.events_of(TaskSnapshot(task | {"id": given_id}))]
    events = [data.model_copy(update={"task_id": task_id}) for data in seen if is_task_event(data)]
    first = events[0]
    assert isinstance(first, TaskCreated)
    first = first.model_copy(update={"given_id": given_id if given_id != str(task_id) else None})
    events[0] = first
    if missing := _differing(task_id, events, task):
        events[0] = first.model_copy(update={"extra": (first.extra or {}) | missing})
    return events


def gone_on(
    tenant: str, conversation_id: UUID, task_id: UUID, known: Sequence[TaskEvent], task: Json
) -> list[TaskEvent]:
    """The further events of a task that has changed at its source."""
    fold = folded(task_id, _nowhere(), known)
    before = canonical_task(fold.wire([]))
    events: list[TaskEvent] = []
    rest, known_rest = ({name: one[name] for name in one if name not in _PLACED} for one in (task, before))
    if not equal([rest, task.get("metadata")], [known_rest, before.get("metadata")]):
        metadata = task.get("metadata") if isinstance(task.get("metadata"), dict) else None
        events.append(TaskDescribed(task_id=task_id, extra=rest, metadata=metadata))
    status = task.get("status")
    if isinstance(status, dict) and not equal(status, before.get("status")):
        given_id = text_member(task, "id")
        recording = Recording(tenant, conversation_id, known_task={given_id: RecordedTask()}.get)
        said = [event.data for event in recording.events_of(StatusUpdate(given_id, None, status))]
        events += [data.model_copy(update={"task_id": task_id}) for data in said if is_task_event(data)]
    artifacts, known_artifacts = task.get("artifacts"), before.get("artifacts") or []
    events += [
        artifact_event(task_id, artifact, append=False, last_chunk=True)
        for artifact in (artifacts if isinstance(artifacts, list) else [])
        if isinstance(artifact, dict) and not any(equal(artifact, one) for one in known_artifacts)
    ]
    if missing := _differing(task_id, [*known, *events], task):
        events.append(TaskDescribed(task_id=task_id, extra=rest | missing))
    return events


def _differing(task_id: UUID, events: Sequence[TaskEvent], task: Json) -> Json:
    """The members that would not come back as they are; None for one that would come back and is not there."""
    back = canonical_task(folded(task_id, _nowhere(), events).wire([]))
    names = (task.keys() | back.keys()) - {"id"}
    return {name: task.get(name) for name in names if not equal(task.get(name), back.get(name))}


def _nowhere() -> Event:
    """An event of no log, for a task that is only tried."""
    nobody = UUID(int=0)
    return Event(0, datetime.now(UTC), 0, 1, nobody, nobody, "", "task.created", "", {}, {}, None, b"")


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
