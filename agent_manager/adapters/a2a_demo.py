"""The endpoints of the A2A demo application, so that its client works unchanged.

The demo's client sends JSON-RPC 2.0 calls in the body of a POST; responses have the HTTP status of the error, too. Its
lists hold everything that a tenant has. A list is written as it is read, so it takes little memory, and it is made out
of the list before: items that have not changed are copied as bytes, and only new ones are read and encoded. That is
possible because events never change, and a conversation changes only with its version.

A client that does not want everything requests pages: ``limit``, and ``after`` with the ``next`` of the page before, in
``params`` or in the query. The result is then a page, as the lists below ``/v1`` are; its cost does not depend on the
rest of the list.

Every list is in one A2A version, see :mod:`agent_manager.adapters.a2a_demo_messages`: the one that the client requests,
or one that is derived from the conversations; all its pages are, if it is read in pages, in that of the first page.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_manager.a2a import Json, Version, readable_card, task_in_version, version_of
from agent_manager.adapters.a2a_demo_messages import (
    as_message,
    file_response,
    find_file,
    id_of_unnamed,
    is_hidden,
    messages_of,
    read_message,
    read_rewinds,
    requested_version,
    version_of_list,
    with_file_addresses,
)
from agent_manager.agent_registry import checked_conversation
from agent_manager.conversation_fold import ConversationFold, ConversationView, Summary, event_view
from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import LARGE_LIMIT, CurrentContext, RequestContext
from agent_manager.server.conversation_lookup import ResolvedConversation, resolve
from agent_manager.server.idempotency import StoredResponse
from agent_manager.server.problems import (
    ERROR_RESPONSE,
    Rejected,
    headers_of,
    members_of,
    request_member,
    status_of,
    title_of,
)
from agent_manager.server.read_your_writes import log_change_token
from agent_manager.server.response_cache import BodyWriter, Frame, StoredBody
from agent_manager.server.routes.declarations import NOT_MODIFIED, Responses, errors
from agent_manager.server.schemas.common import Cursor, Limit
from agent_manager.storage import LISTED
from eventstore import ConversationRewound, Event, MessageAdded, sent_message
from eventstore.errors import EventStoreError, InputError, InvalidCursor, InvalidEvent, printable
from eventstore.event_types import RECEIPTS
from projections.pages import PAGE_BYTES

F = TypeVar("F", bound=Callable[..., Any])

PARSE_ERROR, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32602, -32603
_CODES = dict.fromkeys((400, 415), PARSE_ERROR) | dict.fromkeys((404, 409, 413, 422), INVALID_PARAMS)
_TASK_TYPES = ("task.described", *(each for each in LISTED if each.startswith("task.")))
_ENTRY_BYTES = 300
"""The approximate memory of an entry of an index."""


class RpcRoute(AuthorizedRoute):
    """A route whose errors are JSON-RPC errors, with the same HTTP status as those of other routes."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; its errors are JSON-RPC errors."""
        scope[ERROR_RESPONSE] = _error_response
        await super().handle(scope, receive, send)

    async def repeated(self, request: Request, stored: StoredResponse) -> Response:
        """Return the stored result as the response to a repeated call, which may have another id."""
        await _read_call(request)
        return _success(request, json.loads(stored.body)["result"])


router = APIRouter(tags=["demo"], route_class=RpcRoute)
"""The JSON-RPC calls."""
plain = APIRouter(tags=["demo"], route_class=AuthorizedRoute)
"""The endpoints that are not JSON-RPC calls."""

