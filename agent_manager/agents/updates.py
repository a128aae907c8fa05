"""Updates from their JSON on the wire, in either shape, bare or in the envelope of 1.x's streams."""

from __future__ import annotations

from typing import Any

from agent_manager.agents.answering import ArtifactUpdate, Reply, StatusUpdate, TaskSeen, Update
from agent_manager.agents.errors import InvalidUpdate
from agent_manager.agents.wire import Json

_ENVELOPES = {
    "message": "message",
    "task": "task",
    "statusUpdate": "status-update",
    "artifactUpdate": "artifact-update",
}
_STATUS_MEMBERS = frozenset(("taskId", "contextId", "status", "final", "metadata"))
_ARTIFACT_MEMBERS = frozenset(("taskId", "contextId", "artifact", "append", "lastChunk", "metadata"))


def update_from_wire(sent: Any) -> Update:
    """The update that an agent sent as JSON.

    Raises:
        InvalidUpdate: it is none.
    """
    if isinstance(sent, dict) and len(sent) == 1:
        ((name, inner),) = sent.items()
        if name in _ENVELOPES and isinstance(inner, dict):
            return _update(_ENVELOPES[name], inner)
    return _update(_kind(sent), sent)


def _kind(sent: Any) -> str:
    if isinstance(sent, dict):
        kind = sent.get("kind")
        if isinstance(kind, str) and kind in _ENVELOPES.values():
            return kind
        if "artifact" in sent:
            return "artifact-update"
        if "status" in sent:
            return "status-update" if "taskId" in sent else "task"
        if "parts" in sent or "role" in sent:
            return "message"
        if "id" in sent and "messageId" not in sent:
            return "task"
    raise InvalidUpdate(f"the agent sent {sent!r:.120}, which is no message, task, status update or artifact update")


def _update(kind: str, sent: Json) -> Update:
    match kind:
        case "message":
            return Reply(sent)
        case "task":
            _text(sent, "id", "task")
            return TaskSeen(sent)
        case "status-update":
            return StatusUpdate(
                _text(sent, "taskId", kind),
                _text_or_none(sent, "contextId", kind),
                _object(sent, "status", kind),
                bool(sent.get("final", False)),
                _metadata(sent, kind),
                _rest(sent, _STATUS_MEMBERS),
            )
    return ArtifactUpdate(
        _text(sent, "taskId", kind),
        _text_or_none(sent, "contextId", kind),
        _object(sent, "artifact", kind),
        bool(sent.get("append", False)),
        None if sent.get("lastChunk") is None else bool(sent["lastChunk"]),
        _metadata(sent, kind),
        _rest(sent, _ARTIFACT_MEMBERS),
    )


def _text(sent: Json, name: str, kind: str) -> str:
    value = sent.get(name)
    if not isinstance(value, str):
        raise InvalidUpdate(f"the agent sent a {kind} whose {name} is {value!r:.80}, expected a text")
    return value


def _text_or_none(sent: Json, name: str, kind: str) -> str | None:
    return None if sent.get(name) is None else _text(sent, name, kind)


def _object(sent: Json, name: str, kind: str) -> Json:
    value = sent.get(name, {})
    if not isinstance(value, dict):
        raise InvalidUpdate(f"the agent sent a {kind} whose {name} is {value!r:.80}, expected an object")
    return value


def _metadata(sent: Json, kind: str) -> Json | None:
    return None if sent.get("metadata") is None else _object(sent, "metadata", kind)


def _rest(sent: Json, known: frozenset[str]) -> Json | None:
    return {name: value for name, value in sent.items() if name not in known} or None
