"""Searching, statistics, agents, pending messages, health."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, model_validator

from agent_manager.server.schemas.common import (
    AtLeast,
    Cursor,
    In,
    Json,
    Out,
    PageOut,
    Position,
    PositionedOut,
    Since,
    Until,
)
from eventstore import Role
from projections.statistics import ActorCounts, DayCounts, ResponseTimes, RoleCounts, Size, StatusCount, TaskTimes


class HitOut(PositionedOut):
    """Something that a search found."""

    kind: Literal["message", "task", "status", "artifact"]
    id: UUID
    conversation_id: UUID
    version: int
    role: str | None
    actor: str
    created_at: AwareDatetime
    language: str
    rank: float
    snippet: str = Field(description="The places that fit, with « and » around what was found.")


class SearchOut(PageOut):
    """A page of what was found."""

    items: list[HitOut]
    searched: str = Field(description="The query, or that with misspelt words corrected where it finds nothing.")


class SearchQuery(In):
    """What to search for."""

    q: str = Field(min_length=1, max_length=10_000, description='Words; "a phrase"; -without; one or another; begins*')
    by: Literal["relevance", "time"] = "relevance"
    kind: Literal["message", "task"] | None = None
    role: Role | None = None
    actor: str | None = None
    conversation: str | None = Field(None, description="Only in this conversation.")
    since: Since = None
    until: Until = None
    language: str | None = Field(None, description="Of the query, as pt or en-US.")
    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    after: Cursor = None
    at_least: AtLeast = None


class StatisticsQuery(In):
    """What of the data is counted."""

    since: date | None = Field(None, description="The first day.")
    until: date | None = Field(None, description="The last day.")
    actor: str | None = None
    zone: str = Field("UTC", description="The time zone whose days are meant, such as America/Sao_Paulo.")
    at_least: AtLeast = None


class StatisticsOut(Out):
    """All statistics."""

    days: list[DayCounts]
    roles: list[RoleCounts]
    actors: list[ActorCounts]
    statuses: list[StatusCount]
    response_times: ResponseTimes
    response_times_by_day: list[ResponseTimes]
    response_times_by_actor: list[ResponseTimes]
    task_times: list[TaskTimes]
    sizes: list[Size]


class AgentIn(In):
    """An agent to register: by the address of its card, or by the card itself."""

    url: str | None = Field(None, min_length=1, max_length=2000)
    card: Json | None = None

    @model_validator(mode="after")
    def _one(self) -> AgentIn:
        if (self.url is None) == (self.card is None):
            raise ValueError("give url or card, one of them")
        return self


class AgentsOut(Out):
    """The cards of the registered agents, as they gave them."""

    items: list[Json]


class AgentQuery(In):
    """Which agent."""

    url: str = Field(min_length=1, max_length=2000)


class PendingMessage(PositionedOut):
    """A message that waits for its answer."""

    conversation_id: str = Field(description="As its client gave it.")
    conversation: UUID
    event_id: UUID = Field(description="The message's id in the tables.")
    message_id: str = Field(description="As its client gave it.")
    status: str
    since: AwareDatetime


class PendingOut(Out):
    """The messages that wait for an answer, oldest first."""

    items: list[PendingMessage]


class AcceptedOut(PositionedOut):
    """A message that is stored and will be answered. The answer comes as further messages of the conversation."""

    conversation_id: str = Field(description="As its client gave it.")
    conversation: UUID
    event_id: UUID = Field(description="The message's id in the tables.")
    message_id: str
    task_id: str | None = Field(description="Of the open task that it continues.")
    message: Json = Field(description="As it is stored.")


class HealthOut(Out):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ReadyOut(Out):
    """The server answers, and how far the read tables are."""

    status: Literal["ready"] = "ready"
    horizon: Position | None = Field(
        None, description="Up to where the log is final. Not told where tokens are needed."
    )
    applied: Position | None = Field(None, description="What the read tables hold. Likewise.")
