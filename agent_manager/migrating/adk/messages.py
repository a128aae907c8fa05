"""An event of google-adk as an A2A message: what A2A has a place for in its place, everything else in ``metadata.adk``.

A part that is more than a text or a file becomes a data part whose ``metadata.adk_type`` says what it was, as
google-adk's own A2A converter has it; so nothing of an event is lost.
"""

from __future__ import annotations

from typing import Any

from agent_manager.migrating.wire import Json

_URL_SAFE = str.maketrans("-_", "+/")
"""google-adk writes bytes in the alphabet of URLs, A2A reads the plain one."""


def message_of(event: Json, context_id: str) -> Json | None:
    """Return the message of an event, None if it has no content."""
    content = event.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not parts:
        return None
    assert isinstance(content, dict)
    rest = {name: value for name, value in event.items() if name not in ("content", "id") and value is not None}
    rest |= {f"content_{name}": value for name, value in content.items() if name != "parts" and value is not None}
    return {
        "kind": "message",
        "messageId": str(event.get("id", "")),
        "contextId": context_id,
        "role": "user" if event.get("author") == "user" else "agent",
        "parts": [_part(part) for part in parts],
        "metadata": {"adk": rest},
    }


def _part(part: Any) -> Json:
    if not isinstance(part, dict):
        return _data(part, "part")
    said = {name: value for name, value in part.items() if value is not None}
    if isinstance(said.get("text"), str) and said.keys() <= {"text", "thought"}:
        return _about({"kind": "text", "text": said["text"]}, {"adk_thought": said.get("thought")})
    if said.keys() == {"inline_data"} and (file := _file(said["inline_data"], "data", "bytes")) is not None:
        return {"kind": "file", "file": file}
    if said.keys() == {"file_data"} and (file := _file(said["file_data"], "file_uri", "uri")) is not None:
        return {"kind": "file", "file": file}
    if len(said) == 1:
        [(kind, value)] = said.items()
        return _data(value, kind)
    return _data(said, "part")


def _file(blob: Any, place: str, name: str) -> Json | None:
    known = {place: name, "mime_type": "mimeType", "display_name": "name"}
    if not isinstance(blob, dict) or not isinstance(blob.get(place), str) or not blob.keys() <= known.keys():
        return None
    file = {known[member]: value for member, value in blob.items() if value is not None}
    if name == "bytes":
        file["bytes"] = file["bytes"].translate(_URL_SAFE)
    return file


def _data(value: Any, kind: str) -> Json:
    if isinstance(value, dict):
        return {"kind": "data", "data": value, "metadata": {"adk_type": kind}}
    return {"kind": "data", "data": {kind: value}, "metadata": {"adk_type": "part"}}


def _about(part: Json, metadata: Json) -> Json:
    known = {name: value for name, value in metadata.items() if value is not None}
    return part | {"metadata": known} if known else part
