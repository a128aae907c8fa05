"""Messages that are stored and await their answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from agent_manager.a2a import Json

Key: TypeAlias = tuple[UUID, UUID]
"""A message: its conversation, and the id of its event, which is unique only within the conversation."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that is durable and awaits its answer.

    Attributes:
        conversation_id: the id that the client chose, or a new one if the message has none.
        conversation: the conversation's id in the log and the tables.
        event_id: the id of the message's event.
        message: the message as it is stored; its ``taskId`` names the task that it continues.
        position: the position of the event.
        notes: what of the message is too large to be stored, and the setting that allows it.
        push_notification: the setting of push notifications that came with the message, with its secrets; they are not
            stored, so another process does not know it.
    """

    conversation_id: str
    conversation: UUID
    event_id: UUID
    message: Json
    position: int
    notes: tuple[str, ...] = ()
    push_notification: Json | None = field(default=None, repr=False)

    @property
    def key(self) -> Key:
        """The conversation and the event."""
        return self.conversation, self.event_id

    @property
    def message_id(self) -> str:
        """The id that the client chose; it need not be unique."""
        return self.message.get("messageId") or ""

    @property
    def task_id(self) -> str | None:
        """The id, chosen by the agent, of the open task that the message continues."""
        task_id = self.message.get("taskId")
        return task_id if isinstance(task_id, str) and task_id else None


@dataclass(frozen=True, slots=True)
class Pending:
    """A message that awaits its answer.

    Attributes:
        status: the latest status text of the task that the agent works on; empty if there is none.
        since: the time when the message was accepted.
    """

    conversation_id: str
    conversation: UUID
    event_id: UUID
    message_id: str
    status: str
    since: datetime
    position: int
