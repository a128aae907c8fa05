"""Encoding of appends: from typed events to parameters of SQL functions, and from outcomes to typed results."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from os import urandom
from struct import Struct
from typing import NamedTuple, Self, TypeAlias, cast
from uuid import UUID

from psycopg.pq.abc import PGresult

from eventstore.database import binary_format as pg
from eventstore.database.binary_format import int2, int4, to_int4, to_timestamp
from eventstore.database.pipelined_connection import Statement
from eventstore.database.queries import query
from eventstore.errors import (
    ConversationIsDeleted,
    EventIdConflict,
    EventStoreError,
    EventTooLarge,
    Forbidden,
    InputError,
    InvalidEvent,
    InvalidId,
    WrongExpectedVersion,
    printable,
)
from eventstore.event_types import SCHEMA_VERSION, ConversationCreated, EventData, UnknownEvent, is_built_in
from eventstore.events import (
    ANY,
    EXISTS,
    HIGHEST_VERSION,
    NO_STREAM,
    PLAIN,
    Appended,
    AppendResult,
    ExpectedVersion,
    NewEvent,
)
from eventstore.ids import conversation_uuid, parse_uuid
from eventstore.json_text import check_text, to_json
from eventstore.member_order import with_member_order
from eventstore.scope import Caller
from eventstore.tracing import traceparent, with_traceparent

MAX_CONVERSATIONS = 100
"""Conversations in one append. Each takes a lock, and the server's lock table is finite."""
MAX_EVENTS = 10_000
"""Events in one append."""
SLICE_EVENTS = 50
"""Events that are encoded before the event loop may run other tasks: about a millisecond of work."""

ANY_VERSION = -2
"""The expected version ``ANY``, as the server takes it."""
_EXPECTED_CODES = {NO_STREAM: 0, EXISTS: -1, ANY: ANY_VERSION}
_HIGHEST_SCHEMA_VERSION = 2**15 - 1


@dataclass(frozen=True, slots=True)
class Append:
    """Events for one conversation, as part of an append to several.

    Raises:
        InputError: ``events`` is not a sequence.
    """

    conversation_id: UUID | str
    events: Sequence[EventData | NewEvent]
    expected: ExpectedVersion = ANY

    def __post_init__(self) -> None:
        if not isinstance(self.events, Sequence):
            raise InputError(f"events: expected a list of events, got a {type(self.events).__name__}")


Beginning: TypeAlias = ConversationCreated | NewEvent
"""The event that begins a conversation."""
AppendEvents: TypeAlias = Callable[[Sequence[EventData | NewEvent], ExpectedVersion], Awaitable[AppendResult]]
"""A function that appends events to one conversation."""


async def append_or_begin(append: AppendEvents, wanted: Append, begin: Beginning) -> AppendResult:
    """Append events to a conversation; if it is new, append the event that begins it with them, before them.

    Each attempt expects the conversation to exist, or not to. So of concurrent callers one begins it, and the others
    append to it; and a repetition with the same :class:`NewEvent` objects finds them stored.

    Returns:
        The result, with an entry for each of the events that are wanted.

    Raises:
        InputError: the expected version is that of a conversation that exists.
    """
    must_be_new = encode_expected(wanted.expected) == encode_expected(NO_STREAM)
    if not must_be_new and wanted.expected != ANY:
        raise InputError(
            f"expected: {wanted.expected!r} is for a conversation that exists: leave out expected or begin"
        )
    while True:
        if not must_be_new:
            with suppress(WrongExpectedVersion):
                return await append(wanted.events, EXISTS)
        try:
            result = await append([begin, *wanted.events], NO_STREAM)
            return AppendResult(result.events[1:])
        except InvalidEvent as error:
            path = re.sub(r"events\[(\d+)\]", _path_after_begin, error.path, count=1)
            raise InvalidEvent(path, error.reason) from None
        except WrongExpectedVersion:
            if must_be_new:
                raise


