"""Recording of an agent's answer as events.

A member of an update without a place of its own in an event is stored in the event's ``extra`` (members of a message,
task, status or artifact) or ``update`` (members of the update around them: ``contextId``, ``final``, ``append``). Ids
are stored as the agent sent them: an update for another task or context than that of the message is recorded in the
conversation that the agent answers in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any
from uuid import UUID

from agent_manager.a2a import (
    FINAL,
    Json,
    Version,
    agent_message,
    agent_role,
    append_chunk,
    artifact_delta,
    artifact_event,
    merge_texts,
    state_name,
    status_of,
    text_part,
    version_of,
)
from agent_manager.agents.agent import Answer, ArtifactUpdate, Reply, ReplyChunk, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.storable import storable_text
from agent_manager.errors import InvalidUpdate
from eventstore import (
    EventData,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDescribed,
    message_from_sent,
)
from eventstore.event_types import TaskStatus, TaskStatusChanged
from eventstore.ids import derived_uuid, is_canonical_uuid
from eventstore.message_format import ROLES

DEFAULT_ACTOR = "agent"
_TASK_MEMBERS = ("id", "status", "artifacts", "metadata")
"""Members of a task that have a place in its events; all others are stored in ``extra``."""
_ARTIFACT_MEMBERS = ("name", "description", "extra", "metadata")
"""Members of an artifact, beside its parts, that a chunk may repeat."""
_CHUNK_MEMBERS = ("append", "lastChunk")
"""Members of an update that say how it continues an artifact."""


@dataclass(slots=True)
class RecordedTask:
    """The recorded state of a task, as far as it is known: only what differs from it is recorded.

    Attributes:
        status: the status as it was sent; None if it is not known.
    """

    status: Json | None = None
    extra: Json | None = None
    metadata: Json | None = None
    artifacts: dict[str, Json] = field(default_factory=dict)


@dataclass(eq=False)
class Recording:
    """The recording of one answer.

    Attributes:
        conversation_id: the conversation of the message that is answered, whatever ``contextId`` the agent sends.
        answer: the agent; its ``name``, if it has one, becomes the actor of the events.
        description: the description of new tasks, usually the text of the message.
        known_task: returns the recorded state of a task by the id that the agent chose; None for a new task.
        causation_id: the cause of the events, usually the id of the message's event.
    """

    tenant: str
    conversation_id: UUID
    _: KW_ONLY
    answer: Answer | None = None
    description: str = ""
    known_task: Callable[[str], RecordedTask | None] | None = None
    causation_id: str | None = None
    _tasks: dict[str, RecordedTask] = field(default_factory=dict, init=False)
    _latest_task: str | None = field(default=None, init=False)

    @property
    def task_id(self) -> UUID | None:
        """The latest task of the answer; None if it has none."""
        return None if self._latest_task is None else self._task_uuid(self._latest_task)

    def events_of(self, update: Update) -> list[NewEvent]:
        """Return the events that store an update, to be appended together.

        Raises:
            InvalidUpdate: the update contains a task without an id.
            InvalidEvent: a value in it cannot be stored.
        """
        match update:
            case Reply(message) | ReplyChunk(message):
                return [self._reply(message)]
            case TaskSnapshot(task):
                events = self._snapshot(task)
            case StatusUpdate():
                events = self._status_update(update)
            case ArtifactUpdate():
                events = self._artifact_update(update)
        return [self._event(event) for event in events]

    def failed(self, reason: str) -> list[NewEvent]:
        """Return the events of a failure: the latest task has failed, unless it is in a final state."""
        if self._latest_task is None:
            return []
        recorded = self._tasks[self._latest_task]
        if recorded.status is not None and status_of(recorded.status.get("state")) in FINAL:
            return []
        version = version_of({"status": recorded.status})
        recorded.status = {"state": state_name(TaskStatus.FAILED, "0.3")}
        task_id = self._task_uuid(self._latest_task)
        return [self._event(task_failed(task_id, reason, self.causation_id, version))]

    def _reply(self, message: Json) -> NewEvent:
        message_id, role = message.get("messageId"), message.get("role")
        given_id = message_id if isinstance(message_id, str) else None
        if isinstance(role, str) and role in ROLES:
            event = message_from_sent(message, given_id=given_id)
        else:  # stored as the agent's message; the value that it sent as the role is returned all the same
            event = message_from_sent(message | {"role": agent_role(version_of(message))}, given_id=given_id)
            if "role" in message:
                event = event.model_copy(update={"extra": {**(event.extra or {}), "role": role}})
        return self._event(event)

    def _snapshot(self, task: Json) -> list[EventData]:
        given_id, status, artifacts = task.get("id"), task.get("status"), task.get("artifacts")
        if not isinstance(given_id, str):
            raise InvalidUpdate(f"the agent sent a task whose id is {given_id!r:.80}, expected a text")
        extra = {name: value for name, value in task.items() if name not in _TASK_MEMBERS}
        for name, kind in (("status", dict), ("artifacts", list), ("metadata", dict)):
            if name in task and not isinstance(task[name], kind):
                extra[name] = task[name]
        metadata = task["metadata"] if isinstance(task.get("metadata"), dict) else None
        status = status if isinstance(status, dict) else {}
        events = self._task_events(given_id, extra or None, metadata, status)
        # An artifact in a snapshot may be incomplete unless the task is completed.
        is_complete = status_of(status.get("state")) is TaskStatus.COMPLETED
        for artifact in artifacts if isinstance(artifacts, list) else []:
            events += self._artifact_snapshot(given_id, artifact, is_complete)
        return events

    def _status_update(self, update: StatusUpdate) -> list[EventData]:
        members = _update_members(update.context_id, update.extra) | ({"final": True} if update.final else {})
        created = self._created(update.task_id, update.context_id)
        return [*created, self._status_changed(update.task_id, update.status, members, update.metadata)]

    def _artifact_update(self, update: ArtifactUpdate) -> list[EventData]:
        members = _update_members(update.context_id, update.extra)
        if update.append:
            members["append"] = True
        if update.last_chunk is not None:
            members["lastChunk"] = update.last_chunk
        if update.metadata is not None:
            members["metadata"] = update.metadata
        created = self._created(update.task_id, update.context_id)
        artifacts, key = self._tasks[update.task_id].artifacts, artifact_key(update.artifact)
        known, chunk, append, continues = artifacts.get(key), update.artifact, update.append, False
        if not append and known is not None and (delta := artifact_delta(known, chunk)) is not None:
            (chunk, continues), append = delta, True
        artifacts[key] = append_chunk(known, chunk, continues=continues) if append and known is not None else chunk
        event = artifact_event(
            self._task_uuid(update.task_id), chunk, append=append, last_chunk=update.last_chunk is True,
            update=members, continues=continues,
        )  # fmt: skip
        return [*created, event]

    def _artifact_snapshot(self, given_id: str, artifact: Any, is_complete: bool) -> list[EventData]:
        """Return the event for the part of an artifact that is not recorded yet.

        Chunks whose texts the agent has merged into one part are recorded already.
        """
        sent = artifact if isinstance(artifact, dict) else {"value": artifact}
        artifacts, key, task_id = self._tasks[given_id].artifacts, artifact_key(sent), self._task_uuid(given_id)
        known = artifacts.get(key)
        if known is not None and (known == sent or merge_texts(known) == merge_texts(sent)):
            return []
        delta = known and (artifact_delta(known, sent) or artifact_delta(merge_texts(known), merge_texts(sent)))
        if known is None or not delta:
            artifacts[key] = sent
            return [artifact_event(task_id, sent, append=False, last_chunk=is_complete)]
        chunk, continues = delta
        artifacts[key] = append_chunk(known, chunk, continues=continues)
        return [artifact_event(task_id, chunk, append=True, last_chunk=is_complete, continues=continues)]

    def _created(self, given_id: str, context_id: str | None) -> list[EventData]:
        """Return the events that create a task whose first update is not a snapshot; none for a known task."""
        if self._recorded(given_id) is not None:
            return []
        return self._task_events(given_id, _update_members(context_id, None) or None, None, {"state": "submitted"})

    def _task_events(self, given_id: str, extra: Json | None, metadata: Json | None, status: Json) -> list[EventData]:
        """Return the events for a new task, or for the changes of a known one, and for its status."""
        task_id, recorded = self._task_uuid(given_id), self._recorded(given_id)
        events: list[EventData] = []
        if recorded is None:
            recorded = self._tasks[given_id] = RecordedTask()
            events.append(
                TaskCreated(
                    task_id=task_id, description=self.description, status=status_of(status.get("state")),
                    given_id=given_id if str(task_id) != given_id else None, extra=extra, metadata=metadata,
                )
            )  # fmt: skip
            if not _status_extra(status) and "message" not in status:
                recorded.status = status
        else:
            events += _changes(task_id, recorded, extra, metadata)
        recorded.extra = recorded.extra if extra is None else extra
        recorded.metadata = recorded.metadata if metadata is None else metadata
        if recorded.status != status and status:
            events.append(self._status_changed(given_id, status))
        return events

    def _status_changed(
        self, given_id: str, status: Json, update: Json | None = None, metadata: Json | None = None
    ) -> TaskStatusChanged:
        self._tasks[given_id].status = status
        message, extra = status.get("message"), _status_extra(status)
        if "message" in status and not isinstance(message, dict):
            extra["message"] = message
        return TaskStatusChanged(
            task_id=self._task_uuid(given_id),
            status=status_of(status.get("state")),
            message=message if isinstance(message, dict) else None,
            extra=extra or None,
            update=update or None,
            metadata=metadata,
        )

    def _recorded(self, given_id: str) -> RecordedTask | None:
        """Return the recorded state of a task, and make it the latest."""
        self._latest_task = given_id
        if given_id not in self._tasks and self.known_task is not None:
            known = self.known_task(given_id)
            if known is not None:
                self._tasks[given_id] = known
        return self._tasks.get(given_id)

    def _task_uuid(self, given_id: str) -> UUID:
        return task_uuid(self.tenant, self.conversation_id, given_id)

    def _event(self, data: EventData) -> NewEvent:
        return NewEvent(data, actor=actor_of(self.answer), metadata=Metadata(causation_id=self.causation_id))


def actor_of(answer: Answer | None) -> str:
    """Return the actor of the events of an agent's answer."""
    return storable_text(str(getattr(answer, "name", None) or DEFAULT_ACTOR))[:255]


