"""Events of google-adk as messages of the store, and back, without loss; the tables that list its sessions.

It needs nothing of google-adk: workers that follow :data:`SESSIONS`, and the import of google-adk's own tables, use it
too. An event is given as its JSON, with google-adk's field names.

An event with content is a message in the form of A2A 0.3. A part that is more than a text or a file is a data part
whose ``metadata.adk_type`` names its kind, as in google-adk's own A2A converter; what accompanies the text, file or
call of a part, such as the signature of a thought, is in ``metadata.adk_part``. What A2A has no member for is in the
message's ``metadata.adk``. Any other event is an application event.

A function call is a task besides, with the call as its description, and a function response the result of that task.
The arguments and the result are stored there alone: the part of the message names the event that holds them.

A session is identified by application, user and session id; several users may use the same session id. A session that
is created again after it was deleted is another conversation, its next generation: the deleted messages stay deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from agent_manager.a2a import Json
from agent_manager.adapters.tool_calls import arguments_in, describe_call, response_in, result_parts, to_text
from eventstore import Event, EventData, TaskArtifactAdded, TaskCreated, TaskStatus, TaskStatusChanged
from eventstore.ids import derived_uuid
from projections.custom_projections import from_file

STATE = "adk.state"
"""The type of the application event that sets values of the state: at the beginning of a session, or by an import. Its
content maps names to values, with google-adk's prefixes."""
EVENT = "adk.event"
"""The type of the application event that holds an event of google-adk without content."""
ADK = "adk"
"""The member of the metadata of messages and conversations that belongs to google-adk."""

SESSIONS = from_file(Path(__file__).with_name("google_adk_sessions.sql"))
"""The projection of the sessions and their state. A worker follows it if EVENTSTORE_PROJECTIONS names it."""


def conversation_name(app_name: str, user_id: str, session_id: str, generation: int = 1) -> str:
    """Return the id of a session's conversation, which is unique for application, user, session and generation."""
    parts = [name.replace("%", "%25").replace("/", "%2F") for name in (app_name, user_id, session_id)]
    return "/".join([*parts, str(generation)] if generation > 1 else parts)


# From google-adk

_URL_SAFE_TO_STANDARD = str.maketrans("-_", "+/")
_STANDARD_TO_URL_SAFE = str.maketrans("+/", "-_")
"""google-adk encodes bytes with the URL-safe base64 alphabet, A2A with the standard one."""

_FILES = {"inline_data": ("data", "bytes"), "file_data": ("file_uri", "uri")}
"""The kinds of parts that are files, and the name of the file's content there and in A2A."""
_CALLS = (
    "function_call",
    "function_response",
    "executable_code",
    "code_execution_result",
    "tool_call",
    "tool_response",
)
_PART_TYPE, _REST, _THOUGHT = "adk_type", "adk_part", "adk_thought"
_WHOLE = "part"
"""The ``adk_type`` of a part that is not of a known kind: the data are the whole part."""


def message_of(event: Json, context_id: str) -> Json | None:
    """Return the message of an event; None if it has no content."""
    content = event.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(parts, list) or not parts:
        return None
    rest = {name: value for name, value in event.items() if name not in ("content", "id") and value is not None}
    rest |= {f"content_{name}": value for name, value in content.items() if name != "parts" and value is not None}
    return {
        "role": "user" if event.get("author") == "user" else "agent",
        "parts": [_part(part) for part in parts],
        "metadata": {ADK: _in_stored_order(rest)},
        "kind": "message",
        "messageId": str(event.get("id", "")),
        "contextId": context_id,
    }


def _in_stored_order(members: Json) -> Json:
    """Return members of google-adk's own, whose order means nothing, in that of ``jsonb``: it need not be stored."""
    return {
        name: _in_stored_order(members[name]) if name in ("actions", "usage_metadata") else members[name]
        for name in sorted(members, key=lambda name: (len(name), name))
    }


def _part(part: Any) -> Json:
    if not isinstance(part, dict):
        return _data_part({_WHOLE: part}, _WHOLE, {})
    rest = {name: value for name, value in part.items() if value is not None}
    if isinstance(rest.get("text"), str):
        text = {"kind": "text", "text": rest.pop("text")}
        thought = {_THOUGHT: rest.pop("thought")} if "thought" in rest else {}
        return text | _metadata(thought, rest)
    for kind, names in _FILES.items():
        if (file := _file(rest.get(kind), *names)) is not None:
            del rest[kind]
            return {"kind": "file", "file": file} | _metadata({}, rest)
    call = next((name for name in _CALLS if name in rest), next(iter(rest), _WHOLE) if len(rest) == 1 else _WHOLE)
    if call == _WHOLE or not isinstance(value := rest.get(call), dict):
        return _data_part(rest, _WHOLE, {})
    return _data_part(value, call, {name: value for name, value in rest.items() if name != call})


