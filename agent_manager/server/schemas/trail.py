"""Models of the trail."""

from __future__ import annotations

from typing import Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, model_validator

from agent_manager.audit.trail import Effect, through, why
from agent_manager.server.schemas.common import Cursor, In, NewestFirst, Out, PageOut
from agent_manager.server.schemas.events import EventOut, EventPageQuery, event_out
from eventstore import Event


class TrailOut(EventOut):
    """An event, with what it says of its cause."""

    occurred_at: AwareDatetime = Field(description="The time when it happened, which may be before it was stored.")
    correlation_id: str | None
    causation_id: str | None = Field(description="The event or request that caused it.")
    reason: str = Field(description="Why, as an administrative act, an erasure or a failure states it; may be empty.")
    via: str = Field(description="The program and the login through which an administrator acted; may be empty.")


class TrailPage(PageOut):
    """A page of the trail."""

    items: list[TrailOut]


class TrailSelection(EventPageQuery):
    """The filters of the trail."""

    conversation: str | None = Field(None, description="Only events of this conversation.")
    correlation_id: str | None = Field(None, description="Only events with this correlation id.")
    acts: bool = Field(False, description="Only administrative acts: of keys, users, logins and the like.")

    @model_validator(mode="after")
    def _check_one_place(self) -> Self:
        if self.conversation is not None and self.acts:
            raise ValueError("give conversation or acts, not both")
        return self


class TrailQuery(TrailSelection):
    """The filters and the page of the trail."""

    after: Cursor = None
    newest_first: NewestFirst = False


class ExportQuery(TrailSelection):
    """The filters, the format and the page of an export of the trail."""

    after: int = Field(
        0, ge=0, lt=2**63, description="Only events above this position; of a conversation, or of acts, this version."
    )
    format: Literal["jsonl", "csv", "parquet"] = "jsonl"
    limit: int = Field(1000, ge=1, le=10_000, description="Maximum number of events.")


class CausationQuery(In):
    """How far to follow causes and effects."""

    across: bool = Field(False, description="Into other conversations, too; reads the log from the event on.")


class EffectOut(TrailOut):
    """An event in a tree of causes and effects."""

    depth: int = Field(description="0 for the requested event, 1 for what it caused itself, and so on.")
    cause_id: UUID | None = Field(description="The event that caused it, if it is known.")


class CausationOut(Out):
    """The causes and the effects of an event."""

    causes: list[TrailOut] = Field(description="The first cause first.")
    effects: list[EffectOut] = Field(description="The event itself and what it caused, each before its own effects.")


def _members(event: Event) -> dict[str, Any]:
    return {
        **dict(event_out(event)),
        "occurred_at": event.occurred_at,
        "correlation_id": event.metadata.correlation_id,
        "causation_id": event.metadata.causation_id,
        "reason": why(event),
        "via": through(event),
    }


def trail_out(event: Event) -> TrailOut:
    """Return the response model of an event in the trail."""
    return TrailOut.model_construct(**_members(event))


def effect_out(effect: Effect) -> EffectOut:
    """Return the response model of an effect."""
    return EffectOut.model_construct(**_members(effect.event), depth=effect.depth, cause_id=effect.cause_id)