def _path_after_begin(path: re.Match[str]) -> str:
    number = int(path[1])
    return f"events[{number - 1}]" if number else "begin"


def named_conversation(tenant: str, conversation_id: UUID | str, begin: Beginning) -> tuple[UUID, Beginning]:
    """Return the id of the conversation that a UUID or any other text names, and its first event with that text.

    Raises:
        InvalidId: it is not a text.
        InputError: ``begin`` is another event than ConversationCreated.
    """
    data = begin.data if isinstance(begin, NewEvent) else begin
    if not isinstance(data, ConversationCreated):
        raise InputError(f"begin: {data!r:.80} is not a ConversationCreated")
    with suppress(InvalidId):
        return parse_uuid(conversation_id, "conversation_id"), begin
    target = conversation_uuid(tenant, cast(str, conversation_id))
    if data.given_id is None:
        data = data.model_copy(update={"given_id": conversation_id})
    return target, replace(begin, data=data) if isinstance(begin, NewEvent) else data


ConversationKey: TypeAlias = bytes
"""Id of a conversation, followed by the name of its tenant."""
Row: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""An encoded event: id, type, schema version, actor, and the JSON texts of content and metadata."""
ID, TYPE = 0, 1


class AppendRequest:
    """One append, checked and in PostgreSQL's binary format. :meth:`encode` must run before it is sent.

    Attributes:
        tenant: the tenant of its conversations.
        user: the user on whose behalf it is made; empty for the whole tenant.
        conversations: the ids of its conversations, one for each :class:`Append`.
        keys: the keys of these conversations.
        expected: the expected version of each conversation, as the server takes it.
        event_count: number of events.
        rows: the events that are encoded so far.
        targets: for each row, the index of its conversation.
        size: bytes of contents and metadata that are encoded so far.
        is_complete: all events are encoded.

    Raises:
        InvalidEvent, InvalidId, InputError: the append has a wrong actor, conversation, expected version or size.
    """

    def __init__(self, caller: Caller, appends: Sequence[Append], max_content_bytes: int, actor: str = "") -> None:
        self.tenant, self.user = caller.tenant, caller.user or ""
        if not isinstance(actor, str):
            raise InvalidEvent("actor", f"is a {type(actor).__name__}: expected a text")
        self._actor = actor
        self._appends = appends
        self._events = [tuple(append.events) for append in appends]  # the caller may change its lists
        self._max_content_bytes = max_content_bytes
        self._traceparent = traceparent()
        self.event_count = sum(map(len, self._events))
        self.conversations: list[UUID] = []
        self.expected: list[int] = []
        self.rows: list[Row] = []
        self.targets: list[int] = []
        self.size = 0
        self.is_complete = False
        if not appends:
            raise InputError("an append needs at least one conversation")
        if len(appends) > MAX_CONVERSATIONS:
            raise InputError(f"an append to {len(appends)} conversations: the limit is {MAX_CONVERSATIONS}, split it")
        if self.event_count > MAX_EVENTS:
            raise InputError(f"an append of {self.event_count} events: the limit is {MAX_EVENTS}, split it")
        for append, events in zip(appends, self._events, strict=True):
            conversation_id = parse_uuid(append.conversation_id, "conversation_id")
            if conversation_id in self.conversations:
                raise InputError(f"conversation {conversation_id} occurs twice in one append: put its events together")
            if not events:
                raise InputError(f"the append to conversation {conversation_id} has no events: give at least one")
            self.conversations.append(conversation_id)
            self.expected.append(encode_expected(append.expected))
        suffix = caller.tenant.encode()
        self.keys: list[ConversationKey] = [conversation_id.bytes + suffix for conversation_id in self.conversations]

    def encode(self) -> Self:
        """Check and encode all events."""
        for _ in self.encode_slices():
            pass
        return self

    def encode_slices(self) -> Iterator[None]:
        """Do what :meth:`encode` does, and yield after every :data:`SLICE_EVENTS` events."""
        for target, events in enumerate(self._events):
            ids: set[bytes] = set()
            for index, event in enumerate(events):
                row = self._encode_event(index, event, self.conversations[target])
                if row[ID] in ids:
                    raise InvalidEvent(f"events[{index}].id", f"{_event_id(row)} occurs twice in one append")
                ids.add(row[ID])
                self.rows.append(row)
                self.targets.append(target)
                if len(self.rows) % SLICE_EVENTS == 0:
                    yield
        self.is_complete = True

    def _encode_event(self, index: int, event: EventData | NewEvent, conversation_id: UUID) -> Row:
        if isinstance(event, NewEvent):
            data, event_id, actor, metadata = event.data, event.id.bytes, event.actor, event.metadata
        elif isinstance(event, EventData):
            data, event_id, actor, metadata = event, _random_id(), self._actor, PLAIN
        else:
            raise InvalidEvent(
                f"events[{index}]",
                f"is a {type(event).__name__}: give an event of the vocabulary or an ApplicationEvent",
            )
        try:
            content_json = to_json(data.to_content(), "content")
            metadata_json = b"{}" if metadata is PLAIN else to_json(metadata.to_content(), "metadata")
            event_type, event_actor = _encode_type(data.event_type), _encode_actor(actor)
            schema_version = data.schema_version if isinstance(data, UnknownEvent) else SCHEMA_VERSION
            if isinstance(data, UnknownEvent):
                _check_unknown(data)
            elif isinstance(data, ConversationCreated):
                self._check_given_id(data.given_id, conversation_id)
        except InvalidEvent as error:
            raise InvalidEvent(_path_in_append(index, error.path), error.reason) from None
        for name, text in (("content", content_json), ("metadata", metadata_json)):
            if len(text) > self._max_content_bytes:
                raise EventTooLarge(f"events[{index}].{name}", len(text), self._max_content_bytes)
        # What the store adds does not count towards the limit: a trace context, and the order of members, which is
        # shorter than the members themselves.
        if self._traceparent is not None and metadata.traceparent is None:
            metadata_json = with_traceparent(metadata_json, self._traceparent)
        metadata_json = with_member_order(metadata_json, data.member_order(), metadata.model_extra)
        self.size += len(content_json) + len(metadata_json)
        return (
            event_id,
            event_type,
            int2(schema_version),
            event_actor,
            content_json,
            metadata_json,
        )

    def _check_given_id(self, given_id: object, conversation_id: UUID) -> None:
        """Refuse the name of another conversation: a look-up by that name would find the wrong one."""
        if isinstance(given_id, str) and conversation_uuid(self.tenant, given_id) != conversation_id:
            raise InvalidEvent(
                "content.given_id",
                f"{printable(given_id)!r} is the name of another conversation: "
                "append to conversation_uuid(tenant, given_id), or leave it out",
            )

    @property
    def event_ids(self) -> list[UUID]:
        """The ids of the events, in their order."""
        return [_event_id(row) for row in self.rows]

    def result(self, outcomes: Sequence[Outcome]) -> AppendResult:
        """Return the result of the append, from one outcome for each event.

        Raises:
            Forbidden: the user may not append to one of the conversations.
            WrongExpectedVersion, EventIdConflict, ConversationIsDeleted: the log contradicts the append.
            InputError: the server refused an event.
        """
        for outcome in outcomes:
            if outcome[0] != NEW and outcome[0] != KNOWN:
                raise self._error(outcomes)
        ids = [row[ID] for row in self.rows]
        return AppendResult.deferred(partial(_appended, self.conversations, self.targets, ids, outcomes))

    def _error(self, outcomes: Sequence[Outcome]) -> EventStoreError:
        """Return the error of a refused append; if it was refused for several reasons, the most serious one."""
        codes = [outcome.code for outcome in outcomes]
        gravest_first = (REFUSED, FORBIDDEN, ID_CONFLICT, DELETED, WRONG_VERSION)
        number = next(codes.index(code) for code in gravest_first if code in codes)
        outcome, target, row = outcomes[number], self.targets[number], self.rows[number]
        conversation_id = self.conversations[target]
        if outcome.code == FORBIDDEN:
            return Forbidden(conversation_id)
        if outcome.code == ID_CONFLICT:
            return EventIdConflict(conversation_id, _event_id(row), outcome.problem)
        if outcome.code == DELETED:
            return ConversationIsDeleted(conversation_id)
        if outcome.code == WRONG_VERSION:
            return WrongExpectedVersion(conversation_id, self._appends[target].expected, outcome.version)
        return InputError(
            f"event {_event_id(row)} ({row[TYPE].decode()}) cannot be stored: {outcome.problem}: "
            "correct it; nothing was written"
        )


APPEND_ONE = Statement(
    b"eventstore_append_one",
    query("eventstore", "append_one").encode(),
    (pg.TEXT, pg.UUID, pg.INT4, pg.UUID, pg.TEXT, pg.INT2, pg.TEXT, pg.JSONB, pg.JSONB, pg.INT4, pg.TEXT),
)
APPEND_GROUP = Statement(
    b"eventstore_append_group",
    query("eventstore", "append_group").encode(),
    (
        *(pg.TEXT_ARRAY, pg.UUID_ARRAY, pg.INT4_ARRAY),  # of the conversations
        *(pg.INT4_ARRAY, pg.INT4_ARRAY, pg.UUID_ARRAY, pg.TEXT_ARRAY, pg.INT2_ARRAY, pg.TEXT_ARRAY),  # of the events
        *(pg.JSONB_ARRAY, pg.JSONB_ARRAY, pg.TEXT_ARRAY),
        pg.INT4,
    ),
)


def group_statement(group: Sequence[AppendRequest], lock_wait_ms: int) -> tuple[Statement, list[bytes]]:
    """Return the statement that makes the appends of a group, and its parameters.

    Args:
        lock_wait_ms: how long to wait for locked conversations; 0 means that they are only tried.
    """
    first = group[0]
    if len(group) == 1 and len(first.rows) == 1 and len(first.conversations) == 1:
        tenant, conversation_id = first.tenant.encode(), first.conversations[0].bytes
        *columns, content, metadata = first.rows[0]
        values = [*columns, pg.jsonb(content), pg.jsonb(metadata), int4(lock_wait_ms), first.user.encode()]
        return APPEND_ONE, [tenant, conversation_id, int4(first.expected[0]), *values]
    number_of: dict[ConversationKey, int] = {}  # counted from 1
    expected: list[int] = []
    append_numbers: list[int] = []
    conversation_numbers: list[int] = []
    rows: list[Row] = []
    users: list[bytes] = []
    for append_number, append in enumerate(group):
        for key, version in zip(append.keys, append.expected, strict=True):
            if key not in number_of:
                number_of[key] = len(number_of) + 1
                expected.append(version)
        numbers = [number_of[key] for key in append.keys]
        conversation_numbers += [numbers[target] for target in append.targets]
        append_numbers += [append_number] * len(append.rows)
        rows += append.rows
        users += [append.user.encode()] * len(append.rows)
    ids, types, schema_versions, actors, contents, metadatas = zip(*rows, strict=True)
    return APPEND_GROUP, [
        pg.array(pg.TEXT, [key[16:] for key in number_of]),
        pg.array(pg.UUID, [key[:16] for key in number_of]),
        pg.int4_array(expected),
        pg.int4_array(append_numbers),
        pg.int4_array(conversation_numbers),
        pg.array(pg.UUID, ids),
        pg.array(pg.TEXT, types),
        pg.array(pg.INT2, schema_versions),
        pg.array(pg.TEXT, actors),
        pg.jsonb_array(contents),
        pg.jsonb_array(metadatas),
        pg.array(pg.TEXT, users),
        int4(lock_wait_ms),
    ]


def read_outcomes(result: PGresult) -> list[Outcome]:
    """Return the outcome of each event, in the order in which they were sent."""
    if result.nfields == 1:  # a composite value
        return [Outcome._make(pg.members(result.get_value(0, 0) or b""))]
    codes, *others = (result.get_value(0, column) for column in range(result.nfields))
    columns = [pg.elements(codes or b"")]
    columns += ([None] * len(columns[0]) if each is None else pg.elements(each) for each in others)
    return [Outcome._make(row) for row in zip(*columns, strict=True)]


NEW, KNOWN, WRONG_VERSION, ID_CONFLICT, REFUSED, BUSY, FORBIDDEN, DELETED = (bytes((code,)) for code in b"nkvirbfd")
"""The outcomes of an event that the function ``append_group`` returns; its comment explains them."""


class Outcome(NamedTuple):
    """The server's answer for one event, in binary format. Members that do not apply to the code are None."""

    code: bytes | None
    raw_position: bytes | None
    raw_version: bytes | None
    raw_timestamp: bytes | None
    raw_problem: bytes | None

    @property
    def version(self) -> int:
        """The version of the event, or the current version of its conversation if that is not the expected one."""
        return to_int4(self.raw_version or bytes(4))

    @property
    def problem(self) -> str:
        """The reason of the refusal, or the members in which the event differs from the one stored under its id."""
        return (self.raw_problem or b"").decode()


