"""The costs of a fork of a long conversation, and of reading it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.plans import explain
from support.scoped_queries import open_as, set_scope

from eventstore import ConversationCreated, EventStore, MessageAdded
from projections import Reader, catch_up
from projections.cache import consistent_snapshot
from projections.pages import MESSAGES, TASKS, Listing

pytestmark = [pytest.mark.shared_database, pytest.mark.slow]

MESSAGE_COUNT = 10_000


@pytest.fixture
def store(module_store: EventStore) -> EventStore:
    """The store of the module, whose tenant has the conversations."""
    return module_store


@pytest.fixture(scope="module")
async def conversations(module_store: EventStore) -> dict[str, UUID]:
    """A long conversation, a fork of it, and a fork of the fork."""
    store = module_store
    messages = [MessageAdded(role="user", content=f"message {number} " * 5) for number in range(MESSAGE_COUNT - 1)]
    parent = uuid4()
    await store.append(parent, [ConversationCreated(), *messages], user="ana")
    own = [MessageAdded(role="user", content="own")]
    fork = (await store.fork(parent, events=own, user="ana")).events[0].conversation_id
    last = (await store.fork(fork, events=own, user="ana")).events[0].conversation_id
    await store.append(parent, own)
    await catch_up(store)
    return {"parent": parent, "fork": fork, "fork of a fork": last}


async def measure(
    calls: Mapping[str, Callable[[], Awaitable[object]]], times: int, taken: dict[str, list[float]]
) -> None:
    """Add the times of calls, made in turns, in seconds."""
    for _ in range(times):
        for name, call in calls.items():
            start = time.perf_counter()
            await call()
            taken[name].append(time.perf_counter() - start)


def ratio(taken: dict[str, list[float]]) -> float:
    """Return how many times longer than of the parent a read of another conversation takes.

    On a busy machine the shortest times show it of short reads, and all times together of long ones.
    """
    return min(max(map(function, taken.values())) / function(taken["parent"]) for function in (min, sum))


async def test_a_fork_of_a_long_conversation_takes_ten_milliseconds_and_a_kilobyte(
    store: EventStore, conversations: dict[str, UUID], database_url: str
) -> None:
    taken: dict[str, list[float]] = defaultdict(list)
    await measure({"fork": lambda: store.fork(conversations["parent"], user="ana")}, 20, taken)
    assert min(taken["fork"]) < 0.010
    with open_as(database_url) as connection:
        [(event, row)] = connection.execute(
            "SELECT (SELECT max(pg_column_size(e.*)) FROM events e WHERE e.conversation_id = %(fork)s),"
            "       (SELECT max(pg_column_size(c.*)) FROM conversations c WHERE c.id = %(fork)s)",
            {"fork": conversations["fork"]},
        ).fetchall()
    assert event + row < 1000


@pytest.mark.parametrize(("user", "limit"), [(None, 1.2), ("ana", 1.5)], ids=["tenant", "user"])
async def test_a_fork_is_read_as_fast_as_its_parent(
    store: EventStore, conversations: dict[str, UUID], user: str | None, limit: float
) -> None:
    """The policy of the table looks up a user's access to each shared row, which costs 1.2 to 1.4 as much."""
    reader = Reader(store, caller=store.caller(user=user))

    async def state(conversation: UUID) -> None:
        async with consistent_snapshot(reader, conversation) as (_, snapshot):
            await snapshot.read()

    reads: dict[str, tuple[Callable[[UUID], Awaitable[object]], int]] = {
        "a page of 50": (lambda conversation: reader.messages(conversation, limit=50), 50),
        "a page of 500": (lambda conversation: reader.messages(conversation, limit=500), 30),
        "the latest 50": (lambda conversation: reader.messages(conversation, limit=50, newest_first=True), 50),
        "the state": (state, 6),
    }
    ratios = {}
    for name, (read, times) in reads.items():
        taken: dict[str, list[float]] = defaultdict(list)
        for _ in range(8):
            await measure({each: partial(read, conversations[each]) for each in conversations}, times, taken)
            ratios[name] = ratio(taken)
            if ratios[name] < limit:
                break
    assert max(ratios.values()) < limit, ratios


@pytest.mark.parametrize("listing", [MESSAGES, TASKS], ids=["messages", "tasks"])
@pytest.mark.parametrize("newest_first", [False, True], ids=["oldest first", "newest first"])
async def test_a_page_of_a_fork_touches_as_much_as_one_of_its_parent(
    store: EventStore, conversations: dict[str, UUID], database_url: str, listing: Listing[Any], newest_first: bool
) -> None:
    buffers = {}
    with open_as(database_url, "eventstore_reader") as connection:
        for name, conversation in conversations.items():
            filters = {"tenant": store.tenant, "conversation_id": conversation}
            place = [-MESSAGE_COUNT // 2 if name != "parent" else MESSAGE_COUNT // 2] if listing is MESSAGES else None
            text, parameters = listing.statement(filters, place, newest_first=newest_first, limit=50)
            plan = explain(set_scope(connection, store.tenant), text, parameters)
            assert "Seq Scan" not in plan.kinds, plan.text
            buffers[name] = plan.buffers
    # Some for each further conversation: its row, and where its rows begin in the indexes.
    assert max(buffers.values()) <= buffers["parent"] + 40, buffers