def _file(blob: Any, content_name: str, a2a_name: str) -> Json | None:
    """Return A2A's file of a blob; None if the blob has other members than such a file."""
    names = {content_name: a2a_name, "mime_type": "mimeType", "display_name": "name"}
    if not isinstance(blob, dict) or not isinstance(blob.get(content_name), str) or not blob.keys() <= names.keys():
        return None
    file = {names[member]: value for member, value in blob.items() if value is not None}
    if a2a_name == "bytes":
        file["bytes"] = file["bytes"].translate(_URL_SAFE_TO_STANDARD)
    return file


def _data_part(value: Json, kind: str, rest: Json) -> Json:
    if kind == "function_response" and isinstance(parts := value.get("parts"), list):
        value = {**value, "parts": [_part(part) for part in parts]}
    return {"kind": "data", "data": value} | _metadata({_PART_TYPE: kind}, rest)


def _metadata(metadata: Json, rest: Json) -> Json:
    metadata = metadata | ({_REST: rest} if rest else {})
    return {"metadata": metadata} if metadata else {}


def lists_of_parts(parts: list[Any]) -> Iterator[list[Any]]:
    """Yield the lists of parts of a message that may have files: its own, and those of function responses."""
    yield parts
    for part in parts:
        if isinstance(part, dict) and _members(part, "metadata").get(_PART_TYPE) == "function_response":
            nested = _members(part, "data").get("parts")
            if isinstance(nested, list):
                yield nested


# Function calls as tasks

TASK_EVENTS = ("task.created", "task.artifact_added")
"""The types of the events that hold the arguments and the results of function calls."""
_EVENT = "adk_event"
"""The member of a part's metadata with the id of the event that holds the arguments or the result."""
_LONG_RUNNING = "long_running"
_STATUSES = {
    "adk_request_credential": TaskStatus.AUTH_REQUIRED,
    "adk_request_confirmation": TaskStatus.INPUT_REQUIRED,
    "adk_request_input": TaskStatus.INPUT_REQUIRED,
}
"""The statuses of the calls by which google-adk asks the user for something."""


def answered_calls(message: Json) -> list[str]:
    """Return the ids of the calls that a message has the responses of."""
    responses = (data for kind, data, _ in _function_parts(message["parts"]) if kind == "function_response")
    return [call_id for data in responses if isinstance(call_id := data.get("id"), str)]


def task_events(message: Json, message_id: UUID, tasks: dict[str, tuple[UUID, Json]]) -> list[tuple[UUID, EventData]]:
    """Move the arguments and results of the function calls in a message to events of tasks; return these, with ids.

    Args:
        message_id: the id of the message's event.
        tasks: the tasks of the calls that the message has the responses of, with their metadata. It is updated.
    """
    events: list[tuple[UUID, EventData]] = []
    own = message["metadata"][ADK]
    long_running = own.get("long_running_tool_ids") or ()

    def add(data: EventData, number: int) -> str:
        events.append((derived_uuid("adk.task", str(message_id), number, data.event_type), data))
        return str(events[-1][0])

    for number, (kind, data, metadata) in enumerate(_function_parts(message["parts"])):
        name, call_id = str(data.get("name") or ""), data.get("id") or None
        task_id = derived_uuid("adk.task", str(message_id), number)
        if kind == "function_call":
            description = name
            if isinstance(arguments := data.get("args"), dict):
                description, data["args"] = describe_call(name, to_text(arguments)), None
            marks = {ADK: {_LONG_RUNNING: True}} if call_id in long_running else {}
            created = TaskCreated(
                task_id=task_id,
                description=description,
                status=_STATUSES.get(name, TaskStatus.IN_PROGRESS),
                given_id=call_id,
                metadata=marks or None,
            )
            metadata[_EVENT] = add(created, number)
            if call_id is not None:
                tasks[call_id] = (task_id, marks)
            continue
        known = None if call_id is None else tasks.get(call_id)
        if known is not None:
            task_id = known[0]
        else:
            add(TaskCreated(task_id=task_id, description=name, status=TaskStatus.IN_PROGRESS), number)
        if isinstance(response := data.get("response"), dict):
            artifact = TaskArtifactAdded(task_id=task_id, artifact_id="result", parts=result_parts(response))
            metadata[_EVENT], data["response"] = add(artifact, number), None
        is_preliminary = (
            known is not None and _members(known[1], ADK).get(_LONG_RUNNING) and own.get("author") != "user"
        )
        if not is_preliminary and data.get("will_continue") is not True:
            outcome = response if isinstance(response, dict) else {}
            has_failed = outcome.get("error") is not None or outcome.get("isError") is True  # of MCP
            status = TaskStatus.FAILED if has_failed else TaskStatus.COMPLETED
            add(TaskStatusChanged(task_id=task_id, status=status), number)
    return events


