"""A subscription delivers every event once, in order, soon, whatever happens to its connections."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import pytest
from support.follow import PATIENCE, Admin, Follower, end_all_others, eventually, until_waiting
from support.raw import append_raw_async, note

import eventstore.notifier
import eventstore.subscribe
from eventstore import EventStore, NewEvent, Settings
from eventstore.errors import EventStoreError, InputError
from eventstore.listener import Listener


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store reconnects to a lost server at once."""
    monkeypatch.setattr(eventstore.notifier, "RECONNECT_SECONDS", 0.01)
    monkeypatch.setattr(eventstore.subscribe, "RECONNECT_SECONDS", 0.01)


class Looks:
    """Counts the queries for new events."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = Listener.look

        def counted(listener: Listener, *arguments: Any) -> Any:
            self.count += 1
            return original(listener, *arguments)

        monkeypatch.setattr(Listener, "look", counted)

    async def more(self, times: int = 3) -> None:
        """Wait for some further queries."""
        wanted = self.count + times

        async def reached() -> bool:
            return self.count >= wanted

        await eventually(reached)


async def test_stored_and_new_events_are_one_stream(store: EventStore) -> None:
    await store.append(uuid4(), [note(1), note(2)])
    async with Follower(store.subscribe()) as follower:
        assert await follower.contents(2) == [1, 2]
        await store.append(uuid4(), [note(3)])
        assert await follower.contents() == [3]
        await store.append(uuid4(), [note(4), note(5)])
        assert await follower.contents(2) == [4, 5]


async def test_a_subscription_begins_after_a_position(store: EventStore) -> None:
    result = await store.append(uuid4(), [note(n) for n in range(5)])
    async with Follower(store.subscribe(after=result.events[2].position)) as follower:
        assert await follower.contents(2) == [3, 4]


async def test_a_consumer_resumes_where_it_stopped(store: EventStore) -> None:
    await store.append(uuid4(), [note(n) for n in range(300)])
    seen: list[Any] = []
    position = 0
    while len(seen) < 300:
        async for event in store.subscribe(after=position):
            seen.append(event.content)
            position = event.position
            if len(seen) % 70 == 0 or len(seen) == 300:
                break
    assert seen == list(range(300))


@pytest.mark.usefixtures("without_polling")
async def test_a_waiting_consumer_is_notified_by_each_append(store: EventStore, admin: Admin) -> None:
    async with Follower(store.subscribe()) as follower:
        for n in range(20):
            await until_waiting(admin)
            await store.append(uuid4(), [note(n)])
            assert await follower.contents() == [n]


@pytest.mark.usefixtures("without_polling")
async def test_the_commit_of_another_transaction_notifies_a_waiting_consumer(store: EventStore, admin: Admin) -> None:
    async with Follower(store.subscribe()) as follower, await store.connect() as other:
        await until_waiting(admin)
        await other.execute("BEGIN")
        await append_raw_async(other, "later")
        await other.execute("COMMIT")
        assert await follower.contents() == ["later"]


@pytest.mark.usefixtures("without_polling")
async def test_an_append_in_flight_when_a_wait_begins_is_not_missed(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch)
    async with await store.connect() as slow:
        await slow.execute("BEGIN")
        await append_raw_async(slow, "slow")
        async with Follower(store.subscribe()) as follower:
            await looks.more()
            await slow.execute("COMMIT")
            assert await follower.contents() == ["slow"]


@pytest.mark.usefixtures("without_polling")
async def test_an_aborted_append_does_not_keep_consumers_polling(store: EventStore, admin: Admin) -> None:
    async with Follower(store.subscribe()) as follower, await store.connect() as other:
        await until_waiting(admin)
        await other.execute("BEGIN")
        await append_raw_async(other, "never")
        await other.execute("ROLLBACK")
        await until_waiting(admin)
        await store.append(uuid4(), [note("next")])
        assert await follower.contents() == ["next"]


@pytest.mark.usefixtures("without_polling")
async def test_all_consumers_of_all_processes_are_notified(store: EventStore, settings: Settings, admin: Admin) -> None:
    async with EventStore(settings) as other:
        first = await store.append(uuid4(), [note(1)])
        followers = [
            Follower(store.subscribe()), Follower(store.subscribe(after=first.position)), Follower(other.subscribe()),
        ]  # fmt: skip
        assert await followers[0].contents() == [1]
        assert await followers[2].contents() == [1]
        for n in range(2, 6):
            await until_waiting(admin, 2)
            await store.append(uuid4(), [note(n)])
            assert [await follower.contents() for follower in followers] == [[n]] * 3
        for follower in followers:
            await follower.__aexit__()


async def test_appends_do_not_notify_while_no_consumer_waits(
    store: EventStore, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstore.notifier, "POLL_SECONDS", 0.5)  # after which a wait without a consumer ends
    await admin.execute("LISTEN eventstore_public")
    await store.append(uuid4(), [note(1)])
    async with Follower(store.subscribe()) as follower:
        assert await follower.contents() == [1]
        await until_waiting(admin)
    assert [n async for n in admin.notifies(timeout=0)] == []
    await until_waiting(admin, 0)
    async with Follower(store.subscribe(after=1)) as follower:
        await until_waiting(admin)
        await store.append(uuid4(), [note(2)])
        assert await follower.contents() == [2]
        async with aclosing(admin.notifies(timeout=PATIENCE)) as notifications:
            assert (await anext(notifications)).channel == "eventstore_public"


async def test_a_late_commit_at_a_low_position_is_not_skipped(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch)
    async with await store.connect() as slow, Follower(store.subscribe()) as follower:
        await store.append(uuid4(), [note(1)])
        assert await follower.contents() == [1]
        await slow.execute("BEGIN")
        await append_raw_async(slow, "late")
        await store.append(uuid4(), [note(2)])
        await looks.more()
        assert follower.is_empty()
        await slow.execute("COMMIT")
        assert await follower.contents(2) == ["late", 2]


@pytest.mark.parametrize("filters", [{}, {"types": ["noted"]}, {"all_tenants": True}], ids=str)
async def test_unused_positions_delay_no_consumer(store: EventStore, filters: dict[str, Any]) -> None:
    async with await store.connect() as other, Follower(store.subscribe(**filters)) as follower:
        for n in range(5):
            await other.execute("BEGIN")
            await append_raw_async(other, *range(50))
            await other.execute("ROLLBACK")
            await store.append(uuid4(), [note(n)])
        assert await follower.contents(5) == list(range(5))


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"types": ["red"]}, [0, 4, 8]),
        ({"actor": "ana"}, [1, 5, 9]),
        ({"types": ["red", "noted"], "actor": ""}, [0, 2, 4, 6, 8, 10]),
        ({"tenant": "other"}, [3, 7, 11]),
        ({"all_tenants": True}, list(range(12))),
    ],
    ids=str,
)
async def test_only_events_that_match_the_filter_are_delivered(
    store: EventStore, filters: dict[str, Any], found: list[int]
) -> None:
    kinds = [
        {"events": lambda n: [note(n, "red")]},
        {"events": lambda n: [NewEvent(note(n), actor="ana")]},
        {"events": lambda n: [note(n)]},
        {"events": lambda n: [note(n, "red")], "tenant": "other"},
    ]
    async with Follower(store.subscribe(**filters)) as follower:
        for n in range(12):
            kind = dict(kinds[n % 4])
            await store.append(uuid4(), kind.pop("events")(n), **kind)  # type: ignore[operator]
        assert await follower.contents(len(found)) == found


@pytest.mark.usefixtures("quick_retries")
async def test_a_subscription_survives_the_loss_of_all_its_connections(store: EventStore, admin: Admin) -> None:
    async with Follower(store.subscribe()) as follower:
        for n in range(6):
            await store.append(uuid4(), [note(n)])
            assert await follower.contents() == [n]
            if n % 2:
                await until_waiting(admin)
            assert await end_all_others(admin) > 0


@pytest.mark.usefixtures("quick_retries", "without_polling")
async def test_a_waiting_consumer_whose_connection_was_lost_is_notified(store: EventStore, admin: Admin) -> None:
    async with Follower(store.subscribe()) as follower:
        for n in range(3):
            await until_waiting(admin)
            await end_all_others(admin)
            await store.append(uuid4(), [note(n)])
            assert await follower.contents() == [n]


async def test_an_iteration_that_ends_early_leaves_no_tasks(store: EventStore, admin: Admin) -> None:
    await store.append(uuid4(), [note(n) for n in range(10)])
    for _ in range(20):
        async for event in store.subscribe():
            if event.content == 3:
                break
    async with Follower(store.subscribe(after=10)):
        await until_waiting(admin)
    count = await (
        await admin.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
    ).fetchone()
    assert count is not None
    assert count[0] <= store.settings.pool_size + 2


async def test_a_subscription_of_a_closed_store_ends_with_an_error(settings: Settings) -> None:
    async with EventStore(settings) as store:
        await store.append(uuid4(), [note(1)])
        follower = Follower(store.subscribe())
        assert await follower.contents() == [1]
    async with follower:
        with pytest.raises(EventStoreError, match=r"not open|is closed"):
            await asyncio.wait_for(asyncio.shield(follower.task), PATIENCE)


@pytest.mark.parametrize("steps", range(6))
async def test_closing_while_a_wait_ends_does_not_hang(settings: Settings, admin: Admin, steps: int) -> None:
    store = EventStore(settings)
    await store.open()
    await store.append(uuid4(), [note(1)])

    async def wait_repeatedly() -> None:
        while True:  # a wait also ends if connecting takes long
            await store.wait(1)

    waiting_consumer = asyncio.create_task(wait_repeatedly())
    await until_waiting(admin)
    # A consumer that has seen less ends the pause of the watcher; the store is closed some loop iterations later.
    new_consumer = asyncio.create_task(store.wait(0))
    for _ in range(steps):
        await asyncio.sleep(0)
    closing = asyncio.create_task(store.close())
    done, _ = await asyncio.wait([closing], timeout=PATIENCE)
    for waiting in (waiting_consumer, new_consumer, closing):
        waiting.cancel()
    await asyncio.gather(waiting_consumer, new_consumer, closing, return_exceptions=True)
    assert done == {closing}


async def test_closed_stores_leave_one_flag(settings: Settings, admin: Admin) -> None:
    for _ in range(5):
        async with EventStore(settings) as store, Follower(store.subscribe()):
            await until_waiting(admin)
    row = await (await admin.execute("SELECT last_value FROM waiter_flag")).fetchone()
    assert row == (1,)


async def test_a_negative_position_is_refused(store: EventStore) -> None:
    with pytest.raises(InputError, match="after: -1 is not a whole number from 0"):
        await anext(store.subscribe(after=-1))
