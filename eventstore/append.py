"""Appending: from typed events to what travels to the server, and from what it says of each event to typed results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from os import urandom
from struct import Struct
from typing import NamedTuple, Self, TypeAlias
from uuid import UUID

from eventstore.database.binary_format import int2, int4, jsonb, to_int4, to_timestamp, with_length, without_length
from eventstore.errors import (
    ConversationIsDeleted,
    EventIdConflict,
    EventStoreError,
    EventTooLarge,
    Forbidden,
    InputError,
    InvalidEvent,
    WrongExpectedVersion,
    printable,
)
from eventstore.events import ANY, EXISTS, NO_STREAM, PLAIN, Appended, AppendResult, ExpectedVersion, Metadata, NewEvent
from eventstore.ids import conversation_uuid, parse_uuid
from eventstore.json_text import check_text, to_json
from eventstore.member_order import with_member_order
from eventstore.scope import checked_tenant
from eventstore.vocabulary import SCHEMA_VERSION, ConversationCreated, EventData, UnknownEvent, is_built_in

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
    """Events for one conversation, as a part of an append to several.

    Raises:
        InputError: ``events`` is not a sequence.
    """

    conversation_id: UUID | str
    events: Sequence[EventData | NewEvent]
    expected: ExpectedVersion = ANY

    def __post_init__(self) -> None:
        if not isinstance(self.events, Sequence):
            raise InputError(f"events: expected a list of events, got a {type(self.events).__name__}")


SLICE_EVENTS = 50
"""Events that are serialised before the event loop may do something else: about a millisecond's work."""


