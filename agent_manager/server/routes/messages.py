"""Messages and tasks of one conversation or of all; sending messages to agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Query
from pydantic import AwareDatetime, Field
from starlette.responses import Response

from agent_manager.a2a import Json, message_and_push_notification
from agent_manager.agent_registry import checked_conversation
from agent_manager.agents.updates import renamed
from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext
from agent_manager.server.conversation_lookup import get_or_404, resolve
from agent_manager.server.routes.declarations import CONFLICT, NOT_FOUND, TOO_LARGE, reads, writes
from agent_manager.server.schemas.common import PageOut, PositionedOut
from agent_manager.server.schemas.conversations import (
    AllMessageQuery,
    AllTaskQuery,
    AppendMessageQuery,
    ConversationMessageQuery,
    MessageOut,
    MessagePage,
    SendMessageQuery,
    TaskOut,
    TaskPage,
    TaskQuery,
)
from agent_manager.server.schemas.events import NOT_STORED, AppendOut
from agent_manager.writer import append_reduced
from eventstore import ConversationCreated, message_from_sent

router = APIRouter(tags=["messages"], route_class=AuthorizedRoute)

_EXAMPLES = [
    {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": "hello"}]},
    {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hello"}]},
    {"role": "user", "content": "hello"},
]
MessageIn = Annotated[
    Json,
    Body(description="In the format of A2A 0.3 or 1.x, or with `role` and `content`.", examples=_EXAMPLES),
]


_REQUEST = {
    "message": _EXAMPLES[1],
    "configuration": {"taskPushNotificationConfig": {"url": "https://client.example/hook", "token": "secret"}},
}
SentMessageIn = Annotated[
    Json,
    Body(
        description="As for appending; or A2A's request with a `message`. Of its `configuration`, the agent receives "
        "`pushNotificationConfig` (0.3) or `taskPushNotificationConfig` (1.x).",
        examples=[*_EXAMPLES, _REQUEST],
    ),
]


class SentMessageOut(PositionedOut):
    """A message that an agent is to answer."""

    conversation_id: str = Field(description="As its client gave it.")
    conversation: UUID
    event_id: UUID = Field(description="The message's id in the tables.")
    message_id: str = Field(description="As its client gave it.")


class AcceptedOut(SentMessageOut):
    """A message that is stored and will be answered. The answer is appended as further messages."""

    task_id: str | None = Field(description="The open task that the message continues.")
    message: Json = Field(description="As it is stored.")
    not_stored: list[str] = Field(description=NOT_STORED, validation_alias="notes")


class PendingMessage(SentMessageOut):
    """A message that awaits its answer."""

    status: str
    since: AwareDatetime


class PendingOut(PageOut):
    """The messages that await an answer, oldest first."""

    items: list[PendingMessage]


@router.get("/conversations/{conversation}/messages", response_model=MessagePage, **reads(Data.CONTENT, NOT_FOUND))
async def list_messages(
    context: CurrentContext, conversation: str, query: Annotated[ConversationMessageQuery, Query()]
) -> Response:
    """List the messages of a conversation in its order."""
    resolved = await get_or_404(context.reader, conversation)
    return await context.read_page(
        query,
        context.reader.messages,
        MessageOut,
        conversation=resolved,
        projections=("messages", "conversations"),
    )


@router.post(
    "/conversations/{conversation}/messages",
    status_code=201,
    response_model=AppendOut,
    **writes(Data.CONVERSATION, NOT_FOUND, CONFLICT, TOO_LARGE),
)
async def append_message(
    context: CurrentContext,
    conversation: str,
    message: MessageIn,
    query: Annotated[AppendMessageQuery, Query()],
) -> Response:
    """Append a message as it was sent; with `begin`, begin the conversation if it is new. No agent answers it."""
    given_id = message.get("messageId", message.get("message_id", message.get("id")))  # of any of the formats

    async def append(message: Json, notes: Sequence[str]) -> Response:
        data = message_from_sent(message, given_id=given_id if isinstance(given_id, str) else None)
        return await context.append_to(
            conversation,
            [data],
            expected=query.expected_version,
            begin=ConversationCreated(name=query.name) if query.begin else None,
            claimed_actor=query.actor,
            not_stored=notes,
        )

    return await append_reduced(message, append)


@router.post(
    "/conversations/{conversation}/send",
    status_code=202,
    response_model=AcceptedOut,
    **writes(Data.CONVERSATION, NOT_FOUND, CONFLICT, TOO_LARGE),
)
async def send_message(
    context: CurrentContext,
    conversation: str,
    message: SentMessageIn,
    query: Annotated[SendMessageQuery, Query()],
) -> AcceptedOut:
    """Append a message and let the agent answer it; with `begin`, begin the conversation if it is new.

    The message is stored when this returns; the answer follows.
    """
    given, push_notification = message_and_push_notification(message)
    resolved = await (resolve if query.begin else get_or_404)(context.reader, conversation)
    uuid = checked_conversation(context.caller.tenant, conversation) if resolved is None else resolved.id
    context.check_writable(uuid)
    manager = context.manager
    view = await manager.get_conversation(conversation)
    accepted = await manager.accept(
        renamed(given),
        conversation if resolved is None else str(resolved.id) if view is None else view.conversation_id,
        name=query.name,
        event_id=None if context.claim is None else context.new_id("message"),
        push_notification=push_notification,
    )
    context.answer(accepted)
    return AcceptedOut.model_validate(accepted).with_position(context.position)


@router.get("/pending", response_model=PendingOut, **reads(Data.CONTENT))
async def pending(context: CurrentContext) -> Response:
    """List the messages that await an answer, oldest first."""
    return await context.read_list(
        context.manager.pending,
        lambda each: PendingMessage.model_validate(each).with_position(context.position).to_bytes(),
    )


@router.get("/conversations/{conversation}/tasks", response_model=TaskPage, **reads(Data.CONTENT, NOT_FOUND))
async def list_conversation_tasks(
    context: CurrentContext, conversation: str, query: Annotated[TaskQuery, Query()]
) -> Response:
    """List the tasks of a conversation in the order in which they were created."""
    resolved = await get_or_404(context.reader, conversation)
    return await context.read_page(
        query, context.reader.tasks, TaskOut, conversation=resolved, projections=("tasks", "conversations")
    )


@router.get("/messages", response_model=MessagePage, **reads(Data.CONTENT))
async def list_all_messages(context: CurrentContext, query: Annotated[AllMessageQuery, Query()]) -> Response:
    """List the messages of all conversations by the time when they happened."""
    projections = ("messages", "conversations")
    return await context.read_page(query, context.reader.messages, MessageOut, projections=projections)


@router.get("/tasks", response_model=TaskPage, **reads(Data.CONTENT))
async def list_tasks(context: CurrentContext, query: Annotated[AllTaskQuery, Query()]) -> Response:
    """List the tasks of all conversations in the order in which they were created."""
    projections = ("tasks", "conversations")
    return await context.read_page(query, context.reader.tasks, TaskOut, projections=projections)
