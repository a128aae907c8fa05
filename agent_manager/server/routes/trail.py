"""The trail: who did what, when, why and through what, and what caused what."""

from __future__ import annotations

import weakref
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZipFile

from fastapi import APIRouter, Query
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from agent_manager.audit.trail import read_causation
from agent_manager.audit.trail_export import Exported, export_trail
from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import CurrentContext, RequestContext, write_page
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.read_your_writes import log_change_token
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.declarations import NOT_FOUND, Responses, errors, reads
from agent_manager.server.schemas.trail import (
    CausationOut,
    CausationQuery,
    ExportQuery,
    TrailPage,
    TrailQuery,
    TrailSelection,
    effect_out,
    trail_out,
)
from eventstore.administration import ADMINISTRATION
from eventstore.concurrency import run_in_thread

router = APIRouter(tags=["audit"], route_class=AuthorizedRoute)

_ZIP: Responses = {200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("/audit/trail", response_model=TrailPage, **reads(Data.LOG, NOT_FOUND))
async def get_trail(context: CurrentContext, query: Annotated[TrailQuery, Query()]) -> Response:
    """List who did what, when, why and through what: the events that match all filters, as far as the log is final."""
    target = await _target(context, query)

    async def write(out: BodyWriter) -> None:
        filters = query.model_dump(exclude={"conversation", "acts", "type"})
        page = await context.reader.history(target, types=query.type, **filters)
        await write_page(out, page, lambda event: trail_out(event).to_bytes(), page.next)

    return await context.respond(await log_change_token(context.log), write, parameters=query.model_dump())


@router.get(
    "/audit/trail/export",
    status_code=200,
    response_class=FileResponse,
    responses=_ZIP | errors(NOT_FOUND),
    openapi_extra=needs(Data.LOG),
)
async def export_as_zip(context: CurrentContext, query: Annotated[ExportQuery, Query()]) -> FileResponse:
    """Export the trail, the oldest events first, as a ZIP of a file and its proof, which can be checked offline.

    Events that are not sealed yet are left out; if nothing is sealed, there is no proof. For events beyond the limit,
    repeat the request with the position of the last one as `after`; if you name a conversation, with its version.
    """
    target = await _target(context, query)
    filters = query.model_dump(exclude={"conversation", "acts", "type", "format"})
    responses, tenant = context.server_context.response_cache, context.caller.tenant
    folder = TemporaryDirectory(prefix="eventstore-trail-")
    reserved = 0

    def reserve(size: int) -> None:
        nonlocal reserved
        size *= 2  # the file, and the ZIP
        responses.spool.reserve(tenant, size, body_size=reserved + size)
        reserved += size

    try:
        file = Path(folder.name) / f"trail.{query.format}"
        given = {"conversation_id": target, "types": query.type, **filters}
        async with responses.large(tenant):
            exported = await export_trail(context.store, file, caller=context.caller, reserve=reserve, **given)
            path = await run_in_thread(_zip, exported)
        response = FileResponse(path, media_type="application/zip", filename="trail.zip")
    except BaseException:
        folder.cleanup()
        responses.spool.release(tenant, reserved, 0, None)
        raise
    release = weakref.finalize(response, responses.spool.release, tenant, reserved, 0, None)

    async def finish() -> None:
        release()
        await run_in_thread(folder.cleanup)

    response.background = BackgroundTask(finish)  # without it, if the client has disconnected, both happen later
    return response


def _zip(exported: Exported) -> Path:
    path = exported.file.with_name("trail.zip")
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for file in filter(None, (exported.file, exported.proof)):
            archive.write(file, file.name)
    return path


async def _target(context: RequestContext, query: TrailSelection) -> UUID | None:
    if query.conversation is not None:
        return (await get_or_404(context.reader, query.conversation)).id
    return ADMINISTRATION if query.acts else None


@router.get(
    "/conversations/{conversation}/events/{event}/causation",
    response_model=CausationOut,
    **reads(Data.LOG, NOT_FOUND),
)
async def get_causation(
    context: CurrentContext, conversation: str, event: UUID, query: Annotated[CausationQuery, Query()]
) -> Response:
    """Return what caused an event, and what it caused: of a message its task, the artifacts and the reply."""
    resolved = await get_or_404(context.reader, conversation)

    async def write(out: BodyWriter) -> None:
        found = await read_causation(context.store, context.caller, resolved.id, event, across=query.across)
        await out.write(b'{"causes":[')
        await out.write_items(found.causes, lambda each: trail_out(each).to_bytes())
        await out.write(b'],"effects":[')
        await out.write_items(found.effects, lambda each: effect_out(each).to_bytes())
        await out.write(b"]}")

    change_token = await log_change_token(context.log) if query.across else str(resolved.version)
    return await context.respond(change_token, write, parameters=(resolved.id, event, query.across))
