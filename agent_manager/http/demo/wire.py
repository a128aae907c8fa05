"""Messages as the demo's client sends them: it writes Python's names of the members, and A2A has others.

Only the names of members that A2A defines are changed, and only where it defines them; data, metadata and
whatever else a message holds stays as it was sent.
"""

from __future__ import annotations

from typing import Any

from agent_manager.agents.validity import fault_of
from agent_manager.agents.wire import shape_of
from agent_manager.http.models.common import Json
from eventstore.errors import InvalidEvent

_MESSAGE = {
    "message_id": "messageId",
    "context_id": "contextId",
    "task_id": "taskId",
    "reference_task_ids": "referenceTaskIds",
}
_PART = {"media_type": "mediaType"}
_FILE = {"mime_type": "mimeType"}
_ROLES = ("user", "agent", "ROLE_USER", "ROLE_AGENT")


def read_message(given: Any) -> Json:
    """The message with the names that A2A has.

    Raises:
        InvalidEvent: it is none; says what is wrong with it.
    """
    if not isinstance(given, dict):
        raise InvalidEvent("params", "is no message: send an object with messageId, role and parts")
    message = _renamed(given, _MESSAGE)
    for name in ("messageId", "contextId", "taskId"):
        if not isinstance(message.get(name), str) and (name == "messageId" or message.get(name) is not None):
            raise InvalidEvent(f"params.{name}", "is missing, or no text")
    if message.get("role") not in _ROLES:
        raise InvalidEvent("params.role", f"{message.get('role')!r:.80} is not one of {', '.join(_ROLES)}")
    parts = message.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise InvalidEvent("params.parts", "is no list of parts")
    message["parts"] = [_part(part) for part in parts]
    fault = fault_of(message, shape_of(message))
    if fault is not None:
        raise InvalidEvent(f"params.{fault.place}", fault.words)
    return message


def _part(given: Json) -> Json:
    part = _renamed(given, _PART)
    if isinstance(part.get("file"), dict):
        part["file"] = _renamed(part["file"], _FILE)
    return part


def _renamed(given: Json, names: dict[str, str]) -> Json:
    """The same members in the same order; where both names are there, each stays."""
    return {names[name] if name in names and names[name] not in given else name: value for name, value in given.items()}
