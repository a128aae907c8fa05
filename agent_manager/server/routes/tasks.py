"""Cancelling tasks, and the settings of their push notifications."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body
from starlette.responses import Response

from agent_manager.a2a import Json
from agent_manager.auth import TokenScope
from agent_manager.conversation_fold import ConversationFold
from agent_manager.server.authorization import AuthorizedRoute, Data
from agent_manager.server.context import CurrentContext
from agent_manager.server.conversation_lookup import get_or_404
from agent_manager.server.routes.declarations import BAD_GATEWAY, CONFLICT, NOT_FOUND, TOO_LARGE, reads, writes
from agent_manager.server.schemas.common import PageOut

router = APIRouter(prefix="/conversations/{conversation}/tasks/{task}", tags=["tasks"], route_class=AuthorizedRoute)

_EXAMPLES = [
    {"url": "https://client.example/hook", "token": "secret"},
    {"id": "p1", "url": "https://client.example/hook", "authentication": {"scheme": "Bearer", "credentials": "secret"}},
    {"pushNotificationConfig": {"url": "https://client.example/hook", "authentication": {"schemes": ["Bearer"]}}},
]
PushNotificationIn = Annotated[
    Json,
    Body(
        description="In the format of A2A 0.3 or 1.x. The agent receives all of it; `token` and "
        "`authentication.credentials` are not stored.",
        examples=_EXAMPLES,
    ),
]


class PushNotificationsOut(PageOut):
    """The settings of push notifications of a task, in the format of A2A 1.x, without their secrets."""

    items: list[Json]


@router.post("/cancel", response_model=Json, **writes(Data.CONVERSATION, NOT_FOUND, CONFLICT, BAD_GATEWAY, TOO_LARGE))
async def cancel_task(context: CurrentContext, conversation: str, task: str) -> Json:
    """Cancel a task at its agent; return it as A2A JSON. Callers without the scope `read` get its id and state."""
    fold = await _fold(context, conversation, is_write=True)
    canceled = await context.manager.task_requests.cancel(fold, task, context.new_id("cancel"))
    if context.identity.may(TokenScope.READ):
        return canceled
    return {"id": canceled["id"], "status": {"state": canceled["status"]["state"]}}


@router.post(
    "/push-notifications",
    status_code=201,
    response_model=Json,
    **writes(Data.CONVERSATION, NOT_FOUND, CONFLICT, BAD_GATEWAY, TOO_LARGE),
)
async def set_push_notification(
    context: CurrentContext, conversation: str, task: str, config: PushNotificationIn
) -> Json:
    """Let the agent of a task notify a URL of its changes; one with the same id is replaced."""
    fold = await _fold(context, conversation, is_write=True)
    return await context.manager.task_requests.set_push_notification(
        fold, task, config, context.new_id("push notification")
    )


@router.get("/push-notifications", response_model=PushNotificationsOut, **reads(Data.CONTENT, NOT_FOUND))
async def list_push_notifications(context: CurrentContext, conversation: str, task: str) -> Response:
    """List the settings of push notifications of a task."""
    resolved = await get_or_404(context.reader, conversation)

    async def read() -> list[Json]:
        fold = await context.manager.conversation_fold(resolved.id)
        return context.manager.task_requests.push_notifications(fold, task)

    return await context.read_list(read)


@router.get(
    "/push-notifications/{config}",
    response_model=Json,
    **reads(Data.CONTENT, NOT_FOUND),
)
async def get_push_notification(context: CurrentContext, conversation: str, task: str, config: str) -> Json:
    """Return a setting of push notifications; to the caller who set it with its secrets, if the agent returns it."""
    fold = await _fold(context, conversation)
    return await context.manager.task_requests.push_notification(fold, task, config)


@router.delete(
    "/push-notifications/{config}",
    status_code=204,
    response_class=Response,
    **writes(Data.CONVERSATION, NOT_FOUND, CONFLICT, BAD_GATEWAY),
)
async def delete_push_notification(context: CurrentContext, conversation: str, task: str, config: str) -> None:
    """Delete a setting of push notifications, here and at the agent."""
    fold = await _fold(context, conversation, is_write=True)
    await context.manager.task_requests.delete_push_notification(fold, task, config)


async def _fold(context: CurrentContext, conversation: str, *, is_write: bool = False) -> ConversationFold:
    resolved = await get_or_404(context.reader, conversation)
    if is_write:
        context.check_writable(resolved.id)
    return await context.manager.conversation_fold(resolved.id)
