"""The endpoints of the A2A demo application, so that its client works unchanged.

The demo's client sends JSON-RPC 2.0 calls in the body of a POST; responses have the HTTP status of the error, too. Its
lists hold everything that a tenant has (:mod:`agent_manager.adapters.a2a_demo_lists`).

A client that does not want everything requests pages: ``limit``, and ``after`` with the ``next`` of the page before, in
``params`` or in the query. The result is then a page, as the lists below ``/v1`` are; its cost does not depend on the
rest of the list.

Every list is in one A2A version, see :mod:`agent_manager.adapters.a2a_demo_messages`: the one that the client requests,
or one that is derived from the conversations; all its pages are, if it is read in pages, in that of the first page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_manager.a2a import Json, Version, readable_card
from agent_manager.adapters.a2a_demo_lists import (
    Page,
    WriteList,
    conversation_head,
    write_array,
    write_conversations,
    write_events,
    write_messages,
    write_tasks,
)
from agent_manager.adapters.a2a_demo_messages import (
    file_response,
    find_file,
    messages_of,
    read_message,
    requested_version,
)
from agent_manager.agent_registry import checked_conversation
from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import LARGE_LIMIT, CurrentContext, RequestContext
from agent_manager.server.conversation_lookup import resolve
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
from agent_manager.server.response_cache import BodyWriter, Frame
from agent_manager.server.routes.declarations import NOT_MODIFIED, Responses, errors
from agent_manager.server.schemas.common import Cursor, Limit
from eventstore.errors import EventStoreError, InputError, InvalidCursor, InvalidEvent, printable

F = TypeVar("F", bound=Callable[..., Any])

PARSE_ERROR, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32602, -32603
_CODES = dict.fromkeys((400, 415), PARSE_ERROR) | dict.fromkeys((404, 409, 413, 422), INVALID_PARAMS)


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
    return _success(request, conversation_head(view) | {"messages": messages_of(view, "0.3")})


@_call("/conversation/list", Data.CONTENT, None, _OBJECTS, has_pages=True)
async def list_conversations(context: CurrentContext, request: Request) -> Response:
    """List all conversations with their messages, oldest first, without the deleted ones."""
    return await _list(context, request, write_conversations)


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
        out: BodyWriter, context: RequestContext, requested: Version | None, page: Page | None
    ) -> None:
        await write_messages(out, context, resolved, requested, page)

    return await _respond(context, request, str(resolved.version), write_list, page, resolved.id)


@_call("/message/pending", Data.CONTENT, None, _PAIRS)
async def pending_messages(context: CurrentContext, request: Request) -> Response:
    """List the messages that await an answer: the id, and the status."""

    async def write(out: BodyWriter, context: RequestContext, *_: Any) -> None:
        await write_array(out, [(each.message_id, each.status) for each in await context.manager.pending()])

    return await _list(context, request, write)


@_call("/events/get", Data.CONTENT, None, _OBJECTS, has_pages=True)
async def get_events(context: CurrentContext, request: Request) -> Response:
    """List the events, oldest first."""
    return await _list(context, request, write_events)


@_call("/task/list", Data.CONTENT, None, _OBJECTS, has_pages=True)
async def list_tasks(context: CurrentContext, request: Request) -> Response:
    """List all tasks, oldest first."""
    return await _list(context, request, write_tasks)


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
        await write_array(out, map(readable_card, await context.manager.agents()))

    return await _list(context, request, write)


@plain.get(
    "/message/file/{file_id}", response_class=Response, responses=_FILE | errors(404), openapi_extra=needs(Data.CONTENT)
)
async def get_file(context: CurrentContext, file_id: str) -> Response:
    """Return a file that a message holds."""
    return await file_response(await find_file(context.reader, file_id))


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


# Lists and their pages


class _PageQuery(BaseModel):
    limit: Limit = 50
    after: Cursor = None


def _requested_page(context: RequestContext, request: Request, params: Any) -> Page | None:
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
        return Page(query.limit)
    if not after.startswith(f"{request.url.path} "):
        raise InvalidCursor("the cursor is of another list: begin this list without a cursor")
    _, version, place = after.split(" ", 2)
    return Page(query.limit, "1.0" if version == "1.0" else "0.3", place)


async def _list(context: RequestContext, request: Request, write_list: WriteList) -> Response:
    """Return the response to a request for a list, cached until the log changes."""
    page = _requested_page(context, request, (await _read_call(request)).get("params"))
    return await _respond(context, request, await log_change_token(context.log), write_list, page)


async def _respond(
    context: RequestContext,
    request: Request,
    change_token: str,
    write_list: WriteList,
    page: Page | None,
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
