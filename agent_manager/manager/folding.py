"""A conversation as the manager shows it, folded from its own events.

Read from the log, because a reader that has just written must see it at once, while the workers, under load, apply
events some times a second only. What was folded is kept, so that a further read is one look for events beyond it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from agent_manager.agents.recording import Seen
from agent_manager.agents.wire import OPEN
from agent_manager.manager.taskfold import TaskFold, context_id_of
from agent_manager.manager.views import ConversationView, Json
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

    def seen(self, given_id: str) -> Seen | None:
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
