"""A2A messages and tasks as plain JSON: what names them, and one form for what may be written in several.

A member that is null and one that is absent mean the same in both shapes of A2A, and servers write either. Inside what
belongs to the sender (``data``, ``metadata``) a null is a value like any other, and stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]


def text_member(thing: Json, *names: str) -> str:
    """The first of these members that is a text; empty where none is."""
    return next((value for name in names if isinstance(value := thing.get(name), str)), "")


def message_id(message: Json) -> str:
    """The id of a message as its sender gave it; empty where it has none."""
    return text_member(message, "messageId", "message_id")


def context_id(thing: Json) -> str:
    """The context of a message or task."""
    return text_member(thing, "contextId", "context_id")


def task_id_of(message: Json) -> str:
    """The task that a message belongs to."""
    return text_member(message, "taskId", "task_id")


def canonical_message(message: Json) -> Json:
    """The message without members that are null."""
    return _with(_without_nulls(message), parts=_each(_part))


def canonical_task(task: Json) -> Json:
    """The task without members that are null, down to its messages and artifacts; protobuf leaves out an empty id."""
    kept = {"id": ""} | _without_nulls(task)
    return _with(kept, status=_status, history=_each(canonical_message), artifacts=_each(canonical_artifact))


def canonical_artifact(artifact: Json) -> Json:
    """The artifact without members that are null."""
    return _with(_without_nulls(artifact), parts=_each(_part))


def canonical_card(card: Any) -> Any:
    """An agent's card without members that are null, at any depth: all of them are A2A's own."""
    if isinstance(card, dict):
        return {name: canonical_card(value) for name, value in card.items() if value is not None}
    return [canonical_card(value) for value in card] if isinstance(card, list) else card


def _without_nulls(value: Json) -> Json:
    return {name: item for name, item in value.items() if item is not None}


def _with(value: Json, **forms: Callable[[Any], Any]) -> Json:
    return value | {name: form(value[name]) for name, form in forms.items() if name in value}


def _each(form: Callable[[Json], Json]) -> Callable[[Any], Any]:
    def each(values: Any) -> Any:
        if not isinstance(values, list):
            return values
        return [form(value) if isinstance(value, dict) else value for value in values]

    return each


def _part(part: Json) -> Json:
    return _with(_without_nulls(part), file=_file)


def _file(file: Any) -> Any:
    return _without_nulls(file) if isinstance(file, dict) else file


def _status(status: Any) -> Any:
    if not isinstance(status, dict):
        return status
    return _with(
        _without_nulls(status), message=lambda said: canonical_message(said) if isinstance(said, dict) else said
    )
