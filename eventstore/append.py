"""Appending: from typed events to what travels to the server, and from what it says of each event to typed results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from eventstore.database.binary import int2, jsonb, to_timestamp, with_length
from eventstore.errors import (
    EventIdConflict,
    EventStoreError,
    EventTooLarge,
    InputError,
    InvalidEvent,
    WrongExpectedVersion,
)
from eventstore.events import ANY, EXISTS, NO_STREAM, PLAIN, Appended, AppendResult, ExpectedVersion, NewEvent
from eventstore.ids import parse_uuid
from eventstore.jsontext import check_text, to_json
from eventstore.vocabulary import SCHEMA_VERSION, EventData, UnknownEvent, is_built_in

MAX_CONVERSATIONS = 100
"""In one append; each takes a lock, and the server's table of locks is finite."""
MAX_EVENTS = 10_000
"""In one append."""

ANY_VERSION = -2
"""``ANY``, as the server takes it."""

_WORDS = {NO_STREAM: 0, EXISTS: -1, ANY: ANY_VERSION}
_HIGHEST_VERSION = 2**31 - 1
_HIGHEST_SCHEMA_VERSION = 2**15 - 1


@dataclass(frozen=True, slots=True)
class Append:
    """Events for one conversation, as a part of an append to several."""

    conversation_id: UUID | str
    events: Sequence[EventData | NewEvent]
    expected: ExpectedVersion = ANY


class Batch:
    """One append, checked and in the binary format in which it travels; and its outcome, back from the server.

    Attributes:
        tenant: whose it is.
        conversations: one for each of its :class:`Append`.
        expected: the versions that they are expected to have, as the server takes them.
        size: bytes of contents and metadata.

    Raises:
        InvalidEvent, EventTooLarge, InvalidId, InputError: something cannot be stored.
    """

    __slots__ = (
        "_actor",
        "_events",
        "_expected",
        "_limit",
        "conversations",
        "expected",
        "rows",
        "size",
        "tenant",
    )

    def __init__(self, tenant: str, appends: Iterable[Append], max_content_bytes: int, actor: str = "") -> None:
        self._limit = max_content_bytes
        self._actor = actor
        self._expected: list[ExpectedVersion] = []
        self._events: list[NewEvent] = []
        self.tenant = checked_tenant(tenant)
        self.conversations: list[UUID] = []
        self.expected: list[int] = []
        self.rows: list[Row] = []
        self.size = 0
        for append in appends:
            self._add(append)
        self._check_size()

    def _add(self, append: Append) -> None:
        conversation_id = parse_uuid(append.conversation_id, "conversation_id")
        if conversation_id in self.conversations:
            raise InputError(f"conversation {conversation_id} stands twice in one append: put its events together")
        if not append.events:
            raise InputError(f"the append to conversation {conversation_id} has no events: give at least one")
        self.expected.append(encode_expected(append.expected))
        self.conversations.append(conversation_id)
        self._expected.append(append.expected)
        seen: set[UUID] = set()
        for index, given in enumerate(append.events):
            event = given if isinstance(given, NewEvent) else NewEvent(_data(given, index), actor=self._actor)
            if event.id in seen:
                raise InvalidEvent(f"events[{index}].id", f"{event.id} stands twice in one append")
            seen.add(event.id)
            self._add_event(event, index)

    def _add_event(self, event: NewEvent, index: int) -> None:
        data = event.data
        try:
            content = to_json(data.to_content(), "content")
            metadata = b"{}" if event.metadata is PLAIN else to_json(event.metadata.to_content(), "metadata")
            event_type, actor = _type_word(data.event_type), _actor_word(event.actor)
            _check_unknown(data)
        except InvalidEvent as error:
            raise InvalidEvent(_in_event(index, error.path), error.reason) from None
        for what, size in (("content", len(content)), ("metadata", len(metadata))):
            if size > self._limit:
                raise EventTooLarge(f"events[{index}].{what}", size, self._limit)
        self.size += len(content) + len(metadata)
        self._events.append(event)
        self.rows.append(
            Row(
                len(self.conversations) - 1,
                with_length(event.id.bytes),
                event_type,
                _version_word(event.schema_version),
                actor,
                jsonb(content),
                jsonb(metadata),
            )
        )

    def _check_size(self) -> None:
        if not self.conversations:
            raise InputError("an append needs at least one conversation")
        if len(self.conversations) > MAX_CONVERSATIONS:
            raise InputError(
                f"an append to {len(self.conversations)} conversations: the limit is {MAX_CONVERSATIONS}, split it"
            )
        if len(self.rows) > MAX_EVENTS:
            raise InputError(f"an append of {len(self.rows)} events: the limit is {MAX_EVENTS}, split it")

    def result(self, outcomes: Sequence[Outcome]) -> AppendResult:
        """What the append did, from one outcome for each event.

        Raises:
            WrongExpectedVersion, EventIdConflict: what the log holds contradicts it.
            InputError: the server refused an event.
        """
        appended = []
        for row, event, told in zip(self.rows, self._events, outcomes, strict=True):
            code, position, version, moment, _ = told
            if code != NEW and code != KNOWN:
                raise self._fault(outcomes)
            conversation_id = self.conversations[row.target]
            appended.append(Appended(conversation_id, event.id, position, version, to_timestamp(moment), code == NEW))
        return AppendResult(tuple(appended))

    def _fault(self, outcomes: Sequence[Outcome]) -> EventStoreError:
        """The error for what the server found wrong; where that is several things, for the gravest."""
        codes = [outcome.code for outcome in outcomes]
        number = next(codes.index(fault) for fault in (REFUSED, ID_CONFLICT, WRONG_VERSION) if fault in codes)
        told, target, event = outcomes[number], self.rows[number].target, self._events[number]
        conversation_id = self.conversations[target]
        if told.code == ID_CONFLICT:
            return EventIdConflict(conversation_id, event.id)
        if told.code == WRONG_VERSION:
            return WrongExpectedVersion(conversation_id, self._expected[target], told.version)
        return InputError(
            f"event {event.id} ({event.data.event_type}) cannot be stored: {told.problem}: "
            "correct it; nothing was written"
        )


