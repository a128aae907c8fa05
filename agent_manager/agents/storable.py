"""Notes in place of the values of an agent's updates that cannot be stored, so that all others are stored.

A text is stored as far as possible. An event that is too large is divided if its type allows it: an artifact by its
parts, a long text into chunks that continue it, a history by its messages. Only a value that is too large by itself, or
cannot be divided, is shortened or replaced.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, cast
from uuid import UUID, uuid4

from agent_manager.a2a import Json
from agent_manager.agents.agent import Update
from eventstore import EventData, NewEvent, TaskArtifactAdded, TaskArtifactExtended, TaskCreated, TaskDescribed
from eventstore.errors import printable
from eventstore.json_text import MAX_DEPTH, to_json

NOTE = "eventstore:not_stored"
"""The member with the note that replaces members of an object."""

_MAX_DEPTH = MAX_DEPTH - 8
"""Levels of nesting in an update: its event adds a few."""
_SURROGATES = frozenset(map(chr, range(0xD800, 0xE000)))
_NOTES = re.compile(r"\[not stored: [^\]]*\]")
_NOTE_BYTES, _NAME_BYTES = 600, 40
"""Largest size of a note, and of a file's name and type in it."""
_CHARACTER_BYTES = 6
"""Largest size of a character as JSON."""


def storable(update: Update) -> Update:
    """Return an update with notes in place of the values that cannot be stored, whatever the size of the event."""
    return replace(update, **{each.name: _storable_value(getattr(update, each.name), 1) for each in fields(update)})


def storable_text(text: str) -> str:
    """Return a text with characters that cannot be stored replaced, and a note if there are any."""
    repaired = text.replace("\0", "\ufffd")
    try:
        repaired.encode()
    except UnicodeEncodeError:  # also combines surrogates that form one character
        repaired = repaired.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if repaired.count("\ufffd") == text.count("\ufffd"):
        return str.__str__(repaired)
    offset = next(index for index, character in enumerate(text) if character == "\0" or character in _SURROGATES)
    what = "a NUL character" if text[offset] == "\0" else "a lone surrogate"
    return f"{repaired} {_note(f'{what} at offset {offset}, which PostgreSQL cannot store as text')}"