_OBJECT: Json = {"type": "object"}
_TEXT: Json = {"type": "string"}
_NULLABLE_OBJECT: Json = {"type": ["object", "null"]}
_OBJECTS: Json = {"type": "array", "items": _OBJECT}
_PAIRS: Json = {"type": "array", "items": {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2}}
_NULLABLE_TEXT: Json = {"type": ["string", "null"]}
_PAGE: Json = {
    "type": "object",
    "properties": {
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "description": "Requests a page: items at most."},
        "after": {"type": "string", "description": "`next` of the page before."},
    },
}
_PAGE_OF_CONVERSATION: Json = _PAGE | {
    "properties": _PAGE["properties"] | {"conversation_id": _TEXT},
    "required": ["conversation_id"],
}
_FILE: Responses = {200: {"content": {"*/*": {}}, "description": "The bytes of the file."}}


def _json(members: Json, *required: str) -> Json:
    """Return the OpenAPI description of a JSON-RPC body with these members."""
    envelope: Json = {"jsonrpc": {"const": "2.0"}, "id": {"type": ["string", "integer", "null"]}}
    schema: Json = {"type": "object", "properties": envelope | members}
    return {"application/json": {"schema": schema | ({"required": list(required)} if required else {})}}


def _call(path: str, data: Data, params: Json | None, result: Json, *, has_pages: bool = False) -> Callable[[F], F]:
    """Return the decorator of a JSON-RPC call.

    Args:
        params, result: OpenAPI descriptions of the parameters, None if there are none, and of the result.
        has_pages: Whether the result is a list of which the client may request pages.
    """
    members, required = {"method": _TEXT}, () if params is None else ("params",)
    is_list = result["type"] == "array"
    described = params
    if has_pages:
        described = {"anyOf": [params or {"type": "null"}, _PAGE_OF_CONVERSATION if params else _PAGE]}
        result = {"anyOf": [result, {"type": "object", "properties": {"items": result, "next": _NULLABLE_TEXT}}]}
    content = _json(members if described is None else members | {"params": described}, *required)
    success = {"description": "The result.", "content": _json({"result": result, "error": _NULLABLE_OBJECT}, "result")}
    error_members = {"code": {"type": "integer"}, "message": _TEXT, "data": _NULLABLE_OBJECT}
    error = {"type": "object", "properties": error_members, "required": ["code", "message"]}
    failure = {"content": _json({"result": {"type": "null"}, "error": error}, "error")}
    failures = {status: response | failure for status, response in errors(409, 413, 502).items()}
    return router.post(
        path,
        openapi_extra={"requestBody": {"content": content, "required": params is not None}} | needs(data),
        responses={200: success} | failures | (NOT_MODIFIED if is_list else {}),
    )


@_call("/conversation/create", Data.CONVERSATION, None, _OBJECT)
async def create_conversation(context: CurrentContext, request: Request) -> Response:
    """Create a conversation."""
    await _read_call(request)
    view = await context.manager.create_conversation(conversation_id=str(context.new_id("conversation")))
    return _success(request, _conversation_head(view) | {"messages": messages_of(view, "0.3")})


@_call("/conversation/list", Data.CONTENT, None, _OBJECTS, has_pages=True)
async def list_conversations(context: CurrentContext, request: Request) -> Response:
    """List all conversations with their messages, oldest first, without the deleted ones."""
    return await _list(context, request, _write_conversations)


@_call("/message/send", Data.CONVERSATION, _OBJECT, _OBJECT)
async def send_message(context: CurrentContext, request: Request) -> Response:
    """Store a message; the agent answers it after the response."""
    call = await _read_call(request)
    message = read_message(call.get("params"))
    if message.get("contextId"):
        checked_conversation(context.caller.tenant, message["contextId"])
    accepted = await context.manager.accept(message)
    context.answer(accepted)
    return _success(request, {"message_id": accepted.message_id, "context_id": accepted.conversation_id})


