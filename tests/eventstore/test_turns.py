"""Fairness between tenants in group commit: no tenant waits for the queue of another."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st
from support.raw import note

from eventstore import ANY, Caller, EventStore, ExpectedVersion
from eventstore.append import Append
from eventstore.append_queue import GROUP_EVENTS, AppendQueue, PendingAppend, Turns

STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=30)


def pending(tenant: str, conversation: int, events: int = 1) -> PendingAppend:
    """Return an append that is not encoded."""
    return PendingAppend(Caller(tenant), [Append(UUID(int=conversation), [note()] * events)], 1024, "", deadline=0.0)


def pending_to(tenant: str, *conversations: int, expected: ExpectedVersion = ANY) -> PendingAppend:
    """Return an append of one event to each of several conversations."""
    appends = [Append(UUID(int=conversation), [note()], expected) for conversation in conversations]
    return PendingAppend(Caller(tenant), appends, 1024, "", deadline=0.0)


def turns_of(appends: list[PendingAppend]) -> Turns:
    turns = Turns()
    for append in appends:
        turns.add(append)
    return turns


def queue_of(*appends: PendingAppend) -> AppendQueue:
    queue = AppendQueue()
    for append in appends:
        queue.add(append)
        queue.check_ready(append)
    return queue


@given(STEPS)
async def test_tenants_take_turns_and_each_keeps_its_order(steps: list[tuple[str, int]]) -> None:
    appends = [pending(*step) for step in steps]
    turns = turns_of(appends)
    taken = [turns.take() for _ in appends]
    assert not turns
    tenants = list(dict.fromkeys(append.tenant for append in appends))
    for tenant in tenants:
        own = [append for append in appends if append.tenant == tenant]
        assert [append for append in taken if append.tenant == tenant] == own
        for number, append in enumerate(own):  # at most number + 1 appends of each other tenant precede it
            others = [each.tenant for each in taken[: taken.index(append)] if each.tenant != tenant]
            assert all(others.count(other) <= number + 1 for other in tenants)


@given(STEPS, st.integers(1, 5))
async def test_every_append_is_taken_once_and_conversations_keep_their_order(
    steps: list[tuple[str, int]], most: int
) -> None:
    appends = [pending(*step).encode() for step in steps]
    queue, taken = queue_of(*appends), []
    while group := queue.take(most):
        assert len(group) <= most
        taken += group
        for append in group:
            append.outcomes.set_result([])
            queue.remove(append)
    assert sorted(map(appends.index, taken)) == list(range(len(appends)))
    for key in {append.keys[0] for append in appends}:
        assert [each for each in taken if each.keys == [key]] == [each for each in appends if each.keys == [key]]


async def test_an_append_shares_a_group_with_earlier_ones_only_if_it_cannot_overtake_them() -> None:
    first, second, both = pending("a", 1).encode(), pending("a", 1).encode(), pending_to("a", 1, 2).encode()
    elsewhere, after = pending("a", 2).encode(), pending("a", 1).encode()
    queue = queue_of(first, second, elsewhere, both, after)
    # The last would succeed if the conversation 2 was locked, so that the one before it was not stored.
    assert queue.take(10) == [first, elsewhere, second, both]
    numbered, following = pending_to("a", 3, expected=0).encode(), pending("a", 3).encode()
    queue = queue_of(numbered, following)
    assert queue.take(10) == [numbered]
    assert queue.take(10) == []
    queue.remove(numbered)
    assert queue.take(10) == [following]


async def test_a_large_append_is_sent_alone_and_leaves_a_connection_for_small_ones() -> None:
    large, small, later = pending("a", 1, GROUP_EVENTS + 1), pending("b", 2), pending("a", 1)
    for append in (small, later):
        append.encode()
    queue = queue_of(large, small, later)
    assert queue.take(10) == [small], "an append that follows one that is not encoded stays behind it"
    large.encode()
    queue.check_ready(large)
    assert queue.take(10, allow_large=False) == []
    assert queue.take(10) == [large]
    queue.remove(large)
    assert queue.take(10) == [later]


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
