"""Events: to append (:class:`NewEvent`), as stored (:class:`Event`), and as results of an append."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, Self, TypeAlias
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError, field_validator

from eventstore.errors import InvalidEvent
from eventstore.event_types import SCHEMA_VERSION, EventData, UnknownEvent, parse, parse_json
from eventstore.lazy_row import LazyRow, lazy_row
from eventstore.member_order import MEMBER, restore, restore_members

NO_STREAM: Literal["NO_STREAM"] = "NO_STREAM"
"""Expected version: the conversation has no events yet."""
EXISTS: Literal["EXISTS"] = "EXISTS"
"""Expected version: the conversation has at least one event."""
ANY: Literal["ANY"] = "ANY"
"""Expected version: whatever it is."""

ExpectedVersion: TypeAlias = int | Literal["NO_STREAM", "EXISTS", "ANY"]

HIGHEST_POSITION, HIGHEST_VERSION = 2**63 - 1, 2**31 - 1


class Metadata(BaseModel):
    """Data about an event beside its content, with any further members of the application.

    The member ``eventstore.member_order`` belongs to the store (:mod:`eventstore.member_order`) and is ignored.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    occurred_at: AwareDatetime | None = None
    """The time at which the event happened, if that is not the time of its append."""
    correlation_id: str | None = None
    """An id shared by all events of one business transaction."""
    causation_id: str | None = None
    """The id of the cause of the event: another event or a request."""
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
        """Return plain JSON values, without members that are None."""
        known = {name: getattr(self, name) for name in type(self).model_fields}
        if self.occurred_at is not None:
            known["occurred_at"] = self.occurred_at.isoformat()
        return {name: value for name, value in known.items() if value is not None} | (self.model_extra or {})


PLAIN = Metadata()
"""Empty metadata."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to append.

    Attributes:
        data: the content.
        id: identifies the event in its conversation; appending the same event again under this id is harmless.
        actor: the person, agent or system that caused it, in at most 255 characters.
        metadata: data about the event, such as when it happened.
    """

    data: EventData
    id: UUID = field(default_factory=uuid4)
    actor: str = ""
    metadata: Metadata = PLAIN

    def __post_init__(self) -> None:
        for name, kind in _TYPES_OF_NEW_EVENT:
            if not isinstance(value := getattr(self, name), kind):
                raise InvalidEvent(name, f"is a {type(value).__name__}: expected {kind.__name__}")

    @property
    def schema_version(self) -> int:
        """The schema version of :attr:`data`."""
        return self.data.schema_version if isinstance(self.data, UnknownEvent) else SCHEMA_VERSION


_TYPES_OF_NEW_EVENT = (("data", EventData), ("id", UUID), ("actor", str), ("metadata", Metadata))


@lazy_row("content", "raw_metadata")
@dataclass(frozen=True, init=False)
class Event(LazyRow):
    """A stored event.

    Attributes:
        position: orders the whole log.
        timestamp: the time of the append.
        version: 1, 2, 3 … within its conversation.
        content: the content as plain JSON values; :attr:`data` is the same, typed.
        raw_metadata: the metadata as plain JSON values; :attr:`metadata` is the same, typed, without the order of the
            members (:mod:`eventstore.member_order`), in which :attr:`content` and :attr:`data` already are.
        salt: random bytes; None once the content was erased.
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

    @cached_property
    def data(self) -> EventData:
        """The content, as a model of the vocabulary."""
        stored = self._row[CONTENT]
        if isinstance(stored, bytes) and _content_order(self) is None:
            return parse_json(self.event_type, self.schema_version, stored[1:])
        return parse(self.event_type, self.schema_version, self.content)

    @cached_property
    def metadata(self) -> Metadata:
        """The metadata, as a model."""
        return Metadata(**self.raw_metadata) if self._row[METADATA] != _EMPTY else PLAIN

    @property
    def is_erased(self) -> bool:
        """True if the content of the event was erased."""
        return self.salt is None

    @property
    def size(self) -> int:
        """The approximate size of the content as JSON, in bytes."""
        stored = self._row[CONTENT]
        return len(stored if isinstance(stored, bytes) else str(stored))

    @property
    def occurred_at(self) -> datetime:
        """The time when the event happened, if the metadata has it; otherwise the time of the append."""
        return self.metadata.occurred_at or self.timestamp

    def _restored(self, name: str, value: Any) -> Any:
        if name == "raw_metadata":
            return _with_order(value)
        if isinstance(order := _content_order(self), dict):
            restore_members(value if isinstance(value, dict) else {}, order)
        else:
            restore(value, order)
        return value


_set = object.__setattr__
CONTENT, METADATA = 9, 10
_MEMBER = MEMBER.encode()
_EMPTY = b"\x01{}"
"""An empty object in PostgreSQL's binary format: the number of the format, then the text."""


def stored_texts(event: Event) -> tuple[str, str]:
    """Return content and metadata of an event that was read from the log, as the canonical JSON of its digest."""
    content, metadata = event._row[CONTENT], event._row[METADATA]
    return content[1:].decode(), metadata[1:].decode()


def _content_order(event: Event) -> object:
    """Return the stored order of the members in an event's content."""
    stored = event._row[METADATA]
    if not isinstance(stored, bytes) or _MEMBER not in stored:
        return None
    orders = event.raw_metadata.get(MEMBER)
    return orders.get("content") if isinstance(orders, dict) else None


def _with_order(metadata: Any) -> Any:
    """Return the metadata with the application's members in the order in which they were appended."""
    orders = metadata.get(MEMBER) if isinstance(metadata, dict) else None
    if not isinstance(orders, dict) or "metadata" not in orders:
        return metadata
    own = {name: value for name, value in metadata.items() if name not in Metadata.model_fields and name != MEMBER}
    restore(own, orders["metadata"])
    return {name: value for name, value in metadata.items() if name not in own} | own


@dataclass(frozen=True, slots=True)
class Appended:
    """The place of an appended event in the log.

    Attributes:
        is_new: False if an earlier append had stored the same event.
    """

    conversation_id: UUID
    event_id: UUID
    position: int
    version: int
    timestamp: datetime
    is_new: bool


class AppendResult:
    """The result of an append. It is immutable, and compared by value."""

    __slots__ = ("_events", "_make")

    def __init__(self, events: Sequence[Appended]) -> None:
        self._events: tuple[Appended, ...] | None = tuple(events)
        self._make: Callable[[], tuple[Appended, ...]] | None = None

    @classmethod
    def deferred(cls, make: Callable[[], tuple[Appended, ...]]) -> Self:
        """Return a result whose entries are made on first access: most callers never look at them."""
        result = cls.__new__(cls)
        result._events, result._make = None, make
        return result

    @property
    def events(self) -> tuple[Appended, ...]:
        """The entries of the events, in the order of the append."""
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
        """The highest version among the events: after an append to one conversation, its version."""
        return max(event.version for event in self.events)

    def __eq__(self, other: object) -> bool:
        return self.events == other.events if isinstance(other, AppendResult) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.events)

    def __repr__(self) -> str:
        return f"AppendResult(events={self.events!r})"

    def __reduce__(self) -> tuple[type[AppendResult], tuple[tuple[Appended, ...]]]:
        return AppendResult, (self.events,)
