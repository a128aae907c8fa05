"""Tool calls of chat messages, in today's shape (``tool_calls``) and the first one (``function_call``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from agent_manager.importing.jsonline import MalformedLine, described, id_text

Key: TypeAlias = tuple[str, str]
"""What a result and its call have in common: ``("id", the call's id)`` or, in the first shape, ``("name", …)``."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call.

    Attributes:
        place: where in its message it stands.
        given_id: the call's id, as a text.
        key: how its result names it; None where it cannot.
        name: of the function or tool.
        arguments: a text, usually JSON; or any JSON value.
    """

    place: str
    given_id: str | None
    key: Key | None
    name: str
    arguments: Any

    @property
    def description(self) -> str:
        """The call as one would write it."""
        arguments = "" if self.arguments is None else self.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        return f"{self.name}({arguments})"


def calls_of(message: Mapping[str, Any]) -> list[ToolCall]:
    """The calls that a message makes.

    Raises:
        MalformedLine: they are no list of objects.
    """
    entries = message.get("tool_calls")
    if not isinstance(entries, list | None):
        raise MalformedLine(f"tool_calls: is {described(entries)}, expected a list of tool calls")
    calls = [_call(entry, f"tool_calls[{index}]") for index, entry in enumerate(entries or ())]
    legacy = message.get("function_call")
    if legacy is not None:
        name, arguments = _function(_object(legacy, "function_call"))
        calls.append(ToolCall("function_call", None, ("name", name), name, arguments))
    return calls


def answered_call(message: Mapping[str, Any]) -> Key | None:
    """Which call a message is the result of, if it is one."""
    given_id = id_text(message.get("tool_call_id"))
    if message["role"] in ("tool", "function") and given_id is not None:
        return "id", given_id
    if message["role"] == "function" and isinstance(message.get("name"), str):
        return "name", message["name"]
    return None


def result_parts(content: Any) -> list[dict[str, Any]]:
    """The content of a tool message as the parts of an artifact: text, or data where it is something else."""
    if content is None:
        return []
    return [_part(item) for item in (content if isinstance(content, list) else [content])]


def _call(entry: Any, place: str) -> ToolCall:
    call = _object(entry, place)
    given_id = id_text(call.get("id"))
    name, arguments = _function(call)
    return ToolCall(place, given_id, None if given_id is None else ("id", given_id), name, arguments)


def _function(call: dict[str, Any]) -> tuple[str, Any]:
    """Name and arguments: in ``function``, in ``custom`` (``input``), or in the call itself."""
    inner = next((call[kind] for kind in ("function", "custom") if isinstance(call.get(kind), dict)), call)
    name = inner.get("name")
    return name if isinstance(name, str) else "unnamed", inner.get("arguments", inner.get("input"))


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedLine(f"{place}: is {described(value)}, expected an object")
    return value


def _part(item: Any) -> dict[str, Any]:
    if isinstance(item, dict) and item.get("type") == "text" and isinstance(item.get("text"), str):
        item = item["text"]
    return {"kind": "text", "text": item} if isinstance(item, str) else {"kind": "data", "data": item}
