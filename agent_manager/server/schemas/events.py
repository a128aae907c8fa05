"""Events of the log, and appending."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, Field, SkipValidation

from agent_manager.server.schemas.common import (
    In,
    Json,
    Limit,
    NewestFirst,
    Out,
    PageOut,
    Position,
    PositionedOut,
    Since,
    Until,
)
from agent_manager.server.schemas.conversations import Actor, ExpectedVersion
from eventstore import Appended, AppendResult, Event

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
    timestamp: AwareDatetime = Field(description="When the log took it.")
    content: Any
    metadata: Json = Field(description="`occurred_at`, `correlation_id` and what else is known beside the content.")
    salt: Hex | None = Field(description="Null once its content was erased.")
    digest: Hex


class EventPage(PageOut):
    """A page of the trail of a conversation."""

    items: list[EventOut]


class LogPage(Out):
    """Events of the log."""

    items: list[EventOut]
    next: int = Field(description="Where to go on: `after` of the next request, also if there is nothing more yet.")


class HistoryQuery(In):
    """Which events of a conversation."""

    limit: Limit = 50
    after: str | None = Field(None, description="`next` of the page before; of the same order and filters.")
    newest_first: NewestFirst = False
    type: list[str] | None = Field(None, description="Only events of these types.")
    actor: str | None = None
    since: Since = None
    until: Until = None


class LogQuery(In):
    """Which events of the log."""

    limit: Limit = 50
    after: int = Field(0, ge=0, lt=2**63, description="Only positions above this one.")
    type: list[str] | None = Field(None, description="Only events of these types.")
    actor: str | None = None
    since: Since = None
    until: Until = None


class StreamQuery(In):
    """Where a stream begins."""

    after: int | None = Field(
        None, ge=0, lt=2**63, description="Begins after this position; now if left out. Last-Event-ID goes before it."
    )


class LogStreamQuery(StreamQuery):
    """What a stream of the log holds."""

    type: list[str] | None = Field(None, description="Only events of these types.")
    actor: str | None = None


class EventIn(In):
    """An event to append."""

    event_type: str = Field(min_length=1, max_length=100, description="A built-in type, or one of your own.")
    content: Any = None
    id: UUID | None = Field(None, description="Makes the append repeatable: the same event again does nothing.")
    actor: Actor = ""
    metadata: Json | None = None


class EventsIn(In):
    """Events to append to one conversation: all of them or none."""

    events: list[SkipValidation[EventIn]] = Field(min_length=1, max_length=10_000)
    """Not validated yet: see :func:`agent_manager.server.routes.log.new_events`."""
    expected_version: ExpectedVersion = None


class AppendedOut(PositionedOut):
    """Where an event stands."""

    event_id: UUID
    version: int
    timestamp: AwareDatetime
    is_new: bool = Field(description="False where an earlier request has stored it.")


class AppendOut(PositionedOut):
    """What was appended."""

    conversation_id: UUID
    version: int
    events: list[AppendedOut]


def event_out(event: Event) -> EventOut:
    """An event as it is given."""
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


def append_out(result: AppendResult, position: Callable[[int], int | str]) -> AppendOut:
    """The result of an append to one conversation.

    Args:
        position: how the caller is told a position.
    """
    first: Appended = result.events[0]
    return AppendOut(
        conversation_id=first.conversation_id,
        position=position(result.position),
        version=result.version,
        events=[AppendedOut.model_validate(event).told(position) for event in result.events],
    )
