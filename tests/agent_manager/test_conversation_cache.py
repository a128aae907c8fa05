"""The cache of folded conversations: every read is served."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from agent_manager.conversation_cache import ConversationFoldCache
from agent_manager.conversation_fold import ConversationFold
from agent_manager.memory_log import MemoryLog
from eventstore import MessageAdded, NewEvent

pytestmark = pytest.mark.any_server


@pytest.mark.parametrize("steps", range(5))
async def test_a_read_that_starts_when_the_readers_end_is_served(steps: int) -> None:
    log = MemoryLog()
    conversations = [uuid4() for _ in range(4)]
    for each in conversations:
        await log.append(each, [NewEvent(MessageAdded(role="user", content="hello"), actor="user")])
    cache = ConversationFoldCache(log)

    async def read(conversation: UUID, delay: int) -> ConversationFold | None:
        for _ in range(delay):
            await asyncio.sleep(0)
        return await cache.get(conversation)

    first = [read(each, 0) for each in conversations[:3]]
    async with asyncio.timeout(10):
        folds = await asyncio.gather(*first, read(conversations[3], steps))
    assert [fold.version if fold else None for fold in folds] == [1, 1, 1, 1]
