"""The endpoints of the demo, answered from plain wire JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.agents.cardshapes import readable_card
from agent_manager.agents.wire import Shape
from agent_manager.http.admission import WalledRoute
from agent_manager.http.data_kinds import Data, needs
from agent_manager.http.demo import files
from agent_manager.http.demo.lists import (
    conversation_head,
    write_conversations,
    write_events,
    write_messages,
    write_tasks,
)
from agent_manager.http.demo.rpc import RpcRoute, frame_of, read_call, success
from agent_manager.http.demo.shaping import asked_shape, messages_of
from agent_manager.http.demo.wire import read_message
from agent_manager.http.here import Here, HereAndNow
from agent_manager.http.looking import come_to, mark_of_log
from agent_manager.http.models.common import Json
from agent_manager.http.spool import BodyWriter
from agent_manager.http.v1.answers import Answers, errors, read_errors
from agent_manager.manager.registry import checked_conversation
from eventstore.errors import InputError

router = APIRouter(tags=["demo"], route_class=RpcRoute)
plain = APIRouter(tags=["demo"], route_class=WalledRoute)
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
async def create_conversation(here: Here, request: Request) -> Response:
    """Begins a conversation."""
    await read_call(request)
    view = await here.manager.create_conversation(conversation_id=str(here.new_id("conversation")))
    return success(request, conversation_head(view) | {"messages": messages_of(view, "0.3")})


@router.post("/conversation/list", openapi_extra=_takes(None) | needs(Data.CONTENT), responses=_list_of(_OBJECT))
async def list_conversations(here: Here, request: Request) -> Response:
    """All conversations with their messages, in the order in which they began; not the hidden ones."""
    return await _listed(here, request, write_conversations)


@router.post("/message/send", openapi_extra=_takes(_OBJECT) | needs(Data.CONVERSATION), responses=_gives(_OBJECT))
async def send_message(here: Here, request: Request) -> Response:
    """Stores a message, and has it answered after this has returned."""
    call = await read_call(request)
    message = read_message(call.get("params"))
    if message.get("contextId"):
        checked_conversation(here.caller.tenant, message["contextId"])
    accepted = await here.manager.accept(message)
    here.answer(accepted)
    return success(request, {"message_id": accepted.message_id, "context_id": accepted.conversation_id})


@router.post("/message/list", openapi_extra=_takes(_TEXT) | needs(Data.CONTENT), responses=_list_of(_OBJECT))
async def list_messages(here: Here, request: Request) -> Response:
    """The messages of a conversation, their files as addresses; none if it does not exist, or is deleted."""
    call = await read_call(request)
    conversation = call.get("params")
    if not isinstance(conversation, str):
        raise InputError("params: is no conversation's id: send it as a text")
    found = await come_to(here.reader, conversation)
    if found is None or found.is_deleted:
        return success(request, [])
    shape = asked_shape(request)

    async def make(out: BodyWriter) -> None:
        await write_messages(out, here, found.id, shape)

    return await here.given(
        request, str(found.version), make, asked=(found.id, shape), frame=frame_of(request), is_large=True
    )


@router.post(
    "/message/pending",
    openapi_extra=_takes(None) | needs(Data.CONTENT),
    responses=_list_of({"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2}),
)
async def pending_messages(here: Here, request: Request) -> Response:
    """The messages that wait for an answer: id, and what is known of it."""

    async def write(out: BodyWriter, here: HereAndNow, _: Shape | None) -> None:
        await _write(out, [(each.message_id, each.status) for each in await here.manager.pending()])

    return await _listed(here, request, write)


@router.post("/events/get", openapi_extra=_takes(None) | needs(Data.CONTENT), responses=_list_of(_OBJECT))
async def get_events(here: Here, request: Request) -> Response:
    """What happened, oldest first."""
    return await _listed(here, request, write_events)


@router.post("/task/list", openapi_extra=_takes(None) | needs(Data.CONTENT), responses=_list_of(_OBJECT))
async def list_tasks(here: Here, request: Request) -> Response:
    """All tasks, in the order in which they began."""
    return await _listed(here, request, write_tasks)


@router.post(
    "/agent/register",
    openapi_extra=_takes(_TEXT) | needs(Data.REGISTRY),
    responses=_gives({"type": ["string", "null"]}),
)
async def register_agent(here: Here, request: Request) -> Response:
    """Registers the agent whose card is at an address."""
    call = await read_call(request)
    url = call.get("params")
    if not isinstance(url, str) or not url:
        raise InputError("params: is no address of an agent: send it as a text")
    await here.manager.register_agent(url, allow_private=here.backend.allows_private)
    return success(request, None)


@router.post("/agent/list", openapi_extra=_takes(None) | needs(Data.CONTENT), responses=_list_of(_OBJECT))
async def list_agents(here: Here, request: Request) -> Response:
    """The cards of the registered agents."""

    async def write(out: BodyWriter, here: HereAndNow, _: Shape | None) -> None:
        await _write(out, map(readable_card, await here.manager.agents()))

    return await _listed(here, request, write)


@plain.get(
    "/message/file/{file_id}", response_class=Response, responses=_FILE | errors(404), openapi_extra=needs(Data.CONTENT)
)
async def get_file(here: Here, file_id: str) -> Response:
    """A file that a message holds."""
    return files.answer(await files.find(here.reader, file_id))


@plain.post("/api_key/update", responses=errors(413), openapi_extra=needs(Data.REGISTRY))
async def update_api_key(request: Request) -> dict[str, str]:
    """Accept a key for Google's models, as the demo's client expects, and discard it.

    Agents get their keys from the environment that they are started with: a request changes no process.
    """
    key = (await read_call(request)).get("api_key")
    if not isinstance(key, str) or not key:
        raise InputError("api_key: is missing: send the key as a text")
    return {"status": "success"}


Write = Callable[[BodyWriter, HereAndNow, Shape | None], Awaitable[None]]
"""Writes a list in the shape that a client names; None if it names none."""


async def _listed(here: HereAndNow, request: Request, write: Write) -> Response:
    """A list of everything: made anew only where the log has gone on."""
    await read_call(request)
    shape = asked_shape(request)
    mark = await mark_of_log(here.store)

    async def make(out: BodyWriter) -> None:
        await write(out, here, shape)

    return await here.given(request, mark, make, asked=shape, frame=frame_of(request), is_large=True)


async def _write(out: BodyWriter, items: Iterable[Any]) -> None:
    await out.write(b"[")
    await out.write_items(items, to_json)
    await out.write(b"]")
