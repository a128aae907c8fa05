"""Conversations and tasks folded from events: the only fold in Python.

The manager reads from the log, because a client that has just written must see its own event at once, whereas the
workers apply events to the read tables a few times per second under load. Folds are kept
(:mod:`agent_manager.conversation_cache`), so a further read only fetches the events that follow.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from agent_manager.a2a import (
    OPEN,
    Json,
    Version,
    agent_message,
    apply_description,
    first_text,
    readable_state,
    state_name,
    task_to_wire,
    text_part,
    version_of,
)
from agent_manager.accepted_messages import Pending
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
    ConversationRewound,
    Event,
    MessageAdded,
    MessageAnswered,
    Role,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCancelRequested,
    TaskCreated,
    TaskDeleted,
    TaskDescribed,
    TaskPushNotificationDeleted,
    TaskPushNotificationSet,
    TaskStatus,
    TaskStatusChanged,
    sent_message,
)
from eventstore.ids import own_given_id
from projections import Task

TaskEvent = TaskCreated | TaskStatusChanged | TaskDescribed | TaskArtifactAdded | TaskArtifactExtended

WAITING = frozenset((TaskStatus.INPUT_REQUIRED, TaskStatus.AUTH_REQUIRED))
"""Statuses of a task whose agent waits for the user."""
ACTIVE = OPEN | WAITING
"""Statuses of a task that is continued by the next message of its conversation."""

_EVENT_BYTES = 1500
"""Approximate size of an event's objects, apart from the text of its content."""
_NAME_LENGTH = 255


