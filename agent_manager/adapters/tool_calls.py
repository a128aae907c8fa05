"""Calls of tools as tasks: what all adapters write about a call, its arguments and its result."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from agent_manager.a2a import Json
from eventstore import Caller, EventStore
from eventstore.database.queries import query

_TASKS_OF_CALLS = query("agent_manager.adapters", "tasks_of_calls")


def describe_call(name: str, arguments: str) -> str:
    """Return the description of the task of a call."""
    return f"{name}({arguments})"


def arguments_in(description: str, name: str) -> str:
    """Return the arguments in a description that :func:`describe_call` has made."""
    return description[len(name) + 1 : -1]


def result_parts(response: Json) -> list[Json]:
    """Return the result of a call as the parts of an artifact; that of a function that returned a text is a text."""
    if response.keys() == {"result"} and isinstance(response["result"], str):
        return [{"kind": "text", "text": response["result"]}]
    return [{"kind": "data", "data": response}]


def response_in(parts: Any) -> Json | None:
    """Return the result in parts that :func:`result_parts` has made; None if these are others."""
    match parts:
        case [{"kind": "text", "text": str(text)}]:
            return {"result": text}
        case [{"kind": "data", "data": dict(response)}]:
            return response
    return None


def to_text(arguments: Any) -> str:
    """Return the arguments of a call as JSON."""
    return json.dumps(arguments, ensure_ascii=False)


async def tasks_of_calls(
    store: EventStore, caller: Caller, conversation_id: UUID, call_ids: Iterable[str]
) -> dict[str, tuple[UUID, Json]]:
    """Return the latest tasks of calls in a conversation, with their metadata, by the ids of the calls.

    A call before the last deletion of the conversation is not found.
    """
    wanted = list(call_ids)
    if not wanted:
        return {}
    given = {"tenant": caller.tenant, "conversation_id": conversation_id, "calls": wanted}
    rows = await store.log(caller).fetch(_TASKS_OF_CALLS, given)
    return {call_id: (UUID(task_id), metadata or {}) for call_id, task_id, metadata in rows if task_id is not None}
