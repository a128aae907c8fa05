"""Tasks of a source as events, and back: what A2A has a place for in its place, and nothing left out.

The events are those that an agent's own words become (:mod:`agent_manager.agents.recording`). Where a task would not
come back from them as it was, as where two of its artifacts have one id, its ``extra`` holds the member as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeGuard, get_args
from uuid import UUID

from agent_manager.agents.answering import StatusUpdate, TaskSeen
from agent_manager.agents.artifacts import artifact_event
from agent_manager.agents.recording import Recording, Seen
from agent_manager.manager.taskfold import TaskEvent, TaskFold
from agent_manager.migrating.wire import Json, canonical_task, text_member
from eventstore import Event, EventData, TaskCreated, TaskDescribed
from eventstore.jsontext import equal

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
    seen = [event.data for event in recording.events_of(TaskSeen(task | {"id": given_id}))]
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
        recording = Recording(tenant, conversation_id, known_task={given_id: Seen()}.get)
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
