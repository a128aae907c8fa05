"""The log: the history of a conversation, the log of all conversations, appending events, and event streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

from agent_manager.adapters.blobs import FILES
from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import CurrentContext, RequestContext, write_page
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.declarations import CONFLICT, NOT_FOUND, TOO_LARGE, Responses, errors, reads, writes
from agent_manager.server.schemas.events import (
    AppendOut,
    EventIn,
    EventPage,
    EventsIn,
    HistoryQuery,
    LogPage,
    LogQuery,
    LogStreamQuery,
    ReplayQuery,
    StreamQuery,
    event_out,
)
from agent_manager.server.streams import (
    EventStream,
    conversation_source,
    encoded,
    log_source,
    start_position,
)
from eventstore import ApplicationEvent, ConversationCreated, Event, EventData, Metadata, NewEvent
from eventstore.errors import InvalidEvent
from eventstore.event_types import BUILT_IN, RESERVED_PREFIXES
from eventstore.pacing import paced
from eventstore.read import Filter, end_of_log, horizon
from projections.pages import PAGE_BYTES

router = APIRouter(tags=["log"], route_class=AuthorizedRoute)

_STREAM: Responses = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "A stream of events."}
}


@router.get("/conversations/{conversation}/events", response_model=EventPage, **reads(Data.LOG, NOT_FOUND))
async def history(context: CurrentContext, conversation: str, query: Annotated[HistoryQuery, Query()]) -> Response:
    """List the events of a conversation, from the log itself."""
    resolved = await get_or_404(context.reader, conversation)

    async def write(out: BodyWriter) -> None:
        page = await context.reader.history(resolved.id, types=query.type, **query.model_dump(exclude={"type"}))
        await write_page(out, page, _encode, page.next)

    change_token = await context.past_token(resolved)
    return await context.respond(change_token, write, parameters=(resolved.id, query.model_dump()))


@router.post(
    "/conversations/{conversation}/events",
    status_code=201,
    response_model=AppendOut,
    **writes(Data.CONVERSATION, NOT_FOUND, CONFLICT, TOO_LARGE),
)
async def append_events(context: CurrentContext, conversation: str, body: EventsIn) -> Response:
    """Append events of any type to a conversation, all of them or none; with `begin`, begin it if it is new."""
    events = await _new_events(context, body.events)
    begin = None if body.begin is None else ConversationCreated(name=body.begin.name, metadata=body.begin.metadata)
    return await context.append_to(conversation, events, expected=body.expected_version, begin=begin)


@router.get(
    "/conversations/{conversation}/stream",
    status_code=200,
    response_class=EventStream,
    responses=_STREAM | errors(NOT_FOUND),
    openapi_extra=needs(Data.LOG),
)
async def stream_conversation(
    context: CurrentContext, conversation: str, query: Annotated[StreamQuery, Query()]
) -> EventStream:
    """Stream the events of a conversation as server-sent events; resumes after `Last-Event-ID`."""
    resolved = await get_or_404(context.reader, conversation)
    after = await _start(context, query)
    source = conversation_source(context.reader, context.tenant_context.change_notifier, resolved.id)
    return context.stream(source, after)


@router.get("/log", response_model=LogPage, **reads(Data.LOG))
async def read_log(context: CurrentContext, query: Annotated[LogQuery, Query()]) -> Response:
    """List the events of all conversations in the order of the log, as far as it is final."""
    final = await horizon(context.store.log(context.caller))

    async def write(out: BodyWriter) -> None:
        filters = query.model_dump(exclude={"type"})
        filters |= {"tenant": context.caller.tenant, "user": context.caller.user}
        position = query.after
        await out.write(b'{"items":[')
        separator = b""
        async for event in context.store.read_log(types=query.type, until_position=final, **filters):
            await out.write(separator + _encode(event))
            separator, position = b",", event.position
            if out.size > PAGE_BYTES:
                break
        await out.write(b'],"next":%d}' % position)

    return await context.respond(str(final), write, parameters=query.model_dump())


@router.get(
    "/log/replay",
    status_code=200,
    response_class=EventStream,
    responses=_STREAM | errors(),
    openapi_extra=needs(Data.LOG),
)
async def replay_log(context: CurrentContext, query: Annotated[ReplayQuery, Query()]) -> EventStream:
    """Stream the events of all conversations that the log holds, at the pace at which they were appended, and end.

    Resumes after `Last-Event-ID`.
    """
    Filter(query.type, query.actor)  # raises while the response can still have an error status
    after = start_position(context.request, query.after) or 0
    final = await horizon(context.store.log(context.caller))
    until = final if query.until_position is None else min(final, query.until_position)
    source = log_source(context.store, context.caller, query.type, query.actor)
    return context.stream_texts(encoded(paced(source.read(after, until), query.speed, query.longest_pause)), after)


@router.get(
    "/log/stream",
    status_code=200,
    response_class=EventStream,
    responses=_STREAM | errors(),
    openapi_extra=needs(Data.LOG),
)
async def stream_log(context: CurrentContext, query: Annotated[LogStreamQuery, Query()]) -> EventStream:
    """Stream the events of all conversations as server-sent events; resumes after `Last-Event-ID`."""
    Filter(query.type, query.actor)  # raises while the response can still have an error status
    after = await _start(context, query)
    return context.stream(log_source(context.store, context.caller, query.type, query.actor), after)


def _encode(event: Event) -> bytes:
    return event_out(event).to_bytes()


async def _start(context: RequestContext, query: StreamQuery) -> int:
    after = start_position(context.request, query.after)
    return await end_of_log(context.log) if after is None else after


async def _new_events(context: RequestContext, items: Sequence[Any]) -> list[NewEvent]:
    """Return the events of a body, validated in slices: thousands at once would block all other requests.

    Raises:
        RequestValidationError: They lack members of an event or have wrong ones; names all faults.
        InvalidEvent: See :func:`_new_event`.
    """
    events: list[NewEvent] = []
    faults: list[Any] = []
    for number, item in enumerate(items):
        await context.time_slice.give_way()
        try:
            event = EventIn.model_validate(item)
        except ValidationError as error:
            faults += [fault | {"loc": ("body", "events", number, *fault["loc"])} for fault in error.errors()]
            continue
        if not faults:
            events.append(_new_event(event, f"events[{number}]", context.new_id("event", number)))
    if faults:
        raise RequestValidationError(faults)
    return events


def _new_event(event: EventIn, path: str, new_id: UUID) -> NewEvent:
    """Return the event to append.

    Args:
        path: The name of the event in errors.
        new_id: The id of the event, unless it has one.

    Raises:
        InvalidEvent: The content does not fit the type; names the member.
    """
    try:
        data = _event_data(event)
        if FILES in (event.metadata or {}):  # whose content the caller need not be allowed to read
            raise InvalidEvent("metadata", f"{FILES!r} names stored files, which belongs to the store: leave it out")
        metadata = Metadata(**(event.metadata or {}))
    except InvalidEvent as error:
        raise InvalidEvent(f"{path}.{error.path}", error.reason) from None
    return NewEvent(data, event.id or new_id, event.actor, metadata)


def _event_data(event: EventIn) -> EventData:
    if not event.event_type.startswith(RESERVED_PREFIXES):
        return ApplicationEvent(event.event_type, event.content)
    if not isinstance(event.content, dict):
        raise InvalidEvent("content", f"is not an object, but the content of {event.event_type!r} must be one")
    try:
        # Stricter than reading, where unknown members of newer versions are kept.
        data: EventData = BUILT_IN.validate_python({**event.content, "event_type": event.event_type})
    except ValidationError:
        raise InvalidEvent(
            "event_type", f"{event.event_type!r} has a reserved prefix, but is not a built-in type"
        ) from None
    except InvalidEvent as error:  # its path begins with the name of the class
        raise InvalidEvent(f"content.{error.path.partition('.')[2]}".rstrip("."), error.reason) from None
    return data
