"""What the manager gives back, as plain values; messages, tasks and cards are plain JSON as it was on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

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
