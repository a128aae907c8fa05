"""A line of a chat log, checked to the last event before any of it is written."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import tzinfo

from agent_manager.importing.chatlog import Conversation, conversation_from_line
from agent_manager.importing.jsonline import MalformedLine
from agent_manager.importing.lines import MAX_LINE_BYTES, Line
from eventstore import Append, MessageAdded, NewEvent, TaskArtifactAdded, TaskCreated
from eventstore.append import MAX_EVENTS, Batch
from eventstore.errors import InputError
from eventstore.jsontext import to_json

PART_BYTES = 32 * 1024 * 1024
"""A larger conversation takes several appends: the server holds each whole in memory, more than once."""


_GROWTH = 8
"""A text grows by less, from the line to the events that are derived from it: it is escaped once more at most."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A conversation that waits to be appended, usually in one part."""

    file: str
    line: int
    conversation: Conversation
    parts: list[Append]


def checked(file: str, line: Line, tenant: str, max_content_bytes: int, zone: tzinfo) -> Checked | None:
    """Return the conversation of a line, None if it is blank; ``zone`` is that of times without an offset.

    Raises:
        InputError: nothing of the line can go in.
    """
    text = line.text
    if text is None:
        raise MalformedLine(f"is {line.size:,} bytes long, the limit is {MAX_LINE_BYTES:,}: split the conversation")
    if line.number == 1:
        text = text.removeprefix(codecs.BOM_UTF8)
    if not text.strip():
        return None
    try:
        conversation = conversation_from_line(text, tenant, zone)
        if line.size * _GROWTH > max_content_bytes:
            conversation.events = list(_fitting(conversation.events, max_content_bytes))
        parts = [Append(conversation.id, events) for events in _parts(conversation.events, line.size)]
    except RecursionError:
        raise MalformedLine("is nested too deeply") from None
    first = 0
    for part in parts:
        try:
            Batch(tenant, [part], max_content_bytes)
        except InputError as error:
            raise MalformedLine(_in_line(str(error), conversation.places[first:])) from None
        first += len(part.events)
    return Checked(file, line.number, conversation, parts)


def _parts(events: list[NewEvent], size: int) -> Iterator[list[NewEvent]]:
    """The events of a line of that many bytes, in as few appends as may be."""
    if len(events) <= MAX_EVENTS and size <= PART_BYTES:
        yield events
        return
    part: list[NewEvent] = []
    taken = 0
    for event in events:
        more = len(json.dumps(event.data.to_content()))
        if part and (len(part) == MAX_EVENTS or taken + more > PART_BYTES):
            yield part
            part, taken = [], 0
        part.append(event)
        taken += more
    yield part


def _fitting(events: list[NewEvent], limit: int) -> Iterator[NewEvent]:
    """The events, those of tasks cut to the size limit: the message that they come from holds everything."""
    message_id = None
    for event in events:
        data = event.data
        if isinstance(data, MessageAdded):
            message_id = event.id
        elif len(to_json(data.to_content(), "content")) > limit:
            if isinstance(data, TaskCreated):
                data = data.model_copy(update={"description": data.description[: limit // _GROWTH] + "…"})
            elif isinstance(data, TaskArtifactAdded):
                reference = {"kind": "data", "data": {"message_id": str(message_id)}}
                data = data.model_copy(update={"parts": [reference]})
        yield replace(event, data=data)


_EVENT = re.compile(r"\bevents\[(\d+)\](?:\.content(?:\.extra)?)?(?=[ .:\[])")


def _in_line(text: str, places: list[str]) -> str:
    """An error of an append in the words of the line: ``messages[3].name`` for ``events[4].content.extra.name``."""
    return _EVENT.sub(lambda match: places[int(match[1])], text, count=1)