@dataclass(frozen=True, slots=True)
class ConversationView:
    """A conversation with its messages. The messages are shared: do not modify them.

    Attributes:
        conversation_id: the id that the client chose.
        id: the id in the log and the tables.
        is_active: False after it was archived.
        is_deleted: whether lists hide it.
        name: the name that was set, else the first line of the first message, at most 255 characters.
        task_ids: the ids that agents chose for its tasks, in the order in which the tasks began.
        messages: the messages as they were sent, oldest first.
        event_ids: the ids of the messages' events.
        version: the version of its last event.
        created_at, updated_at: the times of its first and its latest event.
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


class Summary(NamedTuple):
    """The facts about a conversation that lists of events need.

    Attributes:
        version: the version of the conversation to which the facts apply.
        given_id: the id that the client chose.
        a2a_version: the A2A version of its first message; None if it has no messages.
        tasks: the ids that agents chose for its tasks, and the positions where they began, by the tasks' own ids.
        rewinds: the versions to which it went back, and those of the events that did so.
    """

    version: int
    given_id: str
    is_deleted: bool
    a2a_version: Version | None
    tasks: dict[UUID, tuple[str, int]]
    rewinds: tuple[tuple[int, int], ...] = ()

    def hides(self, version: int) -> bool:
        """Return whether the conversation went back to a time before the event with a version."""
        return any(to_version < version < at_version for to_version, at_version in self.rewinds)


@dataclass(frozen=True, slots=True)
class EventView:
    """An event as a message that represents it.

    Attributes:
        id: the id of the event in the log.
        actor: the user, agent or system that caused the event.
        event_type: the type of the event in the log.
        content: the message that was sent, or one made of an agent's status or artifact.
        timestamp: the time when the event happened.
    """

    id: str
    actor: str
    event_type: str
    conversation_id: str
    content: Json
    timestamp: datetime
    position: int


@dataclass(frozen=True, slots=True)
class Request:
    """A message that a client sent to be answered.

    Attributes:
        message_id: the id that the client chose.
        sent_at: the time when the event happened.
        position: the position of the event.
    """

    actor: str
    message_id: str | None
    sent_at: datetime
    position: int


class ConversationFold:
    """The state of a conversation after its events.

    Attributes:
        given_id: the id that the client chose.
        version: the version of its last event.
        source: of a fork, the conversation that it continues, and the version up to which it does.
        name: the name that the latest event set; :attr:`view` replaces an empty one.
        metadata: the metadata that the latest event set.
        tasks: the tasks by their ids, in the order in which they began.
        agents: the cards of registered agents, by URL.
        messages: the messages as they were sent, by the ids of their events.
        requests: the messages that clients sent to be answered, by the ids of their events.
        outcomes: the outcomes of answers, by the ids of the messages' events.
        bytes: the approximate size in memory.
    """

    def __init__(self, conversation_id: UUID) -> None:
        self.id = conversation_id
        self.given_id = str(conversation_id)
        self.version = 0
        self.source: tuple[UUID, int] | None = None
        self.is_active = True
        self.is_deleted = False
        self.name = ""
        self.metadata: Json | None = None
        self.tasks: dict[UUID, TaskFold] = {}
        self.agents: dict[str, Json] = {}
        self.messages: dict[UUID, Json] = {}
        self.requests: dict[UUID, Request] = {}
        self.outcomes: dict[UUID, str] = {}
        self.bytes = 0
        self._created_at: datetime | None = None
        self._updated_at: datetime | None = None
        self._contexts: dict[str, str] = {}
        self._message_numbers: dict[str, int] = {}
        self._message_versions: list[int] = []
        self._messages_by_task: defaultdict[str, list[str]] = defaultdict(list)
        self._message_id_counts: Counter[str] = Counter()
        self._cause_counts: Counter[str] = Counter()
        self._replies: dict[str, Json] = {}
        self._tasks_by_cause: dict[str, UUID] = {}
        self._rewinds: tuple[tuple[int, int], ...] = ()
        self._view: ConversationView | None = None

    def apply(self, event: Event) -> None:
        """Apply the conversation's next event."""
        self.version = event.version
        self.bytes += event.size + _EVENT_BYTES
        self._view = None
        occurred_at, cause = event.occurred_at, event.metadata.causation_id
        self._created_at = self._created_at or occurred_at
        self._updated_at = max(self._updated_at or occurred_at, occurred_at)
        if cause is not None:
            self._cause_counts[cause] += 1
        match event.data:
            case MessageAdded() as data:
                self._add_message(event, data)
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
                if cause is not None:
                    self._tasks_by_cause[cause] = data.task_id
            case TaskDeleted() as data:
                self._delete_task(data.task_id)
            case TaskCancelRequested() as data:
                if (known := self.tasks.get(data.task_id)) is not None:
                    known.cancel_requests.add(event.id)
            case TaskPushNotificationSet() | TaskPushNotificationDeleted() as data:
                if (known := self.tasks.get(data.task_id)) is not None:
                    known.set_push_notification(event.actor, data)
            case ConversationCreated() | ConversationForked() | ConversationRenamed() as data:
                self.name = self.name if data.name is None else data.name
                if not isinstance(data, ConversationRenamed):
                    self.metadata = self.metadata if data.metadata is None else data.metadata
                if isinstance(data, ConversationForked) and event.version == 1:
                    self.source = data.source_conversation_id, data.source_version
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
            case ConversationRewound(to_version=version):
                self._rewind(version, event.version)

    def _delete_task(self, task_id: UUID) -> None:
        self.tasks.pop(task_id, None)
        self._tasks_by_cause = {cause: each for cause, each in self._tasks_by_cause.items() if each != task_id}

    def _add_message(self, event: Event, data: MessageAdded) -> None:
        message = sent_message(data)
        event_id, task_id = str(event.id), message.get("taskId")
        self.messages[event.id] = message
        self._message_versions.append(event.version)
        self._message_numbers.setdefault(event_id, len(self._message_numbers))
        self._message_id_counts[data.given_id or ""] += 1
        if isinstance(task_id, str):
            self._messages_by_task[task_id].append(event_id)
        if data.awaits_answer:
            self.requests[event.id] = Request(event.actor, data.given_id, event.occurred_at, event.position)
        if data.role is Role.ASSISTANT and (context := _context_id(data.extra)):
            self._contexts[event.actor] = context
        if event.metadata.causation_id is not None:
            self._replies[event.metadata.causation_id] = message

    def _rewind(self, to_version: int, version: int) -> None:
        self._rewinds = (*self._rewinds, (to_version, version))
        kept = bisect_right(self._message_versions, to_version)
        for event_id in list(self.messages)[kept:]:
            del self.messages[event_id], self._message_numbers[str(event_id)]
            self.requests.pop(event_id, None)
        del self._message_versions[kept:]
        for event_ids in self._messages_by_task.values():
            event_ids[:] = [event_id for event_id in event_ids if event_id in self._message_numbers]
        self.tasks = {task_id: task for task_id, task in self.tasks.items() if task.first_version <= to_version}

    @property
    def view(self) -> ConversationView:
        """The conversation as the manager returns it."""
        if self._view is None:
            assert self._created_at is not None
            assert self._updated_at is not None
            self._view = ConversationView(
                self.given_id,
                self.id,
                self.is_active,
                self.is_deleted,
                self.name or _first_line(self.messages.values()),
                tuple(task.given_id for task in self.tasks.values()),
                tuple(self.messages.values()),
                tuple(self.messages),
                self.version,
                self._created_at,
                self._updated_at,
            )
        return self._view

    def wire(self, task: TaskFold) -> Json:
        """Return one of the conversation's tasks as A2A JSON, with the messages that belong to it."""
        numbers = self._message_numbers
        event_ids = set(self._messages_by_task.get(task.given_id, ()))
        if task.causation_id in numbers:
            event_ids.add(task.causation_id)
        return task.wire([self.messages[UUID(event_id)] for event_id in sorted(event_ids, key=numbers.__getitem__)])

    def messages_up_to(self, version: int) -> dict[UUID, Json]:
        """Return the messages that the conversation had at a version."""
        return dict(islice(self.messages.items(), bisect_right(self._message_versions, version)))

    def message_version(self, event_id: UUID) -> int:
        """Return the version of a message's event."""
        return self._message_versions[self._message_numbers[str(event_id)]]

    def view_with(self, shared: dict[UUID, Json]) -> ConversationView:
        """Return :attr:`view` of a fork, which begins with the messages that it shares."""
        messages = (*shared.values(), *self.view.messages)
        name = self.name or _first_line(messages)
        return replace(self.view, messages=messages, event_ids=(*shared, *self.view.event_ids), name=name)

    @property
    def open_task(self) -> str | None:
        """The id, chosen by its agent, of the task that the next message continues.

        It is the task of the last message if that is open, else the latest task if it waits for the user: agents need
        not name the task in the message that asks for input.
        """
        last = next(reversed(self.messages.values()), None)
        given_id = last.get("taskId") if last else None
        if given_id and any(task.given_id == given_id and task.status in ACTIVE for task in self.tasks.values()):
            return str(given_id)
        latest = max(self.tasks.values(), key=lambda task: task.version, default=None)
        return latest.given_id or None if latest is not None and latest.status in WAITING else None

    def message_count(self, message_id: str) -> int:
        """Return the number of messages that have an id."""
        return self._message_id_counts[message_id]

    def reply_to(self, event_id: UUID) -> Json | None:
        """Return the last message of the answer to a message."""
        return self._replies.get(str(event_id))

    def task_of(self, event_id: UUID) -> TaskFold | None:
        """Return the latest task of the answer to a message."""
        task_id = self._tasks_by_cause.get(str(event_id))
        return None if task_id is None else self.tasks.get(task_id)

    def unfinished_tasks(self, event_id: UUID) -> list[TaskFold]:
        """Return the tasks that the answer to a message began or changed last, and that are still open."""
        latest = self.task_of(event_id)
        tasks = [task for task in self.tasks.values() if task.causation_id == str(event_id) or task is latest]
        return [task for task in tasks if task.status in OPEN]

    def caused_by(self, event_id: UUID) -> int:
        """Return the number of events that name a message as their cause: those of its answer."""
        return self._cause_counts[str(event_id)]

    @property
    def summary(self) -> Summary:
        """The facts about the conversation that lists of events need."""
        first = next(iter(self.messages.values()), None)
        version = None if first is None else version_of(first)
        tasks = {task_id: (task.given_id, task.position) for task_id, task in self.tasks.items()}
        return Summary(self.version, self.given_id, self.is_deleted, version, tasks, self._rewinds)

    def pending(self, event_id: UUID) -> Pending:
        """Return one of the conversation's requests as a message that awaits its answer."""
        request, task = self.requests[event_id], self.task_of(event_id)
        status = "" if task is None else task.status_text
        message_id = request.message_id or ""
        return Pending(self.given_id, self.id, event_id, message_id, status, request.sent_at, request.position)

    def recorded_task(self, given_id: str) -> RecordedTask | None:
        """Return the recorded state of a task by the id that its agent chose; None if there is none."""
        return next((task.recorded for task in self.tasks.values() if task.given_id == given_id), None)

    def contexts_of(self, task_id: str | None) -> dict[str, str]:
        """Return, by actor, the latest ``contextId`` of a task or, if there is no such task, of the conversation.

        An agent receives only the ``contextId`` that it chose itself. Otherwise a writer of this conversation could
        direct it to the context of another one.
        """
        of_task = (task.contexts for task in self.tasks.values() if task.given_id == task_id)
        return self._contexts | next(of_task, {})


