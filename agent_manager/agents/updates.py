"""Updates of agents parsed from JSON, of either A2A version.

JSON of protobuf may spell a member as its field (``task_id``), a role or a state as its number, and in 0.3's protobuf
the parts of a message are its ``content``. What is meant is plain, so it is read as what every client understands. What
is not plain is refused, with the place: it would be kept as something that the agent did not say.

The SDK of 1.x silently leaves out what it does not know, such as a state that is spelled ``CANCELLED``, and that of 0.3
gives up on the whole stream. So what is plain is respelled here, and what is not is refused before it is lost.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from agent_manager.a2a import (
    STATE_WORDS,
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
from agent_manager.agents.agent import ArtifactUpdate, Reply, StatusUpdate, TaskSeen, Update
from agent_manager.agents.errors import AgentRefused, InvalidUpdate

if TYPE_CHECKING:
    import httpx


# Updates from their JSON on the wire: in either shape, bare, or in the envelopes of JSON-RPC and of 1.x's streams

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
_OLD_FILE_FIELDS = {
    "fileWithUri": "url", "file_with_uri": "url", "fileWithBytes": "raw", "file_with_bytes": "raw",
    "mimeType": "mediaType", "mime_type": "mediaType", "name": "filename",
}  # fmt: skip
_ROLES = {1: "ROLE_USER", 2: "ROLE_AGENT"}


def update_from_wire(sent: Any) -> Update:
    """Return the update that an agent sent as JSON.

    Raises:
        InvalidUpdate: it is none; names the place.
        AgentRefused: it is an error of JSON-RPC.
    """
    if isinstance(sent, dict):
        if sent.keys() <= _JSON_RPC and ("result" in sent or "error" in sent):
            return update_from_wire(_result(sent))
        if len(sent) == 1:
            ((name, inner),) = sent.items()
            if name in _ENVELOPES and isinstance(inner, dict):
                return _update(_ENVELOPES[name], inner)
    return _update(_kind(sent), sent)


def understood(update: Update) -> Update:
    """Return an update with everything in it as clients understand it.

    Raises:
        InvalidUpdate: something in it is not what it must be; names the place.
    """
    checked: StatusUpdate | ArtifactUpdate
    match update:
        case Reply(message):
            return Reply(_message(_object(message, "message", "message"), required=True))
        case TaskSeen(task):
            return TaskSeen(_task(_object(task, "task", "task")))
        case StatusUpdate():
            kind = "status-update"
            status = _status(_object(update.status, "status", kind), kind)
            checked = replace(update, status=status)
        case ArtifactUpdate():
            kind = "artifact-update"
            checked = replace(update, artifact=_artifact(_object(update.artifact, "artifact", kind)))
        case _:
            raise InvalidUpdate(f"the agent sent a {type(update).__name__}, expected an update")
    _text(checked.task_id, "taskId", kind)
    if checked.context_id is not None:
        _text(checked.context_id, "contextId", kind)
    if checked.metadata is not None:
        _object(checked.metadata, "metadata", kind)
    return checked


def normalized_update(sent: Json) -> Json:
    """Return the JSON of an update as its version of A2A spells it; other JSON as it is.

    Raises:
        InvalidUpdate: a state or another member is not what it must be; names the place.
    """
    if len(sent) == 1:
        ((name, inner),) = sent.items()
        if name in _ENVELOPES and isinstance(inner, dict):
            return {name: _in_shape(_ENVELOPES[name], inner, "1.0")}
    try:
        kind = _kind(sent)
    except InvalidUpdate:
        return sent
    return _in_shape(kind, sent, "0.3" if "kind" in sent else version_of(sent))


def _in_shape(kind: str, given: Json, shape: Version) -> Json:
    sent = _normalized(given)
    match kind:
        case "message":
            return message_in_version(_message(sent), shape)
        case "task":
            return task_in_version(_task(sent), shape)
        case "status-update":
            return sent | {
                "status": status_in_version(_status(_object(sent.get("status"), "status", kind), kind), shape)
            }
    return sent | {"artifact": artifact_in_version(_artifact(_object(sent.get("artifact"), "artifact", kind)), shape)}


def _result(sent: Json) -> Any:
    error = sent.get("error")
    if error is None:
        return sent.get("result")
    code, text = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, error)
    told = f" (error {code})" if isinstance(code, int) else ""
    raise AgentRefused(
        f"the agent answered with an error: {text!s:.500}{told}", code if isinstance(code, int) else None
    )


def _kind(sent: Any) -> str:
    if isinstance(sent, dict):
        kind = sent.get("kind")
        if isinstance(kind, str) and kind in _ENVELOPES.values():
            return kind
        if "artifact" in sent:
            return "artifact-update"
        status = sent.get("status")
        if "taskId" in sent or "task_id" in sent:
            if "status" in sent:
                return "status-update"
        elif isinstance(status, dict) and "state" in status:  # much has an id and a status that is no task
            return "task"
        if "parts" in sent or "role" in sent:
            return "message"
        raise InvalidUpdate(
            f"the agent sent an object with {_names(sent)}, which is no message (parts), task (id, status.state), "
            "status update (taskId, status) or artifact update (taskId, artifact)"
        )
    raise InvalidUpdate(f"the agent sent {sent!r:.120}, which is no message, task, status update or artifact update")


def _names(sent: Json) -> str:
    return ("the members " + ", ".join(map(str, sent)))[:200] if sent else "no members"


def _update(kind: str, given: Json) -> Update:
    sent = _normalized(given)
    match kind:
        case "message":
            return understood(Reply(sent))
        case "task":
            return understood(TaskSeen(sent))
        case "status-update":
            return understood(
                StatusUpdate(
                    sent.get("taskId"),  # type: ignore[arg-type]  # checked there
                    sent.get("contextId"),
                    sent.get("status"),  # type: ignore[arg-type]
                    bool(sent.get("final", False)),
                    sent.get("metadata"),
                    _rest(sent, _STATUS_MEMBERS),
                )
            )
    return understood(
        ArtifactUpdate(
            sent.get("taskId"),  # type: ignore[arg-type]
            sent.get("contextId"),
            sent.get("artifact"),  # type: ignore[arg-type]
            bool(sent.get("append", False)),
            None if sent.get("lastChunk") is None else bool(sent["lastChunk"]),
            sent.get("metadata"),
            _rest(sent, _ARTIFACT_MEMBERS),
        )
    )


def _task(given: Json) -> Json:
    task = _normalized(given)
    _text(task.get("id"), "id", "task")
    if "status" in task:
        task["status"] = _status(_object(task["status"], "status", "task"), "task")
    for name, read in (("history", _message), ("artifacts", _artifact)):
        if isinstance(task.get(name), list):
            task[name] = [read(item) if isinstance(item, dict) else item for item in task[name]]
    return task


def _status(given: Json, kind: str) -> Json:
    status = dict(given)
    if "state" in status and known_status(status["state"]) is None:
        words = ", ".join(words["0.3"] for words in STATE_WORDS.values())
        raise InvalidUpdate(
            f"the agent sent a {kind} whose status.state is {status['state']!r:.80}, expected one of {words}"
        )
    if isinstance(status.get("message"), dict):
        status["message"] = _message(status["message"])
    return status


def _message(given: Json, *, required: bool = False) -> Json:
    message = _normalized(given)
    role = message.get("role")
    if type(role) is int:
        message["role"] = _ROLES.get(role, role)
    message = _with_parts(message)
    if required and not isinstance(message.get("parts"), list):
        raise InvalidUpdate(f"the agent sent a message whose parts are {message.get('parts')!r:.80}, expected a list")
    return message


def _artifact(given: Json) -> Json:
    return _with_parts(_normalized(given))


def _with_parts(sent: Json) -> Json:
    """A message or an artifact whose content, if that is what it has, is its parts."""
    content = sent.get("content")
    if not sent.get("parts") and isinstance(content, list | str):
        sent = {name: value for name, value in sent.items() if name not in ("content", "parts")}
        if isinstance(content, str):
            sent["parts"] = [text_part(content, version_of(sent))]
        else:
            sent["parts"] = [_without_wrapper(part) for part in content]
    if isinstance(sent.get("parts"), list):
        sent["parts"] = [_part(part) for part in sent["parts"]]
    return sent


def _part(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    part = _normalized(given)
    if "kind" not in part and isinstance(file := part.get("file"), dict):
        del part["file"]
        if file.keys() & {"bytes", "uri"}:
            return {"kind": "file", "file": file, **part}
        return _normalized(file, _OLD_FILE_FIELDS) | part
    return part


def _without_wrapper(part: Any) -> Any:
    """0.3's protobuf holds the data of a part in a message of its own."""
    data = part.get("data") if isinstance(part, dict) and "kind" not in part else None
    return part | {"data": data["data"]} if isinstance(data, dict) and data.keys() == {"data"} else part


