"""A task as the manager shows it, folded from its events into what its row in the read tables will be."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from agent_manager.agents.recording import Seen, artifact_key
from agent_manager.agents.tasks import described, task_to_wire
from agent_manager.manager.views import Json
from eventstore import (
    Event,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDescribed,
    TaskStatus,
    TaskStatusChanged,
)
from projections import Task

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
        self._extra = described(self._extra, data.extra, data.history if isinstance(data, TaskDescribed) else None)
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
    def seen(self) -> Seen:
        """What is recorded of it, to tell what is new in what its agent shows."""
        shown = task_to_wire(self.row)
        artifacts = {artifact_key(artifact): artifact for artifact in shown.get("artifacts", [])}
        return Seen(shown["status"], self._extra, self._metadata, artifacts)

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