@_call("/message/list", Data.CONTENT, _TEXT, _OBJECTS, has_pages=True)
async def list_messages(context: CurrentContext, request: Request) -> Response:
    """List the messages of a conversation, with addresses for their files; none if it does not exist or is deleted."""
    params = (await _read_call(request)).get("params")
    conversation = params.get("conversation_id") if isinstance(params, dict) else params
    if not isinstance(conversation, str):
        raise InputError(
            "params: must be the id of a conversation, as a string, or an object with conversation_id, limit and after"
        )
    page = _requested_page(context, request, params)
    resolved = await resolve(context.reader, conversation)
    if resolved is None or resolved.is_deleted:
        return _success(request, [] if page is None else {"items": [], "next": None})

    async def write_list(
        out: BodyWriter, context: RequestContext, requested: Version | None, page: _Page | None
    ) -> None:
        await _write_messages(out, context, resolved, requested, page)

    return await _respond(context, request, str(resolved.version), write_list, page, resolved.id)


@_call("/message/pending", Data.CONTENT, None, _PAIRS)
async def pending_messages(context: CurrentContext, request: Request) -> Response:
    """List the messages that await an answer: the id, and the status."""

    async def write(out: BodyWriter, context: RequestContext, *_: Any) -> None:
        await _write_array(out, [(each.message_id, each.status) for each in await context.manager.pending()])

    return await _list(context, request, write)


@_call("/events/get", Data.CONTENT, None, _OBJECTS, has_pages=True)
async def get_events(context: CurrentContext, request: Request) -> Response:
    """List the events, oldest first."""
    return await _list(context, request, _write_events)


@_call("/task/list", Data.CONTENT, None, _OBJECTS, has_pages=True)
async def list_tasks(context: CurrentContext, request: Request) -> Response:
    """List all tasks, oldest first."""
    return await _list(context, request, _write_tasks)


@_call("/agent/register", Data.REGISTRY, _TEXT, {"type": ["string", "null"]})
async def register_agent(context: CurrentContext, request: Request) -> Response:
    """Register the agent whose card is at a URL."""
    call = await _read_call(request)
    url = call.get("params")
    if not isinstance(url, str) or not url:
        raise InputError("params: must be the URL of an agent, as a string")
    await context.manager.register_agent(url, allow_private=context.server_context.allows_private)
    return _success(request, None)


@_call("/agent/list", Data.CONTENT, None, _OBJECTS)
async def list_agents(context: CurrentContext, request: Request) -> Response:
    """List the cards of the registered agents."""

    async def write(out: BodyWriter, context: RequestContext, *_: Any) -> None:
        await _write_array(out, map(readable_card, await context.manager.agents()))

    return await _list(context, request, write)


@plain.get(
    "/message/file/{file_id}", response_class=Response, responses=_FILE | errors(404), openapi_extra=needs(Data.CONTENT)
)
async def get_file(context: CurrentContext, file_id: str) -> Response:
    """Return a file that a message holds."""
    return file_response(await find_file(context.reader, file_id))


@plain.post("/api_key/update", responses=errors(413), openapi_extra=needs(Data.REGISTRY))
async def update_api_key(request: Request) -> dict[str, str]:
    """Accept a key for Google's models, as the demo's client expects, and discard it.

    Agents get their keys from the environment that they are started with: a request changes no process.
    """
    key = (await _read_call(request)).get("api_key")
    if not isinstance(key, str) or not key:
        raise InputError("api_key: is missing: send the key as a string")
    return {"status": "success"}


# The JSON-RPC envelope


async def _read_call(request: Request) -> Json:
    """Return the call in the body, empty if there is no body; note its id for the response.

    Raises:
        InputError: The body is not an object.
    """
    call = await request.json()
    if call is None:
        return {}
    if not isinstance(call, dict):
        raise InputError("the body is not a JSON object: send jsonrpc, id, method and params")
    call_id = call.get("id")
    request.state.call_id = call_id if type(call_id) in (int, str) else None
    return call


def _success(request: Request, result: Any) -> Response:
    frame = _frame(request)
    return Response(frame.before + to_json(result) + frame.after, media_type="application/json")


