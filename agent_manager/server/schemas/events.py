"""Models of events and of appends."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, Field, SkipValidation

from agent_manager.a2a import Json
from agent_manager.server.schemas.common import (
    Cursor,
    In,
    Limit,
    NewestFirst,
    Out,
    PageOut,
    Position,
    PositionedOut,
    Since,
    Until,
)
from agent_manager.server.schemas.conversations import BEGIN, Actor, ExpectedVersion, Name
from eventstore import Event

Hex = Annotated[str, Field(pattern="^[0-9a-f]*$")]


class EventOut(Out):
    """An event."""

    position: Position
    conversation_id: UUID
    version: int = Field(description="1, 2, 3 … within its conversation.")
    id: UUID
    event_type: str
    schema_version: int
    actor: str
    timestamp: AwareDatetime = Field(description="The time when the log stored it.")
    content: Any
    metadata: Json = Field(description="`occurred_at`, `correlation_id` and further data beside the content.")
    salt: Hex | None = Field(description="Null if its content was erased.")
    digest: Hex


class EventPage(PageOut):
    """A page of the history of a conversation."""

    items: list[EventOut]


class LogPage(Out):
    """A page of the log."""

    items: list[EventOut]
    next: int = Field(description="`after` of the next request, even if there are no more events yet.")


class EventQuery(In):
    """The filters of events."""

    type: list[str] | None = Field(None, description="Only events of these types.")
    actor: str | None = None


class EventPageQuery(EventQuery):
    """The filters and the page of a list of events."""

    limit: Limit = 50
    since: Since = None
    until: Until = None


class HistoryQuery(EventPageQuery):
    """The filters and the page of the events of a conversation."""

    after: Cursor = None
    newest_first: NewestFirst = False
    shared: bool = Field(False, description="Of a fork, also the events that it shares, before its own.")


class LogQuery(EventPageQuery):
    """The filters and the page of the events of the log."""

    after: int = Field(0, ge=0, lt=2**63, description="Only positions above this one.")


class StreamQuery(In):
    """The position at which a stream starts."""

    after: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Start after this position; by default at the end. Last-Event-ID takes precedence.",
    )


class LogStreamQuery(StreamQuery, EventQuery):
    """The filters of a stream of the log."""


class ReplayQuery(EventQuery):
    """The filters and the speed of a replay of the log."""

    after: int = Field(0, ge=0, lt=2**63, description="Only positions above this one. Last-Event-ID takes precedence.")
    until_position: int | None = Field(None, ge=0, lt=2**63, description="Only positions up to this one.")
    speed: float = Field(1.0, gt=0, description="1 is the original pace, 10 is ten times as fast.")
    longest_pause: float | None = Field(None, ge=0, description="The longest pause between two events, in seconds.")


class EventIn(In):
    """An event to append."""

    event_type: str = Field(min_length=1, max_length=100, description="A built-in type, or a type of your application.")
    content: Any = None
    id: UUID | None = Field(None, description="Makes the append idempotent: the same event is stored once.")
    actor: Actor = ""
    metadata: Json | None = None


class Beginning(In):
    """The beginning of a conversation."""

    name: Name = ""
    metadata: Json | None = None


class EventsIn(In):
    """Events to append to one conversation: all of them or none."""

    events: list[SkipValidation[EventIn]] = Field(min_length=1, max_length=10_000)
    """Validated by the endpoint, in slices."""
    expected_version: ExpectedVersion = None
    begin: Beginning | None = Field(None, description=BEGIN)


class AppendedOut(PositionedOut):
    """The position and version of an appended event."""

    event_id: UUID
    version: int
    timestamp: AwareDatetime
    is_new: bool = Field(description="False if an earlier request stored it.")


NOT_STORED = (
    "Files, or other parts, of the message that are too large, and the setting that allows them: the message has these "
    "notes in their place, and is stored otherwise."
)


class AppendOut(PositionedOut):
    """The result of an append."""

    conversation_id: UUID
    version: int
    not_stored: list[str] = Field([], description=NOT_STORED)
    events: list[AppendedOut]


def event_out(event: Event) -> EventOut:
    """Return the response model of an event."""
    return EventOut.model_construct(
        position=event.position,
        conversation_id=event.conversation_id,
        version=event.version,
        id=event.id,
        event_type=event.event_type,
        schema_version=event.schema_version,
        actor=event.actor,
        timestamp=event.timestamp,
        content=event.content,
        metadata=event.raw_metadata,
        salt=event.salt.hex() if event.salt is not None else None,
        digest=event.digest.hex(),
    )
