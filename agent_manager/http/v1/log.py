"""The log: the trail of a conversation, the log as a whole, appending any event, and both as streams."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.http.admission import WalledRoute
from agent_manager.http.data_kinds import Data, needs
from agent_manager.http.here import Here, HereAndNow, write_page
from agent_manager.http.looking import end_of_log, existing
from agent_manager.http.models.events import (
    AppendOut,
    EventPage,
    EventsIn,
    HistoryQuery,
    LogPage,
    LogQuery,
    LogStreamQuery,
    StreamQuery,
    append_out,
    event_out,
)
from agent_manager.http.spool import BodyWriter
from agent_manager.http.streams import HELD_BYTES, EventStream, of_conversation, resumed_after
from agent_manager.http.v1.answers import CONFLICT, NOT_FOUND, TOO_LARGE, Answers, errors, read_errors
from agent_manager.http.v1.given import new_events
from eventstore import ANY, Event
from eventstore.read import Filter, horizon
from projections.pages import PAGE_BYTES

router = APIRouter(tags=["log"], route_class=WalledRoute)

_STREAM: Answers = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events as they come."}
}


@router.get(
    "/conversations/{conversation}/events",
    response_model=EventPage,
    responses=read_errors(NOT_FOUND),
    openapi_extra=needs(Data.LOG),
)
async def history(here: Here, request: Request, conversation: str, asked: Annotated[HistoryQuery, Query()]) -> Response:
    """The audit trail of a conversation, from the log itself."""
    found = await existing(here.reader, conversation)

    async def page(out: BodyWriter) -> None:
        events = await here.reader.history(found.id, types=asked.type, **asked.model_dump(exclude={"type"}))
        await write_page(out, events, _encode, events.next)

    return await here.read_log(request, page, asked=(found.id, asked.model_dump()), mark=found.version)


@router.post(
    "/conversations/{conversation}/events",
    status_code=201,
    response_model=AppendOut,
    responses=errors(NOT_FOUND, CONFLICT, TOO_LARGE),
    openapi_extra=needs(Data.CONVERSATION),
)
async def append_events(here: Here, conversation: str, given: EventsIn) -> AppendOut:
    """Appends events of any kind to a conversation, all of them or none."""
    events = await new_events(given.events, here.new_id)
    found = await existing(here.reader, conversation)
    expected = ANY if given.expected_version is None else given.expected_version
    return append_out(await here.append(found.id, events, expected=expected), here.position)


@router.get(
    "/conversations/{conversation}/stream",
    status_code=200,
    response_class=EventStream,
    responses=_STREAM | errors(NOT_FOUND),
    openapi_extra=needs(Data.LOG),
)
async def stream_conversation(
    here: Here, request: Request, conversation: str, asked: Annotated[StreamQuery, Query()]
) -> EventStream:
    """The events of a conversation as they come, as server-sent events; resumes by `Last-Event-ID`."""
    found = await existing(here.reader, conversation)
    after = await _beginning(here, request, asked)
    return here.stream(request, of_conversation(here.reader, here.desk.hub, found.id, after), after)


@router.get("/log", response_model=LogPage, responses=read_errors(), openapi_extra=needs(Data.LOG))
async def read_log(here: Here, request: Request, asked: Annotated[LogQuery, Query()]) -> Response:
    """The events of all conversations, in the order of the log, as far as it is final."""
    final = await horizon(here.store.log(here.caller))

    async def page(out: BodyWriter) -> None:
        which = asked.model_dump(exclude={"type"})
        which |= {"tenant": here.caller.tenant, "user": here.caller.user}
        position = asked.after
        await out.write(b'{"items":[')
        before = b""
        async for event in here.store.read_log(types=asked.type, until_position=final, **which):
            await out.write(before + _encode(event))
            before, position = b",", event.position
            if out.size > PAGE_BYTES:
                break
        await out.write(b'],"next":%d}' % position)

    return await here.read_log(request, page, asked=asked.model_dump(), mark=final)


@router.get(
    "/log/stream",
    status_code=200,
    response_class=EventStream,
    responses=_STREAM | errors(),
    openapi_extra=needs(Data.LOG),
)
async def stream_log(here: Here, request: Request, asked: Annotated[LogStreamQuery, Query()]) -> EventStream:
    """The events of all conversations as they come, as server-sent events; resumes by `Last-Event-ID`."""
    Filter(asked.type, asked.actor)  # refuses what cannot be asked for, while the status can still say so
    after = await _beginning(here, request, asked)
    tenant, user = here.caller.tenant, here.caller.user
    events = here.store.subscribe(
        after=after, types=asked.type, actor=asked.actor, tenant=tenant, user=user, held_bytes=HELD_BYTES
    )
    return here.stream(request, events, after)


def _encode(event: Event) -> bytes:
    return event_out(event).model_dump_json().encode()


async def _beginning(here: HereAndNow, request: Request, asked: StreamQuery) -> int:
    after = resumed_after(request, asked.after)
    return await end_of_log(here.store) if after is None else after
