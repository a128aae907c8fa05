"""Messages in a framework's own form, as messages of the vocabulary, and back.

A message is stored as the vocabulary has it, so that the console, search and other frameworks read it: its text, or the
parts of A2A. The form that the framework gave it is kept beside that, in ``extra``, with null in place of what the text
or the parts hold already; reading puts it back.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, cast

from agent_manager.a2a import Json, parts_text
from eventstore import MessageAdded, Role
from eventstore.errors import InvalidEvent
from eventstore.json_text import to_json

_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""The member that holds the text, by the type of a part."""
_FILE_MEMBERS = ("image_url", "file_data", "file_url", "uri")
_DATA_URL = re.compile(r"data:([^;,]*);base64,(.*)", re.DOTALL)


def message_of(form: Json, member: str, role: Role, prefix: str, **fields: Any) -> MessageAdded:
    """Return the event of a message in a framework's form.

    Args:
        member: the member of the form with its text or its list of parts.
        prefix: the member of ``extra`` that holds the rest of the form.
    """
    value = form.get(member)
    content, parts = value if isinstance(value, str) else None, None
    rest: Any = None if content is not None else value
    if isinstance(value, list) and value:
        parts, rest = map(list, zip(*map(_split, value), strict=True))
        if len(parts) == 1 and parts[0].keys() == {"kind", "text"}:
            content, parts = parts[0]["text"], None
    own = form | {member: rest} if member in form else form
    return MessageAdded(role=role, content=content, parts=parts, extra={prefix: own}, **fields)


def form_of(content: Json, member: str, prefix: str) -> Json:
    """Return the form of the message with this content, which :func:`message_of` has made."""
    form: Json = content["extra"][prefix]
    rest, text = form.get(member), content.get("content")
    if isinstance(rest, list) and rest:
        parts = content.get("parts") or [_text_part(cast(str, text))]
        form[member] = [_joined(*pair) for pair in zip(parts, rest, strict=True)]
    elif text is not None:
        form[member] = text
    return form


def parts_of(value: Any) -> tuple[list[Json], Any]:
    """Return a text or a list as the parts of A2A, and what is left of it; see :func:`value_of`."""
    if isinstance(value, list) and value:
        parts, rest = zip(*map(_split, value), strict=True)
        return list(parts), list(rest)
    return ([_text_part(value)], None) if isinstance(value, str) else ([], value)


def value_of(parts: list[Json], rest: Any) -> Any:
    """Return the value of which :func:`parts_of` has made parts."""
    if isinstance(rest, list) and rest:
        return [_joined(*pair) for pair in zip(parts, rest, strict=True)]
    return parts[0]["text"] if parts else rest


def plain_text(content: Json) -> str:
    """Return the text of the message with this content, whatever has written it."""
    return content.get("content") or parts_text(content.get("parts") or (content.get("extra") or {}).get("content"))


def _split(part: Any) -> tuple[Json, Json | None]:
    """Return a part in A2A's form, and what is left of it; None if A2A's form holds all."""
    if isinstance(part, dict):
        text_member = _text_member(part)
        if text_member is not None and isinstance(part.get(text_member), str):
            return _text_part(part[text_member]), part | {text_member: None}
        members = [name for name in _FILE_MEMBERS if name in part]
        if len(members) == 1 and isinstance(part[members[0]], str):
            name = {"name": part["filename"]} if isinstance(part.get("filename"), str) else {}
            return {"kind": "file", "file": _file(members[0], part[members[0]]) | name}, part | {members[0]: None}
    return {"kind": "data", "data": part}, None


def _joined(part: Json, rest: Json | None) -> Any:
    if rest is None:
        return part["data"]
    if part["kind"] == "text":
        return rest | {cast(str, _text_member(rest)): part["text"]}
    member = next(name for name in _FILE_MEMBERS if name in rest)
    return rest | {member: _address(part["file"])}


def _text_part(text: str) -> Json:
    return {"kind": "text", "text": text}


def _text_member(part: Json) -> str | None:
    kind = part.get("type")
    return _TEXTS.get(kind) if isinstance(kind, str) else None


def _file(member: str, address: str) -> Json:
    """Return A2A's file of a URL, which may hold the data itself."""
    if (data := _DATA_URL.fullmatch(address)) is not None:
        return {"mimeType": data[1], "bytes": data[2]}
    return {"bytes" if member == "file_data" else "uri": address}


def _address(file: Json) -> str:
    if "mimeType" in file:
        return f"data:{file['mimeType']};base64,{file['bytes']}"
    return str(file.get("uri", file.get("bytes")))


# Values that PostgreSQL cannot store as they are, such as a text with a NUL character


class NoJsonForm(InvalidEvent, TypeError):
    """A value has no JSON form. It is a TypeError too, as from the frameworks' own stores."""


def json_if_unstorable(value: Any) -> str | None:
    """Return a value as JSON in ASCII if it cannot be stored as it is; None if it can.

    Raises:
        NoJsonForm: it has no JSON form.
    """
    try:
        to_json(value, "item")
    except InvalidEvent as error:
        try:
            return json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            raise NoJsonForm(error.path, error.reason) from None
    return None


def storable(value: Any) -> Any:
    """Return a JSON value without what PostgreSQL cannot store, to be shown beside the value as it is.

    None stands for a value that is nested too deep to be shown.
    """
    try:
        return _storable(value)
    except RecursionError:
        return None


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {_storable(name): _storable(member) for name, member in value.items()}
    return [_storable(member) for member in value] if isinstance(value, list | tuple) else value