class PushNotification(NamedTuple):
    """A setting of push notifications, without its secrets, and who set it."""

    actor: str
    config: Json


class TaskFold:
    """The state of a task after its events.

    Attributes:
        id: the id of the task in the tables.
        given_id: the id that the agent chose.
        actor: the actor of its first event.
        first_id: the id that its first event gave it; None if that event did not create it.
        position: the position of its first event.
        first_version, version: the versions of its first and its last event in the conversation.
        contexts: the latest ``contextId`` by actor.
        cancel_requests: the ids of the events that requested to cancel it.
        push_notifications: the settings of push notifications by their ids, without their secrets.
        description: the subject, such as the text of the message that the task answers.
        causation_id: the event of the message whose answer began the task; None if it was imported.
    """

    def __init__(self, task_id: UUID, first: Event) -> None:
        self.id = task_id
        self.given_id = str(task_id)
        self.actor = first.actor
        self.first_id = (first.data.given_id or str(task_id)) if isinstance(first.data, TaskCreated) else None
        self.position = first.position
        self.first_version = self.version = first.version
        self.contexts: dict[str, str] = {}
        self.cancel_requests: set[UUID] = set()
        self.push_notifications: dict[str, PushNotification] = {}
        self.description = ""
        self.causation_id = first.metadata.causation_id
        self._first = first
        self._has_given_id = False
        self._updated_at: datetime = first.occurred_at
        self._status = "unknown"
        self._status_extra: Json | None = None
        self._message: Json | None = None
        self._earlier_messages: list[Json] = []
        self._metadata: Json | None = None
        self._extra: Json | None = None
        self._chunks: list[Json] = []

    def apply(self, event: Event, data: TaskEvent) -> None:
        """Apply the task's next event."""
        self.version = event.version
        self._updated_at = max(self._updated_at, event.occurred_at)
        update = None if isinstance(data, TaskCreated | TaskDescribed) else data.update
        if context := _context_id(update) or _context_id(data.extra):
            self.contexts[event.actor] = context
        match data:
            case TaskCreated():
                if data.given_id is not None and not self._has_given_id:
                    self.given_id, self._has_given_id = data.given_id, True
                self._status = str(data.status)
                self._describe(data, None)
            case TaskDescribed():
                self._describe(data, data.history)
            case TaskStatusChanged():
                if self._message is not None:
                    self._earlier_messages.append(self._message)
                self._status, self._message, self._status_extra = str(data.status), data.message, data.extra
            case TaskArtifactAdded() | TaskArtifactExtended():
                self._chunks.append(artifact_chunk(data))

    def _describe(self, data: TaskCreated | TaskDescribed, history: list[object] | None) -> None:
        self.description = self.description if data.description is None else data.description
        self._metadata = self._metadata if data.metadata is None else data.metadata
        self._extra = apply_description(self._extra, data.extra, history)

    def set_push_notification(self, actor: str, data: TaskPushNotificationSet | TaskPushNotificationDeleted) -> None:
        """Apply an event that sets or deletes a setting of push notifications."""
        self.push_notifications.pop(data.config_id, None)
        if isinstance(data, TaskPushNotificationSet):
            self.push_notifications[data.config_id] = PushNotification(actor, data.config)

    @property
    def status(self) -> TaskStatus:
        """The status of the task."""
        return TaskStatus(self._status)

    @property
    def status_text(self) -> str:
        """The text of the status message; a default if the message has no text, nothing if there is no message."""
        return "" if self._message is None else first_text(self._message.get("parts")) or "Working..."

    @property
    def row(self) -> Task:
        """The task's row of the table ``tasks``."""
        first = self._first
        return Task(
            self.id, first.conversation_id, self._status, self.description, first.occurred_at, self._updated_at,
            self._metadata, first.tenant_id, self.given_id, self.version, self._message, self._chunks,
            self._extra, self._status_extra,
        )  # fmt: skip

    def wire(self, messages: list[Json]) -> Json:
        """Return the task as A2A JSON.

        Args:
            messages: the messages of the conversation that belong to the task. They and the earlier status messages
                are its history, if the agent sent none and the task is not imported.
        """
        task = task_to_wire(self.row)
        if self.causation_id is None or "history" in task:
            return task
        known = {message.get("messageId") for message in messages}
        history = [*messages, *(each for each in self._earlier_messages if each.get("messageId") not in known)]
        return task | {"history": history} if history else task

    @property
    def recorded(self) -> RecordedTask:
        """The recorded state, from which the new parts of the agent's next snapshot are found."""
        task = task_to_wire(self.row)
        artifacts = {artifact_key(artifact): artifact for artifact in task.get("artifacts", [])}
        return RecordedTask(task["status"], self._extra, self._metadata, artifacts)


