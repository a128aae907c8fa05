"""The actions of operators, as events of a conversation that only administrators see (:data:`ACTIONS`).

An action is recorded before it is done, so that none goes unrecorded; if it fails, that is recorded, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from agent_manager.a2a import RESERVED
from eventstore import ApplicationEvent, ConversationCreated, conversation_uuid
from eventstore.errors import EventStoreError

ACTIONS = RESERVED + "operations"
"""The conversation, by its given id, whose events are the actions of operators."""


@asynccontextmanager
async def recorded(
    append: Callable[..., Awaitable[object]], tenant: str, action: str, **details: Any
) -> AsyncIterator[None]:
    """Append an action to the log, then do it in the block.

    Args:
        append: appends as the one who acts; see :meth:`eventstore.EventStore.append`.
        tenant: that of the conversation.
        details: what the action concerns.
    """

    async def record(event_type: str, content: dict[str, Any]) -> None:
        await append(
            conversation_uuid(tenant, ACTIONS),
            [ApplicationEvent(event_type=f"operations.{event_type}", content=content)],
            begin=ConversationCreated(name="Operations", given_id=ACTIONS),
        )

    await record(action, details)
    try:
        yield
    except EventStoreError as error:
        await record("failed", {"action": action, **details, "error": str(error)})
        raise
