"""Any number of consumers sleep at once, every append wakes them all, and none pays for those who are gone."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from support.environment import TREE, child_environment
from support.follow import PATIENCE, end_all_others, eventually, until_asleep
from support.raw import append_raw_async, note
from support.scoped_queries import login_of

import eventstore.notifier
from eventstore import EventStore
from eventstore.notifier import LONGEST_PAUSE_SECONDS, POLL_SHARE, ROUND_SECONDS, SAVED_SECONDS, Notifier, PollThrottle

Admin = psycopg.AsyncConnection[Any]
CROWD = 50

_FLAG = "SELECT last_value FROM waiter_flag"
_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[Admin]:
    """A connection beside the store's."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def no_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleepers do not look by themselves: who is not woken sleeps for good."""
    monkeypatch.setattr(eventstore.notifier, "POLL_SECONDS", 10_000.0)


async def value(connection: Admin, statement: str) -> Any:
    row = await (await connection.execute(statement)).fetchone()
    assert row is not None
    return row[0]


@asynccontextmanager
async def crowd(store: EventStore, count: int) -> AsyncIterator[list[Notifier]]:
    """So many consumers, each on a listening connection of its own; the connections of the pool they share."""
    async with AsyncExitStack() as stack:
        wakers = [Notifier(store.parts.open_listener) for _ in range(count)]
        for notifier in wakers:
            stack.push_async_callback(notifier.close)
        yield wakers


async def woken_at(notifier: Notifier, seen: int) -> tuple[int, int]:
    """How often it was woken until there were news, and the last position among them."""
    times = 1
    while (news := await notifier.wait(seen)) is None:
        times += 1
    return times, news.position


@pytest.mark.usefixtures("no_net")
async def test_one_append_wakes_fifty_consumers(store: EventStore, admin: Admin) -> None:
    async with crowd(store, CROWD) as wakers:
        seen = 0
        for n in range(4):
            waiting = [asyncio.create_task(woken_at(notifier, seen)) for notifier in wakers]
            await until_asleep(admin, CROWD)
            position = (await store.append(uuid4(), [note(n)])).position
            async with asyncio.timeout(5):
                found = await asyncio.gather(*waiting)
            assert {last for _, last in found} == {position}
            if n:
                assert {times for times, _ in found} == {1}
            seen = position


@pytest.mark.usefixtures("no_net")
async def test_an_append_takes_no_more_locks_for_a_crowd(store: EventStore, admin: Admin) -> None:
    async def locks() -> int:
        async with await store.connect() as connection, connection.transaction(force_rollback=True):
            await append_raw_async(connection, "never")
            return int(await value(connection, _LOCKS))

    await until_flag(store, admin, 0)
    alone = await locks()
    seen = int(await value(admin, "SELECT last_position()"))
    async with crowd(store, CROWD) as wakers:
        waiting = [asyncio.create_task(notifier.wait(seen)) for notifier in wakers]
        await until_asleep(admin, CROWD)
        assert await locks() == alone
    await asyncio.gather(*waiting, return_exceptions=True)
    await until_asleep(admin, 0)
    await locks()  # finds that nobody sleeps any more
    assert await locks() == alone


async def until_flag(store: EventStore, admin: Admin, wanted: int) -> None:
    """Returns once appends think so of the sleepers: they find out by appending."""

    async def is_so() -> bool:
        if await value(admin, _FLAG) == wanted:
            return True
        await store.append(uuid4(), [note("trial")])
        return False

    await eventually(is_so)


async def test_the_first_append_after_the_last_sleeper_died_stops_notifying(store: EventStore, admin: Admin) -> None:
    await admin.execute("LISTEN eventstore_public")
    async with crowd(store, 3) as wakers:
        waiting = [asyncio.create_task(notifier.wait(0)) for notifier in wakers]
        await until_asleep(admin, 3)
        assert await value(admin, _FLAG) == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await end_all_others(admin)
    await until_asleep(admin, 0)
    await store.append(uuid4(), [note(1)])
    assert await value(admin, _FLAG) == 0
    assert [n async for n in admin.notifies(timeout=0)] == []


async def test_who_is_busy_gets_up_and_is_not_notified(store: EventStore, admin: Admin) -> None:
    async with crowd(store, 1) as [notifier]:
        waiting = asyncio.create_task(woken_at(notifier, 0))
        await until_asleep(admin)
        position = (await store.append(uuid4(), [note(1)])).position
        assert (await waiting)[1] == position
        await until_asleep(admin, 0)  # it does not come back
        again = asyncio.create_task(woken_at(notifier, position))
        await until_asleep(admin)
        await store.append(uuid4(), [note(2)])
        assert (await again)[1] == position + 1