def _changes(task_id: UUID, recorded: RecordedTask, extra: Json | None, metadata: Json | None) -> list[EventData]:
    """Return the event for the members of a task that changed; for a history that grew, it has the new messages."""
    extra = None if extra == recorded.extra else extra
    metadata = None if metadata == recorded.metadata else metadata
    if extra is None and metadata is None:
        return []
    known, history = recorded.extra or {}, None
    before, now = known.get("history"), (extra or {}).get("history")
    if extra is not None and isinstance(before, list) and isinstance(now, list) and now[: len(before)] == before:
        history = now[len(before) :]
        rest, known_rest = ({n: v for n, v in each.items() if n != "history"} for each in (extra, known))
        extra = None if rest == known_rest else rest
    return [TaskDescribed(task_id=task_id, extra=extra, history=history, metadata=metadata)]


def _status_extra(status: Json) -> Json:
    """Return the members of a status other than state and message; the state, too, if it is not 0.3's name."""
    extra = {name: value for name, value in status.items() if name not in ("state", "message")}
    if "state" in status and status["state"] != state_name(status_of(status["state"]), "0.3"):
        extra["state"] = status["state"]
    return extra


def _update_members(context_id: str | None, extra: Json | None) -> Json:
    return ({"contextId": context_id} if context_id is not None else {}) | (extra or {})


