"""Isolation between tenants that share one agent.

An agent keeps its memory by ``contextId``. Two tenants may use the same conversation id, and would be answered out of
each other's memory. So the agent receives ids that are unique across tenants, and its updates are translated back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import fields, replace
from typing import Any

from agent_manager.a2a import RESERVED, Json
from agent_manager.agents.agent import (
    Answer,
    ArtifactUpdate,
    Cancel,
    Context,
    PushNotifications,
    Resume,
    StatusUpdate,
    Update,
    cancellation,
    closing,
    load,
    push_notifications_of,
    resumption,
)
from eventstore.ids import derived_uuid


class TenantIsolatedAgent:
    """An agent that receives ids unique across tenants, and whose updates carry the tenant's own ids again."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    @property
    def name(self) -> str | None:
        """The name of the agent; that of a remote agent changes when its card is fetched."""
        return getattr(self._answer, "name", None)

    async def load(self) -> None:
        """Make the name known."""
        await load(self._answer)

    def __call__(self, message: Json, context: Context) -> AsyncGenerator[Update, None]:
        """Yield the agent's updates."""
        ids = _ContextIds(context.tenant)
        if isinstance(context_id := message.get("contextId"), str) and context_id:
            message = message | {"contextId": ids.unique(context_id)}
        return ids.restored_all(self._answer(message, ids.isolated(context)))

    @property
    def resume(self) -> Resume | None:
        """The function that resumes an answer of the agent, see :func:`~agent_manager.agents.agent.resumption`."""
        resume = resumption(self._answer)
        if resume is None:
            return None

        def isolated(task_id: str, context: Context) -> AsyncIterator[Update]:
            ids = _ContextIds(context.tenant)
            return ids.restored_all(resume(task_id, ids.isolated(context)))

        return isolated

    @property
    def cancel(self) -> Cancel | None:
        """The function that cancels a task of the agent, see :func:`~agent_manager.agents.agent.cancellation`."""
        cancel = cancellation(self._answer)
        if cancel is None:
            return None

        async def isolated(task_id: str, context: Context) -> Update:
            ids = _ContextIds(context.tenant)
            return ids.restored(await cancel(task_id, ids.isolated(context)))

        return isolated

    @property
    def push_notifications(self) -> PushNotifications | None:
        """The settings of the agent's push notifications; they name no contexts."""
        return push_notifications_of(self._answer)


class _ContextIds:
    """The unique ids that one exchange uses, and the tenant's own ids that they replace."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._own: dict[str, str] = {}

    def unique(self, own: str) -> str:
        unique = RESERVED + str(derived_uuid("context", self._tenant, own))
        self._own[unique] = own
        return unique

    def isolated(self, context: Context) -> Context:
        return replace(context, conversation_id=self.unique(context.conversation_id))

    async def restored_all(self, updates: AsyncIterator[Update]) -> AsyncGenerator[Update, None]:
        async with closing(updates):
            async for update in updates:
                yield self.restored(update)

    def restored(self, update: Update) -> Update:
        members = {each.name: self._restored_json(getattr(update, each.name)) for each in fields(update)}
        if isinstance(update, StatusUpdate | ArtifactUpdate) and update.context_id is not None:
            members["context_id"] = self._own.get(update.context_id, update.context_id)
        return replace(update, **members)

    def _restored_json(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: self._own.get(item, item)
                if name == "contextId" and isinstance(item, str)
                else self._restored_json(item)
                for name, item in value.items()
            }
        return [self._restored_json(item) for item in value] if isinstance(value, list) else value
