"""Retention: legal holds, rules, their runs and receipts; and erasures, each of which shows first what it would erase.

Every change is an administrative act, and every erasure leaves its receipt, with the actor and the reason.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field, Json, StringConstraints, model_validator
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.auth import TokenScope
from agent_manager.console.pages import ROOT, ConsoleRoute, form, page, redirect
from agent_manager.console.rendering import respond_with_page
from agent_manager.retention import Hold, Holds, Rules, apply_rules
from agent_manager.server.authorization import Data, needs
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.operators import ACTOR
from agent_manager.server.problems import NotAllowed
from agent_manager.server.routes.erasures import NewErasure, perform
from agent_manager.server.schemas.common import In
from eventstore import Erasure
from eventstore.administration import ACT_PREFIX, ADMINISTRATION
from eventstore.database.queries import query as sql_text
from eventstore.erasure import MAX_REASON_CHARACTERS

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)

ROWS = 20
"""Runs and receipts that the page shows: the latest."""
_RECEIPTS = sql_text("agent_manager.console", "receipts")
_HELD = sql_text("agent_manager.console", "held")
_CHANGE, _ERASE = needs(Data.RETENTION), needs(Data.ERASURE)
Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)]


def _actor(context: RequestContext) -> str:
    return context.identity.actor or ACTOR


@page(router, "/retention", "retention.html", Data.RETENTION)
async def show_retention(context: CurrentContext) -> dict[str, Any]:
    """Show the legal holds and rules of the caller's tenant, and the latest runs and receipts."""
    return await read_retention(context)


async def read_retention(context: RequestContext) -> dict[str, Any]:
    """Return the legal holds and rules of the caller's tenant, and its latest runs and receipts."""
    tenant = context.caller.tenant
    holds, rules, runs, receipts = await asyncio.gather(
        Holds(context.store, tenant).list(),
        Rules(context.store, tenant).list(),
        context.reader.history(ADMINISTRATION, types=[f"{ACT_PREFIX}retention_run"], newest_first=True, limit=ROWS),
        context.store.log(context.caller).fetch(_RECEIPTS, {"tenant": tenant, "limit": ROWS}),
    )
    names = ("time", "position", "actor", "conversation_id", "content")
    return {
        "holds": holds,
        "rules": rules,
        "runs": [{"time": run.timestamp, "actor": run.actor, **run.content} for run in runs],
        "receipts": [dict(zip(names, row, strict=True)) for row in receipts],
    }


async def holds_on(context: RequestContext, conversation_id: UUID, owners: Sequence[str]) -> list[Hold]:
    """Return the legal holds that cover a conversation, as far as the read tables know who caused its events."""
    holds = await Holds(context.store, context.caller.tenant).list()
    given = {
        "tenant": context.caller.tenant,
        "conversation_id": conversation_id,
        "conversations": [hold.conversation_id for hold in holds if hold.conversation_id is not None],
        "users": [hold.user for hold in holds if hold.user is not None],
    }
    rows = await context.store.tables(context.caller).fetch(_HELD, given) if holds else []
    covering = {None, *owners, *(name for (name,) in rows)}
    return [hold for hold in holds if (str(hold.conversation_id) if hold.conversation_id else hold.user) in covering]


class HoldForm(In):
    """A legal hold to place: on a conversation, on a user, or on the whole tenant."""

    on: Literal["conversation", "user", "tenant"]
    subject: str = ""
    reason: Annotated[Reason, Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.subject == "") != (self.on == "tenant"):
            raise ValueError("give the id of the conversation or of the user, and none for the whole tenant")
        return self


@router.post("/retention/holds", openapi_extra=_CHANGE)
async def place_hold(context: CurrentContext, fields: Annotated[HoldForm, form(HoldForm)]) -> Response:
    """Place a legal hold."""
    conversation = (await get_or_404(context.reader, fields.subject)).id if fields.on == "conversation" else None
    await Holds(context.store, context.caller.tenant).place(
        conversation_id=conversation,
        user=fields.subject if fields.on == "user" else None,
        reason=fields.reason,
        actor=_actor(context),
    )
    return redirect(context, f"conversations/{conversation}" if conversation else "retention")


class ReleaseForm(In):
    """A legal hold to release."""

    hold: UUID
    reason: Reason = ""


@router.post("/retention/holds/release", openapi_extra=_CHANGE)
async def release_hold(context: CurrentContext, fields: Annotated[ReleaseForm, form(ReleaseForm)]) -> Response:
    """Release a legal hold."""
    holds = Holds(context.store, context.caller.tenant)
    await holds.release(fields.hold, reason=fields.reason, actor=_actor(context))
    return redirect(context, "retention")


