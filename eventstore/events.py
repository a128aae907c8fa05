"""Events on their way into the log (:class:`NewEvent`) and as they stand in it (:class:`Event`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, TypeAlias
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError, field_validator

from eventstore.errors import InvalidEvent
from eventstore.vocabulary import SCHEMA_VERSION, EventData, UnknownEvent, parse

NO_STREAM: Literal["NO_STREAM"] = "NO_STREAM"
"""Expected version: the conversation has no events yet."""
EXISTS: Literal["EXISTS"] = "EXISTS"
"""Expected version: the conversation has at least one event."""
ANY: Literal["ANY"] = "ANY"
"""Expected version: whatever it is."""

ExpectedVersion: TypeAlias = int | Literal["NO_STREAM", "EXISTS", "ANY"]


class Metadata(BaseModel):
    """What is known about an event beside its content. Members of the application's own are kept."""

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
    metadata: Metadata = field(default_factory=Metadata)

    def __post_init__(self) -> None:
        for name, kind in (("data", EventData), ("id", UUID), ("actor", str), ("metadata", Metadata)):
            if not isinstance(value := getattr(self, name), kind):
                raise InvalidEvent(name, f"is a {type(value).__name__}: expected {kind.__name__}")

    @property
    def schema_version(self) -> int:
        """Version of the shape of :attr:`data`."""
        return self.data.schema_version if isinstance(self.data, UnknownEvent) else SCHEMA_VERSION


@dataclass(frozen=True)
class Event:
    """One event of the log.

    Attributes:
        position: orders the whole log.
        timestamp: when the log took it.
        version: 1, 2, 3 … within its conversation.
        content: what is stored, as plain JSON values; :attr:`data` is the same, typed.
        salt: random bytes of its own; None once its content was erased.
        digest: SHA-256 in the byte format of ``DIGEST.md``.
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

    @cached_property
    def data(self) -> EventData:
        """What happened, as a model of the vocabulary."""
        return parse(self.event_type, self.schema_version, self.content)

    @cached_property
    def metadata(self) -> Metadata:
        """What is known beside the content."""
        return Metadata(**self.raw_metadata)

    @property
    def occurred_at(self) -> datetime:
        """When it happened, as far as anybody said; otherwise when the log took it."""
        return self.metadata.occurred_at or self.timestamp


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


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What an append did, one entry per event in the order given."""

    events: tuple[Appended, ...]

    @property
    def position(self) -> int:
        """The highest position among the events."""
        return max(event.position for event in self.events)

    @property
    def version(self) -> int:
        """The highest version among the events; the conversation's, where the append was to one."""
        return max(event.version for event in self.events)
