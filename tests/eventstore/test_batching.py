"""Group commit: concurrent appends are sent together, and each has its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.raw import append_raw_async, note
from support.waiting import until_async

from eventstore import (
    NO_STREAM,
    Append,
    AppendResult,
    EventStore,
    MessageAdded,
    NewEvent,
    Settings,
    UnknownEvent,
    backpressure,
)
from eventstore.errors import ConnectionLost, EventIdConflict, InputError, StoreClosed, WrongExpectedVersion

ONE_TRANSACTION = "SELECT count(DISTINCT xmin::text) FROM events WHERE conversation_id = ANY (%s)"


async def number(store: EventStore, query: str, *values: Any) -> int:
    return int((await store.log(store.caller()).fetch(query, values))[0][0])  # type: ignore[arg-type]


async def version_of(store: EventStore, conversation: UUID) -> int:
    return len([event async for event in store.read(conversation)])


async def until_an_append_waits_for_a_lock(store: EventStore, appends: int = 1) -> None:
    async def waiting() -> bool:
        return (
            await number(store, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") >= appends
        )

    await until_async(waiting, "an append waits for the lock of a conversation")


async def test_concurrent_appends_are_committed_together(store: EventStore) -> None:
    await store.append(uuid4(), [note()])
    conversations = [uuid4() for _ in range(100)]
    await asyncio.gather(*(store.append(conversation, [note()]) for conversation in conversations))
    assert await number(store, ONE_TRANSACTION, conversations) <= 6


async def test_each_append_of_a_group_has_its_own_outcome(store: EventStore) -> None:
    stale, known = uuid4(), uuid4()
    first, other = NewEvent(note("first")), uuid4()
    await store.append(stale, [note()])
    await store.append(known, [first])
    refused = UnknownEvent(event_type="message.added", content={"role": 1}, schema_version=2)
    results = await asyncio.gather(
        store.append(uuid4(), [note()], expected=NO_STREAM),
        store.append(stale, [note()], expected=NO_STREAM),
        store.append(known, [first], expected=NO_STREAM),
        store.append(known, [NewEvent(note("another"), first.id)]),
        store.append(other, [refused]),
        store.append_all([Append(other, [note()]), Append(stale, [note()], 7)]),
        store.append(other, [note()], tenant="somebody else"),
        return_exceptions=True,
    )
    kinds = [
        AppendResult,
        WrongExpectedVersion,
        AppendResult,
        EventIdConflict,
        InputError,
        WrongExpectedVersion,
        AppendResult,
    ]
    assert [type(result) for result in results] == kinds
    assert "not a string" in str(results[4])
    assert isinstance(results[2], AppendResult)
    assert not results[2].events[0].is_new
    assert [event async for event in store.read(other)] == []
    assert [event.content async for event in store.read(known)] == ["first"]


async def test_of_fifty_appends_at_one_expected_version_in_two_stores_one_succeeds(
    store: EventStore, settings: Settings
) -> None:
    conversation = uuid4()
    async with EventStore(settings) as other:
        for version in range(5):
            results = await asyncio.gather(
                *(each.append(conversation, [note()], expected=version) for each in (store, other) for _ in range(25)),
                return_exceptions=True,
            )
            assert sorted(type(result).__name__ for result in results) == ["AppendResult"] + 49 * [
                "WrongExpectedVersion"
            ]
            assert {result.actual for result in results if isinstance(result, WrongExpectedVersion)} == {version + 1}
    assert await version_of(store, conversation) == 5


async def test_events_that_two_stores_append_under_the_same_ids_are_stored_once(
    store: EventStore, settings: Settings
) -> None:
    appends = [(uuid4(), [NewEvent(note(n)), NewEvent(note(-n))]) for n in range(1, 40)]
    async with EventStore(settings) as other:
        results = await asyncio.gather(
            *(each.append(conversation, events) for conversation, events in appends for each in (store, other, store))
        )
    for (conversation, events), same in zip(appends, zip(*[iter(results)] * 3, strict=True), strict=True):
        assert len({tuple(place.position for place in result.events) for result in same}) == 1
        assert sum(result.events[0].is_new for result in same) == 1
        assert [event.id async for event in store.read(conversation)] == [event.id for event in events]


async def test_an_error_of_the_server_fails_only_the_append_that_caused_it(
    store: EventStore, superuser_url: str
) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(
            """
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = 'data_exception'; END $$;
            CREATE TRIGGER fails BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.actor = 'bad') EXECUTE FUNCTION fail();
            """
        )
    conversations = [uuid4() for _ in range(20)]
    results = await asyncio.gather(
        *(store.append(conversation, [note()]) for conversation in conversations),
        store.append(uuid4(), [note()], actor="bad"),
        *(store.append(conversation, [note()]) for conversation in conversations),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [AppendResult] * 20 + [InputError] + [AppendResult] * 20
    assert "not this one" in str(results[20])


async def test_a_locked_conversation_does_not_delay_the_others(store: EventStore) -> None:
    locked = uuid4()
    holder = await store.connect()
    async with holder, holder.transaction():
        await append_raw_async(holder, "theirs", conversation=locked)
        mine = [asyncio.create_task(store.append(locked, [note(n)])) for n in range(20)]
        await until_an_append_waits_for_a_lock(store)
        for _ in range(5):
            await asyncio.gather(*(store.append(uuid4(), [note()]) for _ in range(50)))
        assert not any(task.done() for task in mine)
    results = await asyncio.gather(*mine)
    assert sorted(result.version for result in results) == list(range(2, 22))


async def test_appends_to_many_locked_conversations_wait_in_turn(store: EventStore) -> None:
    conversations = [uuid4() for _ in range(8)]
    holder = await store.connect()
    async with holder, holder.transaction():
        for conversation in conversations:
            await append_raw_async(holder, "theirs", conversation=conversation)
        mine = [asyncio.create_task(store.append(conversation, [note()])) for conversation in conversations]
        await until_an_append_waits_for_a_lock(store, appends=2)
        await store.append(uuid4(), [note()])
    results = await asyncio.gather(*mine)
    assert [result.version for result in results] == [2] * 8


async def test_an_append_that_is_cancelled_in_the_queue_writes_nothing(store: EventStore) -> None:
    locked = uuid4()
    holder = await store.connect()
    event = NewEvent(note("cancelled"))
    async with holder, holder.transaction():
        await append_raw_async(holder, "theirs", conversation=locked)
        in_flight = asyncio.create_task(store.append(locked, [note("mine")]))
        await until_an_append_waits_for_a_lock(store)
        waiting = asyncio.create_task(store.append(locked, [event]))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await in_flight
    assert [event.content async for event in store.read(locked)] == ["theirs", "mine"]
    assert (await store.append(locked, [event])).events[0].is_new


async def test_an_append_that_is_cancelled_in_flight_is_stored_as_a_whole_or_not_at_all(store: EventStore) -> None:
    for _ in range(40):
        conversation, events = uuid4(), [NewEvent(note(n)) for n in range(3)]
        task = asyncio.create_task(store.append(conversation, events))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        again = await store.append(conversation, events)
        assert len({one.is_new for one in again.events}) == 1  # the caller learns which
        assert [event.id async for event in store.read(conversation)] == [event.id for event in events]


async def test_pending_events_are_bounded(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "MAX_PENDING_EVENTS", 80)
    locked = uuid4()
    holder = await store.connect()
    async with holder, holder.transaction():
        await append_raw_async(holder, "theirs", conversation=locked)
        made = 0

        class Counted(MessageAdded):
            def to_content(self) -> Any:
                nonlocal made
                made += 1
                return super().to_content()

        mine = [asyncio.create_task(store.append(locked, [Counted(role="user", content="x")])) for _ in range(50)]
        await until_an_append_waits_for_a_lock(store)
        assert made == 80 * backpressure.MAX_CONVERSATION_FRACTION  # the others wait and are not encoded
        await asyncio.gather(*(store.append(uuid4(), [note()]) for _ in range(200)))
        for task in mine[::2]:
            task.cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*mine, return_exceptions=True)
    assert sum(isinstance(result, AppendResult) for result in results) == 25
    versions = [event.version async for event in store.read(locked)]
    assert versions == list(range(1, len(versions) + 1))
    assert len(versions) >= 26


async def test_pending_bytes_are_bounded(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "MAX_PENDING_BYTES", 10_000)
    results = await asyncio.gather(
        *(store.append(uuid4(), [MessageAdded(role="user", content="x" * 9_000)]) for _ in range(40))
    )
    assert len(results) == 40


@pytest.fixture
def cut(superuser_url: str) -> Callable[[], int]:
    """Return a function that ends the connections of the store and returns their number."""

    def cut() -> int:
        with psycopg.connect(superuser_url, autocommit=True) as connection:
            ended = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'eventstore'"
            ).fetchone()
            assert ended is not None
            return int(ended[0])

    return cut


async def test_an_idle_connection_that_was_lost_is_replaced(store: EventStore, cut: Callable[[], int]) -> None:
    conversation = uuid4()
    for version in range(1, 6):
        assert (await store.append(conversation, [note()])).version == version
        assert await asyncio.to_thread(cut) >= 1


async def test_appends_in_flight_on_a_lost_connection_are_stored_once(
    store: EventStore, cut: Callable[[], int]
) -> None:
    conversations = [uuid4() for _ in range(30)]
    for _ in range(5):
        tasks = [asyncio.create_task(store.append(conversation, [note()])) for conversation in conversations]
        await asyncio.to_thread(cut)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, AppendResult | ConnectionLost) for result in results), results
    for conversation in conversations:
        versions = [event.version async for event in store.read(conversation)]
        assert versions == list(range(1, len(versions) + 1))


async def test_closing_waits_for_appends_in_flight_and_refuses_the_others(store: EventStore) -> None:
    locked = uuid4()
    holder = await store.connect()
    async with holder:
        async with holder.transaction():
            await append_raw_async(holder, "theirs", conversation=locked)
            in_flight = asyncio.create_task(store.append(locked, [note("mine")]))
            await until_an_append_waits_for_a_lock(store)
            waiting = asyncio.create_task(store.append(locked, [note("too late")]))
            await asyncio.sleep(0)
            closing = asyncio.create_task(store.close())
            with pytest.raises(StoreClosed):
                await waiting
        await closing
    assert (await in_flight).version == 2
    with pytest.raises(StoreClosed):
        await store.append(locked, [note()])
