"""Many consumers wait at once, each append notifies all of them, and consumers that have ended cost nothing."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
from support.environment import TREE, child_environment
from support.follow import PATIENCE, Admin, end_all_others, eventually, until_waiting
from support.raw import append_raw_async, note
from support.scoped_queries import open_as_login

from eventstore import EventStore
from eventstore.errors import ConnectionLost
from eventstore.listener import Listener
from eventstore.notifier import Notifier
from eventstore.poll_throttle import MAX_PAUSE_SECONDS, POLL_SHARE, ROUND_SECONDS, SAVED_SECONDS, PollThrottle

NOTIFIERS = 50

_FLAG = "SELECT last_value FROM waiter_flag"
_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"


async def value(connection: Admin, statement: str) -> Any:
    row = await (await connection.execute(statement)).fetchone()
    assert row is not None
    return row[0]


@asynccontextmanager
async def open_notifiers(store: EventStore, count: int) -> AsyncIterator[list[Notifier]]:
    """Open a number of notifiers, each with its own listening connection."""
    async with AsyncExitStack() as stack:
        notifiers = [Notifier(store.connections.open_listener) for _ in range(count)]
        for notifier in notifiers:
            stack.push_async_callback(notifier.close)
        yield notifiers


async def wait_for_batch(notifier: Notifier, seen: int) -> tuple[int, int]:
    """Wait until there are new events. Return the number of waits, and the last position."""
    times = 1
    while (batch := await notifier.wait(seen)) is None:
        times += 1
    return times, batch.position


async def wait_repeatedly(notifier: Notifier, seen: int) -> None:
    """Wait until cancelled: a wait also ends if connecting takes long."""
    while True:
        await notifier.wait(seen)


async def test_a_connection_that_opens_in_spite_of_its_cancellation_is_closed(store: EventStore) -> None:
    opened: list[Listener] = []
    has_begun = asyncio.Event()

    async def open_late(on_notified: Callable[[], None]) -> Listener:
        has_begun.set()
        for _ in range(2):  # the closing notifier cancels again after a second
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        opened.append(await store.connections.open_listener(on_notified))
        return opened[0]

    notifier = Notifier(open_late)
    waiting = asyncio.create_task(notifier.wait(0))
    await has_begun.wait()
    await notifier.close()
    assert await waiting is None
    with pytest.raises(ConnectionLost):
        await opened[0].check()


@pytest.mark.usefixtures("without_polling")
async def test_one_append_notifies_fifty_consumers(store: EventStore, admin: Admin) -> None:
    async with open_notifiers(store, NOTIFIERS) as notifiers:
        seen = 0
        for n in range(4):
            waiting = [asyncio.create_task(wait_for_batch(notifier, seen)) for notifier in notifiers]
            await until_waiting(admin, NOTIFIERS)
            position = (await store.append(uuid4(), [note(n)])).position
            async with asyncio.timeout(5):
                found = await asyncio.gather(*waiting)
            assert {last for _, last in found} == {position}
            if n:
                assert {times for times, _ in found} == {1}
            seen = position


@pytest.mark.usefixtures("without_polling")
async def test_an_append_takes_no_more_locks_if_many_consumers_wait(store: EventStore, admin: Admin) -> None:
    async def locks() -> int:
        async with await store.connect() as connection, connection.transaction(force_rollback=True):
            await append_raw_async(connection, "never")
            return int(await value(connection, _LOCKS))

    await until_flag(store, admin, 0)
    alone = await locks()
    seen = int(await value(admin, "SELECT last_position()"))
    async with open_notifiers(store, NOTIFIERS) as notifiers:
        waiting = [asyncio.create_task(wait_repeatedly(notifier, seen)) for notifier in notifiers]
        await until_waiting(admin, NOTIFIERS)
        assert await locks() == alone
    await asyncio.gather(*waiting, return_exceptions=True)
    await until_waiting(admin, 0)
    await locks()  # finds that no consumer waits any more
    assert await locks() == alone


async def until_flag(store: EventStore, admin: Admin, wanted: int) -> None:
    """Wait until the flag has a value; appends clear it if they find no waiting session."""

    async def is_so() -> bool:
        if await value(admin, _FLAG) == wanted:
            return True
        await store.append(uuid4(), [note("trial")])
        return False

    await eventually(is_so)


async def test_the_first_append_after_the_last_waiting_session_ended_stops_notifying(
    store: EventStore, admin: Admin
) -> None:
    await admin.execute("LISTEN eventstore_public")
    async with open_notifiers(store, 3) as notifiers:
        waiting = [asyncio.create_task(wait_repeatedly(notifier, 0)) for notifier in notifiers]
        await until_waiting(admin, 3)
        assert await value(admin, _FLAG) == 1
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await end_all_others(admin)
    await until_waiting(admin, 0)
    await store.append(uuid4(), [note(1)])
    assert await value(admin, _FLAG) == 0
    assert [n async for n in admin.notifies(timeout=0)] == []


async def test_a_busy_consumer_ends_its_wait_and_is_not_notified(store: EventStore, admin: Admin) -> None:
    async with open_notifiers(store, 1) as [notifier]:
        waiting = asyncio.create_task(wait_for_batch(notifier, 0))
        await until_waiting(admin)
        position = (await store.append(uuid4(), [note(1)])).position
        assert (await waiting)[1] == position
        await until_waiting(admin, 0)  # the consumer does not wait again
        again = asyncio.create_task(wait_for_batch(notifier, position))
        await until_waiting(admin)
        await store.append(uuid4(), [note(2)])
        assert (await again)[1] == position + 1


async def test_no_wait_begins_while_an_append_is_in_flight_or_there_is_an_event(
    store: EventStore, admin: Admin
) -> None:
    await until_flag(store, admin, 0)
    seen = int(await value(admin, "SELECT last_position()"))
    async with await open_as_login(store) as one, await open_as_login(store) as two:
        await one.execute("BEGIN")
        [position] = await append_raw_async(one, "it found no waiting session")
        assert await value(two, f"SELECT begin_wait({seen})") is False
        await one.execute("COMMIT")
        assert await value(two, f"SELECT begin_wait({seen})") is False
        await until_waiting(admin, 0)
        assert await value(two, f"SELECT begin_wait({position})") is True
        await until_waiting(admin, 1)
        assert await value(admin, "SELECT register_append()") is True
        assert await value(two, "SELECT end_wait()") is True
        await until_waiting(admin, 0)


@pytest.mark.usefixtures("without_polling")
async def test_a_wait_that_begins_while_an_append_clears_the_flag_is_notified(store: EventStore, admin: Admin) -> None:
    await until_flag(store, admin, 0)
    seen = int(await value(admin, "SELECT last_position()"))
    await admin.execute("SELECT setval('waiter_flag', 1)")  # as a waiting session leaves it that was killed
    async with open_notifiers(store, 1) as [notifier], await store.connect() as clears:
        await clears.execute("BEGIN")
        await append_raw_async(clears, "clears")
        assert await value(admin, _FLAG) == 0
        waiting = asyncio.create_task(wait_for_batch(notifier, seen))
        await clears.execute("ROLLBACK")
        await until_waiting(admin)
        assert await value(admin, _FLAG) == 1
        await store.append(uuid4(), [note(1)])
        async with asyncio.timeout(5):
            await waiting


@pytest.mark.slow
async def test_no_process_ever_misses_an_event(store: EventStore, database_url: str) -> None:
    """Bursts at random moments: the consumers wait, or are about to begin or to end a wait.

    After each burst nothing would notify a consumer that missed it.
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


def test_a_consumer_polls_at_once_after_a_rest_and_less_often_in_a_stream() -> None:
    now = 1000.0
    throttle = PollThrottle(now)
    at_once = 0
    while not throttle.pause(now):
        throttle.spend(now)
        at_once += 1
    assert at_once == pytest.approx(SAVED_SECONDS / ROUND_SECONDS, abs=1)
    for _ in range(100):
        throttle.spend(now)
        now += throttle.pause(now)
    rounds_a_second = 1 / pause_after_rounds(throttle, now, ROUND_SECONDS)
    assert rounds_a_second == pytest.approx(POLL_SHARE / ROUND_SECONDS)
    assert pause_after_rounds(throttle, now + 100, 60.0) == pytest.approx(MAX_PAUSE_SECONDS)
    assert throttle.pause(now + 1000) == 0


def pause_after_rounds(throttle: PollThrottle, now: float, seconds: float) -> float:
    """Return the pause after many rounds that cost so many seconds."""
    for _ in range(100):
        throttle.spend(now, seconds)
        pause = throttle.pause(now)
        now += pause
    return pause