def _storable_value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return storable_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _note(f"the number {value}, which JSON does not have")
    if isinstance(value, int):
        try:
            return int(str(int(value)))
        except ValueError:  # Python limits the number of digits that it converts
            return _note("an integer of more digits than can be read back")
    if not isinstance(value, dict | list | tuple):
        return _note(f"a {type(value).__name__}, which JSON cannot express")
    if depth > _MAX_DEPTH:
        return _note(f"values that are nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {storable_text(str(key)): _storable_value(item, depth + 1) for key, item in value.items()}
    return [_storable_value(item, depth + 1) for item in value]


def split_event(event: NewEvent, limit: int) -> list[NewEvent]:
    """Return events that together store an event whose content exceeds the limit, as far as possible.

    Args:
        limit: the largest size of an event's content as JSON, in bytes.
    """
    if _size(event.data.to_content()) <= limit:
        return [event]
    parts = [_shortened(data, limit) for data in _split(event.data, limit)]
    return [replace(event, data=data, id=event.id if number == 0 else uuid4()) for number, data in enumerate(parts)]


def _split(data: EventData, limit: int) -> list[EventData]:
    match data:
        case TaskArtifactAdded() | TaskArtifactExtended():
            return _split_artifact(data, limit)
        case TaskDescribed(history=list() as history):
            return _split_history(data.model_copy(update={"history": []}), data.task_id, history, limit)
        case TaskCreated(extra=dict() as extra) | TaskDescribed(extra=dict() as extra):
            if isinstance(messages := extra.get("history"), list):
                first = data.model_copy(update={"extra": extra | {"history": []}})
                return _split_history(first, data.task_id, messages, limit)
    return [data]


def _split_artifact(data: TaskArtifactAdded | TaskArtifactExtended, limit: int) -> list[EventData]:
    head = cast("TaskArtifactAdded", _shortened(data.model_copy(update={"parts": []}), limit // 2))
    available = limit - _size(head.to_content())
    (parts, _), *rest = _chunks(_split_parts(data.parts, available), available)
    events: list[EventData] = [head.model_copy(update={"parts": parts, "last_chunk": data.last_chunk and not rest})]
    for number, (parts, continues) in enumerate(rest, 1):
        events.append(
            TaskArtifactExtended(
                task_id=data.task_id, artifact_id=head.artifact_id, parts=parts,
                last_chunk=data.last_chunk and number == len(rest), continues_text=continues or None,
            )
        )  # fmt: skip
    return events


def _split_parts(parts: list[Any], available: int) -> Iterable[tuple[Any, bool]]:
    """Yield parts that fit, and whether each continues the text of the one before."""
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        if _size(part) <= available or not isinstance(text, str) or _size(part | {"text": ""}) > available // 2:
            yield part, False
            continue
        step = max(1, available // 2 // _CHARACTER_BYTES)
        for start in range(0, len(text), step):
            yield part | {"text": text[start : start + step]}, start > 0


def _split_history(first: EventData, task_id: UUID, history: list[Any], limit: int) -> list[EventData]:
    available = limit - _size(TaskDescribed(task_id=task_id, history=[]).to_content())
    messages = (_shortened_object(each, available - 1) if isinstance(each, dict) else each for each in history)
    chunks = _chunks(((message, False) for message in messages), available)
    return [first, *(TaskDescribed(task_id=task_id, history=chunk) for chunk, _ in chunks)]


def _chunks(items: Iterable[tuple[Any, bool]], available: int) -> list[tuple[list[Any], bool]]:
    """Return lists of items that fit. An item that continues the one before begins a list, which is marked."""
    chunks: list[tuple[list[Any], bool]] = [([], False)]
    remaining = available
    for item, continues in items:
        size = _size(item) + 1
        if (size > remaining and chunks[-1][0]) or continues:
            chunks.append(([], continues))
            remaining = available
        chunks[-1][0].append(item)
        remaining -= size
    return chunks


def _shortened(data: EventData, limit: int) -> EventData:
    content = data.to_content()
    return data if _size(content) <= limit else type(data)(**_shortened_object(content, limit))


def _shortened_object(value: Json, limit: int) -> Json:
    """Return an object within the limit: its largest value is shortened or replaced, repeatedly."""
    while (size := _size(value)) > limit:
        value = _with_less(value, size - limit, "", limit)
    return value


def _with_less(value: Any, excess: int, name: str, limit: int) -> Any:
    """Return a smaller value, if possible by as much as the excess."""
    if isinstance(value, str):
        size = _size(value)
        available = max(size - excess - _NOTE_BYTES, min(size, limit) // 4)  # others may be shortened too
        kept = value[: len(value) * available // size]
        while _size(kept) > available and kept:  # its beginning has more bytes per character than all of it
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
    return [less if key == largest else each for key, each in enumerate(value)]


def _with_fewer(value: Any, sizes: dict[Any, int], excess: int, limit: int) -> Any:
    """Return a value of many small members without the last ones."""
    kept, freed = list(sizes), 0
    while kept and freed < excess + _NOTE_BYTES:
        last = kept.pop()
        freed += sizes[last] + 1 + (_size(last) + 1 if isinstance(value, dict) else 0)
    text = _note(f"{len(sizes) - len(kept):,} further values of {freed:,} bytes", limit)
    if isinstance(value, dict):
        return {key: value[key] for key in kept} | {NOTE: text}
    note = {"text": text} if all(isinstance(each, dict) for each in value) else text
    return [*(value[key] for key in kept), note]


def without_large_parts(message: Json, excess: int, limit: int) -> tuple[Json, list[str]]:
    """Return a message with notes in place of its largest parts other than texts, and the notes.

    Args:
        excess: the bytes by which the message is too large; as many parts are replaced as that takes.
    """
    name = next((name for name in ("parts", "content") if isinstance(message.get(name), list)), None)
    if name is None:
        return message, []
    parts, notes = list(message[name]), []
    sizes = {
        number: _size(part)
        for number, part in enumerate(parts)
        if isinstance(part, dict) and not isinstance(part.get("text"), str)
    }
    for number in sorted(sizes, key=lambda number: -sizes[number]):
        if excess <= 0 or sizes[number] <= _NOTE_BYTES:
            break
        parts[number] = _part_note(parts[number], sizes[number], limit)
        excess -= sizes[number] - _size(parts[number])
        notes.append(parts[number]["text"])
    return message | {name: parts}, notes


def _part_note(part: Any, size: int, limit: int) -> Json:
    note: Json = {}
    facts: Json = {}
    if isinstance(part, dict):
        note = {name: "text" for name in ("kind", "type") if name in part}
        file = part["file"] if isinstance(part.get("file"), dict) else part
        for names in (("mimeType", "mediaType"), ("name", "filename")):
            if name := next((each for each in names if isinstance(file.get(each), str)), None):
                facts[name] = printable(file[name]).encode()[:_NAME_BYTES].decode(errors="ignore")
        encoded = file.get("bytes", file.get("raw"))
        if isinstance(encoded, str):
            size = len(encoded) * 3 // 4 - encoded[-2:].count("=")
    what = f"a part ({', '.join(facts.values())})" if facts else "a part"
    metadata = {"metadata": {NOTE: facts | {"bytes": size}}}
    return note | {"text": _note(f"{what} of {size:,} bytes", limit)} | metadata


def _note(what: str, limit: int | None = None) -> str:
    if limit is not None:
        what += f", the limit of an event is {limit:,} bytes: raise EVENTSTORE_MAX_CONTENT_BYTES"
    return f"[not stored: {what}]"


def notes_in(events: Iterable[NewEvent]) -> list[str]:
    """Return the notes in events that :func:`split_event` has made."""
    return [note for event in events for note in _NOTES.findall(to_json(event.data.to_content(), "content").decode())]


def _size(value: Any) -> int:
    return len(to_json(value, "value"))