def _normalized(sent: Json, names: Mapping[str, str] = _FIELDS) -> Json:
    """The members under the names that JSON has for them; one that is there under both stays."""
    return {names[name] if name in names and names[name] not in sent else name: value for name, value in sent.items()}


def _text(value: Any, name: str, kind: str) -> None:
    if not isinstance(value, str):
        raise InvalidUpdate(f"the agent sent a {kind} whose {name} is {value!r:.80}, expected a text")


def _object(value: Any, name: str, kind: str) -> Json:
    if not isinstance(value, dict):
        raise InvalidUpdate(f"the agent sent a {kind} whose {name} is {value!r:.80}, expected an object")
    return value


def _rest(sent: Json, known: frozenset[str]) -> Json | None:
    return {name: value for name, value in sent.items() if name not in known} or None


# Answers of JSON-RPC agents before a2a-sdk reads them: in the spelling that it knows


def normalize(response: httpx.Response, refused: list[InvalidUpdate]) -> None:
    """Respell an answer while it is read.

    Args:
        refused: gets the errors for what is left out of a stream. What is refused in an answer at once is raised.
    """
    import httpx

    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "content-encoding" in response.headers or kind not in ("text/event-stream", "application/json"):
        return
    sent = cast("httpx.AsyncByteStream", response.stream)

    class Respelled(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in _events(sent, refused) if kind == "text/event-stream" else _whole(sent):
                yield piece

        async def aclose(self) -> None:
            await sent.aclose()

    response.stream = Respelled()


async def _whole(sent: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    yield _payload(b"".join([piece async for piece in sent]))


async def _events(sent: AsyncIterable[bytes], refused: list[InvalidUpdate]) -> AsyncIterator[bytes]:
    """Server-sent events, each as soon as it is complete."""
    lines: list[bytes] = []
    rest: list[bytes] = []
    async for piece in sent:
        rest.append(piece)
        if b"\n" not in piece:
            continue
        *complete, last = b"".join(rest).split(b"\n")
        rest = [last]
        for line in complete:
            lines.append(line)
            if not line.strip():
                try:
                    yield b"".join(map(_line, lines))
                except InvalidUpdate as error:
                    refused.append(error)
                lines = []
    yield b"\n".join([*lines, b"".join(rest)])


def _line(line: bytes) -> bytes:
    if not line.startswith(b"data:"):
        return line + b"\n"
    return b"data: " + _payload(line.removeprefix(b"data:").strip()) + b"\n"


def _payload(text: bytes) -> bytes:
    try:
        sent = json.loads(text)
    except (ValueError, RecursionError):
        return text  # the SDK says what is wrong with it
    if not isinstance(sent, dict) or "jsonrpc" not in sent or not isinstance(sent.get("result"), dict):
        return text
    result = normalized_update(sent["result"])
    return text if result == sent["result"] else json.dumps(sent | {"result": result}).encode()
