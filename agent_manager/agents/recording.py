"""One answering as events: what an agent's updates become in the log, as they arrive and with nothing left out.

A member of an update that has no place of its own in an event stands in the event's ``extra`` (members of a message,
task, status or artifact) or ``update`` (members of the update around them: ``contextId``, ``final``, ``append``). Ids
are kept as they came, whatever was asked for: an agent that speaks of another task or context than its caller is
recorded, in the conversation that it answers in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from agent_manager.agents.answering import Answer, ArtifactUpdate, Reply, StatusUpdate, TaskSeen, Update
from agent_manager.agents.artifacts import artifact_event, growth, joined, merged
from agent_manager.agents.errors import InvalidUpdate
from agent_manager.agents.storable import storable_text
from agent_manager.agents.wire import FINAL, Json, agent_role, shape_of, state_word, status_of
from eventstore import EventData, Metadata, NewEvent, message_from_sent
from eventstore.eventdata import TaskStatus
from eventstore.ids import derived_uuid, is_canonical_uuid
from eventstore.sent import ROLES
from eventstore.vocabulary import TaskCreated, TaskDescribed, TaskStatusChanged

DEFAULT_ACTOR = "agent"
_TASK_PLACES = ("id", "status", "artifacts", "metadata")


def task_uuid(tenant: str, conversation_id: UUID, text: str) -> UUID:
    """The id of the task that an agent calls ``text`` in a conversation."""
    return UUID(text) if is_canonical_uuid(text) else derived_uuid("task", tenant, str(conversation_id), text, 0)


def agent_name(answer: Answer | None) -> str:
    """Return the actor of the events that an agent causes."""
    return storable_text(str(getattr(answer, "name", None) or DEFAULT_ACTOR))[:255]


@dataclass(slots=True)
class Seen:
    """What is recorded of a task, as far as it is known: only what differs from it is recorded again.

    Attributes:
        status: as it was sent; None if it is not known.
        extra: further members of the task, such as its history.
        artifacts: as they were sent, by their ids.
    """

    status: Json | None = None
    extra: Json | None = None
    metadata: Json | None = None
    artifacts: dict[str, Json] = field(default_factory=dict)


class Recording:
    """Keeps the state of one answering.

    Args:
        tenant: of the conversation.
        conversation_id: that is being answered in, whatever contextId the agent writes.
        answer: what answers; its ``name``, where it has one, becomes the actor of the events.
        description: of tasks that begin now, usually the text of the message.
        known_task: what is recorded of a task of the conversation, by its id as the agent gave it; None if it begins.
        causation_id: of the events, usually the id of the message's event.
        message_id: gives the event's id for a reply's ``messageId``; a new one each time where it is not given.
    """

    def __init__(
        self,
        tenant: str,
        conversation_id: UUID,
        *,
        answer: Answer | None = None,
        description: str = "",
        known_task: Callable[[str], Seen | None] | None = None,
        causation_id: str | None = None,
        message_id: Callable[[str], UUID] | None = None,
    ) -> None:
        self._scope = (tenant, conversation_id)
        self._answer = answer
        self._description = description
        self._known_task = known_task
        self._tasks: dict[str, Seen] = {}
        self._metadata = Metadata(causation_id=causation_id)
        self._message_id = message_id
        self._last_task: str | None = None

    @property
    def task_id(self) -> UUID | None:
        """The task that the agent spoke of last, if it spoke of any."""
        return None if self._last_task is None else task_uuid(*self._scope, self._last_task)

    def events_of(self, update: Update) -> list[NewEvent]:
        """The events that keep an update, to be appended together.

        Raises:
            InvalidUpdate: it holds a task without an id.
            InvalidEvent: a value in it cannot be stored.
        """
        match update:
            case Reply(message):
                return [self._reply(message)]
            case TaskSeen(task):
                events = self._task_seen(task)
            case StatusUpdate():
                events = self._status_update(update)
            case ArtifactUpdate():
                events = self._artifact_update(update)
        return [self._event(event) for event in events]

    def failed(self, reason: str) -> list[NewEvent]:
        """How a failed answering ends: the task that it spoke of last has failed, if it had not come to its end."""
        if self._last_task is None:
            return []
        seen = self._tasks[self._last_task]
        if seen.status is not None and status_of(seen.status.get("state")) in FINAL:
            return []
        task_id = task_uuid(*self._scope, self._last_task)
        seen.status = {"state": state_word(TaskStatus.FAILED, "0.3")}
        return [self._event(TaskStatusChanged(task_id=task_id, status=TaskStatus.FAILED, metadata={"error": reason}))]

    def _reply(self, message: Json) -> NewEvent:
        given_id = message.get("messageId")
        text = given_id if isinstance(given_id, str) else None
        role = message.get("role")
        if isinstance(role, str) and role in ROLES:
            event = message_from_sent(message, given_id=text)
        else:  # it answers, so it is the agent; what it wrote is given back all the same
            event = message_from_sent(message | {"role": agent_role(shape_of(message))}, given_id=text)
            if "role" in message:
                event = event.model_copy(update={"extra": {**(event.extra or {}), "role": role}})
        return self._event(event, self._message_id(text) if self._message_id and text is not None else None)

    def _task_seen(self, task: Json) -> list[EventData]:
        text = task.get("id")
        if not isinstance(text, str):
            raise InvalidUpdate(f"the agent sent a task whose id is {text!r:.80}, expected a text")
        status = task.get("status")
        kept = {name: value for name, value in task.items() if name not in _TASK_PLACES}
        for name, kind in (("status", dict), ("artifacts", list), ("metadata", dict)):
            if name in task and not isinstance(task[name], kind):
                kept[name] = task[name]
        metadata = task["metadata"] if isinstance(task.get("metadata"), dict) else None
        events = self._told(text, kept or None, metadata, status if isinstance(status, dict) else {})
        artifacts = task.get("artifacts")
        # Unless the task is completed, what the agent shows of an artifact need not be all of it.
        is_whole = status_of(status.get("state") if isinstance(status, dict) else None) is TaskStatus.COMPLETED
        for artifact in artifacts if isinstance(artifacts, list) else []:
            events += self._artifact_seen(text, artifact, is_whole)
        return events

    def _told(self, text: str, extra: Json | None, metadata: Json | None, status: Json) -> list[EventData]:
        """A task begins, or what is said of it has changed; and its status."""
        task_id, seen = task_uuid(*self._scope, text), self._seen(text)
        events: list[EventData] = []
        if seen is None:
            seen = self._tasks[text] = Seen()
            given_id = text if str(task_id) != text else None
            events.append(
                TaskCreated(
                    task_id=task_id, description=self._description, status=status_of(status.get("state")),
                    given_id=given_id, extra=extra, metadata=metadata,
                )
            )  # fmt: skip
            if not _status_members(status) and "message" not in status:
                seen.status = status
        else:
            events += _described(task_id, seen, extra, metadata)
        seen.extra = seen.extra if extra is None else extra
        seen.metadata = seen.metadata if metadata is None else metadata
        if seen.status != status and status:
            events.append(self._status_changed(text, status))
        return events

    def _seen(self, text: str) -> Seen | None:
        """What is recorded of the task that the agent speaks of now."""
        self._last_task = text
        if text not in self._tasks and self._known_task is not None and (known := self._known_task(text)) is not None:
            self._tasks[text] = known
        return self._tasks.get(text)

    def _status_update(self, update: StatusUpdate) -> list[EventData]:
        around = _around(update.context_id, update.extra) | ({"final": True} if update.final else {})
        began = self._begun(update.task_id, update.context_id)
        return [*began, self._status_changed(update.task_id, update.status, around, update.metadata)]

    def _status_changed(
        self, text: str, status: Json, update: Json | None = None, metadata: Json | None = None
    ) -> TaskStatusChanged:
        self._tasks[text].status = status
        message = status.get("message")
        extra = _status_members(status)
        if "message" in status and not isinstance(message, dict):
            extra["message"] = message
        return TaskStatusChanged(
            task_id=task_uuid(*self._scope, text),
            status=status_of(status.get("state")),
            message=message if isinstance(message, dict) else None,
            extra=extra or None,
            update=update or None,
            metadata=metadata,
        )

    def _artifact_update(self, update: ArtifactUpdate) -> list[EventData]:
        around = _around(update.context_id, update.extra)
        if update.append:
            around["append"] = True
        if update.last_chunk is not None:
            around["lastChunk"] = update.last_chunk
        if update.metadata is not None:
            around["metadata"] = update.metadata
        began = self._begun(update.task_id, update.context_id)
        artifacts, key = self._tasks[update.task_id].artifacts, artifact_key(update.artifact)
        known, chunk, append, continues = artifacts.get(key), update.artifact, update.append, False
        if not append and known is not None and (grown := growth(known, chunk)) is not None:
            (chunk, continues), append = grown, True
        artifacts[key] = joined(known, chunk, continues=continues) if append and known is not None else chunk
        event = artifact_event(
            task_uuid(*self._scope, update.task_id), chunk, append=append, last_chunk=update.last_chunk is True,
            update=around, continues=continues,
        )  # fmt: skip
        return [*began, event]

    def _artifact_seen(self, text: str, artifact: Any, is_whole: bool) -> list[EventData]:
        """Of an artifact of a task that is shown whole: what is not recorded yet.

        Texts of several chunks that the agent has put together into one part are recorded already.
        """
        sent = artifact if isinstance(artifact, dict) else {"value": artifact}
        artifacts, key, task_id = self._tasks[text].artifacts, artifact_key(sent), task_uuid(*self._scope, text)
        known = artifacts.get(key)
        if known is None:
            artifacts[key] = sent
            return [artifact_event(task_id, sent, append=False, last_chunk=is_whole)]
        if known == sent or merged(known) == merged(sent):
            return []
        grown = growth(known, sent) or growth(merged(known), merged(sent))
        chunk, continues = grown if grown is not None else (sent, False)
        artifacts[key] = sent if grown is None else joined(known, chunk, continues=continues)
        append = grown is not None
        return [artifact_event(task_id, chunk, append=append, last_chunk=is_whole, continues=continues)]

    def _begun(self, text: str, context_id: str | None) -> list[EventData]:
        """A task that nobody announced begins with its first update."""
        if self._seen(text) is not None:
            return []
        return self._told(text, _around(context_id, None) or None, None, {"state": "submitted"})

    def _event(self, data: EventData, event_id: UUID | None = None) -> NewEvent:
        return NewEvent(data, id=event_id or uuid4(), actor=agent_name(self._answer), metadata=self._metadata)


def _described(task_id: UUID, seen: Seen, extra: Json | None, metadata: Json | None) -> list[EventData]:
    """What is new about a task; of a history that has grown, the messages that came to it."""
    extra = None if extra == seen.extra else extra
    metadata = None if metadata == seen.metadata else metadata
    if extra is None and metadata is None:
        return []
    history = None
    before, now = (seen.extra or {}).get("history"), (extra or {}).get("history")
    if extra is not None and isinstance(before, list) and isinstance(now, list) and now[: len(before)] == before:
        history = now[len(before) :]
        rest, known = ({n: v for n, v in one.items() if n != "history"} for one in (extra, seen.extra or {}))
        extra = None if rest == known else rest
    return [TaskDescribed(task_id=task_id, extra=extra, history=history, metadata=metadata)]


def _status_members(status: Json) -> Json:
    """What a status holds beside state and message; the state's word where it is not 0.3's own."""
    extra = {name: value for name, value in status.items() if name not in ("state", "message")}
    if "state" in status and status["state"] != state_word(status_of(status["state"]), "0.3"):
        extra["state"] = status["state"]
    return extra


def _around(context_id: str | None, extra: Json | None) -> Json:
    return ({"contextId": context_id} if context_id is not None else {}) | (extra or {})


def artifact_key(artifact: Json) -> str:
    """Return what tells an artifact from others of its task."""
    key = artifact.get("artifactId")
    return key if isinstance(key, str) else ""
