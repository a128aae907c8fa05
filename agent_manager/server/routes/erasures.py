"""Erasures, for callers with the scope ``erase``."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter
from pydantic import Field, model_validator

from agent_manager.auth import TokenScope
from agent_manager.erasing import finish_erasures
from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.problems import NotAllowed
from agent_manager.server.routes.declarations import CONFLICT, NOT_FOUND, TOO_LARGE, writes
from agent_manager.server.schemas.common import In, Out, PositionToken
from eventstore import Erasure
from eventstore.erasure import MAX_REASON_CHARACTERS
from eventstore.errors import ConflictError, OnLegalHold

router = APIRouter(prefix="/erasures", tags=["erasures"], route_class=AuthorizedRoute)

_log = logging.getLogger(__name__)


class NewErasure(In):
    """The request of an erasure: a conversation, events of it, or a user."""

    conversation: Annotated[str | None, Field(description="Its id, or the id that its client gave it.")] = None
    events: Annotated[
        list[UUID] | None, Field(min_length=1, max_length=10_000, description="Only these events, by their ids.")
    ] = None
    user: Annotated[str | None, Field(min_length=1, max_length=255)] = None
    reason: Annotated[
        str, Field(max_length=MAX_REASON_CHARACTERS, description="Kept in the receipt, so it should name nobody.")
    ] = ""
    dry_run: Annotated[bool, Field(description="Erase nothing; count what would be erased.")] = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.conversation is None) == (self.user is None) or (self.events and self.conversation is None):
            raise ValueError("give either a conversation, perhaps with events of it, or a user")
        return self


class ErasureOut(Out):
    """The outcome of an erasure of one conversation, or of its dry run."""

    conversation_id: UUID
    events: int = Field(description="Number of events; 0 if nothing was left to erase.")
    receipt: UUID | None = Field(description="The id of the receipt's event.")
    position: PositionToken | None = Field(description="The position of the receipt.")
    rows: dict[str, int] = Field(description="Of a dry run: rows by table.")


class ErasuresOut(Out):
    """The erasures of a request, by conversation."""

    items: list[ErasureOut]


@router.post("", response_model=ErasuresOut, **writes(Data.ERASURE, NOT_FOUND, CONFLICT, TOO_LARGE))
async def erase(context: CurrentContext, new: NewErasure) -> ErasuresOut:
    """Erase what events hold, irrevocably, in the log and in everything that is made of it.

    Proofs of the log still hold. A receipt in each conversation says who erased which versions, when and why. Without
    the scope `admin` you may erase the conversations that you own, your own events in others, and yourself.
    """
    return ErasuresOut(
        items=[_out(context, erasure) for erasure in await perform(context, new, context.identity.actor)]
    )


async def perform(context: RequestContext, new: NewErasure, actor: str) -> list[Erasure]:
    """Erase for the caller, or count what would be erased, and return the outcome for each conversation.

    Args:
        actor: The actor of the receipts.
    """
    given: dict[str, Any] = {"reason": new.reason, "actor": actor, "dry_run": new.dry_run}
    given |= {"tenant": context.caller.tenant, "user": context.caller.user}
    if new.user is not None:
        if context.caller.user not in (None, new.user):
            raise NotAllowed(TokenScope.ADMIN)
        erasures = context.store.erase_user(new.user, **given)
    else:
        assert new.conversation is not None
        resolved = await get_or_404(context.reader, new.conversation)
        erasures = _one(context.store.erase(resolved.id, new.events, **given))
    done = []
    try:
        async for erasure in erasures:
            done.append(erasure)
            if erasure.receipt is not None:  # each erased event is written anew, and the receipt appended
                context.spend_events(erasure.events + 1)
    except OnLegalHold:
        if context.identity.may(TokenScope.ADMIN):
            raise
        # Holds are for administrators: whose case it is, and which, may be what the caller must not know.
        raise ConflictError(
            "a legal hold forbids the erasure; nothing was erased: ask an administrator of the tenant"
        ) from None
    settings, tenant = context.server_context.settings, context.caller.tenant
    for remark in await finish_erasures(context.store, settings, done, tenant):
        _log.warning("erasure: %s", remark, extra={"event": "erasure_incomplete"})
    return done


async def _one(erasing: Awaitable[Erasure]) -> AsyncIterator[Erasure]:
    yield await erasing


def _out(context: CurrentContext, erasure: Erasure) -> ErasureOut:
    receipt = erasure.receipt
    return ErasureOut(
        conversation_id=erasure.conversation_id,
        events=erasure.events,
        receipt=None if receipt is None else receipt.event_id,
        position=None if receipt is None else context.position(receipt.position),
        rows=erasure.rows,
    )
