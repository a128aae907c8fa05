"""What a fork of a long conversation takes, and reading it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
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
async def conversations(store: EventStore) -> dict[str, UUID]:
    """A long conversation, a fork of it, and a fork of the fork."""
    messages = [MessageAdded(role="user", content=f"message {number} " * 5) for number in range(MESSAGE_COUNT - 1)]
    parent = uuid4()
    await store.append(parent, [ConversationCreated(), *messages], user="ana")
    own = [MessageAdded(role="user", content="own")]
    fork = (await store.fork(parent, events=own, user="ana")).events[0].conversation_id
    last = (await store.fork(fork, events=own, user="ana")).events[0].conversation_id
    await store.append(parent, own)
    await catch_up(store)
    return {"parent": parent, "fork": fork, "fork of a fork": last}


async def seconds(call: Callable[[], Awaitable[object]], times: int) -> float:
    """The shortest time of some calls: what the others took longer, the machine did."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - start)
    return min(taken)


async def test_a_fork_of_a_long_conversation_takes_ten_milliseconds_and_a_kilobyte(
    store: EventStore, conversations: dict[str, UUID], database_url: str
) -> None:
    assert await seconds(lambda: store.fork(conversations["parent"], user="ana"), 20) < 0.010
    with open_as(database_url) as connection:
        [(event, row)] = connection.execute(
            "SELECT (SELECT max(pg_column_size(e.*)) FROM events e WHERE e.conversation_id = %(fork)s),"
            "       (SELECT max(pg_column_size(c.*)) FROM conversations c WHERE c.id = %(fork)s)",
            {"fork": conversations["fork"]},
        ).fetchall()
    assert event + row < 1000


@pytest.mark.parametrize("user", [None, "ana"], ids=["tenant", "user"])
async def test_a_fork_is_read_as_fast_as_its_parent(
    store: EventStore, conversations: dict[str, UUID], user: str | None
) -> None:
    reader = Reader(store, caller=store.caller(user=user))

    async def state(conversation: UUID) -> None:
        async with consistent_snapshot(reader, conversation) as (_, snapshot):
            await snapshot.read()

    reads: dict[str, tuple[Callable[[UUID], Awaitable[object]], int]] = {
        "a page of 50": (lambda conversation: reader.messages(conversation, limit=50), 40),
        "a page of 500": (lambda conversation: reader.messages(conversation, limit=500), 20),
        "the latest 50": (lambda conversation: reader.messages(conversation, limit=50, newest_first=True), 40),
        "the state": (state, 4),
    }
    ratios: dict[str, list[float]] = {}
    for _ in range(3):
        for name, (read, times) in reads.items():
            taken = {
                each: await seconds(lambda read=read, each=each: read(conversations[each]), times)  # type: ignore[misc]
                for each in conversations
            }
            ratios.setdefault(name, []).append(max(taken.values()) / taken["parent"])
    assert all(statistics.median(each) < 1.2 for each in ratios.values()), ratios


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
