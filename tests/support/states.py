"""States of conversations as they were read, and as the model of the read tables has them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from uuid import UUID

from eventstore import Event
from projections import ConversationState
from support.folding import Row, fold


def plain(state: ConversationState) -> tuple[Any, ...]:
    """Return a state in the form of the model: the rows, and the artifacts of each task."""
    rows = [[row_of(row) for row in rows] for rows in ([state.conversation], state.messages, state.tasks)]
    artifacts = [task.pop("artifacts") for task in rows[2]]
    return rows[0][0], rows[1], rows[2], artifacts


def row_of(row: Any) -> Row:
    """A row that was read, as the model has it."""
    shown = {field.name: getattr(row, field.name) for field in fields(row)}
    return {name: str(value) if isinstance(value, UUID) else value for name, value in shown.items()}


def modelled(events: list[Event]) -> tuple[Any, ...]:
    """The state that a plain fold of the events of a conversation amounts to."""
    tables = {table: list(rows.values()) for table, rows in fold(events).items()}
    for row in (row for rows in tables.values() for row in rows):
        row.pop("member_order", None)  # what is read is in this order
        row.pop("first_version", None)
        row.pop("erased_count", None)
        if (added := row.pop("added_history", None)) is not None:
            row["extra"] = with_history(row["extra"] or {}, added)
    messages = sorted(tables["messages"], key=lambda row: row["version"])
    tasks = sorted(tables["tasks"], key=lambda row: (row["created_at"], UUID(row["id"]).bytes))
    members = (
        "artifact_id",
        "extends",
        "last_chunk",
        "continues_text",
        "name",
        "description",
        "parts",
        "extra",
        "metadata",
    )
    chunks = sorted(tables["task_artifacts"], key=lambda row: row["version"])
    artifacts = [
        [{name: chunk[name] for name in members} for chunk in chunks if chunk["task_id"] == task["id"]]
        for task in tasks
    ]
    return tables["conversations"][0], messages, tasks, artifacts


def with_history(extra: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """The further members of a task, with the messages that came to its history."""
    whole = extra if added["after"] is None else added["after"]["extra"] or {}
    before = whole.get("history") if isinstance(whole.get("history"), list) else []
    return extra | {"history": [*before, *(message for chunk in added["chunks"] for message in chunk["messages"])]}
