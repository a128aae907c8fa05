"""Messages, parts, artifacts and tasks of A2A 0.3 as those of 1.x, and the other way round, as plain JSON.

What neither shape knows stays as it is. A value that is in the shape already is given back as it is.
"""

from __future__ import annotations

from typing import Any

from agent_manager.agents.wire import Json, Shape, role_in_shape, state_in_shape

_FILE_MEMBERS = {"mimeType": "mediaType", "name": "filename", "bytes": "raw", "uri": "url"}
_PART_MEMBERS = {new: old for old, new in _FILE_MEMBERS.items()}
_WRAPPED = "data_part_compat"
"""How a2a-sdk marks data of 1.x that is no object, which 0.3 cannot express, where it puts it into one."""


def message_in_shape(message: Json, shape: Shape) -> Json:
    """A message in that shape."""
    changed = _kind(message, "message", shape)
    if "role" in changed:
        changed["role"] = role_in_shape(changed["role"], shape)
    return artifact_in_shape(changed, shape)


def task_in_shape(task: Json, shape: Shape) -> Json:
    """A task in that shape, with its status, history and artifacts."""
    changed = _kind(task, "task", shape)
    if isinstance(changed.get("status"), dict):
        changed["status"] = status_in_shape(changed["status"], shape)
    for name, convert in (("history", message_in_shape), ("artifacts", artifact_in_shape)):
        if isinstance(changed.get(name), list):
            changed[name] = [convert(item, shape) if isinstance(item, dict) else item for item in changed[name]]
    return changed


def artifact_in_shape(artifact: Json, shape: Shape) -> Json:
    """An artifact in that shape."""
    if isinstance(artifact.get("parts"), list):
        return artifact | {"parts": [part_in_shape(part, shape) for part in artifact["parts"]]}
    return artifact


def status_in_shape(status: Json, shape: Shape) -> Json:
    """A task's status in that shape."""
    changed = dict(status)
    if "state" in changed:
        changed["state"] = state_in_shape(changed["state"], shape)
    if isinstance(changed.get("message"), dict):
        changed["message"] = message_in_shape(changed["message"], shape)
    return changed


def part_in_shape(part: Any, shape: Shape) -> Any:
    """A part in that shape; what is no part of either stays."""
    if not isinstance(part, dict):
        return part
    return _to_new(part) if shape == "1.0" else _to_old(part)


def text_part(text: str, shape: Shape) -> Json:
    """A part that holds a text."""
    return {"kind": "text", "text": text} if shape == "0.3" else {"text": text}


def _kind(sent: Json, kind: str, shape: Shape) -> Json:
    rest = {name: value for name, value in sent.items() if name != "kind"}
    return {"kind": sent.get("kind", kind), **rest} if shape == "0.3" else rest


def _to_new(part: Json) -> Json:
    match part.get("kind"):
        case "text":
            return _without(part, "kind")
        case "data":
            changed, metadata = _without(part, "kind"), part.get("metadata")
            if isinstance(metadata, dict) and metadata.get(_WRAPPED) is True and isinstance(part.get("data"), dict):
                kept = _without(metadata, _WRAPPED)
                changed = _without(changed, "metadata") | {"data": part["data"].get("value")}
                return changed | ({"metadata": kept} if kept else {})
            return changed
        case "file" if isinstance(part.get("file"), dict):
            file = {_FILE_MEMBERS.get(name, name): value for name, value in part["file"].items() if value is not None}
            return file | _without(part, "kind", "file")
    return part


def _to_old(part: Json) -> Json:
    if "kind" in part:
        return part
    if "text" in part:
        return {"kind": "text", **part}
    if "data" in part:
        if isinstance(part["data"], dict):
            return {"kind": "data", **part}
        metadata = part["metadata"] if isinstance(part.get("metadata"), dict) else {}
        wrapped = {"data": {"value": part["data"]}, "metadata": {**metadata, _WRAPPED: True}}
        return {"kind": "data", **part, **wrapped}
    if "raw" in part or "url" in part:
        file = {_PART_MEMBERS[name]: value for name, value in part.items() if name in _PART_MEMBERS}
        return {"kind": "file", "file": file, **_without(part, *_PART_MEMBERS)}
    return part


def _without(value: Json, *names: str) -> Json:
    return {name: item for name, item in value.items() if name not in names}
