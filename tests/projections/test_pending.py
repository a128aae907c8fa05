"""Pending messages await an answer and have none; messages have the outcome of theirs, however the log is divided."""

from __future__ import annotations

from itertools import count
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from support.folding import fold, stored

from eventstore import AgentRegistered, EventStore, MessageAdded, MessageAnswered, NewEvent, Settings, SyncEventStore
from projections import Projection, Reader, Statistics, catch_up, select_projections
from projections.apply import Applier

_TENANTS = count(1)
MESSAGES = [UUID(int=number, version=4) for number in range(1, 5)]
STEPS = st.lists(
    st.tuples(st.sampled_from(["asks", "says", "is answered", "has failed"]), st.integers(0, 1), st.integers(0, 3)),
    max_size=16,
)


def event(word: str, message: UUID) -> NewEvent:
    if word == "is answered":
        return NewEvent(MessageAnswered(message_id=message, outcome="answered"))
    if word == "has failed":
        return NewEvent(MessageAnswered(message_id=message, outcome="failed", error="the agent cannot be reached"))
    return NewEvent(
        MessageAdded(role="user", content="x", awaits_answer=word == "asks", given_id=str(message)), message
    )


def test_pending_messages_await_an_answer_and_messages_have_its_outcome(settings: Settings, database_url: str) -> None:
    pending, messages = (select_projections([name])[0] for name in ("pending", "messages"))
    with SyncEventStore(settings) as store:

        async def follow(projection: Projection, size: int) -> None:
            applier = await Applier.open(store.asynchronous, size)
            try:
                await applier.register(projection)
                await applier.apply_all(projection)
            finally:
                await applier.close()

        @given(STEPS, st.integers(1, 5))
        def run(steps: list[tuple[str, int, int]], size: int) -> None:
            tenant = f"tenant-{next(_TENANTS)}"
            added: set[tuple[int, int]] = set()
            for word, conversation, number in steps:
                is_answer = word in ("is answered", "has failed")
                if is_answer or (conversation, number) not in added:
                    store.append(UUID(int=conversation), [event(word, MESSAGES[number])], tenant=tenant)
                if not is_answer:
                    added.add((conversation, number))
            expected, found = fold(store.read_log(tenant=tenant)), {}
            for table, projection in (("pending_messages", pending), ("messages", messages)):
                store.portal.call(follow(projection, size))
                found[table] = stored(database_url, [tenant])[table]
            assert found == {table: expected[table] for table in found}

        run()


async def test_the_reserved_conversation_of_agents_is_not_listed(store: EventStore) -> None:
    await store.append(UUID(int=1), [AgentRegistered(url="http://a", card={})], actor="ana")
    await catch_up(store)
    assert not await Reader(store).conversations(deleted=True)
    assert not await Reader(store).conversations(actor="ana")
    assert not await Statistics(store).by_day()
