"""The interface of an agent: it receives a message and yields updates, the last of which is a message.

Messages, tasks, statuses and artifacts are plain JSON as they are on the wire, in the shape of A2A 0.3 or 1.x,
whichever their sender used. Nothing here needs a2a-sdk.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar
from uuid import uuid4

from agent_manager.a2a import OPEN, Version, agent_role, joined, status_of, version_of
from agent_manager.agents.errors import AgentStalled

# What answers a message, as a type: it is given a message and yields updates as they come

Json: TypeAlias = dict[str, Any]
History: TypeAlias = Callable[[], Awaitable[list[Json]]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A message that the agent sent."""

    message: Json


@dataclass(frozen=True, slots=True)
class TaskSeen:
    """A whole task, as the agent showed it: new, or known and in its present state."""

    task: Json


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """A task has another status.

    Attributes:
        status: ``state``, and perhaps ``message`` and ``timestamp``.
        final: whether the agent said that no update follows.
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
    """A task produced an artifact, or a chunk of one.

    Attributes:
        append: whether the chunk continues an artifact that has begun.
        last_chunk: whether the artifact is whole now; None where the agent did not say.
        extra: further members of the update.
    """

    task_id: str
    context_id: str | None
    artifact: Json
    append: bool = False
    last_chunk: bool | None = None
    metadata: Json | None = None
    extra: Json | None = None


Update: TypeAlias = Reply | TaskSeen | StatusUpdate | ArtifactUpdate
"""What an agent says while it answers."""


async def _no_history() -> list[Json]:
    return []


@dataclass(frozen=True, slots=True)
class Context:
    """What an agent may know beside the message.

    Attributes:
        conversation_id: as the client gave it.
        task_id: of the open task that the message continues, as the agent gave it.
        agents: the cards of the agents that are registered.
        history: the conversation's messages, oldest first; the one to be answered is the last.
        contexts: the ``contextId`` under which each agent, by its name, keeps the conversation, if that is its own.
    """

    tenant: str = "default"
    conversation_id: str = ""
    task_id: str | None = None
    agents: list[Json] = field(default_factory=list)
    history: History = _no_history
    contexts: Mapping[str, str] = field(default_factory=dict)

    def sent(self, message: Json, name: str) -> Json:
        """Return the message as it is sent to the agent of this name: in the agent's own context, if it has one."""
        return message | {"contextId": self.contexts[name]} if name in self.contexts else message


class Answer(Protocol):
    """What answers a message.

    It ends when the agent has said everything, and raises whatever went wrong: what it yielded before stays. Whoever
    stops listening calls ``aclose`` on the iterator where it has one, and the answer lets go of its connections.
    """

    def __call__(self, message: Json, context: Context) -> AsyncIterator[Update]:
        """The updates that answer a message."""
        ...


Resume: TypeAlias = Callable[[str, Context], AsyncIterator[Update]]
"""Given the id of a task that the agent was working on, what it says of it from now on.

It raises :class:`~agent_manager.agents.errors.TaskUnknown`, before any update, if the agent does not know the task.
"""


def resumption(answer: Answer) -> Resume | None:
    """Return how to go on listening to an agent that was working on a task; None if that agent cannot be asked."""
    resume: Resume | None = getattr(answer, "resume", None)
    return resume if callable(resume) else None


# Time limits on an agent's answer

T = TypeVar("T")


async def within(
    updates: AsyncGenerator[T, None], *, silence: float, total: float, who: str
) -> AsyncGenerator[T, None]:
    """Passes updates on.

    Args:
        silence: seconds that the agent may take for an update.
        total: seconds that it may take for all of them, without the time that whoever listens takes.

    Raises:
        AgentStalled: it took longer.
    """
    left = total
    async with aclosing(updates):
        while True:
            began = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(min(silence, left)) as limit:
                    update = await anext(updates)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not limit.expired():
                    raise
                raise AgentStalled(_reason(who, silence, total, left)) from None
            left -= asyncio.get_running_loop().time() - began
            yield update


