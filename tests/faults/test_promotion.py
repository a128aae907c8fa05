"""The primary is killed under load, again and again, and its synchronous standby is promoted: clients find it by
themselves, and no acknowledged event is lost, doubled or moved.

``EVENTSTORE_TEST_PROMOTIONS`` is the number of kills.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from statistics import median
from time import monotonic
from uuid import uuid4

import pytest
from support import guide
from support.acknowledged import Writers, compare_with_log, compare_with_read_tables, seconds_without_writes
from support.follow import Follower
from support.processes import Commands
from support.raw import append_raw, note
from support.replication import Pair, replicated_pair
from support.scoped_queries import open_scoped
from support.waiting import until_async

from eventstore import EventStore, NewEvent, Settings
from eventstore.database.migrate import Migrator
from eventstore.errors import ConnectionLost
from eventstore.read import horizon
from projections import applied_position, catch_up, wait_for

KILLS = int(os.environ.get("EVENTSTORE_TEST_PROMOTIONS", "2"))
ACKNOWLEDGED_BETWEEN = 40
MAX_SECONDS_WITHOUT_WRITES = 20


@pytest.fixture
def pair(clean_environment: None) -> Iterator[Pair]:
    with replicated_pair() as pair:
        Migrator(pair.url, settings_of(pair)).up()
        yield pair


def settings_of(pair: Pair) -> Settings:
    return Settings(database_url=pair.url, connect_timeout=4)


@pytest.mark.timeout(240 + 60 * KILLS)
async def test_no_acknowledged_event_is_lost_or_doubled_by_promotions(
    pair: Pair, started: Commands, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(KILLS)
    settings = settings_of(pair)
    seconds = []
    async with EventStore(settings) as store, EventStore(settings) as other:
        await asyncio.to_thread(pair.require_standby)
        worker = started.start("project", DATABASE_URL=pair.url)
        async with Writers([store, other]) as writers, Follower(other.subscribe()) as follower:
            for _ in range(KILLS):
                await until_async(lambda: asyncio.to_thread(pair.primary.is_synchronous), "commits wait for it")
                await writers.until_more(ACKNOWLEDGED_BETWEEN)
                await asyncio.sleep(chance.uniform(0, 0.5))
                killed_at = monotonic()
                await asyncio.to_thread(pair.fail_over, at_once=chance.random() < 0.5)
                await writers.until_more(1)
                seconds.append(seconds_without_writes(writers.times, killed_at))
                print(f"promotion {len(seconds)}: {seconds[-1]:.1f} seconds without writes", flush=True)
                assert seconds[-1] < MAX_SECONDS_WITHOUT_WRITES
                await asyncio.to_thread(pair.rejoin)
            await writers.until_more(ACKNOWLEDGED_BETWEEN)
            await writers.end()
            events = await compare_with_log(writers, follower, store, pair.url)
        print(
            f"{KILLS} promotions: seconds without writes median {median(seconds):.1f}, longest {max(seconds):.1f}; "
            f"{len(events):,} events; {writers.repeated} appends repeated by callers; {pair.copied} servers copied"
        )
        record_property("seconds without writes", seconds)
        assert not worker.ended
        await compare_with_read_tables(events, store, pair.url)


async def test_a_prepared_append_holds_the_horizon_back_on_the_promoted_standby(pair: Pair) -> None:
    """The gate lock is restored with it; and positions that were lost with the primary do not confuse a reader."""
    await asyncio.to_thread(pair.require_standby)
    async with EventStore(settings_of(pair)) as store:
        before = (await store.append(uuid4(), [note("before")])).position
        with open_scoped(pair.url) as connection:
            connection.execute("BEGIN")
            [prepared] = append_raw(connection, "prepared")
            connection.execute("PREPARE TRANSACTION 'append'")
        lost = open_scoped(pair.url)
        lost.execute("BEGIN")
        append_raw(lost, *["never committed"] * 50)  # beyond what the sequence has logged in advance
        above = (await store.append(uuid4(), [note("above")])).position
        await catch_up(store)
        assert await horizon(store.pool) < prepared < above
        await asyncio.to_thread(pair.fail_over, at_once=True)
        lost.close()

        async def positions() -> list[int]:
            return [event.position async for event in store.read_log()]

        assert await positions() == [before]
        after = (await store.append(uuid4(), [note("after")])).position
        assert after > above
        await catch_up(store)
        assert await positions() == [before]
        assert await applied_position(store) < prepared
        with open_scoped(pair.url) as connection:
            connection.execute("COMMIT PREPARED 'append'")
        assert await positions() == [before, prepared, above, after]
        await catch_up(store)
        await wait_for(store, after, timeout=30)


async def test_a_primary_that_was_replaced_acknowledges_nothing(pair: Pair) -> None:
    """The case of two primaries: the append of a client that still reaches the old one ends in an error."""
    await asyncio.to_thread(pair.require_standby)
    settings = settings_of(pair).model_copy(update={"append_seconds": 4.0})
    async with EventStore(settings) as store:
        conversation, event = uuid4(), NewEvent(note("once"))
        await store.append(conversation, [note("before")])
        await asyncio.to_thread(pair.standby.follow, guide.PROMOTE, pair.primary)
        with pytest.raises(ConnectionLost) as lost:
            await store.append(conversation, [event])
        assert lost.value.event_ids == (event.id,)
        await asyncio.to_thread(pair.primary.kill, at_once=True)
        [repeated] = (await store.append(conversation, [event])).events
        assert repeated.is_new
        assert [found.content async for found in store.read(conversation)] == ["before", "once"]