def artifact_key(artifact: Json) -> str:
    """Return the id of an artifact; an empty text if it has none."""
    key = artifact.get("artifactId")
    return key if isinstance(key, str) else ""


def task_failed(task_id: UUID, reason: str, causation_id: str | None, version: Version = "0.3") -> TaskStatusChanged:
    """Return the failure of a task that its agent did not report: the message of its status has the reason."""
    message_id = str(derived_uuid("failed", str(task_id), causation_id or ""))
    message = agent_message([text_part(reason, version)], version, message_id)
    return TaskStatusChanged(task_id=task_id, status=TaskStatus.FAILED, message=message, metadata={"error": reason})


def merged(events: Iterable[NewEvent]) -> list[NewEvent]:
    """Return the events, with consecutive chunks of an artifact in one event if nothing is lost by that."""
    result: list[NewEvent] = []
    for event in events:
        if result and (data := _merged(result[-1].data, event.data)) is not None:
            result[-1] = replace(result[-1], data=data)
        else:
            result.append(event)
    return result


def _merged(first: EventData, second: EventData) -> EventData | None:
    if not isinstance(first, TaskArtifactAdded | TaskArtifactExtended) or not isinstance(second, TaskArtifactExtended):
        return None
    if first.last_chunk or (first.task_id, first.artifact_id) != (second.task_id, second.artifact_id):
        return None
    if any(getattr(second, name) not in (None, getattr(first, name)) for name in _ARTIFACT_MEMBERS):
        return None
    members = [{n: v for n, v in (each.update or {}).items() if n not in _CHUNK_MEMBERS} for each in (first, second)]
    if members[0] != members[1]:
        return None
    whole = append_chunk({"parts": first.parts}, {"parts": second.parts}, continues=second.continues_text is True)
    update = dict(first.update or {})
    if second.update is not None and "lastChunk" in second.update:
        update["lastChunk"] = second.update["lastChunk"]
    return first.model_copy(update={"parts": whole["parts"], "last_chunk": second.last_chunk, "update": update or None})


def task_uuid(tenant: str, conversation_id: UUID, given_id: str) -> UUID:
    """Return the id of a task by the id that its agent gave it in a conversation."""
    if is_canonical_uuid(given_id):
        return UUID(given_id)
    return derived_uuid("task", tenant, str(conversation_id), given_id, 0)