def _reason(who: str, silence: float, total: float, left: float) -> str:
    if silence <= left:
        return f"{who}: said nothing for {silence:g} seconds"
    return f"{who}: did not come to an end within {total:g} seconds"


# An answer ends with a message: where an agent only worked on a task, what it said last of it, or what it produced

MAX_BYTES = 256 * 1024
"""Of the artifacts' parts that are repeated in the message, as JSON; they stand whole in the task."""


async def with_final_reply(updates: AsyncGenerator[Update, None]) -> AsyncGenerator[Update, None]:
    """Passes updates on, and ends with a reply if none of them was one and there is something to say."""
    task = LastTask()
    replied = False
    async with aclosing(updates):
        async for update in updates:
            replied |= isinstance(update, Reply)
            task.take(update)
            yield update
    if not replied and (message := task.last_words()) is not None:
        yield Reply(message)


class LastTask:
    """The task that the agent spoke of last, as far as it told.

    Attributes:
        task_id: as the agent gave it; None while it spoke of none.
        ended: whether the agent said that nothing follows.
    """

    def __init__(self) -> None:
        self.task_id: str | None = None
        self.ended = False
        self._context_id: str | None = None
        self._shape: Version = "0.3"
        self._status: Json = {}
        self._artifacts: dict[Any, Json] = {}

    @property
    def is_open(self) -> bool:
        """Whether the agent goes on working on it by itself."""
        return self.task_id is not None and not self.ended and status_of(self._status.get("state")) in OPEN

    def take(self, update: Update) -> None:
        """Learns what an update says."""
        match update:
            case TaskSeen(task):
                context_id = task.get("contextId")
                self._set_scope(task["id"], context_id if isinstance(context_id, str) else None)
                self._learn(task.get("status"))
                artifacts = task.get("artifacts")
                for artifact in artifacts if isinstance(artifacts, list) else []:
                    if isinstance(artifact, dict):
                        self._artifacts[str(artifact.get("artifactId"))] = artifact
            case StatusUpdate():
                self._set_scope(update.task_id, update.context_id)
                self._learn(update.status)
                self.ended = update.final
            case ArtifactUpdate():
                self._set_scope(update.task_id, update.context_id)
                key = str(update.artifact.get("artifactId"))
                known = self._artifacts.get(key) if update.append else None
                self._artifacts[key] = update.artifact if known is None else joined(known, update.artifact)

    def last_words(self) -> Json | None:
        """What can stand for the agent's reply."""
        message = self._status.get("message")
        if isinstance(message, dict) and message.get("parts"):
            return message
        parts = self._parts()
        if self.task_id is None or not parts:
            return None
        head: Json = {"kind": "message"} if self._shape == "0.3" else {}
        said = head | {"messageId": str(uuid4()), "role": agent_role(self._shape), "parts": parts}
        context = {} if self._context_id is None else {"contextId": self._context_id}
        return said | context | {"taskId": self.task_id}

    def _set_scope(self, task_id: str, context_id: str | None) -> None:
        if task_id != self.task_id:
            self._status, self._artifacts, self._context_id = {}, {}, None
        self.task_id, self.ended = task_id, False
        self._context_id = context_id or self._context_id

    def _learn(self, status: Any) -> None:
        if isinstance(status, dict):
            self._status = status
            self._shape = version_of({"status": status})

    def _parts(self) -> list[Any]:
        parts, size = [], 0
        for artifact in self._artifacts.values():
            for part in artifact["parts"] if isinstance(artifact.get("parts"), list) else []:
                try:
                    size += len(json.dumps(part, default=str))
                except (ValueError, RecursionError):  # it holds itself, or is nested too deep
                    continue
                if size <= MAX_BYTES:
                    parts.append(part)
        return parts
