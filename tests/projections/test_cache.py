"""The cache serves no state older than the table conversations was when the read began."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.scoped_queries import open_as
from support.wire import wire_to

from eventstore import (
    ConversationCreated,
    ConversationRenamed,
    EventStore,
    MessageAdded,
    Settings,
    TaskCreated,
    TaskStatusChanged,
    conversation_uuid,
)
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import InputError, NotCaughtUp, NotFound
from projections import ConversationCache, Reader, Worker, catch_up, rebuild, retry_parked, select_projections

pytestmark = pytest.mark.shared_database


def message(text: str) -> MessageAdded:
    return MessageAdded(role="user", content=text)


@asynccontextmanager
async def working(store: EventStore, **how: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(Worker(store, **how).run())
    try:
        yield
        assert not task.done()
    finally:
        await cancel_and_wait([task])


@pytest.fixture
async def trip(store: EventStore) -> UUID:
    conversation = conversation_uuid(store.tenant, "trip")
    await store.append(conversation, [ConversationCreated(name="Trip"), message("1"), TaskCreated(task_id=uuid4())])
    await catch_up(store)
    return conversation


async def test_a_repeated_read_is_served_from_the_cache(store: EventStore, trip: UUID) -> None:
    reader = Reader(store)
    cache = ConversationCache(reader)
    first = await cache.conversation(trip)
    assert first.conversation == await reader.conversation(trip)
    assert list(first.messages) == await reader.messages(trip)
    assert list(first.tasks) == await reader.tasks(trip)
    assert await cache.conversation("trip") is first
    assert (cache.hits, cache.misses, len(cache)) == (1, 1, 1)
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)
    assert await cache.conversation(str(trip)) == first
    assert (cache.hits, cache.misses) == (1, 2)


@pytest.mark.parametrize(
    "change",
    [message("2"), ConversationRenamed(name="Journey"), TaskCreated(task_id=uuid4(), description="x")],
    ids=["message", "name", "task"],
)
async def test_the_next_read_includes_every_append(store: EventStore, trip: UUID, change: Any) -> None:
    cache, reader = ConversationCache(Reader(store)), Reader(store)
    before = await cache.conversation(trip)
    await store.append(trip, [change])
    assert await cache.conversation(trip) is before  # the read tables do not hold it yet
    await catch_up(store)
    after = await cache.conversation(trip)
    assert after.version == before.version + 1
    assert (after.conversation, list(after.messages)) == (await reader.conversation(trip), await reader.messages(trip))
    assert list(after.tasks) == await reader.tasks(trip)
    assert len(cache) == 1


async def test_a_hit_is_one_statement(store: EventStore, trip: UUID) -> None:
    async with (
        wire_to(store.server.url) as wire,
        EventStore(Settings(database_url=wire.url, tenant=store.tenant, pool_size=1)) as other,
    ):
        cache = ConversationCache(Reader(other))
        for _ in range(8):  # until the driver has prepared the statement
            await cache.conversation(trip)
        before = wire.rounds
        await cache.conversation(trip)
        assert wire.rounds == before + 1


async def test_a_read_waits_for_a_projection_that_is_behind_the_others(store: EventStore, trip: UUID) -> None:
    cache = ConversationCache(Reader(store))
    await store.append(trip, [message("2")])
    await catch_up(store, select_projections(["conversations"]))
    with pytest.raises(NotCaughtUp):
        await ConversationCache(Reader(store, timeout=0.05)).conversation(trip)
    reading = asyncio.create_task(cache.conversation(trip))
    await catch_up(store)
    state = await reading
    assert [message.content for message in state.messages] == ["1", "2"]


async def test_messages_that_are_ahead_of_the_conversation_are_left_out(store: EventStore, trip: UUID) -> None:
    cache = ConversationCache(Reader(store))
    await store.append(trip, [message("2")])
    await catch_up(store, select_projections(["messages"]))
    state = await cache.conversation(trip)
    assert (state.version, [message.content for message in state.messages]) == (3, ["1"])
    await catch_up(store)
    assert [message.content for message in (await cache.conversation(trip)).messages] == ["1", "2"]


async def test_a_read_includes_the_position_that_it_names(store: EventStore, trip: UUID) -> None:
    cache = ConversationCache(Reader(store))
    await cache.conversation(trip)
    result = await store.append(trip, [message("mine")])
    reading = asyncio.create_task(cache.conversation(trip, at_least=result.position))
    await catch_up(store)
    assert (await reading).messages[-1].content == "mine"
    with pytest.raises(NotCaughtUp):
        await ConversationCache(Reader(store, timeout=0)).conversation(trip, at_least=result.position + 1)


async def test_refilled_tables_invalidate_cached_states(store: EventStore, trip: UUID) -> None:
    """This holds for an unchanged version, too: another text of a projection may make other rows of the same events."""
    cache = ConversationCache(Reader(store))
    before = await cache.conversation(trip)
    for names in (["messages"], ["tasks"], ["conversations"]):
        await rebuild(store, select_projections(names))
        after = await cache.conversation(trip)
        assert after == before
        assert after is not before
        before = after
    assert cache.hits == 0


async def test_a_parked_conversation_is_read_again_once_it_is_applied(store: EventStore, database_url: str) -> None:
    conversation = uuid4()
    with open_as(database_url, "eventstore_owner") as owner:
        owner.execute("ALTER TABLE messages ADD CONSTRAINT no_poison CHECK (content <> 'poison')")
        await store.append(conversation, [message("poison")])
        await catch_up(store)
        cache = ConversationCache(Reader(store))
        assert (await cache.conversation(conversation)).messages == ()
        owner.execute("ALTER TABLE messages DROP CONSTRAINT no_poison")
    assert (await retry_parked(store)).applied == 1
    [applied] = (await cache.conversation(conversation)).messages
    assert applied.content == "poison"


async def test_tenants_do_not_share_cached_states(store: EventStore, trip: UUID) -> None:
    await store.append(trip, [message("theirs")], tenant="other")
    await catch_up(store)
    await ConversationCache(Reader(store)).conversation(trip)
    other = ConversationCache(Reader(store, "other"))
    assert [message.content for message in (await other.conversation(trip)).messages] == ["theirs"]
    with pytest.raises(NotFound):
        await other.conversation(uuid4())


async def test_the_cache_stays_within_its_limit(store: EventStore) -> None:
    conversations = [uuid4() for _ in range(6)]
    for number, conversation in enumerate(conversations):
        await store.append(conversation, [message("x" * 10_000 * (1 if number else 5))])
    await catch_up(store)
    cache = ConversationCache(Reader(store), max_bytes=40_000)
    for conversation in conversations:
        await cache.conversation(conversation)
        assert cache.bytes <= 40_000
    assert len(cache) == 3
    await cache.conversation(conversations[-1])
    await cache.conversation(conversations[1])  # the least recently used are gone
    assert (cache.hits, cache.misses) == (1, 7)
    await cache.conversation(conversations[0])  # too large to be kept
    await cache.conversation(conversations[0])
    assert (cache.hits, cache.misses) == (1, 9)
    with pytest.raises(InputError, match="max_bytes"):
        ConversationCache(Reader(store), max_bytes=-1)


READS = 400
_VERSION = "SELECT c.version, c.message_count FROM conversations c WHERE c.id = %s"


@pytest.mark.slow
async def test_no_read_is_stale_while_writers_run(store: EventStore, settings: Settings) -> None:
    """Readers look at the table, read through the cache, and must find no less; workers of two sizes of batches."""
    conversations, task = [uuid4() for _ in range(3)], uuid4()
    caches = [ConversationCache(Reader(store)), ConversationCache(Reader(store), max_bytes=300_000)]
    writing, reads = True, 0

    async def write(number: int) -> None:
        chance = random.Random(number)
        while reads < READS:
            changes = [message(str(reads)), TaskStatusChanged(task_id=task, status="in_progress")]  # type: ignore[arg-type]
            await store.append(chance.choice(conversations), changes[: chance.randint(1, 2)])
            await asyncio.sleep(chance.uniform(0, 0.05))  # so that some reads find nothing new

    async def read(number: int) -> None:
        nonlocal reads
        chance = random.Random(100 + number)
        last = dict.fromkeys(conversations, 0)
        while writing:
            conversation = chance.choice(conversations)
            rows = await store.tables(store.caller()).fetch(_VERSION, (conversation,))
            if not rows:
                await asyncio.sleep(0)
                continue
            [(version, messages)] = rows
            state = await chance.choice(caches).conversation(conversation)
            assert state.version >= max(version, last[conversation])
            assert len(state.messages) == state.conversation.message_count >= messages
            assert max((each.version for each in state.messages), default=0) <= state.version
            last[conversation] = state.version
            reads += 1

    async with working(store), EventStore(settings) as elsewhere, working(elsewhere, batch_size=100):
        reading = [asyncio.create_task(read(number)) for number in range(6)]
        try:
            await asyncio.gather(*map(write, range(4)))
        finally:
            writing = False
            await asyncio.gather(*reading)
    assert all(cache.hits and cache.misses for cache in caches)
    await catch_up(store)
    reader = Reader(store)
    for conversation in conversations:
        state = await caches[0].conversation(conversation)
        assert list(state.messages) == await reader.messages(conversation)
        assert list(state.tasks) == await reader.tasks(conversation)
