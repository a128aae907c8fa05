"""One agent for several tenants: it is told of their conversations by ids of which no two are the same.

An agent keeps what it was told by ``contextId``. Two tenants may call their conversations alike, and would be answered
out of each other's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, nullcontext
from dataclasses import replace
from typing import Any

from agent_manager.a2a import RESERVED, Json
from agent_manager.agents.agent import (
    Answer,
    ArtifactUpdate,
    Context,
    Reply,
    Resume,
    StatusUpdate,
    TaskSeen,
    Update,
    resumption,
)
from eventstore.ids import derived_uuid


class TenantIsolatedAgent:
    """An agent, as a tenant other than the server's own asks it. What it says comes back under the tenant's own ids.

    Attributes:
        name: the agent's.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.name = getattr(answer, "name", None)

    async def __call__(self, message: Json, context: Context) -> AsyncGenerator[Update, None]:
        """Asks the agent, and gives what it says."""
        ids: dict[str, str] = {}
        asked = replace(context, conversation_id=_told(context.conversation_id, context.tenant, ids))
        sent = message
        if isinstance(own := message.get("contextId"), str) and own:
            sent = message | {"contextId": _told(own, context.tenant, ids)}
        async for update in _brought_home_all(self._answer(sent, asked), ids):
            yield update

    @property
    def resume(self) -> Resume | None:
        """How to go on listening to the agent; see :func:`~agent_manager.agents.agent.resumption`."""
        resume = resumption(self._answer)
        if resume is None:
            return None

        async def resumed(task_id: str, context: Context) -> AsyncGenerator[Update, None]:
            ids: dict[str, str] = {}
            asked = replace(context, conversation_id=_told(context.conversation_id, context.tenant, ids))
            async for update in _brought_home_all(resume(task_id, asked), ids):
                yield update

        return resumed


def _told(own: str, tenant: str, ids: dict[str, str]) -> str:
    """The id under which the agent knows a context of a tenant, which is noted in ``ids``."""
    outside = RESERVED + str(derived_uuid("context", tenant, own))
    ids[outside] = own
    return outside


async def _brought_home_all(updates: AsyncIterator[Update], ids: dict[str, str]) -> AsyncGenerator[Update, None]:
    async with aclosing(updates) if isinstance(updates, AsyncGenerator) else nullcontext():
        async for update in updates:
            yield _brought_home(update, ids)


def _brought_home(update: Update, ids: dict[str, str]) -> Update:
    match update:
        case Reply(message):
            return Reply(_renamed(message, ids))
        case TaskSeen(task):
            return TaskSeen(_renamed(task, ids))
        case StatusUpdate():
            return replace(update, context_id=_own(update.context_id, ids), status=_renamed(update.status, ids))
        case ArtifactUpdate():
            return replace(update, context_id=_own(update.context_id, ids))


def _own(said: str | None, ids: dict[str, str]) -> str | None:
    return None if said is None else ids.get(said, said)


def _renamed(value: Any, ids: dict[str, str]) -> Any:
    """The value, with the contexts that are named in it under the tenant's own ids."""
    if isinstance(value, dict):
        return {
            name: _own(inner, ids) if name == "contextId" and isinstance(inner, str) else _renamed(inner, ids)
            for name, inner in value.items()
        }
    return [_renamed(inner, ids) for inner in value] if isinstance(value, list) else value
