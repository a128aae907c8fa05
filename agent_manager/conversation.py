"""A conversation and its tasks, folded from its events.

Read from the log, because a reader that has just written must see it at once, while the workers, under load, apply
events some times a second only. What was folded is kept, so that a further read is one look for events beyond it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from agent_manager.a2a import OPEN, apply_description, task_to_wire
from agent_manager.agents.recorder import RecordedTask, artifact_key
from eventstore import (
    AgentRegistered,
    AgentUnregistered,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationForked,
    ConversationReactivated,
    ConversationRenamed,
    Event,
    MessageAdded,
    MessageAnswered,
    Role,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDescribed,
    TaskStatus,
    TaskStatusChanged,
    sent_message,
)
from eventstore.ids import own_given_id
from projections import Task

# What the manager gives back, as plain values; messages, tasks and cards are plain JSON as it was on the wire

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ConversationView:
    """A conversation with everything in it. The messages are shared: do not change what is in them.

    Attributes:
        conversation_id: as the client gave it.
        id: in the log and the tables.
        is_active: False once it was archived.
        is_deleted: whether it is hidden.
        name: as it was named, else the first line of its first message, at most 255 characters.
        task_ids: of its tasks, as their agents gave them, in the order in which they began.
        messages: oldest first, as they were sent.
        event_ids: of the events that hold the messages.
        version: of its last event.
        created_at, updated_at: when its first and its latest event happened.
    """

    conversation_id: str
    id: UUID
    is_active: bool
    is_deleted: bool
    name: str
    task_ids: tuple[str, ...]
    messages: tuple[Json, ...]
    event_ids: tuple[UUID, ...]
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that is durable and awaits its answer.

    Attributes:
        conversation_id: as the client gave it; made here where the message named none.
        conversation: the same in the log and the tables.
        event_id: of the event that holds the message.
        message: as it is stored: ``taskId`` is that of the task which it continues.
        message_id: as the client gave it; repeats are possible.
        task_id: of the open task that it continues, as the agent gave it.
        position: of the event.
    """

    conversation_id: str
    conversation: UUID
    event_id: UUID
    message: Json
    message_id: str
    task_id: str | None
    position: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A message that awaits its answer.

    Attributes:
        status: what the agent said last of the task it works on; empty where it said nothing.
        since: when the message was accepted.
    """

    conversation_id: str
    conversation: UUID
    event_id: UUID
    message_id: str
    status: str
    since: datetime
    position: int


@dataclass(frozen=True, slots=True)
class EventView:
    """Something that happened, as a message that says it.

    Attributes:
        id: of the event in the log.
        actor: who caused it.
        event_type: in the log.
        content: the message that was sent, or one that holds what an agent said of a task, or produced.
        timestamp: when it happened.
    """

    id: str
    actor: str
    event_type: str
    conversation_id: str
    content: Json
    timestamp: datetime
    position: int


# A task as the manager shows it, folded from its events into what its row in the read tables will be

TaskEvent = TaskCreated | TaskStatusChanged | TaskDescribed | TaskArtifactAdded | TaskArtifactExtended

ACTIVE = frozenset((TaskStatus.PENDING, TaskStatus.IN_PROGRESS, TaskStatus.INPUT_REQUIRED, TaskStatus.AUTH_REQUIRED))
"""Statuses of a task that goes on: a further message of its conversation belongs to it."""
WAITING = frozenset((TaskStatus.INPUT_REQUIRED, TaskStatus.AUTH_REQUIRED))
"""Statuses of a task whose agent waits for the user."""
WORKING = "Working..."


class TaskFold:
    """A task, from its events.

    Attributes:
        given_id: as its agent gave it.
        position: of its first event.
        version: of its last event in the conversation.
        contexts: the ``contextId`` that each actor named last for it.
        description: what it is about.
    """

    def __init__(self, task_id: UUID, first: Event) -> None:
        self.given_id = str(task_id)
        self.position = first.position
        self._id = task_id
        self._is_named = False
        self._first = first
        self._updated_at: datetime = first.occurred_at
        self.version = first.version
        self.contexts: dict[str, str] = {}
        self._status = "unknown"
        self.description = ""
        self._metadata: Json | None = None
        self._extra: Json | None = None
        self._message: Json | None = None
        self._status_extra: Json | None = None
        self._artifacts: list[Json] = []
        self._said: list[Json] = []

    @property
    def is_open(self) -> bool:
        """Whether a further message of its conversation belongs to it."""
        return self._status in ACTIVE

    @property
    def is_waiting(self) -> bool:
        """Whether its agent waits for the user."""
        return self._status in WAITING

    @property
    def words(self) -> str:
        """The text of what the agent says of it; a word where it says something else, nothing where it says nothing."""
        if self._message is None:
            return ""
        parts = self._message.get("parts")
        texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        return next((text for text in texts if isinstance(text, str) and text), WORKING)

    def apply(self, event: Event, data: TaskEvent) -> None:
        """Applies the task's next event."""
        self.version = event.version
        self._updated_at = max(self._updated_at, event.occurred_at)
        update = None if isinstance(data, TaskCreated | TaskDescribed) else data.update
        if context := context_id_of(update) or context_id_of(data.extra):
            self.contexts[event.actor] = context
        match data:
            case TaskCreated():
                if data.given_id is not None and not self._is_named:
                    self.given_id, self._is_named = data.given_id, True
                self._status = str(data.status)
                self._describe(data)
            case TaskStatusChanged():
                if self._message is not None:
                    self._said.append(self._message)
                self._status, self._message, self._status_extra = str(data.status), data.message, data.extra
            case TaskDescribed():
                self._describe(data)
            case TaskArtifactAdded() | TaskArtifactExtended():
                chunk = {name: getattr(data, name) for name in _CHUNK}
                extends = isinstance(data, TaskArtifactExtended)
                continues = isinstance(data, TaskArtifactExtended) and data.continues_text is True
                self._artifacts.append(chunk | {"extends": extends, "continues_text": continues})

    def _describe(self, data: TaskCreated | TaskDescribed) -> None:
        self.description = self.description if data.description is None else data.description
        self._extra = apply_description(
            self._extra, data.extra, data.history if isinstance(data, TaskDescribed) else None
        )
        self._metadata = self._metadata if data.metadata is None else data.metadata

    @property
    def asked_by(self) -> str | None:
        """The id of the event of the message whose answer began it; None for one that was imported."""
        return self._first.metadata.causation_id

    def wire(self, messages: list[Json]) -> Json:
        """The task as A2A has it.

        Args:
            messages: those of its conversation that belong to it. They, and what the agent said of the task before, are
                its history where the agent gave none and the task began here.
        """
        task = task_to_wire(self.row)
        if self.asked_by is None or "history" in task:
            return task
        known = {message.get("messageId") for message in messages}
        history = [*messages, *(one for one in self._said if one.get("messageId") not in known)]
        return task | {"history": history} if history else task

    @property
    def seen(self) -> RecordedTask:
        """What is recorded of it, to tell what is new in what its agent shows."""
        shown = task_to_wire(self.row)
        artifacts = {artifact_key(artifact): artifact for artifact in shown.get("artifacts", [])}
        return RecordedTask(shown["status"], self._extra, self._metadata, artifacts)

    @property
    def row(self) -> Task:
        """Its row of the table ``tasks``."""
        event = self._first
        return Task(
            self._id, event.conversation_id, self._status, self.description, event.occurred_at, self._updated_at,
            self._metadata, event.tenant_id, self.given_id, self.version, self._message, self._artifacts,
            self._extra, self._status_extra,
        )  # fmt: skip


