"""A task of the read tables as A2A task JSON, and the members of it that grow."""

from __future__ import annotations

from typing import Any

from agent_manager.agents.artifacts import assemble
from agent_manager.agents.shapes import task_in_shape
from agent_manager.agents.wire import Json, Shape, readable_state, state_word
from projections import Task


def task_to_wire(row: Task, shape: Shape | None = None, *, context_id: str | None = None) -> Json:
    """The task as its agent showed it, with everything that has happened to it since.

    Args:
        row: of the table ``tasks``.
        shape: of the JSON; None for the words of whoever wrote it.
        context_id: the conversation as its client calls it, for a task whose agent named no context.
    """
    extra, beside = row.extra or {}, row.status_extra or {}
    status: Json = {"state": readable_state(beside.get("state", state_word(row.status, "0.3")))}
    if row.status_message is not None:
        status["message"] = row.status_message
    task: Json = {"id": str(row.id) if row.given_id is None else row.given_id}
    if context_id is not None:
        task["contextId"] = context_id
    task["status"] = beside | status
    if artifacts := assemble(row.artifacts):
        task["artifacts"] = artifacts
    if row.metadata is not None:
        task["metadata"] = row.metadata
    task |= extra
    return task if shape is None else task_in_shape(task, shape)


def described(known: Json | None, extra: Json | None, history: list[Any] | None) -> Json | None:
    """Return the further members of a task after an event that describes it, see :class:`eventstore.TaskDescribed`."""
    if history is None:
        return known if extra is None else extra
    rest = known or {} if extra is None else extra
    before = (rest if "history" in rest else known or {}).get("history")
    return rest | {"history": [*(before if isinstance(before, list) else []), *history]}
