"""Events of the log as the messages that A2A applications list: what was sent, and what agents said of their tasks."""

from __future__ import annotations

from typing import Any
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


def event_view(event: Event, fold: ConversationFold) -> EventView | None:
    """The event as it is listed; None for one that says nothing.

    Args:
        fold: its conversation.
    """
    match event.data:
        case MessageAdded() as data:
            content = sent_message(data)
        case TaskStatusChanged(message=message) if message is not None:
            content = message
        case TaskStatusChanged() | TaskCreated() as data:
            word = (data.extra or {}).get("state") if isinstance(data, TaskStatusChanged) else None
            shape: Shape = shape_of({"status": {"state": word}})
            text = str(readable_state(state_word(data.status, shape) if word is None else word))
            content = _said(event, fold, data.task_id, [text_part(text, shape)], shape)
        case TaskArtifactAdded() | TaskArtifactExtended() as data:
            is_old = any(isinstance(part, dict) and "kind" in part for part in data.parts)
            content = _said(event, fold, data.task_id, data.parts, "0.3" if is_old else "1.0")
        case _:
            return None
    return EventView(
        str(event.id), event.actor, event.event_type, fold.given_id, content, event.occurred_at, event.position
    )


def _said(event: Event, fold: ConversationFold, task_id: UUID, parts: list[Any], shape: Shape) -> Json:
    message: Json = {
        "role": agent_role(shape),
        "parts": parts,
        "messageId": str(event.id),
        "contextId": fold.given_id,
        "taskId": fold.tasks[task_id].given_id,
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