_CHUNK = ("artifact_id", "last_chunk", "name", "description", "parts", "extra", "metadata")


def context_id_of(members: Json | None) -> str | None:
    """Return the ``contextId`` among the members of a message, task or update."""
    context = (members or {}).get("contextId")
    return context if isinstance(context, str) and context else None


# A conversation as the manager shows it, folded from its own events

_EVENT_BYTES = 1500
"""About what an event's objects take beside the text of its content."""
_NAME_LENGTH = 255


class ConversationFold:
    """A conversation, from its events."""

    def __init__(self, conversation_id: UUID) -> None:
        self.id = conversation_id
        self.given_id = str(conversation_id)
        self.version = 0
        self.position = 0
        self.is_active = True
        self.is_deleted = False
        self.tasks: dict[UUID, TaskFold] = {}
        self.agents: dict[str, Json] = {}
        self.outcomes: dict[UUID, str] = {}
        self.replies: dict[str, Json] = {}
        self.messages: dict[UUID, Json] = {}
        self.requests: dict[UUID, tuple[str, int]] = {}
        """Of the messages that clients sent to be answered: actor and position."""
        self.bytes = 0
        self._places: dict[str, int] = {}
        """Of the messages, by the ids of their events."""
        self._events_of_task: defaultdict[str, list[str]] = defaultdict(list)
        """Of the messages that name a task, by the name that it has from its agent."""
        self._times_given: Counter[str] = Counter()
        self._task_of: dict[str, UUID] = {}
        self._caused: Counter[str] = Counter()
        self._contexts: dict[str, str] = {}
        self._name = ""
        self._created_at: datetime | None = None
        self._updated_at: datetime | None = None
        self._view: ConversationView | None = None

    def apply(self, event: Event) -> None:
        """Applies the conversation's next event."""
        self.version, self.position = event.version, event.position
        self.bytes += event.size + _EVENT_BYTES
        self._view = None
        if event.metadata.causation_id is not None:
            self._caused[event.metadata.causation_id] += 1
        happened = event.occurred_at
        self._created_at = self._created_at or happened
        self._updated_at = max(self._updated_at or happened, happened)
        match event.data:
            case MessageAdded() as data:
                self._said(event, data)
            case MessageAnswered() as data:
                self.outcomes[data.message_id] = data.outcome
            case (
                TaskCreated()
                | TaskStatusChanged()
                | TaskDescribed()
                | TaskArtifactAdded()
                | TaskArtifactExtended() as data
            ):
                task = self.tasks.setdefault(data.task_id, TaskFold(data.task_id, event))
                task.apply(event, data)
                if context := task.contexts.get(event.actor):
                    self._contexts[event.actor] = context
                if event.metadata.causation_id is not None:
                    self._task_of[event.metadata.causation_id] = data.task_id
            case ConversationCreated() | ConversationForked() | ConversationRenamed() as data:
                self._name = self._name if data.name is None else data.name
                if isinstance(data, ConversationCreated) and self.given_id == str(self.id):
                    self.given_id = own_given_id(event.tenant_id, self.id, data.given_id) or self.given_id
            case AgentRegistered() as data:
                self.agents[data.url] = data.card
            case AgentUnregistered() as data:
                self.agents.pop(data.url, None)
            case ConversationArchived():
                self.is_active = False
            case ConversationReactivated():
                self.is_active, self.is_deleted = True, False
            case ConversationDeleted():
                self.is_deleted = True

    def occurrences(self, message_id: str) -> int:
        """How many messages of this id there are."""
        return self._times_given[message_id]

    @property
    def open_task(self) -> str | None:
        """The id, as its agent gave it, of the task that a further message continues.

        That is the task of the last message if it is open, else the task that changed last if it waits for the user:
        agents need not name the task in the message that asks for input.
        """
        last = next(reversed(self.messages.values()), None)
        given_id = last.get("taskId") if last else None
        if given_id and any(task.given_id == given_id and task.is_open for task in self.tasks.values()):
            return str(given_id)
        latest = max(self.tasks.values(), key=lambda task: task.version, default=None)
        return latest.given_id or None if latest is not None and latest.is_waiting else None

    def contexts_of(self, task_id: str | None) -> dict[str, str]:
        """Return the ``contextId`` that each actor named last for a task or, if for no such task, in the conversation.

        By actor, so that an agent goes on in what it named itself: whoever may write to the conversation could
        otherwise lead it into the context of another one.
        """
        of_task = (task.contexts for task in self.tasks.values() if task.given_id == task_id)
        return self._contexts | next(of_task, {})

    def task_of(self, event_id: UUID) -> TaskFold | None:
        """The task on which the agent that answers a message works."""
        task_id = self._task_of.get(str(event_id))
        return None if task_id is None else self.tasks.get(task_id)

    def caused_by(self, event_id: UUID) -> int:
        """How many events name a message as their cause: those of its answer."""
        return self._caused[str(event_id)]

    def unfinished_tasks(self, event_id: UUID) -> list[TaskFold]:
        """The tasks that the answer to a message began or worked on last, and that their agent may still work on."""
        last = self.task_of(event_id)
        tasks = [task for task in self.tasks.values() if task.asked_by == str(event_id) or task is last]
        return [task for task in tasks if TaskStatus(task.row.status) in OPEN]

    def seen(self, given_id: str) -> RecordedTask | None:
        """Return what is recorded of the task that its agent calls so; None if there is none."""
        return next((task.seen for task in self.tasks.values() if task.given_id == given_id), None)

    def wire(self, task: TaskFold) -> Json:
        """One of its tasks, with the messages that belong to it."""
        belong = set(self._events_of_task.get(task.given_id, ()))
        if task.asked_by in self._places:
            belong.add(task.asked_by)
        messages = (self.messages[UUID(event_id)] for event_id in sorted(belong, key=self._places.__getitem__))
        return task.wire(list(messages))

    def reply_to(self, event_id: UUID) -> Json | None:
        """The last message of the answer to a message."""
        return self.replies.get(str(event_id))

    @property
    def view(self) -> ConversationView:
        """What the manager shows."""
        if self._view is None:
            assert self._created_at is not None
            assert self._updated_at is not None
            self._view = ConversationView(
                self.given_id,
                self.id,
                self.is_active,
                self.is_deleted,
                self._name or first_line(self.messages.values()),
                tuple(task.given_id for task in self.tasks.values()),
                tuple(self.messages.values()),
                tuple(self.messages),
                self.version,
                self._created_at,
                self._updated_at,
            )
        return self._view

    def _said(self, event: Event, data: MessageAdded) -> None:
        message = sent_message(data)
        event_id = str(event.id)
        self._places.setdefault(event_id, len(self._places))
        self.messages[event.id] = message
        if isinstance(message.get("taskId"), str):
            self._events_of_task[message["taskId"]].append(event_id)
        if data.awaits_answer:
            self.requests[event.id] = event.actor, event.position
        self._times_given[data.given_id or ""] += 1
        if data.role is Role.ASSISTANT and (context := context_id_of(data.extra)):
            self._contexts[event.actor] = context
        if event.metadata.causation_id is not None:
            self.replies[event.metadata.causation_id] = message


def first_line(messages: Iterable[Json]) -> str:
    """The first line of the first message that has a text, cut at what a name may have."""
    for message in messages:
        parts = message.get("parts")
        texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        for text in [*texts, message.get("content")]:
            if isinstance(text, str) and text.strip():
                return text.strip().splitlines()[0].strip()[:_NAME_LENGTH]
        return ""
    return ""