def _error_response(scope: Scope, error: Rejected | EventStoreError) -> Response:
    """Return the JSON-RPC error."""
    status = status_of(error)
    rpc_error = {
        "code": INVALID_PARAMS if isinstance(error, InputError) else _CODES.get(status, INTERNAL_ERROR),
        "message": printable(str(error), 2000),
        "data": {"type": title_of(error), **members_of(error), **request_member()},
    }
    body = {"jsonrpc": "2.0", "id": _call_id(Request(scope)), "result": None, "error": rpc_error}
    return Response(json.dumps(body).encode(), status, headers_of(error), "application/json")


def _frame(request: Request) -> Frame:
    """Return the JSON-RPC envelope: the bytes before and after a result."""
    call_id = json.dumps(_call_id(request)).encode()
    return Frame(b'{"jsonrpc":"2.0","id":' + call_id + b',"result":', b',"error":null}')


def _call_id(request: Request) -> int | str | None:
    return getattr(request.state, "call_id", None)


# The lists


class _Page(NamedTuple):
    """A page that the client requests.

    Attributes:
        a2a_version: The A2A version of the page before; None for the first page.
        place: The place where the page before ended; None for the first page.
    """

    limit: int
    a2a_version: Version | None = None
    place: str | None = None


class _PageQuery(BaseModel):
    limit: Limit = 50
    after: Cursor = None


WriteList = Callable[[BodyWriter, RequestContext, Version | None, _Page | None], Awaitable[None]]
"""A function that writes a list, or a page of it, in the A2A version that the client requests, if any.

If the page is not the last one, it sets the cursor of the body to its A2A version and the place where it ends.
"""


def _requested_page(context: RequestContext, request: Request, params: Any) -> _Page | None:
    """Return the page that the client requests; None if it requests the whole list.

    Raises:
        InvalidEvent: The limit is not a number from 1 to 1000, or the cursor is not a text.
        InvalidCursor: The cursor is damaged, or is of another caller or another list.
    """
    given = dict(request.query_params) | (params if isinstance(params, dict) else {})
    if not given.keys() & _PageQuery.model_fields.keys():
        return None
    try:
        query = _PageQuery.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        raise InvalidEvent(f"params.{fault['loc'][0]}", fault["msg"]) from None
    after = context.open_cursor(query.after)
    if after is None:
        return _Page(query.limit)
    if not after.startswith(f"{request.url.path} "):
        raise InvalidCursor("the cursor is of another list: begin this list without a cursor")
    _, version, place = after.split(" ", 2)
    return _Page(query.limit, "1.0" if version == "1.0" else "0.3", place)


async def _list(context: RequestContext, request: Request, write_list: WriteList) -> Response:
    """Return the response to a request for a list, cached until the log changes."""
    page = _requested_page(context, request, (await _read_call(request)).get("params"))
    return await _respond(context, request, await log_change_token(context.log), write_list, page)


async def _respond(
    context: RequestContext,
    request: Request,
    change_token: str,
    write_list: WriteList,
    page: _Page | None,
    conversation_id: UUID | None = None,
) -> Response:
    """Return the response with a list, or with a page of it: ``{"items": […], "next": …}``."""
    requested = requested_version(request) or (None if page is None else page.a2a_version)
    frame = _frame(request)

    async def write(out: BodyWriter) -> None:
        await write_list(out, context, requested, page)
        if out.cursor is not None:
            out.cursor = f"{request.url.path} {out.cursor}"
        elif page is not None:
            await out.write(b',"next":null}')

    return await context.respond(
        change_token,
        write,
        parameters=(conversation_id, requested, page),
        frame=frame if page is None else Frame(frame.before + b'{"items":', frame.after),
        is_large=page is None or page.limit > LARGE_LIMIT,
    )


async def _write_array(out: BodyWriter, items: Iterable[Any]) -> None:
    await out.write(b"[")
    await out.write_items(items, to_json)
    await out.write(b"]")


class _ListedConversation(NamedTuple):
    """A conversation, and its place in the body; ``start`` equals ``end`` if it is deleted."""

    summary: Summary
    start: int
    end: int


