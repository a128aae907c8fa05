"""Events of google-adk as messages of the store, and back, without loss; the tables that list its sessions.

It needs nothing of google-adk: workers that follow :data:`SESSIONS`, and the import of google-adk's own tables, use it
too. An event is given as its JSON, with google-adk's field names.

An event with content is a message in the form of A2A 0.3. A part that is more than a text or a file is a data part
whose ``metadata.adk_type`` names its kind, as in google-adk's own A2A converter; what accompanies the text, file or
call of a part, such as the signature of a thought, is in ``metadata.adk_part``. What A2A has no member for is in the
message's ``metadata.adk``. Any other event is an application event.

A session is identified by application, user and session id; several users may use the same session id. A session that
is created again after it was deleted is another conversation, its next generation: the deleted messages stay deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent_manager.a2a import Json
from eventstore import Event
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


def _members(value: Json, name: str) -> Json:
    """Return a member that is an object; an empty one if it is not."""
    member = value.get(name)
    return member if isinstance(member, dict) else {}


# To google-adk


def event_of(event: Event) -> Json:
    """Return google-adk's event of a ``message.added``.

    A message of another framework is the event of a user, or of the agent that has the name of its actor.
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
        "parts": [_adk_part(part) for part in parts],
        **{name.removeprefix("content_"): value for name, value in adk.items() if name.startswith("content_")},
    }
    members["id"] = given_id if isinstance(given_id, str) and given_id else str(event.id)
    return members


def _adk_part(part: Any) -> Any:
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
        data = {**data, "parts": [_adk_part(each) for each in nested]}
    return {kind: data} | rest
