"""Messages that A2A has no class for, such as those of imported chats, as the nearest that it has.

They are stored, and given back as JSON, as they were sent. Only what a class cannot hold is changed for it.
"""

from __future__ import annotations

from typing import Any

from agent_manager.agents.shapes import text_part
from agent_manager.agents.validity import part_fault
from agent_manager.agents.wire import Shape, agent_role, role_in_shape
from agent_manager.manager.views import Json

_IDS = ("contextId", "taskId")


def repaired(sent: Json, version: Shape, message_id: str) -> Json:
    """The message with the members that every message of A2A has.

    Args:
        message_id: for one that has none.
    """
    given = sent.get("messageId")
    message: Json = {
        "role": role_in_shape("user", version) if sent.get("role") in ("user", "ROLE_USER") else agent_role(version),
        "messageId": given if isinstance(given, str) and given else message_id,
        "parts": _parts(sent, version),
    }
    message |= {name: sent[name] for name in _IDS if isinstance(sent.get(name), str)}
    if isinstance(sent.get("metadata"), dict):
        message["metadata"] = sent["metadata"]
    return message | {"kind": "message"} if version == "0.3" else message


def _parts(sent: Json, version: Shape) -> list[Json]:
    said = sent.get("parts", sent.get("content"))
    items = said if isinstance(said, list) else [] if said is None else [said]
    calls = {name: sent[name] for name in ("tool_calls", "function_call") if sent.get(name) is not None}
    return [_part(item, version) for item in [*items, *([calls] if calls else [])]]


def _part(item: Any, version: Shape) -> Json:
    if isinstance(item, dict) and ("kind" in item) == (version == "0.3") and part_fault(item, version) is None:
        return item
    text = item.get("text") if isinstance(item, dict) else item
    if isinstance(text, str):
        return text_part(text, version)
    data = item if isinstance(item, dict) else {"value": item}
    return {"kind": "data", "data": data} if version == "0.3" else {"data": data}
