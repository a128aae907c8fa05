"""Conversations, messages, tasks and events as rows of a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent_manager.a2a import parts_text
from agent_manager.cli.output import RowFormat, row_value
from eventstore import Event, event_types
from projections import Conversation, Message, Task

_MAX_CHANGE_CHARACTERS = 200


def _content(message: Message) -> str:
    if message.is_erased:
        return "(erased)"
    text = message.content
    if not text and (calls := (message.extra or {}).get("tool_calls")):
        text = f"tool calls: {json.dumps(calls, ensure_ascii=False)}"
    text = text or str(message.parts or message.extra or "")
    if message.status is None or (message.status == "answered" and message.error is None):
        return text
    return f"{text} [{_outcome(message.status, message.error)}]"


def _outcome(status: str, error: str | None) -> str:
    words = {"pending": "awaits an answer", "answered": "answered", "failed": "answer failed", "abandoned": "abandoned"}
    return words[status] + (f": {error}" if error else "")


def _message_value(message: Message) -> dict[str, Any]:
    return row_value(message) | {"sent": message.sent}


def _event_value(event: Event) -> dict[str, Any]:
    members = row_value(event)
    members["metadata"] = members.pop("raw_metadata")
    return members | {"occurred_at": event.occurred_at, "what_changed": what_changed(event)}


def what_changed(event: Event) -> str:
    """Return the change that an event made, in a line."""
    line = " ".join(_describe(event).split())
    return line if len(line) <= _MAX_CHANGE_CHARACTERS else line[: _MAX_CHANGE_CHARACTERS - 1] + "…"


def _describe(event: Event) -> str:
    if event.is_erased:
        return "erased"
    match event.data:
        case event_types.ConversationCreated(name=name):
            return f"created as {name!r}" if name else "created"
        case event_types.ConversationRenamed(name=name):
            return f"renamed to {name!r}"
        case event_types.ConversationArchived():
            return "archived"
        case event_types.ConversationReactivated():
            return "reactivated"
        case event_types.ConversationDeleted():
            return "hidden"
        case event_types.ConversationRewound(to_version=version):
            return f"went back to version {version}"
        case event_types.ConversationForked(source_conversation_id=source, source_version=version):
            return f"continues {source} from version {version}"
        case event_types.ConversationShared(user=user, access=access):
            return f"shared with {user!r} to {access}"
        case event_types.ConversationUnshared(user=user):
            return f"no longer shared with {user!r}"
        case event_types.ConversationErased(reason=reason) | event_types.EventErased(reason=reason) as receipt:
            versions = versions_text(receipt.versions)
            return f"erased versions {versions}" + (f": {reason}" if reason else "")
        case event_types.MessageAdded() as message:
            return f"{message.role}: {_text(message)}"
        case event_types.MessageAnswered(outcome=outcome, error=error):
            return _outcome(outcome, error)
        case event_types.TaskCreated(description=description, status=status, task_id=task):
            return f"task {task} {status}: {description}"
        case event_types.TaskStatusChanged(status=status, task_id=task, message=message):
            text = parts_text((message or {}).get("parts"))
            return f"task {task} is {status}" + (f": {text}" if text else "")
        case event_types.TaskDescribed(description=description, task_id=task):
            return f"task {task}: {description}" if description is not None else f"task {task} has further members"
        case event_types.TaskArtifactAdded(artifact_id=artifact, task_id=task):
            return f"task {task} has artifact {artifact!r}"
        case event_types.TaskArtifactExtended(artifact_id=artifact, task_id=task):
            return f"task {task} extends artifact {artifact!r}"
        case _:
            return json.dumps(event.content, ensure_ascii=False)


def versions_text(versions: Sequence[Sequence[int]]) -> str:
    """Return ranges of versions as a text."""
    return ", ".join(f"{first} to {last}" if first != last else str(first) for first, last in versions)


def _text(message: event_types.MessageAdded) -> str:
    if message.content is not None:
        return message.content
    rest = {"parts": message.parts} if message.parts is not None else message.extra or {}
    return json.dumps(rest, ensure_ascii=False)


CONVERSATIONS: RowFormat[Conversation] = RowFormat(
    ("id", "name", ">messages", "active", "updated", "?uuid"),
    lambda c: (c.given_id or c.id, c.name, c.message_count, c.is_active, c.updated_at, c.id),
)
MESSAGES: RowFormat[Message] = RowFormat(
    ("created", "role", "content"), lambda m: (m.created_at, m.role, _content(m)), _message_value
)
ALL_MESSAGES: RowFormat[Message] = RowFormat(
    ("created", "conversation", "role", "content"),
    lambda m: (m.created_at, m.conversation_id, m.role, _content(m)),
    _message_value,
)
TASKS: RowFormat[Task] = RowFormat(
    ("id", "status", ">artifacts", "updated", "?uuid", "description"),
    lambda t: (t.given_id or t.id, t.status, len(t.artifacts), t.updated_at, t.id, t.description),
)
ALL_TASKS: RowFormat[Task] = RowFormat(("conversation", *TASKS.columns), lambda t: (t.conversation_id, *TASKS.cells(t)))
EVENTS: RowFormat[Event] = RowFormat(
    (">position", ">version", "time", "actor", "type", "what changed"),
    lambda e: (e.position, e.version, e.timestamp, e.actor, e.event_type, what_changed(e)),
    _event_value,
)
ALL_EVENTS: RowFormat[Event] = RowFormat(
    (">position", "?>version", "time", "actor", "type", "conversation", "what changed"),
    lambda e: (e.position, e.version, e.timestamp, e.actor, e.event_type, e.conversation_id, what_changed(e)),
    _event_value,
)
