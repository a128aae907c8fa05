"""The interface of an agent: a callable that receives a message and yields updates.

Messages, tasks, statuses and artifacts are plain wire JSON of A2A 0.3 or 1.x, whichever their sender used. Nothing here
needs a2a-sdk.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar
from uuid import uuid4

from agent_manager.a2a import OPEN, Json, Version, agent_message, append_chunk, status_of, version_of

T = TypeVar("T")

MAX_BYTES = 256 * 1024
"""Largest size, as JSON, of the artifact parts that a final reply repeats; the task holds all of them."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A message from the agent."""

    message: Json


@dataclass(frozen=True, slots=True)
class ReplyChunk:
    """A piece of a message: consecutive pieces with one ``messageId`` make up a message of all their parts."""

    message: Json


@dataclass(frozen=True, slots=True)
class TaskSnapshot:
    """A whole task in its present state."""

    task: Json


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """A new status of a task.

    Attributes:
        status: ``state``, and optionally ``message`` and ``timestamp``.
        final: whether the agent declared that no update follows.
        extra: further members of the update.
    """

    task_id: str
    context_id: str | None
    status: Json
    final: bool = False
    metadata: Json | None = None
    extra: Json | None = None


@dataclass(frozen=True, slots=True)
class ArtifactUpdate:
    """An artifact of a task, or a chunk of one.

    Attributes:
        append: whether the chunk continues an artifact.
        last_chunk: whether the artifact is complete; None if the agent did not say.
        extra: further members of the update.
    """

    task_id: str
    context_id: str | None
    artifact: Json
    append: bool = False
    last_chunk: bool | None = None
    metadata: Json | None = None
    extra: Json | None = None


Update: TypeAlias = Reply | ReplyChunk | TaskSnapshot | StatusUpdate | ArtifactUpdate
"""Anything that an agent yields while it answers."""


async def _no_history() -> list[Json]:
    return []


@dataclass(frozen=True, slots=True)
class Context:
    """The information that an agent receives beside the message.

    Attributes:
        conversation_id: the id that the client chose.
        task_id: the id, chosen by the agent, of the open task that the message continues.
        agents: the cards of the registered agents.
        history: returns the conversation's messages, oldest first; the message to answer is the last.
        contexts: the ``contextId`` that each agent chose for this conversation, by the agent's name.
        push_notification: the setting of push notifications that came with the message, in 1.x's format.
    """

    tenant: str = "default"
    conversation_id: str = ""
    task_id: str | None = None
    agents: list[Json] = field(default_factory=list)
    history: Callable[[], Coroutine[Any, Any, list[Json]]] = _no_history
    contexts: Mapping[str, str] = field(default_factory=dict)
    push_notification: Json | None = field(default=None, repr=False)

    def addressed_to(self, name: str, message: Json) -> Json:
        """Return a message as it is sent to the agent of a name: with that agent's own ``contextId``, if it has one."""
        return message | {"contextId": self.contexts[name]} if name in self.contexts else message


class Answer(Protocol):
    """An agent: a callable that answers a message.

    The iterator ends after the agent's last update, and raises if the agent fails; updates yielded before are kept. A
    caller that stops early calls ``aclose``, if the iterator has it, so that the agent can release its connections.
    """

    def __call__(self, message: Json, context: Context) -> AsyncIterator[Update]:
        """Yield the updates that answer a message."""
        ...


Resume: TypeAlias = Callable[[str, Context], AsyncIterator[Update]]
"""A function that yields the further updates of a task that an agent was working on.

It raises :class:`~agent_manager.errors.TaskUnknown`, before any update, if the agent does not know the task.
"""


async def load(answer: Answer | None) -> None:
    """Make an agent's name known, if the agent has to fetch it."""
    function = getattr(answer, "load", None)
    if callable(function):
        await function()


Cancel: TypeAlias = Callable[[str, Context], Coroutine[Any, Any, Update]]
"""A function that cancels a task by its id, and returns its state afterwards.

It raises :class:`~agent_manager.errors.TaskNotCancelable` if the agent cannot cancel it.
"""


def cancellation(answer: object) -> Cancel | None:
    """Return the function that cancels an agent's tasks; None if the agent cannot cancel."""
    cancel: Cancel | None = getattr(answer, "cancel", None)
    return cancel if callable(cancel) else None


