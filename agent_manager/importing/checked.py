"""A line of a chat log, checked to the last event before any of it is written."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent_manager.importing.chatlog import Conversation, conversation_from_line
from agent_manager.importing.jsonline import MalformedLine
from agent_manager.importing.lines import MAX_LINE_BYTES, Line
from eventstore import Append, NewEvent
from eventstore.append import MAX_EVENTS, Batch
from eventstore.errors import InputError

PART_BYTES = 32 * 1024 * 1024
"""A larger conversation takes several appends: the server holds each whole in memory, more than once."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A conversation that waits to be appended, usually in one part."""

    file: str
    line: int
    conversation: Conversation
    parts: list[Append]


def checked(file: str, line: Line, tenant: str, max_content_bytes: int) -> Checked | None:
    """The conversation of a line, None where it is blank.

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
        conversation = conversation_from_line(text, tenant)
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


_EVENT = re.compile(r"\bevents\[(\d+)\](?:\.content(?:\.extra)?)?(?=[ .:\[])")


def _in_line(text: str, places: list[str]) -> str:
    """An error of an append in the words of the line: ``messages[3].name`` for ``events[4].content.extra.name``."""
    return _EVENT.sub(lambda match: places[int(match[1])], text, count=1)
