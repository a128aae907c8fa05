"""Fairness between tenants in group commit: no tenant waits for the queue of another."""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st
from support.raw import note

from eventstore import Caller, EventStore
from eventstore.append import Append
from eventstore.batching import GROUP_EVENTS, PendingAppend, interleave_tenants, next_group

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=30)


def pending(tenant: str, conversation: int, events: int = 1) -> PendingAppend:
    """Return an append that is not encoded."""
    return PendingAppend(Caller(tenant), [Append(UUID(int=conversation), [note()] * events)], 1024, "", deadline=0.0)


@given(STEPS)
async def test_tenants_take_turns_and_each_keeps_its_order(steps: list[tuple[str, int]]) -> None:
    queue = deque(pending(*step) for step in steps)
    taken = list(interleave_tenants(queue))
    tenants = list(dict.fromkeys(append.tenant for append in queue))
    for tenant in tenants:
        own = [append for append in queue if append.tenant == tenant]
        assert [append for append in taken if append.tenant == tenant] == own
        for number, append in enumerate(own):  # at most number + 1 appends of each other tenant precede it
            others = [each.tenant for each in taken[: taken.index(append)] if each.tenant != tenant]
            assert all(others.count(other) <= number + 1 for other in tenants)


async def test_a_large_append_is_sent_alone_and_leaves_a_connection_for_small_ones() -> None:
    large, small, later = pending("a", 1, GROUP_EVENTS + 1), pending("b", 2), pending("a", 1)
    for append in (small, later):
        append.encode()
    queue = deque([large, small, later])
    assert next_group(queue, (), 10) == [small], "an append that follows one that is not encoded stays behind it"
    large.encode()
    assert list(queue) == [large, later]
    assert next_group(queue, (), 10, allow_large=False) == []
    assert next_group(queue, (), 10) == [large]
    assert list(queue) == [later]


async def test_appends_to_a_conversation_keep_their_order_whatever_their_size(store: EventStore) -> None:
    conversation = uuid4()
    sizes = [1, 300, 1, 2000, 2, 60, 1]
    contents = iter(range(sum(sizes)))
    given = [[note(next(contents)) for _ in range(size)] for size in sizes]
    await asyncio.gather(*(store.append(conversation, events) for events in given))
    assert [event.content async for event in store.read(conversation)] == list(range(sum(sizes)))


async def test_a_large_append_that_is_invalid_or_cancelled_changes_nothing(store: EventStore) -> None:
    conversation = uuid4()
    wrong = asyncio.create_task(store.append(conversation, [*[note()] * 200, "no event"]))  # type: ignore[list-item]
    cancelled = asyncio.create_task(store.append(conversation, [note()] * 5000))
    after = asyncio.create_task(store.append(conversation, [note("after")]))
    await asyncio.sleep(0)
    cancelled.cancel()
    results = await asyncio.gather(wrong, cancelled, after, return_exceptions=True)
    assert "events[200]" in str(results[0])
    assert isinstance(results[1], asyncio.CancelledError)
    assert [event.content async for event in store.read(conversation)] == ["after"]