class PushNotifications(Protocol):
    """The settings of an agent's push notifications, which it sends to URLs that its clients give."""

    async def set_push_notification(self, task_id: str, config: Json) -> None:
        """Let the agent notify a URL of changes of a task."""

    async def push_notification(self, task_id: str, config_id: str) -> Json:
        """Return a setting."""

    async def delete_push_notification(self, task_id: str, config_id: str) -> None:
        """Delete a setting."""


def push_notifications_of(answer: object) -> PushNotifications | None:
    """Return the settings of an agent's push notifications; None if it has none."""
    found: Any = getattr(answer, "push_notifications", answer)
    return found if callable(getattr(found, "set_push_notification", None)) else None


def resumption(answer: object) -> Resume | None:
    """Return the function that resumes an agent's answer; None if the agent cannot resume."""
    resume: Resume | None = getattr(answer, "resume", None)
    return resume if callable(resume) else None


@asynccontextmanager
async def closing(updates: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close an iterator at the end if it has ``aclose``: an agent need not be an asynchronous generator."""
    try:
        yield updates
    finally:
        if (close := getattr(updates, "aclose", None)) is not None:
            await close()


async def with_final_reply(updates: AsyncGenerator[Update, None]) -> AsyncGenerator[Update, None]:
    """Yield the updates and, if none of them is a reply, a reply made of the task, if it has any content."""
    task = TaskTracker()
    has_reply = False
    async with aclosing(updates):
        async for update in updates:
            has_reply |= isinstance(update, Reply | ReplyChunk)
            task.apply(update)
            yield update
    if not has_reply and (message := task.final_message()) is not None:
        yield Reply(message)


class TaskTracker:
    """The task that an agent mentioned last, as far as its updates describe it.

    Attributes:
        task_id: the id that the agent chose; None before the first update of a task.
        has_ended: whether the agent declared that no update follows.
    """

    def __init__(self) -> None:
        self.task_id: str | None = None
        self.has_ended = False
        self._context_id: str | None = None
        self._version: Version = "0.3"
        self._status: Json = {}
        self._artifacts: dict[str, Json] = {}

    @property
    def is_open(self) -> bool:
        """True if the agent continues to work on the task without further input."""
        return self.task_id is not None and not self.has_ended and status_of(self._status.get("state")) in OPEN

    def apply(self, update: Update) -> None:
        """Apply an update."""
        match update:
            case TaskSnapshot(task):
                context_id = task.get("contextId")
                self._select(task["id"], context_id if isinstance(context_id, str) else None)
                self._set_status(task.get("status"))
                artifacts = task.get("artifacts")
                for artifact in artifacts if isinstance(artifacts, list) else []:
                    if isinstance(artifact, dict):
                        self._artifacts[str(artifact.get("artifactId"))] = artifact
            case StatusUpdate():
                self._select(update.task_id, update.context_id)
                self._set_status(update.status)
                self.has_ended = update.final
            case ArtifactUpdate():
                self._select(update.task_id, update.context_id)
                key = str(update.artifact.get("artifactId"))
                whole, chunk = self._artifacts.get(key) if update.append else None, update.artifact
                # In the reply, unlike in the artifact, a text that comes in chunks is one text.
                self._artifacts[key] = chunk if whole is None else append_chunk(whole, chunk, continues=True)

    def final_message(self) -> Json | None:
        """Return a message that can replace a missing reply: that of the status, or one of the artifacts' parts."""
        message = self._status.get("message")
        if isinstance(message, dict) and message.get("parts"):
            return message
        parts = self._artifact_parts()
        if self.task_id is None or not parts:
            return None
        reply = agent_message(parts, self._version, str(uuid4()))
        if self._context_id is not None:
            reply["contextId"] = self._context_id
        return reply | {"taskId": self.task_id}

    def _select(self, task_id: str, context_id: str | None) -> None:
        if task_id != self.task_id:
            self._status, self._artifacts, self._context_id = {}, {}, None
        self.task_id, self.has_ended = task_id, False
        self._context_id = context_id or self._context_id

    def _set_status(self, status: Any) -> None:
        if isinstance(status, dict):
            self._status = status
            self._version = version_of({"status": status})

    def _artifact_parts(self) -> list[Any]:
        parts, size = [], 0
        for artifact in self._artifacts.values():
            for part in artifact["parts"] if isinstance(artifact.get("parts"), list) else []:
                try:
                    size += len(json.dumps(part, default=str))
                except (ValueError, RecursionError):  # the part is circular, or nested too deep
                    continue
                if size <= MAX_BYTES:
                    parts.append(part)
        return parts
