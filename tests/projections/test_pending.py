"""The projection of pending messages: what awaits an answer and has none, however the log is cut into batches."""

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
    st.tuples(st.sampled_from(["asks", "says", "is answered"]), st.integers(0, 1), st.integers(0, 3)), max_size=16
)


def event(word: str, message: UUID) -> NewEvent:
    if word == "is answered":
        return NewEvent(MessageAnswered(message_id=message, outcome="answered"))
    return NewEvent(
        MessageAdded(role="user", content="x", awaits_answer=word == "asks", given_id=str(message)), message
    )


def test_pending_is_what_awaits_an_answer_and_has_none(settings: Settings, database_url: str) -> None:
    [pending] = select_projections(["pending"])
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
            said: set[tuple[int, int]] = set()
            for word, conversation, number in steps:
                if word == "is answered" or (conversation, number) not in said:
                    store.append(UUID(int=conversation), [event(word, MESSAGES[number])], tenant=tenant)
                if word != "is answered":
                    said.add((conversation, number))
            store.portal.call(follow(pending, size))
            expected = fold(store.read_log(tenant=tenant))["pending_messages"]
            assert stored(database_url, [tenant])["pending_messages"] == expected

        run()


async def test_where_agents_are_kept_is_no_conversation(store: EventStore) -> None:
    await store.append(UUID(int=1), [AgentRegistered(url="http://a", card={})], actor="ana")
    await catch_up(store)
    assert not await Reader(store).conversations(deleted=True)
    assert not await Reader(store).conversations(actor="ana")
    assert not await Statistics(store).by_day()
