"""Small batches of several projections are applied in one round trip, by plans that the session keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from support.scoped_queries import open_as

from eventstore import Append, EventStore, MessageAdded
from eventstore.errors import EventStoreError, ProjectionChanged
from projections import Reader, catch_up, rebuild, select_projections, verify
from projections.apply import Applied, Applier
from projections.projection import ALL_PARTITIONS

BOTH = select_projections(["conversations", "messages"])


def message(text: str = "x") -> MessageAdded:
    return MessageAdded(role="user", content=text)


@pytest.fixture
async def applier(store: EventStore) -> AsyncIterator[Applier]:
    async with await Applier.open(store) as applier:
        for projection in BOTH:
            await applier.register(projection)
        yield applier


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with open_as(database_url, "eventstore_owner") as connection:
        yield connection


async def counted(store: EventStore, conversation: UUID) -> tuple[int, int]:
    row = await Reader(store).conversation(conversation)
    return row.message_count, len(await Reader(store).messages(conversation))


async def test_a_batch_covers_at_most_the_given_number_of_events(store: EventStore, applier: Applier) -> None:
    result = await store.append(uuid4(), [message() for _ in range(5)])
    last = result.position
    assert await applier.apply_small_batches(BOTH, ALL_PARTITIONS, 3) == [Applied(last - 2, 3, last - 5)] * 2
    assert await applier.apply_small_batches(BOTH, ALL_PARTITIONS, 3) == [Applied(last, 2, last - 2)] * 2
    assert await applier.apply_small_batches(BOTH, ALL_PARTITIONS, 3) == [Applied(last, 0, last)] * 2


async def test_a_projection_that_is_not_registered_is_refused(store: EventStore) -> None:
    async with await Applier.open(store) as applier:
        with pytest.raises(ProjectionChanged, match="the projection conversations has no checkpoints yet"):
            await applier.apply_small_batches(BOTH, ALL_PARTITIONS)


async def test_each_projection_is_applied_from_its_own_position(store: EventStore, applier: Applier) -> None:
    conversation = uuid4()
    await store.append(conversation, [message() for _ in range(3)])
    await applier.apply_batch(BOTH[1], size=2)
    assert [applied.events for applied in await applier.apply_small_batches(BOTH, ALL_PARTITIONS)] == [3, 1]
    assert await counted(store, conversation) == (3, 3)


async def test_the_batch_of_a_projection_that_fails_is_undone(
    store: EventStore, applier: Applier, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    conversation = uuid4()
    await store.append(conversation, [message()])
    await applier.apply_small_batches(BOTH, ALL_PARTITIONS)
    owner.execute("ALTER TABLE messages ADD CONSTRAINT no_poison CHECK (content <> 'poison')")
    await store.append(conversation, [message("poison")])
    with pytest.raises(EventStoreError, match="no_poison"):
        await applier.apply_small_batches(BOTH, ALL_PARTITIONS)
    assert await counted(store, conversation) == (2, 1)
    owner.execute("ALTER TABLE messages DROP CONSTRAINT no_poison")
    await applier.apply_small_batches(BOTH, ALL_PARTITIONS)
    assert await counted(store, conversation) == (2, 2)


async def test_tables_made_by_another_text_are_not_changed(
    store: EventStore, applier: Applier, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    conversation = uuid4()
    await store.append(conversation, [message()])
    await applier.apply_small_batches(BOTH, ALL_PARTITIONS)
    owner.execute("UPDATE projection_definitions SET definition_hash = 'another' WHERE projection = 'messages'")
    await store.append(conversation, [message()])
    with pytest.raises(ProjectionChanged, match="messages"):
        await applier.apply_small_batches(BOTH, ALL_PARTITIONS)
    assert await counted(store, conversation) == (2, 1)


async def test_plans_follow_the_tables_that_a_rebuild_swaps_in(store: EventStore, applier: Applier) -> None:
    conversation = uuid4()
    for count in range(1, 4):
        await store.append(conversation, [message()])
        await applier.apply_small_batches(BOTH, ALL_PARTITIONS)
        assert await counted(store, conversation) == (count, count)
        await rebuild(store, BOTH)


@pytest.mark.slow
async def test_plans_made_for_empty_tables_find_their_rows_by_the_keys_in_large_ones(
    store: EventStore, applier: Applier, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    conversation = uuid4()
    await store.append(conversation, [message()])
    await applier.apply_small_batches(BOTH, ALL_PARTITIONS)
    for _ in range(30):
        await store.append_all([Append(uuid4(), [message()]) for _ in range(100)])
    await catch_up(store)
    large = "'conversations', 'messages', 'events'"
    scanned = f"SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN ({large})"
    flush = "SELECT pg_stat_force_next_flush()"
    await applier.connection.execute(flush)
    before = owner.execute(scanned.encode()).fetchone()
    await store.append(conversation, [message()])
    await applier.apply_small_batches(BOTH, ALL_PARTITIONS)
    await applier.connection.execute(flush)
    assert owner.execute(scanned.encode()).fetchone() == before
    assert await counted(store, conversation) == (2, 2)


@pytest.mark.slow
async def test_many_sessions_apply_one_projection_without_a_deadlock(store: EventStore, applier: Applier) -> None:
    """Batches of a few events need the checkpoints of a few partitions, which change while a session waits for one."""
    [projection, _] = BOTH

    async def apply_all(size: int) -> None:
        async with await Applier.open(store) as session:
            while (applied := await session.apply_batch(projection, size=size)) is not None and applied.events:
                pass

    for _ in range(20):
        for _ in range(10):
            await store.append_all([Append(uuid4(), [message()]) for _ in range(8)])
        await asyncio.gather(*(apply_all(size) for size in (1, 3, 7) * 2))
    assert not (await verify(store, [projection]))[0].differences
