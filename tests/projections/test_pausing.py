"""A paused projection stays as it is, whatever workers and readers do, until it is resumed; all else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from uuid import UUID, uuid4

import psycopg
import pytest
from support.scoped_queries import open_as

from eventstore import EventStore, MessageAdded
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import NotCaughtUp, ProjectionPaused, RebuildError
from projections import (
    Reader,
    Worker,
    catch_up,
    pause,
    read_paused,
    read_status,
    rebuild,
    resume,
    select_projections,
    wait_for,
)
from projections.apply import Applier
from projections.projection import ALL_PARTITIONS
from projections.status import read_lags

MESSAGES = select_projections(["messages"])
BOTH = select_projections(["conversations", "messages"])


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with open_as(database_url, "eventstore_owner") as connection:
        yield connection


async def say(store: EventStore, conversation: UUID, number: int = 1) -> int:
    return (await store.append(conversation, [MessageAdded(role="user", content="x")] * number)).position


async def shown(store: EventStore, conversation: UUID) -> tuple[int, int]:
    """The messages that the tables conversations and messages have."""
    row = await Reader(store).conversation(conversation)
    return row.message_count, len(await Reader(store).messages(conversation))


async def test_a_paused_projection_stays_as_it_is_and_the_others_go_on(store: EventStore) -> None:
    conversation = uuid4()
    await say(store, conversation)
    await catch_up(store)
    assert await pause(store, MESSAGES) == ["messages"]
    assert await pause(store, MESSAGES) == []
    assert list(await read_paused(store)) == ["messages"]
    await say(store, conversation)
    with pytest.raises(NotCaughtUp, match="messages is paused: eventstore resume"):
        await catch_up(store)
    assert await shown(store, conversation) == (2, 1)
    assert await resume(store, BOTH) == ["messages"]
    await catch_up(store)
    assert await shown(store, conversation) == (2, 2)


async def test_no_batch_ends_after_a_pause_has_returned(
    store: EventStore, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    await say(store, uuid4())
    await catch_up(store)
    with owner.transaction():  # a batch of any worker holds these locks until its end
        owner.execute("SELECT FROM checkpoints WHERE projection = 'messages' AND partition = 3 FOR UPDATE")
        pausing = asyncio.create_task(pause(store, MESSAGES))
        done, _ = await asyncio.wait({pausing}, timeout=0.3)
        assert not done
    assert await pausing == ["messages"]
    async with await Applier.open(store) as applier:
        for apply in (
            partial(applier.apply_small_batches, MESSAGES, ALL_PARTITIONS),
            partial(applier.apply_batch, MESSAGES[0]),
        ):
            with pytest.raises(ProjectionPaused, match="the projection messages is paused"):
                await apply()


async def test_a_read_that_needs_what_came_after_the_pause_fails_at_once(store: EventStore) -> None:
    before = await say(store, uuid4())
    await catch_up(store)
    await pause(store, MESSAGES)
    after = await say(store, uuid4())
    await wait_for(store, before, projections=MESSAGES)
    async with asyncio.timeout(5):
        with pytest.raises(ProjectionPaused, match="eventstore resume messages"):
            await wait_for(store, after, projections=MESSAGES, timeout=60)


@pytest.mark.slow
async def test_a_worker_goes_on_with_the_others_and_continues_after_the_pause(store: EventStore) -> None:
    conversation = uuid4()
    working = asyncio.create_task(Worker(store).run())
    try:
        await wait_for(store, await say(store, conversation))
        await pause(store, MESSAGES)
        for _ in range(3):
            await wait_for(store, await say(store, conversation), projections=select_projections(["conversations"]))
        assert await shown(store, conversation) == (4, 1)
        await resume(store, MESSAGES)
        await wait_for(store, await say(store, conversation))
        assert await shown(store, conversation) == (5, 5)
        assert not working.done()
    finally:
        await cancel_and_wait([working])


async def test_a_paused_projection_is_not_rebuilt(store: EventStore) -> None:
    await say(store, uuid4())
    await catch_up(store)
    await pause(store, MESSAGES)
    with pytest.raises(RebuildError, match="messages is paused: eventstore resume messages"):
        await rebuild(store, MESSAGES)


async def test_the_status_shows_pauses_and_checkpoints_the_last_batch(
    store: EventStore, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    await say(store, uuid4(), 5)
    await catch_up(store)
    await pause(store, MESSAGES)
    status = {each.name: each.paused_at for each in (await read_status(store)).projections}
    assert [name for name, at in status.items() if at] == ["messages"]
    lags = await read_lags(store, ["messages", "conversations"])
    assert [lag.paused_at is not None for lag in lags] == [True, False]
    batches = owner.execute(
        "SELECT DISTINCT batch_events, batch_seconds BETWEEN 0.000001 AND 10 FROM checkpoints"
        " WHERE projection = 'messages'"
    ).fetchall()
    assert batches == [(5, True)]
