"""A deleted conversation in the manager: appends are rejected, lists hide it, and a running answer ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.agents import text_of, user_message

from agent_manager.agents.agent import Context, Reply, Update
from agent_manager.errors import AnswerFailed
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import Log, ServerLog
from eventstore import EventStore, MessageAnswered
from eventstore.errors import ConversationIsDeleted


@pytest.fixture(params=["memory", "server"])
def log(request: pytest.FixtureRequest, store: EventStore) -> Log:
    return ServerLog(store) if request.param == "server" else MemoryLog()


async def test_every_append_is_rejected_and_every_list_hides_it(log: Log) -> None:
    manager = Manager(log)
    await manager.create_conversation("other", "other")
    await manager.accept(user_message("hello", "m1", "c"))
    for _ in range(3):
        view = await manager.delete_conversation("c")
        assert (view.is_deleted, view.version) == (True, 3)
    for write in (
        lambda: manager.create_conversation("again", "c"),
        lambda: manager.rename_conversation("c", "name"),
        lambda: manager.archive_conversation("c"),
        lambda: manager.accept(user_message("more", "m2", "c")),
        lambda: manager.send_message("c", user_message("more", "m2")),
        lambda: manager.save_message(user_message("more", "m2"), "c"),
    ):
        with pytest.raises(ConversationIsDeleted, match="reactivate"):
            await write()
    assert [each.conversation_id for each in await manager.conversations()] == ["other"]
    assert (await manager.pending(), await manager.tasks(), await manager.events()) == ([], [], [])
    shown = await manager.get_conversation("c")
    assert shown is not None
    assert (shown.is_deleted, len(shown.messages), len(await manager.messages("c"))) == (True, 1, 1)

    await manager.reactivate_conversation("c")
    assert len(await manager.pending()) == len(await manager.events()) == 1
    await manager.accept(user_message("more", "m2", "c"))


async def test_a_running_answer_ends_when_the_conversation_is_deleted(log: Log) -> None:
    begun, deleted = asyncio.Event(), asyncio.Event()

    async def slow(message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
        reply = {"kind": "message", "role": "agent", "messageId": "r"}
        yield Reply(reply | {"parts": [{"kind": "text", "text": "first"}]})
        begun.set()
        await deleted.wait()
        yield Reply(reply | {"parts": [{"kind": "text", "text": "second"}]})

    manager = Manager(log, slow)
    answering = asyncio.create_task(manager.send_message("c", user_message("hello", "m1")))
    await begun.wait()
    await manager.delete_conversation("c")
    deleted.set()
    with pytest.raises(AnswerFailed, match="is deleted"):
        await answering
    assert [text_of(each) for each in await manager.messages("c")] == ["hello", "first"]
    await manager.reactivate_conversation("c")
    assert await manager.pending() == []


async def test_a_pending_message_of_a_deleted_conversation_is_abandoned(
    store: EventStore,
) -> None:
    async def agent(message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
        raise AssertionError("the agent is asked")
        yield

    manager = Manager(ServerLog(store), agent)
    accepted = await manager.accept(user_message("hello", "m1", "c"))
    await manager.delete_conversation("c")
    assert await manager.answer(accepted) is None
    await manager.reactivate_conversation("c")
    assert await manager.pending() == []
    [answered] = [event async for event in store.read(accepted.conversation, types=["message.answered"])]
    assert isinstance(answered.data, MessageAnswered)
    assert (answered.data.outcome, "is deleted" in str(answered.data.error)) == ("abandoned", True)
