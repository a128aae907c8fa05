"""Parsing of agents' updates from JSON of any A2A version, tolerant of other spellings.

JSON of protobuf may spell a member as its field (``task_id``), a role or state as its number, and in 0.3's protobuf the
parts of a message are its ``content``. Values whose meaning is clear are respelled as every client understands them.
All others are rejected, with the member's path, because storing them would misquote the agent.

a2a-sdk 1.x silently drops values that it does not know, such as the state ``CANCELLED``, and 0.3 fails for the whole
stream. So responses are respelled before the SDK parses them (:func:`normalize_response`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from agent_manager.a2a import (
    STATE_NAMES,
    Json,
    Version,
    artifact_in_version,
    known_status,
    message_in_version,
    status_in_version,
    task_in_version,
    text_part,
    version_of,
)
from agent_manager.agents.agent import ArtifactUpdate, Reply, ReplyChunk, StatusUpdate, TaskSnapshot, Update
from agent_manager.errors import AgentRefused, InvalidUpdate
from eventstore.json_text import escape_line_separators

if TYPE_CHECKING:
    import httpx

_ENVELOPES = {
    "message": "message", "msg": "message",
    "task": "task",
    "statusUpdate": "status-update", "status_update": "status-update",
    "artifactUpdate": "artifact-update", "artifact_update": "artifact-update",
}  # fmt: skip
_JSON_RPC = frozenset(("jsonrpc", "id", "result", "error"))
_STATUS_MEMBERS = frozenset(("taskId", "contextId", "status", "final", "metadata"))
_ARTIFACT_MEMBERS = frozenset(("taskId", "contextId", "artifact", "append", "lastChunk", "metadata"))
_FIELDS = {
    "task_id": "taskId", "context_id": "contextId", "message_id": "messageId", "artifact_id": "artifactId",
    "last_chunk": "lastChunk", "reference_task_ids": "referenceTaskIds", "media_type": "mediaType",
}  # fmt: skip
_PROTOBUF_V03_FILE_FIELDS = {
    "fileWithUri": "url", "file_with_uri": "url", "fileWithBytes": "raw", "file_with_bytes": "raw",
    "mimeType": "mediaType", "mime_type": "mediaType", "name": "filename",
}  # fmt: skip
_ROLES = {1: "ROLE_USER", 2: "ROLE_AGENT"}


def update_from_wire(wire: Any) -> Update:
    """Return the update that an agent sent as JSON: bare, or in an envelope of JSON-RPC or of 1.x's streams.

    Raises:
        InvalidUpdate: the JSON is not an update; names the member.
        AgentRefused: the JSON is an error of JSON-RPC.
    """
    if isinstance(wire, dict):
        if wire.keys() <= _JSON_RPC and ("result" in wire or "error" in wire):
            return update_from_wire(_result(wire))
        if (envelope := _envelope(wire)) is not None:
            _, kind, inner = envelope
            return _update(kind, inner)
    return _update(_kind(wire), wire)


def checked_update(update: Update) -> Update:
    """Return an update with all of its members respelled as every client understands them.

    Raises:
        InvalidUpdate: a member has a value that it cannot have; names the member.
    """
    match update:
        case Reply(message):
            return Reply(_message(message, required=True))
        case ReplyChunk(message):
            return ReplyChunk(_message(message, required=True))
        case TaskSnapshot(task):
            return TaskSnapshot(_task(task))
        case StatusUpdate():
            kind, update = "status-update", replace(update, status=_status(update.status, "status-update"))
        case ArtifactUpdate():
            kind, update = "artifact-update", replace(update, artifact=_artifact(update.artifact))
        case _:
            raise InvalidUpdate(f"the agent sent a {type(update).__name__}, expected an update")
    _text(update.task_id, "taskId", kind)
    if update.context_id is not None:
        _text(update.context_id, "contextId", kind)
    if update.metadata is not None:
        _object(update.metadata, "metadata", kind)
    return update


def respelled_message(message: Json) -> Json:
    """Return a message with its members, such as ``message_id`` or ``content``, under the names of A2A."""
    return _message(message)


def normalize_response(response: httpx.Response, invalid: list[InvalidUpdate]) -> None:
    """Respell the updates in a response of JSON-RPC, or of HTTP+JSON of 1.x, while its body is read.

    Those of HTTP+JSON of 0.3 are JSON of another protobuf, which a2a-sdk reads.

    Args:
        invalid: collects the errors of updates that are left out of a stream. In a response that is one JSON document,
            an invalid update raises.
    """
    import httpx

    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "content-encoding" in response.headers or content_type not in ("text/event-stream", "application/json"):
        return
    is_stream, is_v1 = content_type == "text/event-stream", response.request.headers.get("a2a-version") == "1.0"
    original = cast("httpx.AsyncByteStream", response.stream)

    class NormalizedStream(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            whole = _normalized_events(original, invalid, is_v1) if is_stream else _normalized_document(original, is_v1)
            async for chunk in whole:
                yield chunk

        async def aclose(self) -> None:
            await original.aclose()

    response.stream = NormalizedStream()


async def _normalized_document(chunks: AsyncIterable[bytes], is_v1: bool) -> AsyncIterator[bytes]:
    yield _normalized_payload(b"".join([chunk async for chunk in chunks]), is_v1)


async def _normalized_events(
    chunks: AsyncIterable[bytes], invalid: list[InvalidUpdate], is_v1: bool
) -> AsyncIterator[bytes]:
    """Yield server-sent events, each as soon as it is complete."""
    lines: list[bytes] = []
    rest: list[bytes] = []
    async for chunk in chunks:
        rest.append(chunk)
        if b"\n" not in chunk:
            continue
        *complete, last = b"".join(rest).split(b"\n")
        rest = [last]
        for line in complete:
            lines.append(line)
            if not line.strip():
                try:
                    yield b"".join([_normalized_line(each, is_v1) for each in lines])
                except InvalidUpdate as error:
                    invalid.append(error)
                lines = []
    yield b"\n".join([*lines, b"".join(rest)])


def _normalized_line(line: bytes, is_v1: bool) -> bytes:
    if not line.startswith(b"data:"):
        return line + b"\n"
    payload = _normalized_payload(line.removeprefix(b"data:").strip(), is_v1)
    return b"data: " + escape_line_separators(payload) + b"\n"  # the SDK divides the stream by str.splitlines


def _normalized_payload(text: bytes, is_v1: bool) -> bytes:
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return text  # the SDK reports the error
    if is_v1 and isinstance(payload, dict) and _envelope(payload) is not None:  # HTTP+JSON
        return json.dumps(_normalized_result(payload)).encode()
    if not isinstance(payload, dict) or "jsonrpc" not in payload or not isinstance(payload.get("result"), dict):
        return text
    result = _normalized_result(payload["result"])
    return text if result == payload["result"] else json.dumps(payload | {"result": result}).encode()


def _normalized_result(wire: Json) -> Json:
    """Return the JSON of an update as its version of A2A spells it; other JSON as it is."""
    if (envelope := _envelope(wire)) is not None:
        name, kind, inner = envelope
        return {name: _normalized_update(kind, inner, "1.0")}
    try:
        kind = _kind(wire)
    except InvalidUpdate:
        return wire
    return _normalized_update(kind, wire, "0.3" if "kind" in wire else version_of(wire))


def _normalized_update(kind: str, given: Json, version: Version) -> Json:
    wire = renamed(given)
    match kind:
        case "message":
            return message_in_version(_message(wire), version)
        case "task":
            return task_in_version(_task(wire), version)
        case "status-update":
            return wire | {"status": status_in_version(_status(wire.get("status"), kind), version)}
    return wire | {"artifact": artifact_in_version(_artifact(wire.get("artifact")), version)}


def _envelope(wire: Json) -> tuple[str, str, Json] | None:
    """Return the member name, the kind and the content of an envelope of 1.x's streams; None for other JSON."""
    if len(wire) == 1:
        ((name, inner),) = wire.items()
        if name in _ENVELOPES and isinstance(inner, dict):
            return name, _ENVELOPES[name], inner
    return None


