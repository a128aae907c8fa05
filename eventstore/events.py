"""Events on their way into the log (:class:`NewEvent`) and as they stand in it (:class:`Event`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Literal, Self, TypeAlias
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError, field_validator

from eventstore.errors import InvalidEvent
from eventstore.json_text import load
from eventstore.member_order import MEMBER, restore, restore_members
from eventstore.vocabulary import SCHEMA_VERSION, EventData, UnknownEvent, parse, parse_json

NO_STREAM: Literal["NO_STREAM"] = "NO_STREAM"
"""Expected version: the conversation has no events yet."""
EXISTS: Literal["EXISTS"] = "EXISTS"
"""Expected version: the conversation has at least one event."""
ANY: Literal["ANY"] = "ANY"
"""Expected version: whatever it is."""

ExpectedVersion: TypeAlias = int | Literal["NO_STREAM", "EXISTS", "ANY"]


class Metadata(BaseModel):
    """What is known about an event beside its content. Members of the application's own are kept.

    The member ``eventstore.member_order`` is the store's (:mod:`eventstore.member_order`); one that is given is
    ignored.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    occurred_at: AwareDatetime | None = None
    """When it really happened, where that is not when the log took it."""
    correlation_id: str | None = None
    """Shared by all events of one business transaction."""
    causation_id: str | None = None
    """What caused the event: another event's id, a request's id."""
    traceparent: str | None = None
    """W3C trace context."""

    def __init__(self, /, **values: Any) -> None:
        values.pop(MEMBER, None)
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = ".".join(str(part) for part in first["loc"])
            raise InvalidEvent(f"metadata.{path}", f"{first['msg']}, got {first['input']!r:.80}") from None

    @field_validator("occurred_at")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        try:
            return value and value.astimezone(UTC)
        except OverflowError:
            raise ValueError("lies outside the years 1 to 9999") from None

    def to_content(self) -> dict[str, Any]:
        """Plain JSON values; members that are None are left out."""
        known = {name: getattr(self, name) for name in type(self).model_fields}
        if self.occurred_at is not None:
            known["occurred_at"] = self.occurred_at.isoformat()
        return {name: value for name, value in known.items() if value is not None} | (self.model_extra or {})


PLAIN = Metadata()
"""Nothing is known beside the content."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append.

    Attributes:
        data: what happened.
        id: identifies the event in its conversation for good; appending the same event again under it is harmless.
        actor: who caused it, at most 255 characters.
        metadata: when it happened, what it belongs to.
    """

    data: EventData
    id: UUID = field(default_factory=uuid4)
    actor: str = ""
    metadata: Metadata = PLAIN

    def __post_init__(self) -> None:
        if not (
            isinstance(self.data, EventData)
            and isinstance(self.id, UUID)
            and isinstance(self.actor, str)
            and isinstance(self.metadata, Metadata)
        ):
            for name, kind in (("data", EventData), ("id", UUID), ("actor", str), ("metadata", Metadata)):
                if not isinstance(value := getattr(self, name), kind):
                    raise InvalidEvent(name, f"is a {type(value).__name__}: expected {kind.__name__}")

    @property
    def schema_version(self) -> int:
        """Version of the shape of :attr:`data`."""
        return self.data.schema_version if isinstance(self.data, UnknownEvent) else SCHEMA_VERSION


@dataclass(frozen=True, init=False)
class Event:
    """One event of the log.

    It keeps the row as it was read, and reads JSON when it is asked for: readers hand out many more events than anybody
    looks at closely.

    Attributes:
        position: orders the whole log.
        timestamp: when the log took it.
        version: 1, 2, 3 … within its conversation.
        content: what is stored, as plain JSON values; :attr:`data` is the same, typed.
        raw_metadata: what is stored beside the content; :attr:`metadata` is the same, typed, without the order of the
            members (:mod:`eventstore.member_order`), which :attr:`content` and :attr:`data` have already.
        salt: random bytes of its own; None once its content was erased.
        digest: SHA-256 in the byte format of ``docs/concepts/digest.md``.
    """

    position: int
    timestamp: datetime
    version: int
    schema_version: int
    conversation_id: UUID
    id: UUID
    tenant_id: str
    event_type: str
    actor: str
    content: Any
    raw_metadata: dict[str, Any]
    salt: bytes | None
    digest: bytes

    def __init__(
        self, position: int, timestamp: datetime, version: int, schema_version: int, conversation_id: UUID, id: UUID,
        tenant_id: str, event_type: str, actor: str, content: Any, raw_metadata: dict[str, Any], salt: bytes | None,
        digest: bytes,
    ) -> None:  # fmt: skip
        row = (
            position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, actor,
            content, raw_metadata, salt, digest,
        )  # fmt: skip
        _set(self, "_row", row)

    @classmethod
    def from_row(cls, row: tuple[Any, ...]) -> Self:
        """The event of a row of the log: the fields in their order, JSON as the bytes of PostgreSQL's binary format."""
        event = _new(cls)
        _set(event, "_row", row)
        return event

    @property
    def data(self) -> EventData:
        """What happened, as a model of the vocabulary."""
        data: EventData | None = getattr(self, "_data", None)
        if data is None:
            stored = _row(self)[CONTENT]
            if isinstance(stored, bytes):
                data = parse_json(self.event_type, self.schema_version, stored[1:])
            else:
                data = parse(self.event_type, self.schema_version, stored)
            data.restore_order(_content_order(self))
            _set(self, "_data", data)
        return data

    @property
    def metadata(self) -> Metadata:
        """What is known beside the content."""
        metadata: Metadata | None = getattr(self, "_metadata", None)
        if metadata is None:
            # In the order in which raw_metadata has them.
            metadata = Metadata(**self.raw_metadata) if _row(self)[METADATA] != _EMPTY else PLAIN
            _set(self, "_metadata", metadata)
        return metadata

    @property
    def size(self) -> int:
        """About how many bytes its content takes as JSON."""
        stored = _row(self)[CONTENT]
        return len(stored if isinstance(stored, bytes) else str(stored))

    @property
    def occurred_at(self) -> datetime:
        """When it happened, as far as anybody said; otherwise when the log took it."""
        return self.metadata.occurred_at or self.timestamp


