"""Events of the log as the messages that A2A applications list: what was sent, and what agents said of their tasks."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from agent_manager.agents.shapes import text_part
from agent_manager.agents.wire import Shape, agent_role, readable_state, shape_of, state_word
from agent_manager.manager.folding import ConversationFold
from agent_manager.manager.log import PendingRow
from agent_manager.manager.views import EventView, Json, Pending
from eventstore import (
    Event,
    MessageAdded,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskStatusChanged,
    sent_message,
)


class Summary(NamedTuple):
    """What lists of events need to know of a conversation.

    Attributes:
        version: of the conversation that this is true of.
        given_id: as its client gave it.
        shape: of its first message; None if it has no messages.
        tasks: the ids of its tasks as their agents gave them.
    """

    version: int
    given_id: str
    is_deleted: bool
    shape: Shape | None
    tasks: dict[UUID, str]


def summary(fold: ConversationFold) -> Summary:
    """Return the summary of a conversation."""
    first = next(iter(fold.messages.values()), None)
    return Summary(
        fold.version,
        fold.given_id,
        fold.is_deleted,
        None if first is None else shape_of(first),
        {task_id: task.given_id for task_id, task in fold.tasks.items()},
    )


def event_view(event: Event, conversation: Summary) -> EventView | None:
    """The event as it is listed; None for one that says nothing."""
    match event.data:
        case MessageAdded() as data:
            content = sent_message(data)
        case TaskStatusChanged(message=message) if message is not None:
            content = message
        case TaskStatusChanged() | TaskCreated() as data:
            word = (data.extra or {}).get("state") if isinstance(data, TaskStatusChanged) else None
            shape: Shape = shape_of({"status": {"state": word}})
            text = str(readable_state(state_word(data.status, shape) if word is None else word))
            content = _said(event, conversation, data.task_id, [text_part(text, shape)], shape)
        case TaskArtifactAdded() | TaskArtifactExtended() as data:
            is_old = any(isinstance(part, dict) and "kind" in part for part in data.parts)
            content = _said(event, conversation, data.task_id, data.parts, "0.3" if is_old else "1.0")
        case _:
            return None
    return EventView(
        str(event.id), event.actor, event.event_type, conversation.given_id, content, event.occurred_at, event.position
    )


def _said(event: Event, conversation: Summary, task_id: UUID, parts: list[Any], shape: Shape) -> Json:
    message: Json = {
        "role": agent_role(shape),
        "parts": parts,
        "messageId": str(event.id),
        "contextId": conversation.given_id,
        "taskId": conversation.tasks[task_id],
    }
    return message | {"kind": "message"} if shape == "0.3" else message


def pending_view(row: PendingRow, fold: ConversationFold) -> Pending:
    """A message that awaits an answer, with what the agent said last of its work.

    Args:
        fold: its conversation.
    """
    task = fold.task_of(row.event_id)
    status = "" if task is None else task.words
    return Pending(fold.given_id, row.conversation, row.event_id, row.given_id or "", status, row.since, row.position)