def _result(wire: Json) -> Any:
    error = wire.get("error")
    if error is None:
        return wire.get("result")
    code, text = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, error)
    code = code if isinstance(code, int) else None
    suffix = "" if code is None else f" (error {code})"
    raise AgentRefused(f"the agent answered with an error: {text!s:.500}{suffix}", code)


def _kind(wire: Any) -> str:
    if not isinstance(wire, dict):
        raise InvalidUpdate(
            f"the agent sent {wire!r:.120}, which is not a message, task, status update or artifact update"
        )
    kind = wire.get("kind")
    if isinstance(kind, str) and kind in _ENVELOPES.values():
        return kind
    if "artifact" in wire:
        return "artifact-update"
    status = wire.get("status")
    if "taskId" in wire or "task_id" in wire:
        if "status" in wire:
            return "status-update"
    elif isinstance(status, dict) and "state" in status:  # an id and a status alone do not make a task
        return "task"
    if "parts" in wire or "role" in wire:
        return "message"
    members = ("the members " + ", ".join(map(str, wire)))[:200] if wire else "no members"
    raise InvalidUpdate(
        f"the agent sent an object with {members}, which is not a message (parts), task (id, status.state), "
        "status update (taskId, status) or artifact update (taskId, artifact)"
    )


def _update(kind: str, given: Json) -> Update:
    wire = renamed(given)
    task_id: Any = wire.get("taskId")  # checked_update checks all values
    content: Any = wire.get("status" if kind == "status-update" else "artifact")
    match kind:
        case "message":
            return checked_update(Reply(wire))
        case "task":
            return checked_update(TaskSnapshot(wire))
        case "status-update":
            extra, is_final = _rest(wire, _STATUS_MEMBERS), bool(wire.get("final", False))
            update = StatusUpdate(task_id, wire.get("contextId"), content, is_final, wire.get("metadata"), extra)
            return checked_update(update)
    extra, last_chunk = _rest(wire, _ARTIFACT_MEMBERS), wire.get("lastChunk")
    return checked_update(
        ArtifactUpdate(
            task_id,
            wire.get("contextId"),
            content,
            bool(wire.get("append", False)),
            None if last_chunk is None else bool(last_chunk),
            wire.get("metadata"),
            extra,
        )
    )


