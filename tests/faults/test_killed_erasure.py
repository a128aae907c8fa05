"""An erasure that is killed at any instant has erased whole conversations, none in part; repeating it does the rest."""

from __future__ import annotations

import asyncio
import random
from uuid import uuid4

from support.folding import fold, stored
from support.processes import Commands
from support.waiting import until_async

from eventstore import ConversationCreated, EventStore, MessageAdded
from projections import catch_up

CONVERSATIONS = 30
SECRET = "pomegranate"


async def erased(store: EventStore) -> dict[bool, set[object]]:
    """Return the conversations whose first events are erased, and the others; none is erased in part."""
    states: dict[object, set[bool]] = {}
    async for event in store.read_log(types=["conversation.created", "message.added"]):
        states.setdefault(event.conversation_id, set()).add(event.is_erased)
    assert all(len(state) == 1 for state in states.values())
    return {is_erased: {each for each, state in states.items() if state == {is_erased}} for is_erased in (True, False)}


async def erasures(store: EventStore) -> int:
    """Return the number of erasures, quickly: meanwhile a process erases more."""
    return len([event async for event in store.read_log(types=["conversation.erased"])])


async def test_an_erasure_of_a_user_that_is_killed_repeatedly_is_completed_by_repetition(
    started: Commands, store: EventStore, database_url: str, kills: int
) -> None:
    chance = random.Random(kills)
    total = CONVERSATIONS * kills
    for _ in range(total):
        events = [ConversationCreated(name=SECRET), *[MessageAdded(role="user", content=SECRET)] * 20]
        await store.append(uuid4(), events, user="ana", actor="ana")
    await catch_up(store)
    for _ in range(kills):
        before = await erasures(store)
        running = started.start("erase", "user", "ana", "--yes", DATABASE_URL=database_url)

        async def has_begun(before: int = before) -> bool:
            return await erasures(store) > before

        await until_async(has_begun, "another conversation is erased")
        await asyncio.sleep(chance.uniform(0, 0.05))
        running.kill()
        await erased(store)
        await catch_up(store)
        log = [event async for event in store.read_log()]
        assert stored(database_url) == fold(log)
    assert (await erased(store))[False], "it was killed before it had ended"
    assert [erasure.events async for erasure in store.erase_user("ana")]
    assert (await erased(store))[False] == set()
    await catch_up(store)
    log = [event async for event in store.read_log()]
    assert stored(database_url) == fold(log)
    assert SECRET not in str([event.content for event in log])
    receipts = [event for event in log if event.event_type == "conversation.erased"]
    assert len(receipts) == len({event.conversation_id for event in receipts}) == total
