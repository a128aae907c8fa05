"""After a fork, using the store in the child raises an error at once, and the parent continues."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
from collections.abc import Callable
from uuid import UUID, uuid4

import psycopg
import pytest
from support.follow import PATIENCE
from support.raw import note

from eventstore import EventStore, Settings, SyncEventStore
from eventstore.errors import StoreClosed

FORK = multiprocessing.get_context("fork")


def forked(child: Callable[[], None]) -> int:
    """Run something in a child process; returns its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def numbers(store: EventStore, conversation: UUID) -> list[object]:
    return [event.content async for event in store.read(conversation)]


async def test_a_child_is_refused_and_the_parent_goes_on(store: EventStore) -> None:
    conversation = uuid4()
    await asyncio.gather(*(store.append(uuid4(), [note()]) for _ in range(100)))
    await store.append(conversation, [note(1)])
    assert await numbers(store, conversation) == [1]

    async def use() -> None:
        with pytest.raises(StoreClosed, match="opened by the parent"):
            await store.append(conversation, [note("child")])
        with pytest.raises(StoreClosed, match="opened by the parent"):
            await numbers(store, conversation)
        with pytest.raises(StoreClosed, match="opened by the parent"):
            await anext(store.subscribe())
        await store.close()

    def child() -> None:
        coroutine = use()  # it waits for nothing, so it needs no loop
        with pytest.raises(StopIteration):
            coroutine.send(None)

    following = store.subscribe()
    assert (await anext(following)).version == 1
    assert forked(child) == 0
    for number in range(2, 20):
        await store.append(conversation, [note(number)])
    assert await numbers(store, conversation) == [*range(1, 20)]
    async for event in following:
        if event.content == 19:
            break


async def test_a_child_that_exits_leaves_the_connections_of_its_parent_open(store: EventStore) -> None:
    conversation = uuid4()
    await store.append(conversation, [note(1)])
    assert await numbers(store, conversation) == [1]
    sessions = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE datname = current_database()"
    before = await store.pool.fetch(sessions)

    def child() -> None:
        """Tell the server, on every inherited connection, that it ends: the worst that a child can do."""
        inherited = [each for each in gc.get_objects() if isinstance(each, psycopg.AsyncConnection)]
        assert len(inherited) >= 2  # those of appends and of reads
        for connection in inherited:
            connection.pgconn.finish()

    process = FORK.Process(target=child)
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == 0
    await store.append(conversation, [note(2)])
    assert await numbers(store, conversation) == [1, 2]
    assert await store.pool.fetch(sessions) == before, "the connections are the same"


async def test_a_child_may_open_the_store_again(store: EventStore) -> None:
    conversation = uuid4()
    await store.append(conversation, [note("parent")])

    def child() -> None:
        async def use() -> None:
            await store.open()
            await store.append(conversation, [note("child")])
            await store.close()
            with pytest.raises(StoreClosed, match="use it only within"):
                await store.append(conversation, [note("closed")])

        asyncio.run(use())

    process = FORK.Process(target=child)
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == 0
    await store.append(conversation, [note("parent again")])
    assert await numbers(store, conversation) == ["parent", "child", "parent again"]


def test_a_synchronous_store_refuses_use_in_a_child(settings: Settings) -> None:
    conversation = uuid4()
    with SyncEventStore(settings) as store:
        store.append(conversation, [note(1)])
        events = store.subscribe()
        assert next(events).content == 1

        def child() -> None:
            for use in (
                lambda: store.append(conversation, [note("child")]),
                lambda: list(store.read(conversation)),
                lambda: next(events),
            ):
                with pytest.raises(StoreClosed, match="opened by the parent"):
                    use()
            store.close()
            with store as own:
                own.append(conversation, [note(2)])

        process = FORK.Process(target=child)
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == 0
        store.append(conversation, [note(3)])
        assert [next(events).content for _ in range(2)] == [2, 3]
        assert [event.content for event in store.read(conversation)] == [1, 2, 3]
