"""Retention rules, their runs, and legal holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from agent_manager.a2a import Json
from agent_manager.auth import TokenScope
from agent_manager.retention import Hold, Holds, Rule, Rules, apply_rules
from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext, encoder
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.problems import NotAllowed
from agent_manager.server.routes.declarations import CONFLICT, NOT_FOUND, TOO_LARGE, reads, writes
from agent_manager.server.schemas.common import In, Out, PageOut

router = APIRouter(tags=["retention"], route_class=AuthorizedRoute)

Reason = Annotated[str, Field(max_length=500)]


class HoldIn(In):
    """A hold to place: on a conversation, on a user, or on the whole tenant if neither is given."""

    conversation_id: str | None = None
    user: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="Covers the conversations that they own, and those with events that they caused.",
    )
    reason: Reason = Field(min_length=1, description="Why nothing may be erased, such as the number of a case.")


class HoldOut(Out):
    """A legal hold."""

    id: UUID
    conversation_id: UUID | None
    user: str | None
    reason: str
    placed_by: str
    placed_at: AwareDatetime


class HoldsOut(PageOut):
    """The legal holds in force, the oldest first."""

    items: list[HoldOut]


class RuleIn(In):
    """A rule to add."""

    age_seconds: float = Field(gt=0, le=36_500 * 86_400, description="How old a conversation must be.")
    since: Literal["last_event", "creation"] = Field("last_event", description="From when its age counts.")
    state: Literal["active", "archived", "deleted"] | None = Field(
        None, description="Only conversations in this state."
    )
    user: str | None = Field(None, min_length=1, max_length=255, description="Only conversations that this user owns.")
    metadata: Json | None = Field(None, description="Only conversations whose metadata contain these.")
    reason: Reason = ""


class OutcomeOut(Out):
    """The outcome of a rule."""

    conversations: int = Field(description="Conversations that were erased; in a dry run, that would be.")
    events: int = Field(description="Events of these.")
    held: int = Field(description="Conversations that a legal hold protects.")
    skipped: int = Field(description="Conversations that somebody was writing to.")
    failed: int = Field(description="Conversations that could not be erased; the server's log says why.")


class RuleOut(Out):
    """A retention rule."""

    id: UUID
    age_seconds: float
    since: Literal["last_event", "creation"]
    state: Literal["active", "archived", "deleted"] | None
    user: str | None
    metadata: Json | None
    reason: str
    added_by: str
    added_at: AwareDatetime
    applied_at: AwareDatetime | None = Field(description="When the last run began; null before the first one.")
    outcome: OutcomeOut | None = Field(description="What the last run did.")


class RulesOut(PageOut):
    """The retention rules, the oldest first."""

    items: list[RuleOut]


class RunIn(In):
    """A run of the rules."""

    dry_run: bool = Field(False, description="Only count what would be erased.")


class RuleResultOut(OutcomeOut):
    """The outcome of a rule in a run."""

    rule: UUID


class RunOut(Out):
    """The outcome of a run."""

    rules: list[RuleResultOut]
    files: int = Field(description="Files that were deleted because no event referred to them.")
    file_bytes: int


@router.get("/holds", response_model=HoldsOut, **reads(Data.RETENTION))
async def list_holds(context: CurrentContext) -> Response:
    """List the legal holds in force."""
    return await context.read_list(Holds(context.store, context.caller.tenant).list, encoder(HoldOut))


@router.post("/holds", status_code=201, response_model=HoldOut, **writes(Data.RETENTION, NOT_FOUND, TOO_LARGE))
async def place_hold(context: CurrentContext, new: HoldIn) -> Hold:
    """Place a legal hold: nothing that it covers is erased, by request or by rule, until it is released.

    A hold on a fork also covers what the fork shares with the conversations that it continues.
    """
    conversation = None
    if new.conversation_id is not None:
        conversation = (await get_or_404(context.reader, new.conversation_id)).id
    return await Holds(context.store, context.caller.tenant).place(
        conversation_id=conversation,
        user=new.user,
        reason=new.reason,
        actor=context.identity.actor,
        hold_id=context.new_id("hold"),
    )


@router.delete("/holds/{hold}", status_code=204, response_class=Response, **writes(Data.RETENTION, NOT_FOUND))
async def release_hold(context: CurrentContext, hold: UUID) -> None:
    """Release a legal hold."""
    await Holds(context.store, context.caller.tenant).release(hold, actor=context.identity.actor)


@router.get("/retention/rules", response_model=RulesOut, **reads(Data.RETENTION))
async def list_rules(context: CurrentContext) -> Response:
    """List the retention rules."""
    rules = Rules(context.store, context.caller.tenant)
    return await context.read_list(rules.list, lambda rule: _rule_out(rule).to_bytes())


@router.post("/retention/rules", status_code=201, response_model=RuleOut, **writes(Data.RETENTION, TOO_LARGE))
async def add_rule(context: CurrentContext, new: RuleIn) -> RuleOut:
    """Add a rule: the next run erases every conversation that matches all its conditions."""
    added = await Rules(context.store, context.caller.tenant).add(
        timedelta(seconds=new.age_seconds),
        since=new.since,
        state=new.state,
        user=new.user,
        metadata=new.metadata,
        reason=new.reason,
        actor=context.identity.actor,
        rule_id=context.new_id("rule"),
    )
    return _rule_out(added)


@router.delete("/retention/rules/{rule}", status_code=204, response_class=Response, **writes(Data.RETENTION, NOT_FOUND))
async def remove_rule(context: CurrentContext, rule: UUID) -> None:
    """Remove a rule. What it has erased stays erased."""
    await Rules(context.store, context.caller.tenant).remove(rule, actor=context.identity.actor)


@router.post("/retention/runs", response_model=RunOut, **writes(Data.ERASURE, CONFLICT, TOO_LARGE))
async def run_rules(context: CurrentContext, run: RunIn) -> RunOut:
    """Erase what the rules demand, now; or count what they would erase. For callers that act for the whole tenant.

    What is erased cannot be brought back. The workers make a run regularly; a request is for small tenants, because it
    ends at the time limit of requests. What it has erased until then stays erased, and the next run continues.
    """
    if context.caller.user is not None:
        raise NotAllowed(TokenScope.ADMIN)
    [result] = await apply_rules(
        context.store, context.caller.tenant, dry_run=run.dry_run, actor=context.identity.actor
    )
    if not run.dry_run:
        context.spend_events(sum(each.events + each.conversations for each in result.rules))
    return RunOut.model_validate(result)


def _rule_out(rule: Rule) -> RuleOut:
    return RuleOut(
        age_seconds=rule.age.total_seconds(),
        **{name: getattr(rule, name) for name in RuleOut.model_fields if name != "age_seconds"},
    )