class _ConversationsIndex(NamedTuple):
    a2a_version: Version
    listed: dict[UUID, _ListedConversation]
    is_cut: bool
    """Whether the page ends before the last conversation."""


async def _write_conversations(
    out: BodyWriter, context: RequestContext, requested: Version | None, page: _Page | None
) -> None:
    """Write the conversations with their messages in the order of their creation, without the deleted ones.

    Without a requested version, the version of the list depends on all conversations. So the list is written in the
    version of the list before, or of the first conversation, and written again if that turns out to be wrong.
    """
    versions = await context.manager.versions()
    if page is not None:
        versions = _versions_of_page(versions, page)
    guess = requested or (out.previous[1].a2a_version if out.previous is not None else None)
    while True:
        index = await _try_conversations(out, context, versions, guess, page, is_guess=requested is None)
        needed = requested or version_of_list(each.summary for each in index.listed.values())
        if index.a2a_version == needed:
            break
        guess = needed
        out.discard()
    out.index, out.index_bytes = index, _ENTRY_BYTES * len(index.listed)
    if index.is_cut:
        out.cursor = f"{index.a2a_version} {next(reversed(index.listed)).hex}"


def _versions_of_page(versions: dict[UUID, int], page: _Page) -> dict[UUID, int]:
    """Return the conversations after the one that ended the page before.

    Raises:
        InvalidCursor: That one is not visible any more.
    """
    if page.place is None:
        return versions
    ids = iter(versions)
    last = UUID(page.place)
    if last not in ids:  # consumes the ids up to the last one
        raise InvalidCursor("the conversation that ended the page before is not visible any more: begin again")
    return {id: versions[id] for id in ids}


async def _try_conversations(
    out: BodyWriter,
    context: RequestContext,
    versions: Mapping[UUID, int],
    a2a_version: Version | None,
    page: _Page | None,
    *,
    is_guess: bool,
) -> _ConversationsIndex:
    """Write the conversations in an A2A version; if it is None, in that of the first conversation.

    Args:
        is_guess: Stop as soon as the version turns out to be wrong.
    """
    body, before = out.previous or (None, None)
    unchanged: dict[UUID, _ListedConversation] = {}
    if before is not None and before.a2a_version == a2a_version:
        unchanged = {id: each for id, each in before.listed.items() if each.summary.version == versions.get(id)}
    changed = {id: version for id, version in versions.items() if id not in unchanged}
    folds = context.manager.folds(changed) if page is None else _folds_of_page(context, changed, page)
    next_fold: ConversationFold | None = None
    listed: dict[UUID, _ListedConversation] = {}
    await out.write(b"[")
    separator = b""
    count, is_cut = 0, False
    for conversation_id in versions:
        fold = None
        if conversation_id in unchanged:
            summary = unchanged[conversation_id].summary
        else:
            next_fold = next_fold or await anext(folds, None)
            if next_fold is None or next_fold.id != conversation_id:  # not visible any more
                continue
            fold, next_fold = next_fold, None
            summary = context.server_context.summaries.add(context.caller.tenant, fold)
        count += not summary.is_deleted
        if page is not None and not summary.is_deleted and (count > page.limit or out.size > PAGE_BYTES):
            is_cut = True
            break
        a2a_version = a2a_version or (None if summary.is_deleted else summary.a2a_version)
        start = end = out.size
        if not summary.is_deleted:
            await out.write(separator)
            separator = b","
            start = out.size
            if fold is not None:
                await _write_conversation(out, fold, a2a_version or "0.3")
            else:
                assert body is not None
                await out.copy(body, unchanged[conversation_id].start, unchanged[conversation_id].end)
            end = out.size
        listed[conversation_id] = _ListedConversation(summary, start, end)
        if is_guess and a2a_version == "1.0" and summary.a2a_version == "0.3" and not summary.is_deleted:
            break
    await out.write(b"]")
    return _ConversationsIndex(a2a_version or "0.3", listed, is_cut)