def _task(given: Any) -> Json:
    task = renamed(_object(given, "task", "task"))
    _text(task.get("id"), "id", "task")
    if "status" in task:
        task["status"] = _status(task["status"], "task")
    for name, read in (("history", _message), ("artifacts", _artifact)):
        if isinstance(task.get(name), list):
            task[name] = [read(item) if isinstance(item, dict) else item for item in task[name]]
    return task


def _status(given: Any, kind: str) -> Json:
    status = dict(_object(given, "status", kind))
    if "state" in status and known_status(status["state"]) is None:
        names = ", ".join(names["0.3"] for names in STATE_NAMES.values())
        raise InvalidUpdate(
            f"the agent sent a {kind} whose status.state is {status['state']!r:.80}, expected one of {names}"
        )
    if isinstance(status.get("message"), dict):
        status["message"] = _message(status["message"])
    return status


def _message(given: Any, *, required: bool = False) -> Json:
    message = renamed(_object(given, "message", "message"))
    role = message.get("role")
    if type(role) is int:
        message["role"] = _ROLES.get(role, role)
    message = _with_parts(message)
    if required and not isinstance(message.get("parts"), list):
        raise InvalidUpdate(f"the agent sent a message whose parts are {message.get('parts')!r:.80}, expected a list")
    return message


def _artifact(given: Any) -> Json:
    return _with_parts(renamed(_object(given, "artifact", "artifact-update")))


def _with_parts(value: Json) -> Json:
    """Return a message or artifact with its ``content``, if it has that in place of parts, as ``parts``."""
    content = value.get("content")
    if not value.get("parts") and isinstance(content, list | str):
        value = {name: item for name, item in value.items() if name not in ("content", "parts")}
        if isinstance(content, str):
            value["parts"] = [text_part(content, version_of(value))]
        else:
            value["parts"] = [_without_data_wrapper(part) for part in content]
    if isinstance(value.get("parts"), list):
        value["parts"] = [_part(part) for part in value["parts"]]
    return value


def _part(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    part = renamed(given)
    if "kind" not in part and isinstance(file := part.get("file"), dict):
        del part["file"]
        if file.keys() & {"bytes", "uri"}:
            return {"kind": "file", "file": file, **part}
        return renamed(file, _PROTOBUF_V03_FILE_FIELDS) | part
    return part


def _without_data_wrapper(part: Any) -> Any:
    """Return a part without the message in which 0.3's protobuf wraps its data."""
    data = part.get("data") if isinstance(part, dict) and "kind" not in part else None
    return part | {"data": data["data"]} if isinstance(data, dict) and data.keys() == {"data"} else part


def renamed(value: Json, names: Mapping[str, str] = _FIELDS) -> Json:
    """Return an object with names of fields replaced by A2A's, in order; a member that has both stays under both."""
    return {names[name] if name in names and names[name] not in value else name: item for name, item in value.items()}


def _text(value: Any, name: str, kind: str) -> None:
    if not isinstance(value, str):
        raise InvalidUpdate(f"the agent sent a {kind} whose {name} is {value!r:.80}, expected a text")


def _object(value: Any, name: str, kind: str) -> Json:
    if not isinstance(value, dict):
        raise InvalidUpdate(f"the agent sent a {kind} whose {name} is {value!r:.80}, expected an object")
    return value


def _rest(value: Json, known: frozenset[str]) -> Json | None:
    return {name: item for name, item in value.items() if name not in known} or None
