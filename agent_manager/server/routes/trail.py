"""The trail: who did what, when, why and through what, and what caused what."""

from __future__ import annotations

import weakref
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, Self
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZipFile

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, Field, model_validator
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from agent_manager.audit.trail import Effect, read_causation, through, why
from agent_manager.audit.trail_export import Exported, export_trail
from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import CurrentContext, RequestContext, write_page
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.read_your_writes import log_change_token
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.declarations import NOT_FOUND, Responses, errors, reads
from agent_manager.server.schemas.common import Cursor, In, NewestFirst, Out, PageOut
from agent_manager.server.schemas.events import EventOut, EventPageQuery, event_out
from eventstore import Event
from eventstore.administration import ADMINISTRATION
from eventstore.concurrency import run_in_thread

router = APIRouter(tags=["audit"], route_class=AuthorizedRoute)

_ZIP: Responses = {200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}}


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
    """The limits within which causes and effects are followed."""

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


def _trail_out(event: Event) -> TrailOut:
    return TrailOut.model_construct(**_members(event))


def _effect_out(effect: Effect) -> EffectOut:
    return EffectOut.model_construct(**_members(effect.event), depth=effect.depth, cause_id=effect.cause_id)


@router.get("/audit/trail", response_model=TrailPage, **reads(Data.LOG, NOT_FOUND))
async def get_trail(context: CurrentContext, query: Annotated[TrailQuery, Query()]) -> Response:
    """List who did what, when, why and through what: the events that match all filters, as far as the log is final."""
    target = await _target(context, query)

    async def write(out: BodyWriter) -> None:
        filters = query.model_dump(exclude={"conversation", "acts", "type"})
        page = await context.reader.history(target, types=query.type, **filters)
        await write_page(out, page, lambda event: _trail_out(event).to_bytes(), page.next)

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
    # The task does both, unless the client has disconnected or named a wrong range: then the end of the response does.
    release = weakref.finalize(response, responses.spool.release, tenant, reserved, 0, None)
    clean = weakref.finalize(response, folder.cleanup)

    async def finish() -> None:
        release()
        await run_in_thread(clean)

    response.background = BackgroundTask(finish)
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
        await out.write_items(found.causes, lambda each: _trail_out(each).to_bytes())
        await out.write(b'],"effects":[')
        await out.write_items(found.effects, lambda each: _effect_out(each).to_bytes())
        await out.write(b"]}")

    change_token = await log_change_token(context.log) if query.across else str(resolved.version)
    return await context.respond(change_token, write, parameters=(resolved.id, event, query.across))