async def _folds_of_page(
    context: RequestContext, versions: dict[UUID, int], page: _Page
) -> AsyncIterator[ConversationFold]:
    """Yield conversations, and read no more of them at a time than the page holds, and the next one."""
    ids = list(versions)
    for start in range(0, len(ids), page.limit + 1):
        async for fold in context.manager.folds({id: versions[id] for id in ids[start : start + page.limit + 1]}):
            yield fold


async def _write_conversation(out: BodyWriter, fold: ConversationFold, a2a_version: Version) -> None:
    await out.write(to_json(_conversation_head(fold.view))[:-1] + b',"messages":')
    await _write_array(out, messages_of(fold.view, a2a_version))
    await out.write(b"}")


def _conversation_head(view: ConversationView) -> Json:
    """Return a listed conversation without its messages."""
    return {
        "conversation_id": view.conversation_id,
        "is_active": view.is_active,
        "name": view.name,
        "task_ids": view.task_ids,
    }


class _ListedTask(NamedTuple):
    """The position of a task's first event, and the place of the task in a body."""

    position: int
    start: int
    end: int


class _TasksIndex(NamedTuple):
    """The version and the tasks of each conversation."""

    a2a_version: Version
    conversations: dict[UUID, tuple[int, list[_ListedTask]]]


async def _write_tasks(out: BodyWriter, context: RequestContext, requested: Version | None, page: _Page | None) -> None:
    """Write the tasks in the order of their creation, without those of deleted conversations."""
    listed_positions: set[int] | None = None
    end: int | None = None
    if page is None:
        summaries = await context.server_context.summaries.read(context.manager)
    else:
        begun, end = await _events_of_page(context, _TASK_TYPES, page, _begins_task)
        summaries = {event.conversation_id: summary for event, summary in begun}
        listed_positions = {event.position for event, _ in begun}
    a2a_version = requested or version_of_list(summaries.values())
    if end is not None:
        out.cursor = f"{a2a_version} {end}"
    body, before = out.previous or (None, None)
    listed_before = before.conversations if before is not None and before.a2a_version == a2a_version else {}
    entries: list[tuple[_ListedTask, UUID, int, StoredBody | None]] = []
    changed: dict[UUID, int] = {}
    for conversation_id, summary in summaries.items():
        if not summary.tasks or summary.is_deleted:
            continue
        version, tasks = listed_before.get(conversation_id, (0, []))
        if version == summary.version:
            entries += [(task, conversation_id, version, body) for task in tasks]
        else:
            changed[conversation_id] = summary.version
    new = out.another()
    try:
        encoded: list[tuple[_ListedTask, UUID, int]] = []
        async for fold in context.manager.folds(changed):
            version = fold.version
            for task in list(fold.tasks.values()):
                if listed_positions is not None and task.position not in listed_positions:
                    continue
                start = new.size
                await new.write(to_json(task_in_version(fold.wire(task), a2a_version)))
                encoded.append((_ListedTask(task.position, start, new.size), fold.id, version))
        new_body = await new.finish()
    except BaseException:
        new.discard()
        raise
    entries += [(*entry, new_body) for entry in encoded]
    index = _TasksIndex(a2a_version, {})
    await out.write(b"[")
    separator = b""
    for listed, conversation_id, version, source in sorted(entries, key=itemgetter(0)):
        await out.write(separator)
        separator = b","
        start = out.size
        assert source is not None
        await out.copy(source, listed.start, listed.end)
        _, tasks = index.conversations.setdefault(conversation_id, (version, []))
        tasks.append(_ListedTask(listed.position, start, out.size))
    await out.write(b"]")
    if page is None:  # a page may hold a part of a conversation's tasks
        out.index, out.index_bytes = index, _ENTRY_BYTES * (len(index.conversations) + len(entries))


