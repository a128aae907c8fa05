"""Appending: from typed events to one call of the function ``append_events``, and its errors back to typed ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int2, Int4

from eventstore.database.queries import query
from eventstore.errors import (
    ConflictError,
    EventIdConflict,
    EventTooLarge,
    InputError,
    InvalidEvent,
    WrongExpectedVersion,
)
from eventstore.events import ANY, EXISTS, NO_STREAM, Appended, AppendResult, ExpectedVersion, NewEvent
from eventstore.ids import parse_uuid
from eventstore.jsontext import check_text, to_json
from eventstore.vocabulary import SCHEMA_VERSION, EventData, UnknownEvent, is_built_in

MAX_CONVERSATIONS = 100
"""In one append; each takes a lock, and the server's table of locks is finite."""
MAX_EVENTS = 10_000
"""In one append."""

APPEND = query("eventstore", "append")

_WORDS = {NO_STREAM: 0, EXISTS: -1, ANY: -2}
_HIGHEST_VERSION = 2**31 - 1
_HIGHEST_SCHEMA_VERSION = 2**15 - 1


@dataclass(frozen=True, slots=True)
class Append:
    """Events for one conversation, as a part of an append to several."""

    conversation_id: UUID | str
    events: Sequence[EventData | NewEvent]
    expected: ExpectedVersion = ANY


def _same(text: str) -> str:
    return text


class Batch:
    """The parameters of one append, checked.

    Raises:
        InvalidEvent, EventTooLarge, InvalidId, InputError: something cannot be stored.
    """

    def __init__(self, tenant: str, appends: Iterable[Append], max_content_bytes: int, actor: str = "") -> None:
        self._limit = max_content_bytes
        self._actor = actor
        self.conversations: list[UUID] = []
        self._expected: list[ExpectedVersion] = []
        self._numbers: list[int] = []
        self._events: list[NewEvent] = []
        self._contents: list[Jsonb] = []
        self._metadatas: list[Jsonb] = []
        self._tenant = checked_tenant(tenant)
        for append in appends:
            self._add(append)
        self._check_size()

    def _add(self, append: Append) -> None:
        conversation_id = parse_uuid(append.conversation_id, "conversation_id")
        if conversation_id in self.conversations:
            raise InputError(f"conversation {conversation_id} stands twice in one append: put its events together")
        if not append.events:
            raise InputError(f"the append to conversation {conversation_id} has no events: give at least one")
        self.conversations.append(conversation_id)
        self._expected.append(append.expected)
        encode_expected(append.expected)
        seen: set[UUID] = set()
        for index, given in enumerate(append.events):
            event = given if isinstance(given, NewEvent) else NewEvent(_data(given, index), actor=self._actor)
            if event.id in seen:
                raise InvalidEvent(f"events[{index}].id", f"{event.id} stands twice in one append")
            seen.add(event.id)
            self._add_event(event, f"events[{index}]")

    def _add_event(self, event: NewEvent, path: str) -> None:
        content = to_json(event.data.to_content(), f"{path}.content")
        metadata = to_json(event.metadata.to_content(), f"{path}.metadata")
        for what, text in (("content", content), ("metadata", metadata)):
            # A character takes up to four bytes: most texts need not be encoded to be found short enough.
            if len(text) * 4 > self._limit and (size := len(text.encode())) > self._limit:
                raise EventTooLarge(f"{path}.{what}", size, self._limit)
        check_text(event.actor, f"{path}.actor", longest=255)
        _check_type(event, path)
        self._numbers.append(len(self.conversations))
        self._events.append(event)
        self._contents.append(Jsonb(content, dumps=_same))
        self._metadatas.append(Jsonb(metadata, dumps=_same))

    def _check_size(self) -> None:
        if not self.conversations:
            raise InputError("an append needs at least one conversation")
        if len(self.conversations) > MAX_CONVERSATIONS:
            raise InputError(
                f"an append to {len(self.conversations)} conversations: the limit is {MAX_CONVERSATIONS}, split it"
            )
        if len(self._events) > MAX_EVENTS:
            raise InputError(f"an append of {len(self._events)} events: the limit is {MAX_EVENTS}, split it")

    def parameters(self) -> dict[str, Any]:
        """For ``append.sql``."""
        events = self._events
        return {
            "tenant_ids": [self._tenant] * len(self.conversations),
            "conversation_ids": self.conversations,
            "expected_versions": [Int4(encode_expected(expected)) for expected in self._expected],
            "conversation_nos": [Int4(number) for number in self._numbers],
            "event_ids": [event.id for event in events],
            "event_types": [event.data.event_type for event in events],
            "schema_versions": [Int2(event.schema_version) for event in events],
            "actors": [event.actor for event in events],
            "contents": self._contents,
            "metadatas": self._metadatas,
        }

    def result(self, rows: Iterable[tuple[Any, ...]]) -> AppendResult:
        """From what ``append.sql`` returned."""
        return AppendResult(
            tuple(
                Appended(self.conversations[number - 1], event.id, *row[1:])
                for row, event, number in zip(rows, self._events, self._numbers, strict=True)
            )
        )

    def conflict(self, error: psycopg.Error) -> ConflictError | None:
        """The typed error for one that the function raised because of what the log holds."""
        if error.sqlstate not in ("ES001", "ES002"):
            return None
        detail = json.loads(error.diag.message_detail or "{}")
        conversation_id = UUID(detail["conversation_id"])
        if error.sqlstate == "ES002":
            return EventIdConflict(conversation_id, UUID(detail["event_id"]))
        expected = self._expected[self.conversations.index(conversation_id)]
        return WrongExpectedVersion(conversation_id, expected, detail["actual"])


def encode_expected(expected: ExpectedVersion) -> int:
    """The expected version as ``append_events`` takes it.

    Raises:
        InputError: it is neither a version nor one of the three words.
    """
    if isinstance(expected, str) and expected in _WORDS:
        return _WORDS[expected]
    if isinstance(expected, int) and not isinstance(expected, bool) and 0 <= expected <= _HIGHEST_VERSION:
        return expected
    raise InputError(f"expected version {expected!r}: give a number from 0, NO_STREAM, EXISTS or ANY")


def checked_tenant(tenant: str) -> str:
    """The tenant's name.

    Raises:
        InvalidEvent: it is empty, too long or not storable.
    """
    if not isinstance(tenant, str) or not tenant:
        raise InvalidEvent("tenant", f"{tenant!r} is no name: give a text of 1 to 255 characters")
    check_text(tenant, "tenant", longest=255)
    return tenant


def _check_type(event: NewEvent, path: str) -> None:
    """An event that was not made by its own class could otherwise fail in a projection."""
    check_text(event.data.event_type, f"{path}.event_type", longest=100)
    if not 1 <= event.schema_version <= _HIGHEST_SCHEMA_VERSION:
        raise InvalidEvent(f"{path}.schema_version", f"{event.schema_version} is not between 1 and 32767")
    if isinstance(event.data, UnknownEvent) and event.schema_version <= SCHEMA_VERSION and is_built_in(event.data):
        raise InvalidEvent(path, f"is an UnknownEvent named {event.data.event_type!r}: use the class of that event")


def _data(given: object, index: int) -> EventData:
    if not isinstance(given, EventData):
        raise InvalidEvent(
            f"events[{index}]", f"is a {type(given).__name__}: give an event of the vocabulary or an ApplicationEvent"
        )
    return given
