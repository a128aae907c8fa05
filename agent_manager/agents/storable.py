"""What cannot be stored of what an agent said: a note with the reason takes its place, so that the rest is stored.

A text keeps what can be kept of it; any other value gives way to a note. An event that is too large is made several
where its kind allows it: an artifact by its parts, and a long text by pieces that continue it; a history by its
messages. Only what is too large by itself, or cannot be divided, is cut or gives way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, cast
from uuid import uuid4

from agent_manager.agents.answering import Update
from agent_manager.agents.wire import Json
from eventstore import EventData, NewEvent, TaskArtifactAdded, TaskArtifactExtended, TaskCreated, TaskDescribed
from eventstore.jsontext import MAX_DEPTH, to_json

NOTE = "eventstore:not_stored"
"""The member that holds the note in place of members that cannot be stored."""

_DEPTH = MAX_DEPTH - 8
"""Levels of nesting in an update: its event puts a few around what it holds."""
_SURROGATES = frozenset(map(chr, range(0xD800, 0xE000)))
_NOTE_BYTES = 200
"""What a note takes, at most."""
_ESCAPED = 6
"""Bytes of a character as JSON, at most."""


def storable(update: Update) -> Update:
    """Return the update with notes in place of the values that cannot be stored, however small the event."""
    return replace(update, **{field.name: _value(getattr(update, field.name), 1) for field in fields(update)})


def storable_text(text: str) -> str:
    """Return a text as it can be stored; if a character of it cannot be, with a note."""
    repaired = text.replace("\0", "\ufffd")
    try:
        repaired.encode()
    except UnicodeEncodeError:  # halves of a character that belong together are one again
        repaired = repaired.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if repaired.count("\ufffd") == text.count("\ufffd"):
        return str.__str__(repaired)
    offset = next(index for index, character in enumerate(text) if character == "\0" or character in _SURROGATES)
    what = "a NUL character" if text[offset] == "\0" else "a lone surrogate"
    return f"{repaired} {_note(f'{what} at offset {offset}, which PostgreSQL cannot store as text')}"


def fitting(event: NewEvent, limit: int) -> list[NewEvent]:
    """Return events that together keep an event whose content is larger than the limit, as far as they can.

    Args:
        limit: bytes of the content of an event as JSON.
    """
    if _size(event.data.to_content()) <= limit:
        return [event]
    divided = [_shrunk(data, limit) for data in _divided(event.data, limit)]
    return [replace(event, data=data, id=event.id if number == 0 else uuid4()) for number, data in enumerate(divided)]


def _value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _note(f"the number {value}, which JSON does not have")
    if isinstance(value, int):
        try:
            return int(str(int(value)))
        except ValueError:  # Python's own bound on the digits that it converts
            return _note("an integer of more digits than can be read back")
    if not isinstance(value, dict | list | tuple):
        return _note(f"a {type(value).__name__}, which JSON cannot express")
    if depth > _DEPTH:
        return _note(f"values that are nested deeper than {_DEPTH} levels")
    if isinstance(value, dict):
        return {storable_text(str(key)): _value(item, depth + 1) for key, item in value.items()}
    return [_value(item, depth + 1) for item in value]


def _divided(data: EventData, limit: int) -> list[EventData]:
    match data:
        case TaskArtifactAdded() | TaskArtifactExtended():
            return _divided_artifact(data, limit)
        case TaskDescribed(history=list() as history):
            return _divided_history(data.model_copy(update={"history": []}), history, limit)
        case TaskCreated(extra=dict() as extra) | TaskDescribed(extra=dict() as extra):
            if isinstance(messages := extra.get("history"), list):
                return _divided_history(data.model_copy(update={"extra": extra | {"history": []}}), messages, limit)
    return [data]


def _divided_artifact(data: TaskArtifactAdded | TaskArtifactExtended, limit: int) -> list[EventData]:
    head = _shrunk(data.model_copy(update={"parts": []}), limit // 2)
    room = limit - _size(head.to_content())
    packs: list[tuple[list[Any], bool]] = [([], False)]
    left = room
    for part, continues in _pieces(data.parts, room):
        size = _size(part) + 1
        if (size > left and packs[-1][0]) or continues:
            packs.append(([], continues))
            left = room
        packs[-1][0].append(part)
        left -= size
    names: Json = {"task_id": data.task_id, "artifact_id": cast("TaskArtifactAdded", head).artifact_id}
    first, *rest = packs
    divided: list[EventData] = [head.model_copy(update={"parts": first[0], "last_chunk": data.last_chunk and not rest})]
    for number, (parts, continues) in enumerate(rest, 1):
        is_last = data.last_chunk and number == len(rest)
        divided.append(TaskArtifactExtended(**names, parts=parts, last_chunk=is_last, continues_text=continues or None))
    return divided


def _pieces(parts: list[Any], room: int) -> Iterable[tuple[Any, bool]]:
    """Parts that fit, and whether each continues the text of the one before."""
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        if _size(part) <= room or not isinstance(text, str) or _size(part | {"text": ""}) > room // 2:
            yield part, False
            continue
        step = max(1, room // 2 // _ESCAPED)
        for start in range(0, len(text), step):
            yield part | {"text": text[start : start + step]}, start > 0


def _divided_history(head: EventData, history: list[Any], limit: int) -> list[EventData]:
    packs: list[list[Any]] = [[]]
    task_id = cast("TaskDescribed", head).task_id
    room = left = limit - _size(TaskDescribed(task_id=task_id, history=[]).to_content())
    for message in history:
        kept = _shrunk_value(message, room - 1) if isinstance(message, dict) else message
        size = _size(kept) + 1
        if size > left and packs[-1]:
            packs.append([])
            left = room
        packs[-1].append(kept)
        left -= size
    return [head, *(TaskDescribed(task_id=task_id, history=pack) for pack in packs)]


def _shrunk(data: EventData, limit: int) -> EventData:
    content = data.to_content()
    return data if _size(content) <= limit else type(data)(**_shrunk_value(content, limit))


def _shrunk_value(value: Json, limit: int) -> Json:
    """Return an object that takes no more than the limit: again and again the largest value gives way."""
    while (size := _size(value)) > limit:
        value = _with_less(value, size - limit, "", limit)
    return value


def _with_less(value: Any, excess: int, name: str, limit: int) -> Any:
    """Return a value that takes less, if possible by as much as is to go."""
    if isinstance(value, str):
        size = _size(value)
        room = max(size - excess - _NOTE_BYTES, min(size, limit) // 4)  # others may have to give way too
        kept = value[: len(value) * room // size]
        while _size(kept) > room and kept:  # its beginning takes more bytes a character than all of it
            kept = kept[: len(kept) * 3 // 4]
        return f"{kept} {_note(f'the rest of a text of {size:,} bytes', limit)}".strip()
    if not isinstance(value, dict | list):
        return value
    sizes = {key: _size(item) for key, item in (value.items() if isinstance(value, dict) else enumerate(value))}
    largest = max(sizes, key=lambda key: sizes[key])
    item, size = value[largest], sizes[largest]
    if size <= _NOTE_BYTES:
        return _with_fewer(value, sizes, excess, limit)
    is_part = name == "parts" and not (isinstance(item, dict) and isinstance(item.get("text"), str))
    if is_part or not isinstance(item, dict | list | str):
        less: Any = _part_note(item, size, limit)
    else:
        less = _with_less(item, excess, str(largest), limit)
    if isinstance(value, dict):
        return value | {largest: less}
    return [less if key == largest else one for key, one in enumerate(value)]


def _with_fewer(value: Any, sizes: dict[Any, int], excess: int, limit: int) -> Any:
    """Return a value without its last members, of which there are many small ones."""
    kept, freed = list(sizes), 0
    while kept and freed < excess + _NOTE_BYTES:
        last = kept.pop()
        freed += sizes[last] + 1 + (_size(last) + 1 if isinstance(value, dict) else 0)
    text = _note(f"{len(sizes) - len(kept):,} further values of {freed:,} bytes", limit)
    if isinstance(value, dict):
        return {key: value[key] for key in kept} | {NOTE: text}
    return [*(value[key] for key in kept), {"text": text} if all(isinstance(one, dict) for one in value) else text]


def _part_note(part: Any, size: int, limit: int) -> Json:
    head: Json = {}
    about: list[str] = []
    if isinstance(part, dict):
        head = {"kind": "text"} if "kind" in part else {}
        inner = part["file"] if isinstance(part.get("file"), dict) else part
        names = ("mimeType", "mediaType", "name", "filename")
        about = [inner[name][:40] for name in names if isinstance(inner.get(name), str)]
    what = f"a part ({', '.join(about)})" if about else "a part"
    return head | {"text": _note(f"{what} of {size:,} bytes", limit)}


def _note(what: str, limit: int | None = None) -> str:
    reason = "" if limit is None else f", the limit of an event is {limit:,} bytes"
    return f"[not stored: {what}{reason}]"


def _size(value: Any) -> int:
    return len(to_json(value, "value"))
