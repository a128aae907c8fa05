"""The trail: who did what, when, why and through what, and what caused what."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import Response

from agent_manager.audit.trail import read_causation
from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext, write_page
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.read_your_writes import log_change_token
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.declarations import NOT_FOUND, reads
from agent_manager.server.schemas.trail import CausationOut, TrailPage, TrailQuery, effect_out, trail_out
from eventstore.administration import ADMINISTRATION

router = APIRouter(tags=["audit"], route_class=AuthorizedRoute)


@router.get("/audit/trail", response_model=TrailPage, **reads(Data.LOG, NOT_FOUND))
async def get_trail(context: CurrentContext, query: Annotated[TrailQuery, Query()]) -> Response:
    """List who did what, when, why and through what: the events that match all filters, as far as the log is final."""
    target = ADMINISTRATION if query.acts else None
    if query.conversation is not None:
        target = (await get_or_404(context.reader, query.conversation)).id

    async def write(out: BodyWriter) -> None:
        filters = query.model_dump(exclude={"conversation", "acts", "type"})
        page = await context.reader.history(target, types=query.type, **filters)
        await write_page(out, page, lambda event: trail_out(event).to_bytes(), page.next)

    return await context.respond(await log_change_token(context.log), write, parameters=query.model_dump())


@router.get(
    "/conversations/{conversation}/events/{event}/causation",
    response_model=CausationOut,
    **reads(Data.LOG, NOT_FOUND),
)
async def get_causation(context: CurrentContext, conversation: str, event: UUID) -> Response:
    """Return what caused an event, and what it caused: of a message its task, the artifacts and the reply."""
    resolved = await get_or_404(context.reader, conversation)

    async def write(out: BodyWriter) -> None:
        found = await read_causation(context.store, context.caller, resolved.id, event)
        await out.write(b'{"causes":[')
        await out.write_items(found.causes, lambda each: trail_out(each).to_bytes())
        await out.write(b'],"effects":[')
        await out.write_items(found.effects, lambda each: effect_out(each).to_bytes())
        await out.write(b"]}")

    return await context.respond(str(resolved.version), write, parameters=(resolved.id, event))
