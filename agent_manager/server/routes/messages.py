"""Messages and tasks, of one conversation or of all."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.server.authorization import AuthorizedRoute, Data, needs
from agent_manager.server.context import CurrentContext, encoder, write_page
from agent_manager.server.lookups import get_or_404
from agent_manager.server.response_cache import BodyWriter
from agent_manager.server.routes.openapi import CONFLICT, NOT_FOUND, TOO_LARGE, errors, read_errors
from agent_manager.server.schemas.common import Json
from agent_manager.server.schemas.conversations import (
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
from agent_manager.server.schemas.events import AppendOut, append_out
from agent_manager.server.schemas.search_statistics_agents import AcceptedOut
from eventstore import ANY, message_from_sent

router = APIRouter(tags=["messages"], route_class=AuthorizedRoute)

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
    context: CurrentContext, request: Request, conversation: str, asked: Annotated[ConversationMessageQuery, Query()]
) -> Response:
    """The messages of a conversation, in its order."""
    found = await get_or_404(context.reader, conversation)

    which = asked.model_dump(exclude={"at_least"})

    async def page(out: BodyWriter) -> None:
        rows = await context.reader.messages(found.id, **which)
        await write_page(out, rows, encoder(MessageOut), rows.next)

    return await context.read(
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
    context: CurrentContext,
    conversation: str,
    message: MessageIn,
    asked: Annotated[AppendMessageQuery, Query()],
) -> AppendOut:
    """Adds a message, as it was sent. Nobody is asked to answer it."""
    data = message_from_sent(message, given_id=_id_of(message))
    found = await get_or_404(context.reader, conversation)
    expected = ANY if asked.expected_version is None else asked.expected_version
    return append_out(await context.append(found.id, [data], expected=expected, claimed=asked.actor), context.position)


@router.post(
    "/conversations/{conversation}/send",
    status_code=202,
    response_model=AcceptedOut,
    responses=errors(NOT_FOUND, CONFLICT, TOO_LARGE),
    openapi_extra=needs(Data.CONVERSATION),
)
async def send_message(context: CurrentContext, conversation: str, message: MessageIn) -> AcceptedOut:
    """Adds a message and has it answered. It is stored when this returns; the answer comes by itself."""
    found = await get_or_404(context.reader, conversation)
    context.check_writable(found.id)
    manager = context.manager
    view = await manager.get_conversation(conversation)
    name = str(found.id) if view is None else view.conversation_id
    accepted = await manager.accept(
        message, name, event_id=None if context.claim is None else context.new_id("message")
    )
    context.answer(accepted)
    return AcceptedOut.model_validate(accepted).told(context.position)


@router.get(
    "/conversations/{conversation}/tasks",
    response_model=TaskPage,
    responses=read_errors(NOT_FOUND),
    openapi_extra=needs(Data.CONTENT),
)
async def list_conversation_tasks(
    context: CurrentContext, request: Request, conversation: str, asked: Annotated[TaskQuery, Query()]
) -> Response:
    """The tasks of a conversation, in the order in which they were created."""
    found = await get_or_404(context.reader, conversation)

    which = asked.model_dump(exclude={"at_least"})

    async def page(out: BodyWriter) -> None:
        rows = await context.reader.tasks(found.id, **which)
        await write_page(out, rows, encoder(TaskOut), rows.next)

    return await context.read(
        request, page, asked=(found.id, which), projections=("tasks",), at_least=asked.at_least, of_found=True
    )


@router.get("/messages", response_model=MessagePage, responses=read_errors(), openapi_extra=needs(Data.CONTENT))
async def list_all_messages(
    context: CurrentContext, request: Request, asked: Annotated[AllMessageQuery, Query()]
) -> Response:
    """The messages of all conversations, by the time when they happened."""
    which = asked.model_dump(exclude={"at_least"})

    async def page(out: BodyWriter) -> None:
        rows = await context.reader.messages(**which)
        await write_page(out, rows, encoder(MessageOut), rows.next)

    read = ("messages", "conversations")
    return await context.read(request, page, asked=which, projections=read, at_least=asked.at_least)


@router.get("/tasks", response_model=TaskPage, responses=read_errors(), openapi_extra=needs(Data.CONTENT))
async def list_tasks(context: CurrentContext, request: Request, asked: Annotated[AllTaskQuery, Query()]) -> Response:
    """The tasks of all conversations, in the order in which they were created."""
    which = asked.model_dump(exclude={"at_least"})

    async def page(out: BodyWriter) -> None:
        rows = await context.reader.tasks(**which)
        await write_page(out, rows, encoder(TaskOut), rows.next)

    read = ("tasks", "conversations")
    return await context.read(request, page, asked=which, projections=read, at_least=asked.at_least)


def _id_of(message: Json) -> str | None:
    """The id that the client gave the message, in any of the shapes."""
    given = message.get("messageId", message.get("message_id", message.get("id")))
    return given if isinstance(given, str) else None