class Batch:
    """One append, checked and in the binary format in which it travels; and its outcome, back from the server.

    Attributes:
        conversations: one for each of its :class:`Append`.
        expected: the versions that they are expected to have, as the server takes them.
        targets: of each event, which of the conversations it is for, counted from 0.
        rows: the events.
        size: bytes of contents and metadata.
        user: for whom it is appended; empty for the whole tenant.

    Raises:
        InvalidEvent, EventTooLarge, InvalidId, InputError: something cannot be stored.
    """

    __slots__ = (
        "_actor",
        "_appends",
        "_limit",
        "_tenant",
        "conversations",
        "expected",
        "rows",
        "size",
        "targets",
        "user",
    )

    def __init__(
        self, tenant: str, appends: Sequence[Append], max_content_bytes: int, actor: str = "", user: str = ""
    ) -> None:
        self._begin(tenant, appends, max_content_bytes, actor, user)
        for _ in self._slices():
            pass

    @classmethod
    async def in_slices(
        cls, tenant: str, appends: Sequence[Append], max_content_bytes: int, actor: str = "", user: str = ""
    ) -> Self:
        """Return the same, made a few events at a time, so that the event loop goes on with everything else."""
        batch = cls.__new__(cls)
        batch._begin(tenant, appends, max_content_bytes, actor, user)
        for _ in batch._slices():
            await asyncio.sleep(0)
        return batch

    def _begin(self, tenant: str, appends: Sequence[Append], max_content_bytes: int, actor: str, user: str) -> None:
        self._limit = max_content_bytes
        self.user = user
        self._actor = actor
        self._appends = appends
        self._tenant = checked_tenant(tenant)
        if not isinstance(actor, str):
            raise InvalidEvent("actor", f"is a {type(actor).__name__}: expected a text")
        self.conversations: list[UUID] = []
        self.expected: list[int] = []
        self.targets: list[int] = []
        self.rows: list[Row] = []
        self.size = 0

    def _slices(self) -> Iterator[None]:
        """Add all events; stop after each :data:`SLICE_EVENTS`."""
        for target, append in enumerate(self._appends):
            conversation_id = parse_uuid(append.conversation_id, "conversation_id")
            if target and conversation_id in self.conversations:
                raise InputError(f"conversation {conversation_id} stands twice in one append: put its events together")
            if not append.events:
                raise InputError(f"the append to conversation {conversation_id} has no events: give at least one")
            self.expected.append(encode_expected(append.expected))
            self.conversations.append(conversation_id)
            yield from self._add(append.events, target)
        self._check_size()

    def _add(self, events: Sequence[EventData | NewEvent], target: int) -> Iterator[None]:
        first = len(self.rows)
        of = self.conversations[target]
        for index, given in enumerate(events):
            if isinstance(given, NewEvent):
                row = self._row(index, given.data, of, with_length(given.id.bytes), given.actor, given.metadata)
            else:
                row = self._row(index, _data(given, index), of, _fresh_id(), self._actor, PLAIN)
            self.rows.append(row)
            if len(self.rows) % SLICE_EVENTS == 0:
                yield
        self.targets += [target] * len(events)
        if len(events) > 1:
            seen: set[bytes] = set()
            for index, row in enumerate(self.rows[first:]):
                if row[ID] in seen:
                    raise InvalidEvent(f"events[{index}].id", f"{_id_of(row)} stands twice in one append")
                seen.add(row[ID])

    def _row(
        self, index: int, data: EventData, conversation_id: UUID, event_id: bytes, actor: str, about: Metadata
    ) -> Row:
        try:
            content = to_json(data.to_content(), "content")
            metadata = b"{}" if about is PLAIN else to_json(about.to_content(), "metadata")
            type_word, actor_word = _type_word(data.event_type), _actor_word(actor)
            version = data.schema_version if isinstance(data, UnknownEvent) else SCHEMA_VERSION
            _check_unknown(data)
            self._check_given_id(data, conversation_id)
        except InvalidEvent as error:
            raise InvalidEvent(_in_event(index, error.path), error.reason) from None
        size = len(content) + len(metadata)
        if size > self._limit:
            for what, text in (("content", content), ("metadata", metadata)):
                if len(text) > self._limit:
                    raise EventTooLarge(f"events[{index}].{what}", len(text), self._limit)
        # Not counted against the limit: it is shorter than what it belongs to.
        metadata = with_member_order(metadata, data.member_order(), about.model_extra)
        self.size += len(content) + len(metadata)
        return (event_id, type_word, _version_word(version), actor_word, jsonb(content), jsonb(metadata))

    def _check_given_id(self, data: EventData, conversation_id: UUID) -> None:
        """Refuse the name of another conversation: whoever followed it would arrive there."""
        if not isinstance(data, ConversationCreated) or not isinstance(data.given_id, str):
            return
        if conversation_uuid(self._tenant, data.given_id) != conversation_id:
            raise InvalidEvent(
                "content.given_id",
                f"{printable(data.given_id)!r} is the name of another conversation: "
                "append to conversation_uuid(tenant, given_id), or leave it out",
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

    @property
    def event_ids(self) -> list[UUID]:
        """The ids of the events, in their order."""
        return [_id_of(row) for row in self.rows]

    def result(self, outcomes: Sequence[Outcome]) -> AppendResult:
        """What the append did, from one outcome for each event.

        Raises:
            Forbidden: the user may not append to one of the conversations.
            WrongExpectedVersion, EventIdConflict, ConversationIsDeleted: what the log holds contradicts it.
            InputError: the server refused an event.
        """
        for told in outcomes:
            if told[0] != NEW and told[0] != KNOWN:
                raise self._fault(outcomes)
        ids = [row[ID] for row in self.rows]
        return AppendResult.made_later(partial(_appended, self.conversations, self.targets, ids, outcomes))

    def _fault(self, outcomes: Sequence[Outcome]) -> EventStoreError:
        """The error for what the server found wrong; where that is several things, for the gravest."""
        codes = [outcome.code for outcome in outcomes]
        gravest = (REFUSED, FORBIDDEN, ID_CONFLICT, DELETED, WRONG_VERSION)
        number = next(codes.index(fault) for fault in gravest if fault in codes)
        told, target, row = outcomes[number], self.targets[number], self.rows[number]
        conversation_id = self.conversations[target]
        if told.code == FORBIDDEN:
            return Forbidden(conversation_id)
        if told.code == ID_CONFLICT:
            return EventIdConflict(conversation_id, _id_of(row), told.problem)
        if told.code == DELETED:
            return ConversationIsDeleted(conversation_id)
        if told.code == WRONG_VERSION:
            return WrongExpectedVersion(conversation_id, self._appends[target].expected, told.version)
        return InputError(
            f"event {_id_of(row)} ({without_length(row[TYPE]).decode()}) cannot be stored: {told.problem}: "
            "correct it; nothing was written"
        )


Row: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""An event as it stands in binary arrays: id, type, version of its schema, actor, content, metadata."""
ID, TYPE = 0, 1

NEW, KNOWN, WRONG_VERSION, ID_CONFLICT, REFUSED, BUSY, FORBIDDEN = b"n", b"k", b"v", b"i", b"r", b"b", b"f"
DELETED = b"d"
"""What the server says of an event. A further word is ``x``, its append was refused for another of its events; the
migration that makes ``append_group`` explains them all."""


class Outcome(NamedTuple):
    """What the server says of one event, in binary format. Members that the code does not speak of are None."""

    code: bytes | None
    raw_position: bytes | None
    raw_version: bytes | None
    raw_timestamp: bytes | None
    raw_problem: bytes | None

    @property
    def version(self) -> int:
        """That of the event, or the one that its conversation is at."""
        return to_int4(self.raw_version or bytes(4))

    @property
    def problem(self) -> str:
        """What is wrong with the event, or what distinguishes it from the one that is stored under its id."""
        return (self.raw_problem or b"").decode()


_PLACE = Struct(">qiq")


def _appended(
    conversations: Sequence[UUID], targets: Sequence[int], ids: Sequence[bytes], outcomes: Sequence[Outcome]
) -> tuple[Appended, ...]:
    made = []
    for target, event_id, (code, position, version, moment, _) in zip(targets, ids, outcomes, strict=True):
        place = _PLACE.unpack((position or b"") + (version or b"") + (moment or b""))
        read_id = UUID(bytes=without_length(event_id))
        made.append(Appended(conversations[target], read_id, place[0], place[1], to_timestamp(place[2]), code == NEW))
    return tuple(made)


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


def _fresh_id() -> bytes:
    """A random UUID (RFC 9562, version 4) as it stands in an array."""
    number = bytearray(urandom(16))
    number[6] = number[6] & 0x0F | 0x40
    number[8] = number[8] & 0x3F | 0x80
    return _UUID_LENGTH + number


_UUID_LENGTH = int4(16)


def _id_of(row: Row) -> UUID:
    return UUID(bytes=without_length(row[ID]))


def _data(given: object, index: int) -> EventData:
    if not isinstance(given, EventData):
        raise InvalidEvent(
            f"events[{index}]", f"is a {type(given).__name__}: give an event of the vocabulary or an ApplicationEvent"
        )
    return given