class Row(NamedTuple):
    """An event as it stands in binary arrays; ``target`` counts the append's conversations from 0."""

    target: int
    id: bytes
    event_type: bytes
    schema_version: bytes
    actor: bytes
    content: bytes
    metadata: bytes


NEW, KNOWN, WRONG_VERSION, ID_CONFLICT, REFUSED, BUSY = b"n", b"k", b"v", b"i", b"r", b"b"
"""What the server says of an event. A further word is ``x``, its append was refused for another of its events; the
migration that makes ``append_group`` explains them all."""


class Outcome(NamedTuple):
    """What the server says of one event. Members that the code does not speak of are empty.

    Attributes:
        moment: the timestamp, in microseconds as PostgreSQL counts them.
    """

    code: bytes
    position: int
    version: int
    moment: int
    problem: str


def encode_expected(expected: ExpectedVersion) -> int:
    """The expected version as the server takes it.

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


def _in_event(index: int, path: str) -> str:
    key, rest = ("a key of ", path.removeprefix("a key of ")) if path.startswith("a key of ") else ("", path)
    return f"{key}events[{index}].{rest}".rstrip(".")


@lru_cache(maxsize=1024)
def _type_word(event_type: str) -> bytes:
    check_text(event_type, "event_type", longest=100)
    return with_length(event_type.encode())


@lru_cache(maxsize=1024)
def _actor_word(actor: str) -> bytes:
    check_text(actor, "actor", longest=255)
    return with_length(actor.encode())


@lru_cache(maxsize=64)
def _version_word(version: int) -> bytes:
    return with_length(int2(version))


def _check_unknown(data: EventData) -> None:
    """An event that was not made by its own class could otherwise fail in a projection."""
    if not isinstance(data, UnknownEvent):
        return
    if not 1 <= data.schema_version <= _HIGHEST_SCHEMA_VERSION:
        raise InvalidEvent("schema_version", f"{data.schema_version} is not between 1 and 32767")
    if data.schema_version <= SCHEMA_VERSION and is_built_in(data):
        raise InvalidEvent("", f"is an UnknownEvent named {data.event_type!r}: use the class of that event")


def _data(given: object, index: int) -> EventData:
    if not isinstance(given, EventData):
        raise InvalidEvent(
            f"events[{index}]", f"is a {type(given).__name__}: give an event of the vocabulary or an ApplicationEvent"
        )
    return given
