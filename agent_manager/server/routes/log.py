"""The log: the history of a conversation, the log as a whole, appending events, and both as streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import CurrentContext, RequestContext, write_page
from agent_manager.server.limits import TimeSlice
from agent_manager.server.lookups import end_of_log, get_or_404
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.openapi import CONFLICT, NOT_FOUND, TOO_LARGE, Answers, errors, read_errors
from agent_manager.server.schemas.events import (
    AppendedOut,
    AppendOut,
    EventIn,
    EventPage,
    EventsIn,
    HistoryQuery,
    LogPage,
    LogQuery,
    LogStreamQuery,
    StreamQuery,
    event_out,
)
from agent_manager.server.streams import EventStream, conversation_source, log_source, resumed_after
from eventstore import ANY, AppendResult, ApplicationEvent, Event, EventData, Metadata, NewEvent
from eventstore.errors import InvalidEvent
from eventstore.read import Filter, horizon
from eventstore.vocabulary import BUILT_IN, RESERVED_PREFIXES
from projections.pages import PAGE_BYTES

# Events as a request gives them: by type and content, and read more strictly than what a newer version wrote


async def new_events(given: Sequence[Any], new_id: Callable[[str, int], UUID], time_slice: TimeSlice) -> list[NewEvent]:
    """Return the events of a body to append, made in slices: thousands would hold up all other requests.

    Raises:
        RequestValidationError: they have not the members of an event; names all that is wrong.
        InvalidEvent: see :func:`new_event`.
    """
    made: list[NewEvent] = []
    wrong: list[Any] = []
    for number, each in enumerate(given):
        await time_slice.give_way()
        try:
            event = EventIn.model_validate(each)
        except ValidationError as error:
            wrong += [one | {"loc": ("body", "events", number, *one["loc"])} for one in error.errors()]
            continue
        if not wrong:
            made.append(new_event(event, f"events[{number}]", new_id("event", number)))
    if wrong:
        raise RequestValidationError(wrong)
    return made


def new_event(given: EventIn, path: str, new_id: UUID) -> NewEvent:
    """The event to append.

    Args:
        path: how errors call it.
        new_id: its id, unless it names one itself.

    Raises:
        InvalidEvent: it has not the shape of its type; names where.
    """
    try:
        data = _data(given)
        metadata = Metadata(**(given.metadata or {}))
    except InvalidEvent as error:
        raise InvalidEvent(f"{path}.{error.path}", error.reason) from None
    return NewEvent(data, given.id or new_id, given.actor, metadata)


def _data(given: EventIn) -> EventData:
    if not given.event_type.startswith(RESERVED_PREFIXES):
        return ApplicationEvent(given.event_type, given.content)
    if not isinstance(given.content, dict):
        raise InvalidEvent("content", f"is no object, which that of {given.event_type!r} is")
    try:
        data: EventData = BUILT_IN.validate_python({**given.content, "event_type": given.event_type})
    except ValidationError:
        raise InvalidEvent("event_type", f"{given.event_type!r} is no built-in type, but begins like one") from None
    except InvalidEvent as error:  # names its class first
        raise InvalidEvent(f"content.{error.path.partition('.')[2]}".rstrip("."), error.reason) from None
    return data


# The log: the trail of a conversation, the log as a whole, appending any event, and both as streams

router = APIRouter(tags=["log"], route_class=AuthorizedRoute)

_STREAM: Answers = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events as they come."}
}


@router.get(
    "/conversations/{conversation}/events",
    response_model=EventPage,
    responses=read_errors(NOT_FOUND),
    openapi_extra=needs(Data.LOG),
)
async def history(
    context: CurrentContext, request: Request, conversation: str, asked: Annotated[HistoryQuery, Query()]
) -> Response:
    """The audit trail of a conversation, from the log itself."""
    found = await get_or_404(context.reader, conversation)

    async def page(out: BodyWriter) -> None:
        events = await context.reader.history(found.id, types=asked.type, **asked.model_dump(exclude={"type"}))
        await write_page(out, events, _encode, events.next)

    return await context.read_log(request, page, asked=(found.id, asked.model_dump()), change_token=found.version)


@router.post(
    "/conversations/{conversation}/events",
    status_code=201,
    response_model=AppendOut,
    responses=errors(NOT_FOUND, CONFLICT, TOO_LARGE),
    openapi_extra=needs(Data.CONVERSATION),
)
async def append_events(context: CurrentContext, conversation: str, given: EventsIn) -> Response:
    """Appends events of any kind to a conversation, all of them or none."""
    time_slice = TimeSlice(context.server_context.limits.turns, context.caller.tenant)
    events = await new_events(given.events, context.new_id, time_slice)
    found = await get_or_404(context.reader, conversation)
    expected = ANY if given.expected_version is None else given.expected_version
    result = await context.append(found.id, events, expected=expected)
    return await _append_answer(result, context.position, time_slice)


async def _append_answer(result: AppendResult, position: Callable[[int], int | str], time_slice: TimeSlice) -> Response:
    """Encode the result of an append to one conversation in slices, as it may be of ten thousand events."""
    items = []
    for event in result.events:
        items.append(AppendedOut.model_validate(event).told(position).model_dump_json())
        await time_slice.give_way()
    last = result.events[-1]
    whole = AppendOut(
        conversation_id=last.conversation_id,
        position=position(result.position),
        version=result.version,
        events=[],
    )
    begin = whole.model_dump_json(exclude={"events"}).removesuffix("}")
    return Response(f'{begin},"events":[{",".join(items)}]}}', 201, media_type="application/json")


@router.get(
    "/conversations/{conversation}/stream",
    status_code=200,
    response_class=EventStream,
    responses=_STREAM | errors(NOT_FOUND),
    openapi_extra=needs(Data.LOG),
)
async def stream_conversation(
    context: CurrentContext, request: Request, conversation: str, asked: Annotated[StreamQuery, Query()]
) -> EventStream:
    """The events of a conversation as they come, as server-sent events; resumes by `Last-Event-ID`."""
    found = await get_or_404(context.reader, conversation)
    after = await _beginning(context, request, asked)
    source = conversation_source(context.reader, context.tenant_context.change_notifier, found.id)
    return context.stream(request, source, after)


@router.get("/log", response_model=LogPage, responses=read_errors(), openapi_extra=needs(Data.LOG))
async def read_log(context: CurrentContext, request: Request, asked: Annotated[LogQuery, Query()]) -> Response:
    """The events of all conversations, in the order of the log, as far as it is final."""
    final = await horizon(context.store.log(context.caller))

    async def page(out: BodyWriter) -> None:
        which = asked.model_dump(exclude={"type"})
        which |= {"tenant": context.caller.tenant, "user": context.caller.user}
        position = asked.after
        await out.write(b'{"items":[')
        before = b""
        async for event in context.store.read_log(types=asked.type, until_position=final, **which):
            await out.write(before + _encode(event))
            before, position = b",", event.position
            if out.size > PAGE_BYTES:
                break
        await out.write(b'],"next":%d}' % position)

    return await context.read_log(request, page, asked=asked.model_dump(), change_token=final)


@router.get(
    "/log/stream",
    status_code=200,
    response_class=EventStream,
    responses=_STREAM | errors(),
    openapi_extra=needs(Data.LOG),
)
async def stream_log(
    context: CurrentContext, request: Request, asked: Annotated[LogStreamQuery, Query()]
) -> EventStream:
    """The events of all conversations as they come, as server-sent events; resumes by `Last-Event-ID`."""
    Filter(asked.type, asked.actor)  # refuses what cannot be asked for, while the status can still say so
    after = await _beginning(context, request, asked)
    return context.stream(request, log_source(context.store, context.caller, asked.type, asked.actor), after)


def _encode(event: Event) -> bytes:
    return event_out(event).model_dump_json().encode()


async def _beginning(context: RequestContext, request: Request, asked: StreamQuery) -> int:
    after = resumed_after(request, asked.after)
    return await end_of_log(context.store) if after is None else after