async def test_nobody_lies_down_while_an_append_is_in_flight_or_an_event_waits(store: EventStore, admin: Admin) -> None:
    await until_flag(store, admin, 0)
    seen = int(await value(admin, "SELECT last_position()"))
    async with await login_of(store) as one, await login_of(store) as two:
        await one.execute("BEGIN")
        [position] = await append_raw_async(one, "it saw nobody asleep")
        assert await value(two, f"SELECT begin_wait({seen})") is False
        await one.execute("COMMIT")
        assert await value(two, f"SELECT begin_wait({seen})") is False
        await until_asleep(admin, 0)
        assert await value(two, f"SELECT begin_wait({position})") is True
        await until_asleep(admin, 1)
        assert await value(admin, "SELECT has_waiters()") is True
        assert await value(two, "SELECT end_wait()") is True
        await until_asleep(admin, 0)


@pytest.mark.usefixtures("no_net")
async def test_a_sleeper_that_lies_down_while_another_append_clears_the_flag_is_woken(
    store: EventStore, admin: Admin
) -> None:
    await until_flag(store, admin, 0)
    seen = int(await value(admin, "SELECT last_position()"))
    await admin.execute("SELECT setval('waiter_flag', 1)")  # as a sleeper leaves it that died
    async with crowd(store, 1) as [notifier], await store.connect() as clears:
        await clears.execute("BEGIN")
        await append_raw_async(clears, "clears")
        assert await value(admin, _FLAG) == 0
        waiting = asyncio.create_task(woken_at(notifier, seen))
        await clears.execute("ROLLBACK")
        await until_asleep(admin)
        assert await value(admin, _FLAG) == 1
        await store.append(uuid4(), [note(1)])
        async with asyncio.timeout(5):
            await waiting


@pytest.mark.slow
async def test_no_process_ever_sleeps_through_an_event(store: EventStore, database_url: str) -> None:
    """Bursts at random moments: the consumers are asleep, or about to be, or about to get up.

    After each burst there is nothing that would wake somebody who missed it.
    """
    chance = random.Random(11)
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "support.waiter", database_url,
            stdout=asyncio.subprocess.PIPE, env=child_environment(), cwd=TREE,
        )
        for _ in range(3)
    ]  # fmt: skip

    async def line(child: asyncio.subprocess.Process) -> bytes:
        assert child.stdout is not None
        return await child.stdout.readline()

    async def append(number: int) -> None:
        await asyncio.sleep(chance.choice((0, 0, 0.001, 0.005)))
        if chance.random() < 0.5:
            await store.append(uuid4(), [note(number)])
            return
        async with await store.connect() as own:
            async with own.transaction(force_rollback=True):
                await append_raw_async(own, "never")
                await asyncio.sleep(chance.uniform(0, 0.005))
            async with own.transaction():
                await append_raw_async(own, number)
                await asyncio.sleep(chance.uniform(0, 0.005))

    try:
        assert [await line(child) for child in children] == [b"ready\n"] * len(children)
        last = 0
        for _ in range(150):
            await asyncio.sleep(chance.choice((0, 0.001, 0.005, 0.006, 0.02)))
            burst = range(last, last + chance.choice((1, 1, 2, 4)))
            last = burst.stop
            await asyncio.gather(*map(append, burst))
            async with asyncio.timeout(PATIENCE):
                heard = [{int(await line(child)) for _ in burst} for child in children]
            assert heard == [set(burst)] * len(children)
    finally:
        for child in children:
            child.kill()
            await child.wait()


def test_after_a_rest_a_consumer_looks_at_once_and_in_a_stream_ever_less_often() -> None:
    now = 1000.0
    pace = PollThrottle(now)
    at_once = 0
    while not pace.pause(now):
        pace.spend(now)
        at_once += 1
    assert at_once == pytest.approx(SAVED_SECONDS / ROUND_SECONDS, abs=1)
    for _ in range(100):
        pace.spend(now)
        now += pace.pause(now)
    rounds_a_second = 1 / pace_of_long_rounds(pace, now, ROUND_SECONDS)
    assert rounds_a_second == pytest.approx(POLL_SHARE / ROUND_SECONDS)
    assert pace_of_long_rounds(pace, now + 100, 60.0) == pytest.approx(LONGEST_PAUSE_SECONDS)
    assert pace.pause(now + 1000) == 0


def pace_of_long_rounds(pace: PollThrottle, now: float, seconds: float) -> float:
    """The pause after many rounds of such a length."""
    for _ in range(100):
        pace.spend(now, seconds)
        pause = pace.pause(now)
        now += pause
    return pause
