"""Messages and tasks, of one conversation or of all."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.http.admission import WalledRoute
from agent_manager.http.data_kinds import Data, needs
from agent_manager.http.here import Here, encoder, write_page
from agent_manager.http.looking import existing
from agent_manager.http.models.common import Json
from agent_manager.http.models.conversations import (
    AllMessageQuery,
    AllTaskQuery,
    AppendMessageQuery,
    ConversationMessageQuery,
    MessageOut,
    MessagePage,
    TaskOut,
    TaskPage,
    TaskQuery,
)
from agent_manager.http.models.events import AppendOut, append_out
from agent_manager.http.models.others import AcceptedOut
from agent_manager.http.spool import BodyWriter
from agent_manager.http.v1.answers import CONFLICT, NOT_FOUND, TOO_LARGE, errors, read_errors
from eventstore import ANY, message_from_sent

router = APIRouter(tags=["messages"], route_class=WalledRoute)

_EXAMPLES = [
    {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": "hello"}]},
    {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hello"}]},
    {"role": "user", "content": "hello"},
]
MessageIn = Annotated[
    Json,
    Body(description="In the shape of A2A 0.3 or 1.x, or with `role` and `content`.", examples=_EXAMPLES),
]


@router.get(
    "/conversations/{conversation}/messages",
    response_model=MessagePage,
    responses=read_errors(NOT_FOUND),
    openapi_extra=needs(Data.CONTENT),
)
async def list_messages(
    here: Here, request: Request, conversation: str, asked: Annotated[ConversationMessageQuery, Query()]
) -> Response:
    """The messages of a conversation, in its order."""
    found = await existing(here.reader, conversation)

    which = asked.model_dump(exclude={"at_least"})

    async def page(out: BodyWriter) -> None:
        rows = await here.reader.messages(found.id, **which)
        await write_page(out, rows, encoder(MessageOut), rows.next)

    return await here.read(
        request, page, asked=(found.id, which), projections=("messages",), at_least=asked.at_least, of_found=True
    )


@router.post(
    "/conversations/{conversation}/messages",
    status_code=201,
    response_model=AppendOut,
    responses=errors(NOT_FOUND, CONFLICT, TOO_LARGE),
    openapi_extra=needs(Data.CONVERSATION),
)
async def append_message(
    here: Here,
    conversation: str,
    message: MessageIn,
    asked: Annotated[AppendMessageQuery, Query()],
) -> AppendOut:
    """Adds a message, as it was sent. Nobody is asked to answer it."""
    data = message_from_sent(message, given_id=_id_of(message))
    found = await existing(here.reader, conversation)
    expected = ANY if asked.expected_version is None else asked.expected_version
    return append_out(await here.append(found.id, [data], expected=expected, claimed=asked.actor), here.position)


@router.post(
    "/conversations/{conversation}/send",
    status_code=202,
    response_model=AcceptedOut,
    responses=errors(NOT_FOUND, CONFLICT, TOO_LARGE),
    openapi_extra=needs(Data.CONVERSATION),
)
async def send_message(here: Here, conversation: str, message: MessageIn) -> AcceptedOut:
    """Adds a message and has it answered. It is stored when this returns; the answer comes by itself."""
    found = await existing(here.reader, conversation)
    here.check_writable(found.id)
    manager = here.manager
    view = await manager.get_conversation(conversation)
    name = str(found.id) if view is None else view.conversation_id
    accepted = await manager.accept(message, name, event_id=None if here.claim is None else here.new_id("message"))
    here.answer(accepted)
    return AcceptedOut.model_validate(accepted).told(here.position)


@router.get(
    "/conversations/{conversation}/tasks",
    response_model=TaskPage,
    responses=read_errors(NOT_FOUND),
    openapi_extra=needs(Data.CONTENT),
)
async def list_conversation_tasks(
    here: Here, request: Request, conversation: str, asked: Annotated[TaskQuery, Query()]
) -> Response:
    """The tasks of a conversation, in the order in which they were created."""
    found = await existing(here.reader, conversation)

    which = asked.model_dump(exclude={"at_least"})

    async def page(out: BodyWriter) -> None:
        rows = await here.reader.tasks(found.id, **which)
        await write_page(out, rows, encoder(TaskOut), rows.next)

    return await here.read(
        request, page, asked=(found.id, which), projections=("tasks",), at_least=asked.at_least, of_found=True
    )


@router.get("/messages", response_model=MessagePage, responses=read_errors(), openapi_extra=needs(Data.CONTENT))
async def list_all_messages(here: Here, request: Request, asked: Annotated[AllMessageQuery, Query()]) -> Response:
    """The messages of all conversations, by the time when they happened."""
    which = asked.model_dump(exclude={"at_least"})

    async def page(out: BodyWriter) -> None:
        rows = await here.reader.messages(**which)
        await write_page(out, rows, encoder(MessageOut), rows.next)

    read = ("messages", "conversations")
    return await here.read(request, page, asked=which, projections=read, at_least=asked.at_least)


@router.get("/tasks", response_model=TaskPage, responses=read_errors(), openapi_extra=needs(Data.CONTENT))
async def list_tasks(here: Here, request: Request, asked: Annotated[AllTaskQuery, Query()]) -> Response:
    """The tasks of all conversations, in the order in which they were created."""
    which = asked.model_dump(exclude={"at_least"})

    async def page(out: BodyWriter) -> None:
        rows = await here.reader.tasks(**which)
        await write_page(out, rows, encoder(TaskOut), rows.next)

    read = ("tasks", "conversations")
    return await here.read(request, page, asked=which, projections=read, at_least=asked.at_least)


def _id_of(message: Json) -> str | None:
    """The id that the client gave the message, in any of the shapes."""
    given = message.get("messageId", message.get("message_id", message.get("id")))
    return given if isinstance(given, str) else None
