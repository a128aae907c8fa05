"""The endpoints of the A2A demo application, so that its client works unchanged.

A list is written as it is read, some events at a time, so it takes little memory however long it is. And it is made out
of the list before: what has not changed since is copied from there, as the bytes that it is, and only what is new is
read and encoded. Events never change, and a conversation changes only with its version.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.a2a import Version, readable_card, task_in_version, version_of
from agent_manager.adapters import a2a_demo_messages
from agent_manager.adapters.a2a_demo_messages import (
    as_message,
    listed,
    messages_of,
    read_message,
    requested_version,
    shape_of_list,
    unnamed,
)
from agent_manager.agent_registry import checked_conversation
from agent_manager.conversation import ConversationFold, ConversationView
from agent_manager.manager import Summary, event_view
from agent_manager.server.authorization import AuthorizedRoute, Data, Handler, needs
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.errors import Rejected, headers_of, members, status_of
from agent_manager.server.idempotency import Kept
from agent_manager.server.lookups import log_change_token, resolve
from agent_manager.server.response_cache import BodyWriter, Frame, StoredBody
from agent_manager.server.routes.openapi import Answers, errors, read_errors
from agent_manager.server.schemas.common import Json
from agent_manager.storage import LISTED
from eventstore import Event, MessageAdded, sent_message
from eventstore.errors import EventStoreError, InputError, printable

# The demo's envelope: JSON-RPC 2.0 in the body of a POST, with an HTTP status that says how it went

PARSE_ERROR, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32602, -32603
_CODES = {400: PARSE_ERROR, 413: INVALID_PARAMS, 422: INVALID_PARAMS, 404: INVALID_PARAMS, 409: INVALID_PARAMS}


class RpcRoute(AuthorizedRoute):
    """An endpoint whose errors are those of JSON-RPC, under the status that they have everywhere here."""

    def get_route_handler(self) -> Handler:
        """Answers, and tells errors."""
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except EventStoreError as error:
                return self.refusal(request, error)
            except HTTPException as error:
                return failure(request, error.status_code, str(error.detail))

        return handle_errors

    async def repeated(self, request: Request, kept: Kept) -> Response:
        """The result of the first call, as the answer to this one."""
        await read_call(request)
        return success(request, json.loads(kept.body)["result"])

    def refusal(self, request: Request, error: Rejected | EventStoreError) -> Response:
        """The error as JSON-RPC tells it."""
        if isinstance(error, Rejected):
            return failure(request, error.status, str(error), error.headers, type=error.title)
        more = {"type": type(error).__name__, **members(error)}
        return failure(request, status_of(error), str(error), headers_of(error), **more)


async def read_call(request: Request) -> Json:
    """The body of a call; empty where there is none. Its id is kept for the answer.

    Raises:
        HTTPException: it is no JSON.
        InputError: it is no object.
    """
    body = await request.body()
    if not body.strip():
        return {}
    try:
        call = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {printable(str(error))}") from None
    if not isinstance(call, dict):
        raise InputError("the body is no JSON object: send jsonrpc, id, method and params")
    given = call.get("id")
    request.state.call_id = given if type(given) in (int, str) else None
    return call


def success(request: Request, result: Any) -> Response:
    """The answer that holds a result."""
    frame = frame_of(request)
    return Response(frame.before + to_json(result) + frame.after, media_type="application/json")


def failure(
    request: Request, status: int, message: str, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """The answer that says what was wrong."""
    error = {"code": _CODES.get(status, INTERNAL_ERROR), "message": printable(message, 2000), "data": more or None}
    body = {"jsonrpc": "2.0", "id": _call_id(request), "result": None, "error": error}
    return Response(json.dumps(body).encode(), status, headers, "application/json")


def frame_of(request: Request) -> Frame:
    """What stands before and after a result."""
    call_id = json.dumps(_call_id(request)).encode()
    return Frame(b'{"jsonrpc":"2.0","id":' + call_id + b',"result":', b',"error":null}')


def _call_id(request: Request) -> int | str | None:
    return getattr(request.state, "call_id", None)


# The lists of the demo: everything that a tenant has, in one answer

_ENTRY_BYTES = 300
"""About what an entry of an index takes."""


class _Part(NamedTuple):
    """Where something stands in a body."""

    key: int
    start: int
    end: int


class _Index(NamedTuple):
    """Of a list of tasks: the shape it is in, the version of each conversation, and where its tasks stand."""

    shape: Version
    conversations: dict[UUID, tuple[int, list[_Part]]]

    def known(self, shape: Version, version: int, conversation_id: UUID) -> list[_Part] | None:
        """Return the parts of a conversation if they are as they were."""
        before, parts = self.conversations.get(conversation_id, (0, []))
        return parts if (self.shape, before) == (shape, version) else None


class _Listed(NamedTuple):
    """A conversation in the list of all: what is known of it, and where it stands; nowhere if it is deleted."""

    summary: Summary
    start: int
    end: int


class _Conversations(NamedTuple):
    """The index of the list of all conversations, which is in a shape."""

    shape: Version
    listed: dict[UUID, _Listed]


async def write_conversations(out: BodyWriter, context: RequestContext, asked: Version | None) -> None:
    """Write all conversations with their messages, in the order in which they began; not the deleted ones."""
    versions = await context.manager.versions()
    shape = asked or (out.previous[1].shape if out.previous is not None else None)
    while True:
        index = await _try_conversations(out, context, versions, shape, is_guess=asked is None)
        right = asked or shape_of_list(one.summary for one in index.listed.values())
        if index.shape == right:
            break
        shape = right
        out.discard()
    out.index, out.index_bytes = index, _ENTRY_BYTES * len(index.listed)


async def _try_conversations(
    out: BodyWriter, context: RequestContext, versions: Mapping[UUID, int], shape: Version | None, *, is_guess: bool
) -> _Conversations:
    """Write the conversations in a shape, or, if it is None, in that of the first of them.

    Args:
        is_guess: stop as soon as it turns out to be the wrong one.
    """
    body, before = out.previous or (None, None)
    known: dict[UUID, _Listed] = {}
    if before is not None and before.shape == shape:
        known = {each: one for each, one in before.listed.items() if one.summary.version == versions.get(each)}
    folds = context.manager.folds({each: version for each, version in versions.items() if each not in known})
    coming = await anext(folds, None)
    listed: dict[UUID, _Listed] = {}
    separator = b"["
    for conversation_id in versions:
        fold = coming if coming is not None and coming.id == conversation_id else None
        if fold is not None:
            coming = await anext(folds, None)
            summary = context.server_context.summaries.add(context.caller.tenant, fold)
        elif conversation_id in known:
            summary = known[conversation_id].summary
        else:  # not seen any more
            continue
        shape = shape or (None if summary.is_deleted else summary.shape)
        start = end = out.size
        if not summary.is_deleted:
            await out.write(separator)
            separator = b","
            start = out.size
            if fold is not None:
                await _write_conversation(out, fold, shape or "0.3")
            else:
                assert body is not None
                await out.copy(body, known[conversation_id].start, known[conversation_id].end)
            end = out.size
        listed[conversation_id] = _Listed(summary, start, end)
        if is_guess and shape == "1.0" and summary.shape == "0.3" and not summary.is_deleted:
            break
    await out.write(b"[]" if separator == b"[" else b"]")
    return _Conversations(shape or "0.3", listed)


async def _write_conversation(out: BodyWriter, fold: ConversationFold, shape: Version) -> None:
    await out.write(to_json(conversation_head(fold.view))[:-1] + b',"messages":[')
    await out.write_items(messages_of(fold.view, shape), to_json)
    await out.write(b"]}")


def conversation_head(view: ConversationView) -> Json:
    """A conversation as it is listed, without its messages."""
    return {
        "conversation_id": view.conversation_id,
        "is_active": view.is_active,
        "name": view.name,
        "task_ids": view.task_ids,
    }


async def write_tasks(out: BodyWriter, context: RequestContext, asked: Version | None) -> None:
    """Write all tasks, in the order in which they began; none of a deleted conversation."""
    seen = await context.server_context.summaries.read(context.manager)
    shape = asked or shape_of_list(seen.values())
    body, before = out.previous or (None, _Index(shape, {}))
    shown = {each: one for each, one in seen.items() if one.tasks and not one.is_deleted}
    changed = {each: one.version for each, one in shown.items() if before.known(shape, one.version, each) is None}
    entries: list[tuple[int, UUID, int, StoredBody | None, _Part]] = []
    for conversation_id, one in shown.items():
        if conversation_id not in changed:
            parts = before.conversations[conversation_id][1]
            entries += [(part.key, conversation_id, one.version, body, part) for part in parts]
    new = out.another()
    try:
        made: list[tuple[UUID, int, _Part]] = []
        async for fold in context.manager.folds(changed):
            version = fold.version
            for task in list(fold.tasks.values()):
                start = new.size
                await new.write(to_json(task_in_version(fold.wire(task), shape)))
                made.append((fold.id, version, _Part(task.position, start, new.size)))
        new_body = await new.finish()
    except BaseException:
        new.discard()
        raise
    entries += [(part.key, each, version, new_body, part) for each, version, part in made]
    index = _Index(shape, {})
    separator = b"["
    for _, conversation_id, version, source, part in sorted(entries, key=itemgetter(0)):
        await out.write(separator)
        separator = b","
        start = out.size
        assert source is not None
        await out.copy(source, part.start, part.end)
        index.conversations.setdefault(conversation_id, (version, []))[1].append(_Part(part.key, start, out.size))
    await out.write(b"[]" if separator == b"[" else b"]")
    out.index, out.index_bytes = index, _ENTRY_BYTES * (len(index.conversations) + len(entries))


class _EventsIndex(NamedTuple):
    """Of a list of events.

    Attributes:
        position: up to which the log was final.
        deleted: whether each conversation was.
    """

    shape: Version
    position: int
    deleted: Mapping[UUID, bool]


async def write_events(out: BodyWriter, context: RequestContext, asked: Version | None) -> None:
    """Write what happened, oldest first; nothing of a deleted conversation."""
    position = await context.manager.position()
    seen = await context.server_context.summaries.read(context.manager)
    shape = asked or shape_of_list(seen.values())
    deleted = {each: one.is_deleted for each, one in seen.items()}
    after, separator = 0, b"["
    if out.previous is not None:
        body, before = out.previous
        # Nothing up to there has become visible or hidden since: a conversation that was not there began later, unless
        # the caller is a user, with whom it may have been shared.
        is_same = before.deleted.items() <= deleted.items()
        if before.shape == shape and is_same and (context.caller.user is None or len(before.deleted) == len(deleted)):
            after, separator = before.position, b"," if body.size > len(b"[]") else b"["
            await out.copy(body, 0, body.size - 1 if separator == b"," else 0)
    events = context.store.read_log(
        after=after, until_position=position, types=LISTED, tenant=context.caller.tenant, user=context.caller.user
    )
    async for event in events:
        conversation = seen.get(event.conversation_id)
        if conversation is not None and not conversation.is_deleted:
            text = _event(event, conversation, shape)
            if text is not None:
                await out.write(separator + text)
                separator = b","
    await out.write(b"[]" if separator == b"[" else b"]")
    out.index = _EventsIndex(shape, max(after, position), deleted)
    out.index_bytes = _ENTRY_BYTES * len(deleted)


def _event(event: Event, conversation: Summary, shape: Version) -> bytes | None:
    view = event_view(event, conversation)
    if view is None:
        return None
    return to_json(
        {
            "id": view.id,
            "actor": view.actor,
            "content": as_message(view.content, shape, view.id),
            "timestamp": view.timestamp.astimezone(UTC).timestamp(),
        }
    )


class _MessagesIndex(NamedTuple):
    """Of the messages of a conversation: its version, how many they are, and their shape."""

    version: int
    number: int
    shape: Version | None


async def write_messages(
    out: BodyWriter, context: RequestContext, conversation_id: UUID, asked: Version | None
) -> None:
    """Write the messages of a conversation, oldest first, in the shape asked for, else in that of the first."""
    version, number, shape = 0, 0, asked
    await out.write(b"[")
    if out.previous is not None:
        body, (version, number, shape) = out.previous
        await out.copy(body, 1, body.size - 1)
    events = context.store.read(
        conversation_id, after=version, types=["message.added"], tenant=context.caller.tenant, user=context.caller.user
    )
    async for event in events:
        version = event.version
        if isinstance(event.data, MessageAdded):
            sent = sent_message(event.data)
            shape = shape or version_of(sent)
            message = as_message(sent, shape, unnamed(conversation_id, number))
            await out.write((b"," if number else b"") + to_json(listed(message, conversation_id, version)))
            number += 1
    await out.write(b"]")
    out.index, out.index_bytes = _MessagesIndex(version, number, shape), _ENTRY_BYTES


# The endpoints of the demo, answered from plain wire JSON

router = APIRouter(tags=["demo"], route_class=RpcRoute)
plain = APIRouter(tags=["demo"], route_class=AuthorizedRoute)
"""What the demo serves beside its calls."""


def _takes(params: Json | None) -> Json:
    """What a call takes, for the OpenAPI."""
    members: Json = {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer", "null"]},
        "method": {"type": "string"},
    }
    schema: Json = {"type": "object", "properties": members}
    if params is not None:
        schema |= {"properties": members | {"params": params}, "required": ["params"]}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": params is not None}}


def _gives(result: Json) -> Answers:
    """What a call gives, for the OpenAPI."""
    members: Json = {"jsonrpc": {"const": "2.0"}, "id": {"type": ["string", "integer", "null"]}, "result": result}
    schema = {"type": "object", "properties": members | {"error": {"type": ["object", "null"]}}, "required": ["result"]}
    told: Answers = {200: {"description": "The result.", "content": {"application/json": {"schema": schema}}}}
    return told | {status: answer | {"content": _FAILURE} for status, answer in errors(409, 413, 502).items()}


_FAILURE: Json = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {
                "jsonrpc": {"const": "2.0"},
                "id": {"type": ["string", "integer", "null"]},
                "result": {"type": "null"},
                "error": {
                    "type": "object",
                    "properties": {
                        "code": {"type": "integer"},
                        "message": {"type": "string"},
                        "data": {"type": ["object", "null"]},
                    },
                    "required": ["code", "message"],
                },
            },
            "required": ["error"],
        }
    }
}


def _list_of(item: Json) -> Answers:
    """The same of a list, which may be as it was."""
    return _gives({"type": "array", "items": item}) | {304: read_errors()[304]}


_FILE: Answers = {200: {"content": {"*/*": {}}, "description": "The file's bytes."}}
_OBJECT: Json = {"type": "object"}
_TEXT: Json = {"type": "string"}


@router.post("/conversation/create", openapi_extra=_takes(None) | needs(Data.CONVERSATION), responses=_gives(_OBJECT))
async def create_conversation(context: CurrentContext, request: Request) -> Response:
    """Begins a conversation."""
    await read_call(request)
    view = await context.manager.create_conversation(conversation_id=str(context.new_id("conversation")))
    return success(request, conversation_head(view) | {"messages": messages_of(view, "0.3")})


@router.post("/conversation/list", openapi_extra=_takes(None) | needs(Data.CONTENT), responses=_list_of(_OBJECT))
async def list_conversations(context: CurrentContext, request: Request) -> Response:
    """All conversations with their messages, in the order in which they began; not the hidden ones."""
    return await _listed(context, request, write_conversations)


@router.post("/message/send", openapi_extra=_takes(_OBJECT) | needs(Data.CONVERSATION), responses=_gives(_OBJECT))
async def send_message(context: CurrentContext, request: Request) -> Response:
    """Stores a message, and has it answered after this has returned."""
    call = await read_call(request)
    message = read_message(call.get("params"))
    if message.get("contextId"):
        checked_conversation(context.caller.tenant, message["contextId"])
    accepted = await context.manager.accept(message)
    context.answer(accepted)
    return success(request, {"message_id": accepted.message_id, "context_id": accepted.conversation_id})


@router.post("/message/list", openapi_extra=_takes(_TEXT) | needs(Data.CONTENT), responses=_list_of(_OBJECT))
async def list_messages(context: CurrentContext, request: Request) -> Response:
    """The messages of a conversation, their files as addresses; none if it does not exist, or is deleted."""
    call = await read_call(request)
    conversation = call.get("params")
    if not isinstance(conversation, str):
        raise InputError("params: is no conversation's id: send it as a text")
    found = await resolve(context.reader, conversation)
    if found is None or found.is_deleted:
        return success(request, [])
    shape = requested_version(request)

    async def make(out: BodyWriter) -> None:
        await write_messages(out, context, found.id, shape)

    return await context.given(
        request, str(found.version), make, asked=(found.id, shape), frame=frame_of(request), is_large=True
    )


@router.post(
    "/message/pending",
    openapi_extra=_takes(None) | needs(Data.CONTENT),
    responses=_list_of({"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2}),
)
async def pending_messages(context: CurrentContext, request: Request) -> Response:
    """The messages that wait for an answer: id, and what is known of it."""

    async def write(out: BodyWriter, context: RequestContext, _: Version | None) -> None:
        await _write(out, [(each.message_id, each.status) for each in await context.manager.pending()])

    return await _listed(context, request, write)


@router.post("/events/get", openapi_extra=_takes(None) | needs(Data.CONTENT), responses=_list_of(_OBJECT))
async def get_events(context: CurrentContext, request: Request) -> Response:
    """What happened, oldest first."""
    return await _listed(context, request, write_events)


@router.post("/task/list", openapi_extra=_takes(None) | needs(Data.CONTENT), responses=_list_of(_OBJECT))
async def list_tasks(context: CurrentContext, request: Request) -> Response:
    """All tasks, in the order in which they began."""
    return await _listed(context, request, write_tasks)


@router.post(
    "/agent/register",
    openapi_extra=_takes(_TEXT) | needs(Data.REGISTRY),
    responses=_gives({"type": ["string", "null"]}),
)
async def register_agent(context: CurrentContext, request: Request) -> Response:
    """Registers the agent whose card is at an address."""
    call = await read_call(request)
    url = call.get("params")
    if not isinstance(url, str) or not url:
        raise InputError("params: is no address of an agent: send it as a text")
    await context.manager.register_agent(url, allow_private=context.server_context.allows_private)
    return success(request, None)


@router.post("/agent/list", openapi_extra=_takes(None) | needs(Data.CONTENT), responses=_list_of(_OBJECT))
async def list_agents(context: CurrentContext, request: Request) -> Response:
    """The cards of the registered agents."""

    async def write(out: BodyWriter, context: RequestContext, _: Version | None) -> None:
        await _write(out, map(readable_card, await context.manager.agents()))

    return await _listed(context, request, write)


@plain.get(
    "/message/file/{file_id}", response_class=Response, responses=_FILE | errors(404), openapi_extra=needs(Data.CONTENT)
)
async def get_file(context: CurrentContext, file_id: str) -> Response:
    """A file that a message holds."""
    return a2a_demo_messages.answer(await a2a_demo_messages.find(context.reader, file_id))


@plain.post("/api_key/update", responses=errors(413), openapi_extra=needs(Data.REGISTRY))
async def update_api_key(request: Request) -> dict[str, str]:
    """Accept a key for Google's models, as the demo's client expects, and discard it.

    Agents get their keys from the environment that they are started with: a request changes no process.
    """
    key = (await read_call(request)).get("api_key")
    if not isinstance(key, str) or not key:
        raise InputError("api_key: is missing: send the key as a text")
    return {"status": "success"}


Write = Callable[[BodyWriter, RequestContext, Version | None], Awaitable[None]]
"""Writes a list in the shape that a client names; None if it names none."""


async def _listed(context: RequestContext, request: Request, write: Write) -> Response:
    """A list of everything: made anew only where the log has gone on."""
    await read_call(request)
    shape = requested_version(request)
    change_token = await log_change_token(context.store)

    async def make(out: BodyWriter) -> None:
        await write(out, context, shape)

    return await context.given(request, change_token, make, asked=shape, frame=frame_of(request), is_large=True)


async def _write(out: BodyWriter, items: Iterable[Any]) -> None:
    await out.write(b"[")
    await out.write_items(items, to_json)
    await out.write(b"]")