def _begins_task(event: Event, conversation: Summary) -> bool:
    """Return whether an event is the first one of its task."""
    _, position = conversation.tasks.get(getattr(event.data, "task_id", None), ("", 0))  # type: ignore[arg-type]
    return position == event.position


async def _events_of_page(
    context: RequestContext,
    types: Sequence[str],
    page: _Page,
    is_listed: Callable[[Event, Summary], bool] = lambda event, conversation: True,
) -> tuple[list[tuple[Event, Summary]], int | None]:
    """Return the events of a page, each with its conversation, and the position where the page ends.

    Events of deleted conversations are left out. A page ends before its limit if the events that were read for it take
    more than :data:`PAGE_BYTES`. The position is None if no event follows.
    """
    caller, manager = context.caller, context.manager
    position, after, size = await manager.position(), int(page.place or 0), 0
    versions = await manager.versions()
    found: list[tuple[Event, Summary]] = []
    while len(found) <= page.limit and size <= PAGE_BYTES:
        events: list[Event] = []
        wanted = page.limit + 1 - len(found)
        reading = context.store.read_log(
            after=after,
            until_position=position,
            limit=wanted,
            types=types,
            tenant=caller.tenant,
            user=caller.user,
        )
        async for event in reading:
            events.append(event)
            size += event.size
            if size > PAGE_BYTES:
                break
        if not events:
            return found, None
        is_last = len(events) < wanted and size <= PAGE_BYTES
        after = events[-1].position
        ids = {event.conversation_id for event in events} & versions.keys()
        summaries = await context.server_context.summaries.read(manager, {id: versions[id] for id in ids})
        found += [
            (event, summary)
            for event in events
            if (summary := summaries.get(event.conversation_id)) is not None
            and not summary.is_deleted
            and is_listed(event, summary)
        ]
        if is_last:
            return found, None
    listed = found[: page.limit]
    return listed, listed[-1][0].position if len(found) > page.limit else after


class _EventsIndex(NamedTuple):
    """The index of a list of events.

    Attributes:
        position: The position up to which the log was final.
        deleted: Whether each conversation was deleted.
    """

    a2a_version: Version
    position: int
    deleted: Mapping[UUID, bool]


async def _write_events(
    out: BodyWriter, context: RequestContext, requested: Version | None, page: _Page | None
) -> None:
    """Write the events, oldest first, without those of deleted conversations."""
    if page is not None:
        listed, end = await _events_of_page(context, LISTED, page)
        version = requested or version_of_list(summary for _, summary in listed)
        if end is not None:
            out.cursor = f"{version} {end}"
        encoded_events = (_encode_event(event, summary, version) for event, summary in listed)
        await out.write(b"[")
        await out.write_items(filter(None, encoded_events), lambda encoded: encoded)
        await out.write(b"]")
        return
    position = await context.manager.position()
    summaries = await context.server_context.summaries.read(context.manager)
    a2a_version = requested or version_of_list(summaries.values())
    deleted = {id: summary.is_deleted for id, summary in summaries.items()}
    after, separator = 0, b""
    body, before = out.previous or (None, None)
    if (
        body is not None
        and _is_prefix(before, a2a_version, deleted, context.caller.user)
        and not await _has_changes(context, before.position, position)
    ):
        after, separator = before.position, b"," if body.size > len(b"[]") else b""
        await out.copy(body, 0, body.size - 1)
    else:
        await out.write(b"[")
    events = context.store.read_log(
        after=after, until_position=position, types=LISTED, tenant=context.caller.tenant, user=context.caller.user
    )
    async for event in events:
        summary = summaries.get(event.conversation_id)
        if summary is not None and not summary.is_deleted:
            encoded = _encode_event(event, summary, a2a_version)
            if encoded is not None:
                await out.write(separator + encoded)
                separator = b","
    await out.write(b"]")
    out.index = _EventsIndex(a2a_version, max(after, position), deleted)
    out.index_bytes = _ENTRY_BYTES * len(deleted)


