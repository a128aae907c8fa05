"""What answers a message, as a type: it is given a message and yields updates as they come.

Messages, tasks, statuses and artifacts are plain JSON as they are on the wire, in the shape of A2A 0.3 or 1.x,
whichever their sender used. Nothing here needs a2a-sdk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

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