def _function_parts(parts: list[Any]) -> Iterator[tuple[str, Json, Json]]:
    """Yield the function calls and responses among parts: the kind, the data, and the metadata of the part."""
    for part in parts:
        kind = _members(part, "metadata").get(_PART_TYPE)
        if kind in ("function_call", "function_response"):
            yield kind, part["data"], part["metadata"]


def moved_events(parts: Any) -> list[str]:
    """Return the ids of the events to which arguments and results of function calls in parts were moved.

    Those of an import are ids at its source, from which the ids of the events were derived.
    """
    found = [_members(part, "metadata").get(_EVENT) for part in parts or () if isinstance(part, dict)]
    return [event_id for event_id in found if isinstance(event_id, str)]


def _with_moved(kind: str, data: Json, content: Any) -> Json:
    """Return the data of a function call or response with what was moved to the event that has a content."""
    name = "args" if kind == "function_call" else "response"
    data = {member: value for member, value in data.items() if member != name or value is not None}
    value = None
    if isinstance(content, dict):  # it may have been erased, or be another event
        if kind == "function_response":
            value = response_in(content.get("parts"))
        else:
            with suppress(ValueError):
                value = json.loads(arguments_in(str(content.get("description")), str(data.get("name") or "")))
    return data | {name: value} if isinstance(value, dict) else data


def _members(value: Json, name: str) -> Json:
    """Return a member that is an object; an empty one if it is not."""
    member = value.get(name)
    return member if isinstance(member, dict) else {}


# To google-adk


def event_of(event: Event, moved: Mapping[str, Any]) -> Json:
    """Return google-adk's event of a ``message.added``.

    A message of another framework is the event of a user, or of the agent that has the name of its actor.

    Args:
        moved: the contents of the events to which arguments and results of its function calls were moved, by their ids.
    """
    content = event.content
    given_id = content.get("given_id")
    adk = _members(content, "metadata").get(ADK)
    if not isinstance(adk, dict):
        is_user = content.get("role") == "user"
        adk = {"author": "user" if is_user else event.actor or str(content.get("role"))}
        adk |= {"timestamp": event.occurred_at.timestamp(), "content_role": "user" if is_user else "model"}
    members = {name: value for name, value in adk.items() if not name.startswith("content_")}
    parts = content.get("parts")
    if not isinstance(parts, list):
        parts = [{"kind": "text", "text": content.get("content") or ""}]
    members["content"] = {
        "parts": [_adk_part(part, moved) for part in parts],
        **{name.removeprefix("content_"): value for name, value in adk.items() if name.startswith("content_")},
    }
    members["id"] = given_id if isinstance(given_id, str) and given_id else str(event.id)
    return members


def _adk_part(part: Any, moved: Mapping[str, Any]) -> Any:
    """Return google-adk's part of a part; what is of no known form becomes a text."""
    if not isinstance(part, dict):
        return {"text": part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)}
    metadata, file = _members(part, "metadata"), _members(part, "file")
    rest, kind = _members(metadata, _REST), metadata.get(_PART_TYPE)
    if isinstance(text := part.get("text"), str):
        return {"text": text} | ({"thought": metadata[_THOUGHT]} if _THOUGHT in metadata else {}) | rest
    for file_kind, (content_name, a2a_name) in _FILES.items():
        if isinstance(file.get(a2a_name), str):
            names = {a2a_name: content_name, "mimeType": "mime_type", "name": "display_name"}
            blob = {names[member]: value for member, value in file.items() if member in names}
            if file_kind == "inline_data":
                blob["data"] = blob["data"].translate(_STANDARD_TO_URL_SAFE)
            return {file_kind: blob} | rest
    data = part.get("data")
    if not isinstance(data, dict) or not isinstance(kind, str):
        return {"text": json.dumps(part, ensure_ascii=False)}
    if kind == _WHOLE:
        return data
    if kind == "function_response" and isinstance(nested := data.get("parts"), list):
        data = {**data, "parts": [_adk_part(each, moved) for each in nested]}
    if _EVENT in metadata:
        data = _with_moved(kind, data, moved.get(metadata[_EVENT]))
    return {kind: data} | rest