_PLACE = Struct(">qiq")  # position, version, timestamp


def _appended(
    conversations: Sequence[UUID], targets: Sequence[int], ids: Sequence[bytes], outcomes: Sequence[Outcome]
) -> tuple[Appended, ...]:
    appended = []
    for target, event_id, (code, *place, _) in zip(targets, ids, outcomes, strict=True):
        position, version, timestamp = _PLACE.unpack(b"".join(value or b"" for value in place))
        appended.append(
            Appended(
                conversations[target],
                UUID(bytes=event_id),
                position,
                version,
                to_timestamp(timestamp),
                is_new=code == NEW,
            )
        )
    return tuple(appended)


def encode_expected(expected: ExpectedVersion) -> int:
    """Return the expected version as the server takes it."""
    if isinstance(expected, str) and expected in _EXPECTED_CODES:
        return _EXPECTED_CODES[expected]
    if isinstance(expected, int) and not isinstance(expected, bool) and 0 <= expected <= HIGHEST_VERSION:
        return expected
    raise InputError(f"expected version {expected!r}: give a number from 0, NO_STREAM, EXISTS or ANY")


def _path_in_append(index: int, path: str) -> str:
    key, rest = ("a key of ", path.removeprefix("a key of ")) if path.startswith("a key of ") else ("", path)
    return f"{key}events[{index}].{rest}".rstrip(".")


@lru_cache(maxsize=1024)
def _encode_type(event_type: str) -> bytes:
    check_text(event_type, "event_type", longest=100)
    return event_type.encode()


@lru_cache(maxsize=1024)
def _encode_actor(actor: str) -> bytes:
    check_text(actor, "actor", longest=255)
    return actor.encode()


def _check_unknown(data: UnknownEvent) -> None:
    """Refuse a built-in event that was not checked by its own class: it could fail in a projection."""
    if not 1 <= data.schema_version <= _HIGHEST_SCHEMA_VERSION:
        raise InvalidEvent("schema_version", f"{data.schema_version} is not between 1 and 32767")
    if data.schema_version <= SCHEMA_VERSION and is_built_in(data):
        raise InvalidEvent("", f"is an UnknownEvent named {data.event_type!r}: use the class of that event")


def _random_id() -> bytes:
    """Return a random UUID (RFC 9562, version 4)."""
    number = bytearray(urandom(16))
    number[6] = number[6] & 0x0F | 0x40
    number[8] = number[8] & 0x3F | 0x80
    return bytes(number)


def _event_id(row: Row) -> UUID:
    return UUID(bytes=row[ID])