def _is_prefix(before: _EventsIndex, a2a_version: Version, deleted: Mapping[UUID, bool], user: str | None) -> bool:
    """Return whether the list before is of the same conversations as the beginning of the new one.

    It is if none has become visible or hidden since. A conversation that is not in it began later,
    unless the caller is a user, with whom an old one may have been shared.
    """
    is_unchanged = before.a2a_version == a2a_version and before.deleted.items() <= deleted.items()
    return is_unchanged and (user is None or len(before.deleted) == len(deleted))


async def _has_changes(context: RequestContext, after: int, until: int) -> bool:
    """Return whether events between two positions hide or erase earlier ones of the same conversation."""
    caller, types = context.caller, ["conversation.rewound", "task.deleted", *RECEIPTS]
    changes = context.store.read_log(
        after=after, until_position=until, types=types, limit=1, tenant=caller.tenant, user=caller.user
    )
    return [change async for change in changes] != []


def _encode_event(event: Event, conversation: Summary, a2a_version: Version) -> bytes | None:
    view = event_view(event, conversation)
    if view is None:
        return None
    return to_json(
        {
            "id": view.id,
            "actor": view.actor,
            "content": as_message(view.content, a2a_version, view.id),
            "timestamp": view.timestamp.astimezone(UTC).timestamp(),
        }
    )


class _MessagesIndex(NamedTuple):
    """The index of the messages of a conversation.

    Attributes:
        known: The version of the conversation up to which the list has applied all changes of earlier messages.
        version: The version of the last message.
        messages: The number of the messages.
    """

    known: int
    version: int
    messages: int
    a2a_version: Version | None


async def _write_messages(
    out: BodyWriter,
    context: RequestContext,
    conversation: ResolvedConversation,
    requested: Version | None,
    page: _Page | None,
) -> None:
    """Write the messages of a conversation, oldest first, in the requested version or that of the first message."""
    before = _MessagesIndex(0, 0, 0, None)
    await out.write(b"[")
    if page is None and out.previous is not None and await _is_beginning(context, conversation.id, out.previous[1]):
        body, before = out.previous
        await out.copy(body, 1, body.size - 1)
    elif page is not None and page.place is not None:
        last_version, earlier = map(int, page.place.split())
        before = _MessagesIndex(0, last_version, earlier, None)
    version, count, a2a_version = before.version, before.messages, requested or before.a2a_version
    separator = b"," if page is None and count else b""
    rewinds = await read_rewinds(context.reader, conversation.id, version)
    events = context.store.read(
        conversation.id,
        after=version,
        types=["message.added"],
        limit=None if page is None or rewinds else page.limit + 1,
        tenant=context.caller.tenant,
        user=context.caller.user,
    )
    async for event in events:
        if not isinstance(event.data, MessageAdded) or is_hidden(event.version, rewinds):
            continue
        if page is not None and (count - before.messages == page.limit or out.size > PAGE_BYTES):
            out.cursor = f"{a2a_version} {version} {count}"
            break
        version = event.version
        sent = sent_message(event.data)
        a2a_version = a2a_version or version_of(sent)
        message = as_message(sent, a2a_version, id_of_unnamed(conversation.id, count))
        await out.write(separator + to_json(with_file_addresses(message, conversation.id, version)))
        separator = b","
        count += 1
    await out.write(b"]")
    if page is None:
        out.index = _MessagesIndex(conversation.version, version, count, a2a_version)
        out.index_bytes = _ENTRY_BYTES


async def _is_beginning(context: RequestContext, conversation_id: UUID, before: _MessagesIndex) -> bool:
    """Return whether the new list begins with all messages of the list before, as they were."""
    caller = context.caller
    types = ["conversation.rewound", *RECEIPTS]
    async for event in context.store.read(
        conversation_id, after=before.known, types=types, tenant=caller.tenant, user=caller.user
    ):
        if not isinstance(event.data, ConversationRewound) or event.data.to_version < before.version:
            return False
    return True
