"""The cache of folded conversations: whoever asks is answered."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from agent_manager.conversation import ConversationFold
from agent_manager.conversation_cache import ConversationCache
from agent_manager.memory_storage import MemoryLog
from eventstore import MessageAdded, NewEvent

pytestmark = pytest.mark.any_server


@pytest.mark.parametrize("steps", range(5))
async def test_who_asks_the_moment_that_the_readers_end_is_answered(steps: int) -> None:
    log = MemoryLog()
    conversations = [uuid4() for _ in range(4)]
    for each in conversations:
        await log.append(each, [NewEvent(MessageAdded(role="user", content="hello"), actor="user")])
    folds = ConversationCache(log)

    async def asking(conversation: UUID, after: int) -> ConversationFold | None:
        for _ in range(after):
            await asyncio.sleep(0)
        return await folds.get(conversation)

    before = [asking(each, 0) for each in conversations[:3]]
    async with asyncio.timeout(10):
        found = await asyncio.gather(*before, asking(conversations[3], steps))
    assert [fold.version if fold else None for fold in found] == [1, 1, 1, 1]