class RuleForm(In):
    """A rule to add."""

    days: float = Field(gt=0, le=36_500)
    since: Literal["last_event", "creation"] = "last_event"
    state: Literal["active", "archived", "deleted", ""] = ""
    user: str = ""
    metadata: Json[dict[str, Any]] | Literal[""] = ""
    reason: Reason = ""


@router.post("/retention/rules", openapi_extra=_CHANGE)
async def add_rule(context: CurrentContext, fields: Annotated[RuleForm, form(RuleForm)]) -> Response:
    """Add a rule, which the next run applies."""
    await Rules(context.store, context.caller.tenant).add(
        timedelta(days=fields.days),
        since=fields.since,
        state=fields.state or None,
        user=fields.user or None,
        metadata=fields.metadata or None,
        reason=fields.reason,
        actor=_actor(context),
    )
    return redirect(context, "retention")


class RemoveForm(In):
    """A rule to remove."""

    rule: UUID


@router.post("/retention/rules/remove", openapi_extra=_CHANGE)
async def remove_rule(context: CurrentContext, fields: Annotated[RemoveForm, form(RemoveForm)]) -> Response:
    """Remove a rule."""
    await Rules(context.store, context.caller.tenant).remove(fields.rule, actor=_actor(context))
    return redirect(context, "retention")


@page(router, "/retention/run", "retention_run.html", Data.ERASURE)
async def show_due(context: CurrentContext) -> dict[str, Any]:
    """Show what the rules would erase now."""
    return await _run(context, dry_run=True)


class RunForm(In):
    """A confirmed run of the rules."""


@router.post("/retention/run", openapi_extra=_ERASE)
async def run_rules(context: CurrentContext, request: Request, _: Annotated[RunForm, form(RunForm)]) -> Response:
    """Erase what the rules demand, and show the outcome."""
    return respond_with_page(request, "retention_run.html", await _run(context, dry_run=False))


async def _run(context: RequestContext, *, dry_run: bool) -> dict[str, Any]:
    if context.caller.user is not None:
        raise NotAllowed(TokenScope.ADMIN)
    [result] = await apply_rules(context.store, context.caller.tenant, dry_run=dry_run, actor=_actor(context))
    rules = await Rules(context.store, context.caller.tenant).list()
    return {"run": asdict(result), "rules": {rule.id: rule for rule in rules}, "is_done": not dry_run}


# Erasures


class ErasureQuery(In):
    """The target of an erasure: a conversation, an event of it, or a user; nothing for an empty form."""

    conversation: str = ""
    event: UUID | Literal[""] = ""
    user: str = Field("", max_length=255)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.conversation and self.user) or (self.event and not self.conversation):
            raise ValueError("give either a conversation, perhaps with an event of it, or a user")
        return self

    def erasure(self, *, reason: str = "", dry_run: bool = False) -> NewErasure:
        """Return it as the API takes it."""
        return NewErasure(
            conversation=self.conversation or None,
            events=[self.event] if self.event else None,
            user=self.user or None,
            reason=reason,
            dry_run=dry_run,
        )


class ErasureForm(ErasureQuery):
    """A confirmed erasure."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REASON_CHARACTERS)]

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if not self.conversation and not self.user:
            raise ValueError("give a conversation or a user")
        return self


@page(router, "/erasures", "erasures.html", Data.ERASURE)
async def show_erasure(context: CurrentContext, query: Annotated[ErasureQuery, Query()]) -> dict[str, Any]:
    """Show what an erasure would erase."""
    is_chosen = bool(query.conversation or query.user)
    planned = await perform(context, query.erasure(dry_run=True), "") if is_chosen else None
    return _outcome(query, planned, is_done=False)


@router.post("/erasures", openapi_extra=_ERASE)
async def erase(
    context: CurrentContext, request: Request, fields: Annotated[ErasureForm, form(ErasureForm)]
) -> Response:
    """Erase, and show the receipts."""
    done = await perform(context, fields.erasure(reason=fields.reason), _actor(context))
    return respond_with_page(request, "erasures.html", _outcome(fields, done, is_done=True))


def _outcome(target: ErasureQuery, erasures: list[Erasure] | None, *, is_done: bool) -> dict[str, Any]:
    rows: Counter[str] = Counter()
    for erasure in erasures or ():
        rows.update(erasure.rows)
    return {
        "target": target,
        "erasures": erasures,
        "events": sum(erasure.events for erasure in erasures or ()),
        "rows": dict(rows),
        "is_done": is_done,
    }