def event_view(event: Event, conversation: Summary) -> EventView | None:
    """Return an event as a message: the one that was sent, or one made of a status or artifact.

    Returns:
        None for other events, and for those that the conversation hides.
    """
    if conversation.hides(event.version):
        return None
    match event.data:
        case MessageAdded() as data:
            content = sent_message(data)
        case TaskCreated() | TaskStatusChanged() | TaskArtifactAdded() | TaskArtifactExtended() as data if (
            data.task_id not in conversation.tasks
        ):
            return None  # the task was deleted
        case TaskStatusChanged(message=message) if message is not None:
            content = message
        case TaskStatusChanged() | TaskCreated() as data:
            state = (data.extra or {}).get("state") if isinstance(data, TaskStatusChanged) else None
            version = version_of({"status": {"state": state}})
            text = str(readable_state(state_name(data.status, version) if state is None else state))
            content = _agent_message(event, conversation, data.task_id, [text_part(text, version)], version)
        case TaskArtifactAdded() | TaskArtifactExtended() as data:
            has_kind = any(isinstance(part, dict) and "kind" in part for part in data.parts)
            content = _agent_message(event, conversation, data.task_id, data.parts, "0.3" if has_kind else "1.0")
        case _:
            return None
    return EventView(
        str(event.id), event.actor, event.event_type, conversation.given_id, content, event.occurred_at, event.position
    )


