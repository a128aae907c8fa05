"""Rows of the read tables as the commands show them: in JSON, and in a table."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from projections import Message, Task

MESSAGE_COLUMNS = ("created", "role", "content")
TASK_COLUMNS = ("id", "status", "description", ">artifacts", "updated")


def row_value(row: Any) -> dict[str, Any]:
    """A row as JSON shows it."""
    return {field.name: getattr(row, field.name) for field in fields(row)}


def message_value(message: Message) -> dict[str, Any]:
    """A message as JSON shows it, and as it was sent."""
    return row_value(message) | {"sent": message.sent}


def message_cells(message: Message) -> tuple[Any, ...]:
    """A message in a table."""
    calls = (message.extra or {}).get("tool_calls")
    shown = message.content or (
        f"tool calls: {json.dumps(calls, ensure_ascii=False)}" if calls else str(message.parts or message.extra or "")
    )
    return message.created_at, message.role, shown


def task_cells(task: Task) -> tuple[Any, ...]:
    """A task in a table."""
    return task.id, task.status, task.description, len(task.artifacts), task.updated_at
