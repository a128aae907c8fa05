"""Synchronous code uses the store from any thread, with or without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from support.follow import PATIENCE
from support.raw import note

from eventstore import NO_STREAM, Append, ConversationCreated, Settings, SyncEventStore, conversation_uuid
from eventstore.errors import (
    EventStoreError,
    InputError,
    InvalidEvent,
    SchemaMissing,
    StoreClosed,
    WrongExpectedVersion,
)
from eventstore.sync import Portal

pytestmark = pytest.mark.shared_database


@pytest.fixture
def sync_store(settings: Settings) -> Iterator[SyncEventStore]:
    """An open store."""
    with SyncEventStore(settings) as store:
        yield store


def numbers(events: Any) -> list[Any]:
    return [event.content for event in events]


def assert_ended(threads: set[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_synchronous_store_appends_and_reads(sync_store: SyncEventStore) -> None:
    conversation = uuid4()
    assert sync_store.append(conversation, [note(1), note(2)], expected=NO_STREAM).version == 2
    sync_store.append_all([Append(conversation, [note(3)]), Append(uuid4(), [note(4)])], actor="ana")
    assert numbers(sync_store.read(conversation)) == [1, 2, 3]
    assert numbers(sync_store.read(conversation, backwards=True, limit=1)) == [3]
    assert numbers(sync_store.read_log(actor="ana")) == [3, 4]


def test_a_synchronous_append_begins_a_new_conversation(sync_store: SyncEventStore) -> None:
    begin = ConversationCreated(name="Trip")
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: sync_store.append("trip", [note(n)], begin=begin), range(16)))
    first, *others = sync_store.read(conversation_uuid(sync_store.asynchronous.tenant, "trip"))
    assert first.content == {"name": "Trip", "given_id": "trip"}
    assert sorted(numbers(others)) == list(range(16))


def test_errors_are_those_of_the_asynchronous_store(sync_store: SyncEventStore) -> None:
    conversation = uuid4()
    sync_store.append(conversation, [note()])
    with pytest.raises(WrongExpectedVersion):
        sync_store.append(conversation, [note()], expected=NO_STREAM)
    with pytest.raises(InvalidEvent):
        sync_store.append(conversation, [note("\0")])
    with pytest.raises(InputError):
        numbers(sync_store.read_log(after=-1))


def test_a_store_that_cannot_be_opened_leaves_no_thread(clean_environment: None, empty_database_url: str) -> None:
    before = set(threading.enumerate())
    with pytest.raises(SchemaMissing), SyncEventStore(Settings(database_url=empty_database_url)):
        pass
    assert_ended(set(threading.enumerate()) - before)


def test_closing_ends_the_private_thread(settings: Settings) -> None:
    before = set(threading.enumerate())
    with SyncEventStore(settings) as store:
        store.append(uuid4(), [note()])
        began = set(threading.enumerate()) - before
        assert began
    assert_ended(began)


def test_many_threads_use_one_store(sync_store: SyncEventStore) -> None:
    conversation = uuid4()

    def work(n: int) -> int:
        version = sync_store.append(conversation, [note(n)]).version
        assert n in numbers(sync_store.read(conversation))
        return version

    with ThreadPoolExecutor(16) as pool:
        versions = list(pool.map(work, range(100)))
    assert sorted(versions) == list(range(1, 101))
    assert sorted(numbers(sync_store.read_log())) == list(range(100))


def test_threads_with_event_loops_of_their_own_use_one_store(sync_store: SyncEventStore) -> None:
    async def handle(n: int) -> None:
        sync_store.append(uuid4(), [note(n)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: asyncio.run(handle(n)), range(24)))
    assert sorted(numbers(sync_store.read_log())) == list(range(24))


async def test_a_synchronous_store_works_in_the_thread_of_a_running_loop(sync_store: SyncEventStore) -> None:
    conversation = uuid4()
    sync_store.append(conversation, [note(1)])
    assert numbers(sync_store.read(conversation)) == [1]


def test_long_reads_are_complete_and_in_order(sync_store: SyncEventStore) -> None:
    sync_store.append(uuid4(), [note(n) for n in range(2500)])
    assert numbers(sync_store.read_log()) == list(range(2500))


def test_an_iteration_may_end_early(sync_store: SyncEventStore) -> None:
    sync_store.append(uuid4(), [note(n) for n in range(1000)])
    for make in (sync_store.read_log, sync_store.subscribe):
        for _ in range(10):
            for event in make():
                if event.content == 5:
                    break
    half = sync_store.read_log()
    next(half)
    half.close()  # type: ignore[attr-defined]
    never_begun = sync_store.read_log()
    del never_begun
    assert len(numbers(sync_store.read_log())) == 1000


def test_the_store_may_be_closed_with_an_iterator_half_read(settings: Settings) -> None:
    with SyncEventStore(settings) as store:
        store.append(uuid4(), [note(n) for n in range(1000)])
        events = store.subscribe()
        assert next(events).content == 0
    events.close()  # type: ignore[attr-defined]


def test_a_synchronous_subscription_waits_and_is_notified(sync_store: SyncEventStore) -> None:
    found: list[Any] = []

    def follow() -> None:
        for event in sync_store.subscribe():
            found.append(event.content)
            if event.content == "end":
                return

    thread = threading.Thread(target=follow)
    thread.start()
    for n in range(5):
        sync_store.append(uuid4(), [note(n)])
    sync_store.append(uuid4(), [note("end")])
    thread.join(PATIENCE)
    assert found == [*range(5), "end"]


def test_closing_ends_the_loops_of_other_threads(settings: Settings) -> None:
    started = threading.Event()
    outcome: list[BaseException | None] = []

    def follow(store: SyncEventStore) -> None:
        try:
            for _ in store.subscribe():
                started.set()
        except BaseException as error:
            outcome.append(error)
        else:
            outcome.append(None)

    with SyncEventStore(settings) as store:
        store.append(uuid4(), [note()])
        thread = threading.Thread(target=follow, args=(store,), daemon=True)
        thread.start()
        assert started.wait(PATIENCE)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert isinstance(outcome[0], EventStoreError)


def test_a_closed_synchronous_store_raises_an_error(settings: Settings) -> None:
    with SyncEventStore(settings) as store:
        store.append(uuid4(), [note()])
    with pytest.raises(EventStoreError, match=r"not open|is closed"):
        store.append(uuid4(), [note()])
    with pytest.raises(EventStoreError, match=r"not open|is closed"):
        numbers(store.read_log())


def test_a_portal_refuses_calls_from_its_own_loop_and_after_it_was_closed() -> None:
    portal = Portal()

    async def calls_again() -> None:
        with pytest.raises(InputError, match="own loop"):
            portal.call(asyncio.sleep(0))

    portal.call(calls_again())
    portal.close()
    with pytest.raises(StoreClosed):
        portal.call(calls_again())