_new, _set = object.__new__, object.__setattr__
_row: Callable[[Event], tuple[Any, ...]] = attrgetter("_row")
CONTENT, METADATA = 9, 10
_EMPTY = b"\x01{}"
"""An empty object in PostgreSQL's binary format: the number of the format, then the text."""


def _column(index: int) -> property:
    return property(lambda event: event._row[index])


def _json_column(index: int, name: str) -> property:
    """Read once; stored bytes are never a JSON value, so events that were made of values can keep those there."""

    def read(event: Event) -> Any:
        stored = _row(event)[index]
        if not isinstance(stored, bytes):
            return stored
        value = getattr(event, name, _UNREAD)
        if value is _UNREAD:
            value = load(stored[1:])
            if index == METADATA:
                value = _with_order(value)
            elif isinstance(order := _content_order(event), dict):
                restore_members(value if isinstance(value, dict) else {}, order)
            else:
                restore(value, order)
            _set(event, name, value)
        return value

    return property(read)


def _content_order(event: Event) -> object:
    """What is stored of the order of the members in an event's content."""
    stored = _row(event)[METADATA]
    if not isinstance(stored, bytes) or _MEMBER not in stored:
        return None
    orders = event.raw_metadata.get(MEMBER)
    return orders.get("content") if isinstance(orders, dict) else None


def _with_order(metadata: Any) -> Any:
    """The metadata of an event with the application's own members in the order in which they were given."""
    orders = metadata.get(MEMBER) if isinstance(metadata, dict) else None
    if not isinstance(orders, dict) or "metadata" not in orders:
        return metadata
    own = {name: value for name, value in metadata.items() if name not in Metadata.model_fields and name != MEMBER}
    restore(own, orders["metadata"])
    return {name: value for name, value in metadata.items() if name not in own} | own


_UNREAD = object()
_MEMBER = MEMBER.encode()

for _index, _field in enumerate(fields(Event)):
    _is_json = _index in (CONTENT, METADATA)
    setattr(Event, _field.name, _json_column(_index, f"_{_field.name}") if _is_json else _column(_index))


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an event of an append stands in the log.

    Attributes:
        is_new: False where it stood there already, from an earlier append of the same event.
    """

    conversation_id: UUID
    event_id: UUID
    position: int
    version: int
    timestamp: datetime
    is_new: bool


class AppendResult:
    """What an append did. Immutable; equal to another that speaks of the same."""

    __slots__ = ("_events", "_make")

    def __init__(self, events: Sequence[Appended]) -> None:
        self._events: tuple[Appended, ...] | None = tuple(events)
        self._make: Callable[[], tuple[Appended, ...]] | None = None

    @classmethod
    def made_later(cls, make: Callable[[], tuple[Appended, ...]]) -> Self:
        """One whose entries are made when somebody looks: most appends are of interest only in that they are done."""
        result = cls.__new__(cls)
        result._events, result._make = None, make
        return result

    @property
    def events(self) -> tuple[Appended, ...]:
        """One entry per event, in the order given."""
        if self._make is not None:
            self._events, self._make = self._make(), None
        assert self._events is not None
        return self._events

    @property
    def position(self) -> int:
        """The highest position among the events."""
        return max(event.position for event in self.events)

    @property
    def version(self) -> int:
        """The highest version among the events; the conversation's, where the append was to one."""
        return max(event.version for event in self.events)

    def __eq__(self, other: object) -> bool:
        return self.events == other.events if isinstance(other, AppendResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.events)

    def __repr__(self) -> str:
        return f"AppendResult(events={self.events!r})"

    def __reduce__(self) -> tuple[type[AppendResult], tuple[tuple[Appended, ...]]]:
        return AppendResult, (self.events,)