def _agent_message(event: Event, conversation: Summary, task_id: UUID, parts: list[Any], version: Version) -> Json:
    ids = {"contextId": conversation.given_id, "taskId": conversation.tasks[task_id][0]}
    return agent_message(parts, version, str(event.id)) | ids


def artifact_chunk(data: TaskArtifactAdded | TaskArtifactExtended) -> Json:
    """Return the chunk of an event, as in :attr:`projections.Task.artifacts`."""
    names = ("artifact_id", "last_chunk", "name", "description", "parts", "extra", "metadata")
    extends = isinstance(data, TaskArtifactExtended)
    continues = isinstance(data, TaskArtifactExtended) and data.continues_text is True
    return {name: getattr(data, name) for name in names} | {"extends": extends, "continues_text": continues}


def _context_id(members: Json | None) -> str | None:
    context = (members or {}).get("contextId")
    return context if isinstance(context, str) and context else None


def _first_line(messages: Iterable[Json]) -> str:
    """Return the first line of the first message, at most as long as a name; empty if that message has no text."""
    message = next(iter(messages), None)
    if message is None:
        return ""
    parts = message.get("parts")
    texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    for text in [*texts, message.get("content")]:
        if isinstance(text, str) and text.strip():
            return text.strip().splitlines()[0].strip()[:_NAME_LENGTH]
    return ""
