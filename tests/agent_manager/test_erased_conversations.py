"""A manager shows what was erased as erased, although it keeps conversations in memory."""

from __future__ import annotations

from typing import Any

import pytest

from agent_manager.factory import AsyncManager
from eventstore import EventStore

pytestmark = pytest.mark.shared_database
SECRET = "pomegranate"


def message(text: str) -> dict[str, Any]:
    return {"role": "user", "messageId": text, "parts": [{"kind": "text", "text": text}]}


async def test_a_kept_conversation_is_read_again(store: EventStore, manager: AsyncManager) -> None:
    accepted = await manager.accept(message(SECRET), None)
    fork = await manager.fork_conversation(accepted.conversation_id)
    for conversation in (accepted.conversation_id, fork.conversation_id):
        assert SECRET in str(await manager.messages(conversation))
    await store.erase(accepted.conversation)
    for conversation in (str(accepted.conversation), fork.conversation_id):
        [shown] = [each for each in await manager.messages(conversation) if each["role"] == "user"]
        assert shown["metadata"] == {"eventstore.erased": True}
        assert SECRET not in str(shown)
    assert SECRET not in str(await manager.conversations())
    await manager.accept(message("it goes on"), str(accepted.conversation))
    assert "it goes on" in str(await manager.messages(str(accepted.conversation)))
