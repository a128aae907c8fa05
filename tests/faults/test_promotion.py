"""The primary is killed under load, again and again, and its synchronous standby is promoted: clients find it by
themselves, and no acknowledged event is lost, doubled or moved.

``EVENTSTORE_TEST_PROMOTIONS`` is the number of kills.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from statistics import median
from time import monotonic
from typing import Self
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import dict_row
from support.digest import event_digest
from support.folding import fold, stored
from support.processes import Commands
from support.raw import append_raw
from support.replication import Pair, replicated_pair
from support.scoped_queries import open_scoped
from support.waiting import until_async

from eventstore import Append, AppendResult, EventStore, MessageAdded, NewEvent, Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.database.migrate import Migrator
from eventstore.errors import ConnectionLost, ServerUnreachable
from eventstore.read import horizon
from projections import applied_position, catch_up, rebuild, wait_for

KILLS = int(os.environ.get("EVENTSTORE_TEST_PROMOTIONS", "2"))
WRITERS, SHARED = 12, 4
ACKNOWLEDGED_BETWEEN = 40
MAX_SECONDS_WITHOUT_WRITES = 20


@pytest.fixture
def pair(clean_environment: None) -> Iterator[Pair]:
    with replicated_pair() as pair:
        Migrator(pair.url, settings_of(pair)).up()
        yield pair


def settings_of(pair: Pair) -> Settings:
    return Settings(database_url=pair.url, connect_timeout=4)


class Writers:
    """Writers that repeat each append, under the same ids, until it is acknowledged.

    Each has a conversation of its own, in which it expects the version that it was last told, and writes to shared
    ones with the others.

    Attributes:
        acknowledged: the position and version of each event, as the acknowledgement has them.
        times: when each append was acknowledged.
        repeated: how many appends were sent again because their outcome was unknown.
    """

    def __init__(self, stores: list[EventStore]) -> None:
        self._stores = stores
        self._shared = [uuid4() for _ in range(SHARED)]
        self._is_ending = False
        self.own = [uuid4() for _ in range(WRITERS)]
        self.acknowledged: dict[UUID, tuple[int, int]] = {}
        self.times: list[float] = []
        self.repeated = 0
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(WRITERS)]

    async def _write(self, number: int) -> None:
        chance, store, version, written = random.Random(number), self._stores[number % len(self._stores)], 0, 0
        while not self._is_ending:
            own = [NewEvent(message(written + n)) for n in range(chance.choice((1, 1, 2, 5)))]
            written += len(own)
            appends = [Append(self.own[number], own, version)]
            if chance.random() < 0.5:
                appends.append(Append(chance.choice(self._shared), [NewEvent(message(number))]))
            result = await self._until_acknowledged(store, appends)
            version += len(own)
            assert result.events[len(own) - 1].version == version
            events = [event for append in appends for event in append.events]
            for event, appended in zip(events, result.events, strict=True):
                assert isinstance(event, NewEvent)
                assert event.id == appended.event_id
                self.acknowledged[event.id] = appended.position, appended.version

    async def _until_acknowledged(self, store: EventStore, appends: list[Append]) -> AppendResult:
        while True:
            try:
                result = await store.append_all(appends)
            except (ConnectionLost, ServerUnreachable) as error:
                self.repeated += isinstance(error, ConnectionLost)
                await asyncio.sleep(0.05)
            else:
                self.times.append(monotonic())
                return result

    async def until_more(self, count: int) -> None:
        """Wait until so many further appends are acknowledged."""
        wanted = len(self.times) + count

        async def enough() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return len(self.times) >= wanted

        await until_async(enough, "appends are acknowledged", 60)

    async def end(self) -> None:
        """Stop after the acknowledgement of the last appends."""
        self._is_ending = True
        await asyncio.gather(*self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_and_wait(self._tasks)


def message(number: int) -> MessageAdded:
    return MessageAdded(role="user", content=str(number))


@asynccontextmanager
async def collected(store: EventStore) -> AsyncIterator[list[UUID]]:
    """What a subscriber to the whole log gets until the end of the block."""
    found: list[UUID] = []

    async def follow() -> None:
        async for event in store.subscribe():
            found.append(event.id)

    task = asyncio.create_task(follow())
    try:
        yield found
    finally:
        await cancel_and_wait([task])


async def test_no_acknowledged_event_is_lost_or_doubled_by_promotions(
    pair: Pair, started: Commands, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(KILLS)
    settings = settings_of(pair)
    async with EventStore(settings) as store, EventStore(settings) as other:
        await asyncio.to_thread(pair.primary.require_standby)
        worker = started.start("project", DATABASE_URL=pair.url)
        seconds = []
        async with Writers([store, other]) as writers, collected(other) as followed:
            for _ in range(KILLS):
                await until_async(lambda: asyncio.to_thread(pair.primary.is_synchronous), "commits wait for it")
                await writers.until_more(ACKNOWLEDGED_BETWEEN)
                await asyncio.sleep(chance.uniform(0, 0.5))
                killed_at = monotonic()
                await asyncio.to_thread(pair.fail_over, at_once=chance.random() < 0.5)
                await writers.until_more(1)
                before = max(at for at in writers.times if at < killed_at)
                seconds.append(min(at for at in writers.times if at > killed_at + 0.05) - before)
                assert seconds[-1] < MAX_SECONDS_WITHOUT_WRITES
                await asyncio.to_thread(pair.rejoin)
            await writers.until_more(ACKNOWLEDGED_BETWEEN)
            await writers.end()
            events = [event async for event in store.read_log()]
            await until_async(lambda: is_long(followed, len(events)), "the subscriber has all")
        print(
            f"{KILLS} promotions: seconds without writes median {median(seconds):.1f}, longest {max(seconds):.1f}; "
            f"{len(events):,} events, {writers.repeated} appends repeated"
        )
        record_property("seconds without writes", seconds)

        # Each event that was acknowledged is there once, where the acknowledgement says, and there is no other.
        assert {event.id: (event.position, event.version) for event in events} == writers.acknowledged
        assert len(events) == len(writers.acknowledged)
        assert followed == [event.id for event in events]
        by_conversation: dict[UUID, list[object]] = {}
        for event in events:
            by_conversation.setdefault(event.conversation_id, []).append(event.version)
        assert all(versions == list(range(1, len(versions) + 1)) for versions in by_conversation.values())
        for own in writers.own:
            contents = [event.content["content"] async for event in store.read(own)]
            assert contents == [str(number) for number in range(len(contents))]
        assert wrong_digests(pair) == []

        # The read tables are those of the log, and a rebuild changes nothing.
        await wait_for(store, events[-1].position, timeout=60)
        assert not worker.ended
        worker.kill()
        tables = stored(pair.url)
        assert tables == fold(events)
        await rebuild(store)
        assert stored(pair.url) == tables


async def is_long(followed: list[UUID], length: int) -> bool:
    return len(followed) >= length


def wrong_digests(pair: Pair) -> list[int]:
    """Return the positions of events whose digest is not that of their columns."""
    with pair.primary.connect() as connection:
        rows = connection.cursor(row_factory=dict_row).execute("SELECT * FROM events").fetchall()
        return [row["position"] for row in rows if event_digest(row) != row["digest"]]
