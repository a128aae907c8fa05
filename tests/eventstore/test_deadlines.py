"""Every append ends in time, with an error that tells whether it may be stored, and appends keep their order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.blackhole import black_hole
from support.follow import PATIENCE
from support.raw import append_raw, append_raw_async, note
from support.scoped_queries import open_scoped
from support.waiting import until, until_async

import eventstore.batching
from eventstore import Append, EventStore, NewEvent, Settings, SyncEventStore
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.errors import ConnectionLost, ConversationLocked, Forbidden, ServerUnreachable, StoreClosed

SECONDS = 6.0
"""The deadline of an append in these tests."""
MARGIN = 10.0
"""Allowed beyond the deadline on a busy machine; without one, a silent server is noticed after 25 seconds."""


@asynccontextmanager
async def ends_within(seconds: float) -> AsyncIterator[None]:
    async with asyncio.timeout(seconds):
        yield


async def sent(condition: Any, what: str) -> None:
    async def look() -> bool:
        return bool(condition())

    await until_async(look, what)


@pytest.mark.slow
@pytest.mark.usefixtures("clean_environment")
async def test_every_append_ends_in_time_if_the_server_is_silent(database_url: str) -> None:
    async with black_hole(database_url) as hole:
        settings = Settings(database_url=hole.url, connect_timeout=2, append_seconds=SECONDS)
        store = EventStore(settings)
        await store.open()
        await store.append(uuid4(), [note()])
        hole.silence()
        conversation, events, unsent = uuid4(), [NewEvent(note(n)) for n in range(5)], NewEvent(note("unsent"))
        before = hole.swallowed
        async with ends_within(SECONDS + MARGIN):
            many = asyncio.create_task(store.append(conversation, events))
            await sent(lambda: hole.swallowed > before, "the append was sent")
            behind = asyncio.create_task(store.append(conversation, [unsent]))
            lost, not_sent = await asyncio.gather(many, behind, return_exceptions=True)
        assert isinstance(lost, ConnectionLost)
        assert lost.event_ids == tuple(event.id for event in events)
        assert str(events[0].id) in str(lost)
        assert "2 more" in str(lost)
        assert isinstance(not_sent, ServerUnreachable)
        assert "was not sent" in str(not_sent) or "no connection" in str(not_sent)

        # When the server is back, the store continues by itself.
        hole.is_silent = False
        async with ends_within(SECONDS + MARGIN):
            await store.append(conversation, events)
        hole.silence()
        before = hole.swallowed
        async with ends_within(SECONDS + MARGIN):
            cancelled = asyncio.create_task(store.append(conversation, [unsent]))
            await sent(lambda: hole.swallowed > before, "the append was sent")
            cancelled.cancel()
            with pytest.raises((ConnectionLost, ServerUnreachable)):
                await store.append(conversation, [unsent])

        hole.is_silent = False
        async with ends_within(SECONDS + MARGIN):
            await store.append(conversation, [unsent])
        assert [event.id async for event in store.read(conversation)] == [one.id for one in (*events, unsent)]
        hole.silence()
        before = hole.swallowed
        hanging = asyncio.create_task(store.append(conversation, [events[1]]))
        await sent(lambda: hole.swallowed > before, "the append was sent")
        async with ends_within(MARGIN):
            await store.close()
        with pytest.raises(ConnectionLost) as closed:
            await hanging
        assert closed.value.event_ids == (events[1].id,)


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.slow
async def test_an_append_is_sent_again_if_its_server_is_silent_and_another_answers(database_url: str) -> None:
    async with black_hole(database_url) as hole:
        settings = Settings(database_url=hole.url, connect_timeout=2, append_seconds=SECONDS)
        async with EventStore(settings) as store:
            # Several connections, of which all but one are idle when the server becomes silent.
            await asyncio.gather(*(store.append(uuid4(), [note()]) for _ in range(100)))
            hole.silence()
            hole.is_silent = False
            conversation, event = uuid4(), NewEvent(note())
            async with ends_within(SECONDS + MARGIN):
                result = await store.append(conversation, [event])
            assert result.version == 1
            assert [found.id async for found in store.read(conversation)] == [event.id]


async def holder_of(store: EventStore, conversation: UUID, name: str) -> psycopg.AsyncConnection[Any]:
    """Return a connection with an open transaction that has appended to a conversation."""
    holder = await store.connect()
    await holder.execute(f"SET application_name = '{name}'")
    await holder.execute("BEGIN")
    await append_raw_async(holder, "theirs", conversation=conversation)
    return holder


async def test_an_append_to_a_locked_conversation_ends_with_an_error_that_names_the_holder(settings: Settings) -> None:
    hasty = settings.model_copy(update={"append_seconds": 2.0})
    async with EventStore(hasty) as store:
        locked, began = uuid4(), datetime.now(UTC)
        async with await holder_of(store, locked, "forgotten") as holder:
            tasks = [
                asyncio.create_task(store.append(locked, [note("first")])),
                asyncio.create_task(store.append_all([Append(uuid4(), [note()]), Append(locked, [note("second")])])),
                *(asyncio.create_task(store.append(locked, [note(n)])) for n in range(50)),
            ]
            async with ends_within(4):
                errors = await asyncio.gather(*tasks, return_exceptions=True)
            for error in errors:
                assert isinstance(error, ConversationLocked), error
                assert error.conversation_id == locked
            first = errors[0]
            assert isinstance(first, ConversationLocked)
            [named] = first.holders
            assert (named.pid, named.application) == (holder.info.backend_pid, "forgotten")
            assert named.state == "idle in transaction"
            assert named.since is not None
            assert began <= named.since <= datetime.now(UTC)
            for word in (f"process {named.pid}", "'forgotten'", "idle in transaction", "nothing was written"):
                assert word in str(first)
            await store.append(uuid4(), [note()])
            await holder.execute("COMMIT")
        await store.append(locked, [note("after")])
        assert [event.content async for event in store.read(locked)] == ["theirs", "after"]


async def test_an_append_that_was_set_aside_stays_ahead_of_later_ones(store: EventStore) -> None:
    locked, stop = uuid4(), asyncio.Event()
    numbers: list[asyncio.Task[Any]] = []

    async def traffic() -> None:
        """Keeps every connection busy, and the locked conversation full of later appends."""
        while not stop.is_set():
            numbers.append(asyncio.create_task(store.append(locked, [note(len(numbers))])))
            await asyncio.gather(*(store.append(uuid4(), [note()]) for _ in range(20)))

    async with await holder_of(store, locked, "busy") as holder:
        numbers.append(asyncio.create_task(store.append(locked, [note(0)])))

        async def waits() -> bool:
            return bool(
                await store.log(store.caller()).fetch(
                    "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                )
            )

        await until_async(waits, "the append waits for the lock")
        steady = asyncio.create_task(traffic())
        await sent(lambda: len(numbers) > 20, "later appends wait, too")
        await holder.execute("COMMIT")
        async with ends_within(PATIENCE):
            await numbers[0]
        stop.set()
        await steady
    await asyncio.gather(*numbers)
    found = [event.content async for event in store.read(locked)]
    assert found == ["theirs", *range(len(numbers))]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.slow
async def test_appends_keep_their_order_whatever_other_transactions_lock(
    store: EventStore, database_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    conversations = [uuid4() for _ in range(4)]
    stop = threading.Event()

    def disturb() -> None:
        """Holds conversations for a moment, one after another, as another process would."""
        mine = random.Random(seed)
        with open_scoped(database_url) as connection:
            while not stop.is_set():
                with connection.transaction(force_rollback=True):
                    append_raw(connection, "theirs", conversation=mine.choice(conversations))
                    stop.wait(mine.uniform(0, 0.05))

    others = [threading.Thread(target=disturb) for _ in range(2)]
    for other in others:
        other.start()
    made: dict[UUID, list[int]] = {conversation: [] for conversation in conversations}
    tasks: list[asyncio.Task[Any]] = []
    try:
        for number in range(300):
            chosen = chance.sample(conversations, chance.choice([1, 1, 1, 2, 3]))
            appends = [Append(conversation, [note(number)]) for conversation in chosen]
            task = asyncio.create_task(store.append_all(appends))
            if chance.random() < 0.1:
                task.cancel()
            else:
                tasks.append(task)
                for conversation in chosen:
                    made[conversation].append(number)
            if chance.random() < 0.3:
                await asyncio.sleep(chance.uniform(0, 0.01))
        async with ends_within(PATIENCE):
            await asyncio.gather(*tasks)
    finally:
        stop.set()
        for other in others:
            other.join()
    for conversation in conversations:
        assert [event.content async for event in store.read(conversation)] == made[conversation]


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.slow
async def test_an_append_in_flight_to_a_server_that_died_may_be_stored(
    own_server: EmbeddedServer, closes: bool
) -> None:
    settings = Settings(database_url=own_server.url(), connect_timeout=2)
    Migrator(own_server.url(), settings).up()
    locked, event, other = uuid4(), NewEvent(note("sent")), NewEvent(note("not sent"))
    store = EventStore(settings)
    await store.open()
    with psycopg.connect(own_server.superuser_url, autocommit=True) as onlooker:
        holder = await holder_of(store, locked, "holder")
        sent_one = asyncio.create_task(store.append(locked, [event]))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await sent(lambda: onlooker.execute(waits).fetchone() == (1,), "the append waits for the lock")
        queued = asyncio.create_task(store.append(locked, [other]))
        await asyncio.sleep(0)
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGKILL)
        if closes:
            await sent(lambda: holder.closed or holder.pgconn.socket < 0 or not alive(own_server), "the server is dead")
            await store.close()
        with pytest.raises(ConnectionLost) as lost:
            await sent_one
        assert lost.value.event_ids == (event.id,)
        with pytest.raises(StoreClosed if closes else ServerUnreachable):
            await queued
        await store.close()
        await holder.close()


@pytest.mark.usefixtures("clean_environment")
async def test_an_append_may_be_stored_although_its_user_has_lost_access(own_server: EmbeddedServer) -> None:
    settings = Settings(database_url=own_server.url())
    await asyncio.to_thread(Migrator(own_server.url(), settings).up)
    conversation, event = uuid4(), NewEvent(note())
    async with EventStore(settings) as store:
        await store.append(conversation, [note()], user="ana")
        with psycopg.connect(own_server.superuser_url, autocommit=True) as superuser:
            superuser.execute("SET synchronous_commit = local")
            superuser.execute("ALTER SYSTEM SET synchronous_standby_names = 'away'")
            superuser.execute("SELECT pg_reload_conf()")

            def waiting() -> tuple[int] | None:
                query = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%append_one%'"
                return superuser.execute(query).fetchone()

            def knows_the_standby() -> bool:
                # A session reads the configuration between two statements, and new ones begin with it.
                with psycopg.connect(own_server.superuser_url) as fresh:
                    return fresh.execute("SHOW synchronous_standby_names").fetchone() == ("away",)

            await sent(knows_the_standby, "the server requires a standby")
            task = asyncio.create_task(store.append(conversation, [event], user="ana"))
            await sent(waiting, "the append waits for the standby")
            superuser.execute("DELETE FROM conversation_members")
            superuser.execute("SELECT pg_terminate_backend(%s)", waiting())
            with pytest.raises(ConnectionLost) as lost:
                await task
            assert lost.value.event_ids == (event.id,)
            assert isinstance(lost.value.__cause__, Forbidden)
            with pytest.raises(Forbidden):
                await store.append(conversation, [event], user="ana")
        assert event.id in [found.id async for found in store.read(conversation)]


def alive(server: EmbeddedServer) -> bool:
    try:
        psycopg.connect(server.url()).close()
    except psycopg.OperationalError:
        return False
    return True


def test_closing_a_synchronous_store_reports_appends_that_may_be_stored(
    settings: Settings, superuser_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstore.batching, "CLOSE_SECONDS", 0.5)
    event, outcome = NewEvent(note()), []

    def append() -> None:
        try:
            store.append(uuid4(), [event])
        except Exception as error:
            outcome.append(error)

    with (
        psycopg.connect(superuser_url, autocommit=True) as holder,
        psycopg.connect(superuser_url, autocommit=True) as onlooker,
        SyncEventStore(settings) as store,
        holder.transaction(),
    ):
        holder.execute("LOCK TABLE events")
        thread = threading.Thread(target=append)
        thread.start()
        waits = "SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted"
        until(lambda: onlooker.execute(waits).fetchone() == (1,), "the append waits for the table")
        store.close()
        thread.join(PATIENCE)
    [error] = outcome
    assert isinstance(error, ConnectionLost)
    assert error.event_ids == (event.id,)
