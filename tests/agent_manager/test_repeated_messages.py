"""A message that a client sends again is stored and answered once, whichever process receives it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from typing import Any
from uuid import UUID

import pytest
from support.agents import text_of, user_message

from agent_manager.agents.agent import Context, Reply, Update
from agent_manager.factory import AsyncManager
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import ServerLog
from eventstore import EventStore, Settings

pytestmark = pytest.mark.shared_database

ASKED: Counter[str] = Counter()


async def counting_agent(message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
    """An agent whose replies have the id of the message, and that counts its calls."""
    ASKED[text_of(message)] += 1
    text = f"{ASKED[text_of(message)]}. reply to {text_of(message)}"
    yield Reply({"kind": "message", "role": "agent", "messageId": message["messageId"],
                 "parts": [{"kind": "text", "text": text}]})  # fmt: skip


@pytest.fixture
async def manager(store: EventStore) -> AsyncIterator[AsyncManager]:
    ASKED.clear()
    async with AsyncManager(store, answer=counting_agent, runs_worker=False) as manager:
        yield manager


@pytest.mark.parametrize("context", ["c", None], ids=["in a conversation", "without one"])
async def test_a_repetition_gets_the_same_reply(manager: AsyncManager, store: EventStore, context: str | None) -> None:
    message = user_message("hello", "m1", context)
    first = await manager.accept(dict(message))
    replies = [await manager.answer(first)]
    for again in (manager, Manager(ServerLog(store), counting_agent)):
        accepted = await again.accept(dict(message))
        assert (accepted.event_id, accepted.conversation_id, accepted.position, accepted.message) == (
            first.event_id, first.conversation_id, first.position, first.message,
        )  # fmt: skip
        replies.append(await again.answer(accepted))
    assert replies == [replies[0]] * 3
    assert ASKED == {"hello": 1}
    assert [text_of(each) for each in await manager.messages(first.conversation_id)] == ["hello", "1. reply to hello"]


@pytest.mark.parametrize("context", ["c", None], ids=["in a conversation", "without one"])
async def test_repetitions_at_the_same_time_wait_for_the_one_reply(manager: AsyncManager, context: str | None) -> None:
    async def send() -> Any:
        return await manager.answer(await manager.accept(user_message("hello", "m1", context)))

    replies = await asyncio.gather(*(send() for _ in range(20)))
    assert replies == [replies[0]] * 20
    assert ASKED == {"hello": 1}
    [conversation] = await manager.conversations()
    assert len(conversation.messages) == 2


async def test_many_writers_store_each_message_once(settings: Settings, manager: AsyncManager) -> None:
    """Four stores send the same 20 messages, five of them under each id, while the agent replies under the same ids."""
    messages = [user_message(f"text {number}", f"m{number % 4}", "c") for number in range(20)]

    async def send_all(first: int) -> list[UUID]:
        async with EventStore(settings) as store, AsyncManager(store, runs_worker=False) as other:
            accepted = await asyncio.gather(*(other.accept(dict(m)) for m in messages[first:] + messages[:first]))
            return [each.event_id for each in accepted[20 - first :] + accepted[: 20 - first]]

    sending = [asyncio.create_task(send_all(first)) for first in (0, 5, 10, 15)]
    mine = [await manager.accept(dict(message)) for message in messages]
    await asyncio.gather(*(manager.answer(each) for each in mine))
    assert await asyncio.gather(*sending) == [[each.event_id for each in mine]] * 4
    texts = Counter(text_of(each) for each in await manager.messages("c"))
    assert texts == Counter([text_of(m) for m in messages] + [f"1. reply to {text_of(m)}" for m in messages])


async def test_a_message_that_differs_is_a_further_message(manager: AsyncManager) -> None:
    async def sees(conversations: Collection[UUID]) -> set[UUID]:
        return set(conversations)

    message = user_message("hello", "m1", "c")
    nameless = {name: value for name, value in message.items() if name != "messageId"}
    others = [manager.acting_for(None, actor, sees) for actor in ("ana", "bob")]
    accepted = [
        await one.accept(dict(body))
        for one, body in (
            (manager, message),
            (manager, message | {"metadata": {"attempt": 2}}),
            (manager, nameless),
            (manager, nameless),
            (others[0], message),
            (others[1], message),
        )
    ]
    await manager.save_message(dict(message), "c")  # an application's own, such as a reply
    await manager.save_message(dict(message), "c")
    assert len({each.event_id for each in accepted}) == 6
    assert len(await manager.messages("c")) == 8
    assert (await others[1].accept(dict(message))).event_id == accepted[5].event_id
    without = [await each.accept(user_message("hello", "m1")) for each in (manager, *others)]
    assert len({each.conversation for each in without}) == 3


async def test_a_repetition_after_deletion_returns_the_same_reply(manager: AsyncManager) -> None:
    message = user_message("hello", "m1", "c")
    reply = await manager.send_message("c", dict(message))
    await manager.delete_conversation("c")
    assert await manager.send_message("c", dict(message)) == reply
    assert ASKED == {"hello": 1}


@pytest.mark.parametrize("kind", ["memory", "postgres"])
async def test_true_and_1_are_different_contents(store: EventStore, kind: str) -> None:
    """The values are equal in Python but not in JSON, so messages that differ in this are different."""
    manager = Manager(MemoryLog() if kind == "memory" else ServerLog(store))
    message = user_message("hello", "m1", "c")
    for value in (1, 1.0, True):
        await manager.accept(message | {"metadata": {"x": value}})
    assert [each["metadata"]["x"] for each in await manager.messages("c")] == [1, True]
    assert (await manager.messages("c"))[1]["metadata"]["x"] is True
