"""The order of the log can be trusted: a reader sees every event once, in order, whatever writers do meanwhile."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.environment import TREE, child_environment
from support.follow import Follower
from support.raw import append_raw_async, note
from support.scoped_queries import open_as_login, open_scoped_async
from support.servers import DatabaseServer

from eventstore import EventStore, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator

Connection = psycopg.AsyncConnection[Any]

PROCESSES, WRITERS, APPENDS = 4, 16, 70
GROWTH = 20
"""Events, from one cut to the next."""


@pytest.fixture
async def one(store: EventStore) -> AsyncIterator[Connection]:
    """A connection with the store's schema, and one that may be left inside a transaction."""
    async with await open_as_login(store) as connection:
        yield connection


@pytest.fixture
async def other(store: EventStore) -> AsyncIterator[Connection]:
    """Another one."""
    async with await open_as_login(store) as connection:
        yield connection


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Connection]:
    """A connection of the owner of the sequence."""
    async with await open_scoped_async(database_url) as connection:
        yield connection


async def value(connection: Connection, query: str, *parameters: Any) -> Any:
    row = await (await connection.execute(query.encode(), parameters)).fetchone()
    assert row is not None
    return row[0]


async def horizon(connection: Connection) -> int:
    return int(await value(connection, "SELECT log_horizon()"))


async def without_the_gate(connection: Connection, after: int) -> list[tuple[int, Any]]:
    """Return what a reader sees that reads by position alone."""
    cursor = await connection.execute(
        "SELECT position, content FROM events WHERE position > %s ORDER BY position", (after,)
    )
    return [(position, content) for position, content in await cursor.fetchall()]


async def test_a_reader_without_the_gate_misses_an_event_and_one_with_it_does_not(
    store: EventStore, one: Connection, owner: Connection
) -> None:
    gateless: list[tuple[int, Any]] = []
    gated: list[Any] = []
    await one.execute("BEGIN")
    await append_raw_async(one, "slow")
    await store.append(uuid4(), [note("quick")])

    gateless += await without_the_gate(owner, 0)
    gated += [event.content async for event in store.read_log(after=0)]
    assert [content for _, content in gateless] == ["quick"]
    assert gated == []

    await one.execute("COMMIT")
    gateless += await without_the_gate(owner, gateless[-1][0])
    gated += [event.content async for event in store.read_log(after=0)]
    assert [content for _, content in gateless] == ["quick"]  # for ever
    assert gated == ["slow", "quick"]


async def test_the_horizon_of_a_fresh_log_is_below_the_first_position(one: Connection, other: Connection) -> None:
    assert await value(one, "SELECT last_position()") == 0
    assert await horizon(one) == 0
    await one.execute("BEGIN")
    assert await append_raw_async(one, "first") == [1]
    assert await horizon(other) == 0
    await one.execute("COMMIT")
    assert await horizon(other) == 1


async def test_the_sequence_has_a_cache_of_one(one: Connection) -> None:
    cache = await value(one, "SELECT seqcache FROM pg_sequence WHERE seqrelid = 'events_position'::regclass")
    assert cache == 1


async def test_the_horizon_stays_below_every_append_in_flight(
    store: EventStore, one: Connection, other: Connection
) -> None:
    await store.append(uuid4(), [note(), note()])
    await one.execute("BEGIN")
    await append_raw_async(one, "a")
    await store.append(uuid4(), [note()])
    await other.execute("BEGIN")
    await append_raw_async(other, "b")
    async with await open_as_login(store) as reader:
        assert await horizon(reader) == 2
        await one.execute("COMMIT")
        assert await horizon(reader) == 4
        await other.execute("ROLLBACK")
        assert await horizon(reader) == 5


async def conversation_of(connection: Connection, partition: int) -> UUID:
    """Return the id of a new conversation of a partition."""
    while await value(connection, "SELECT partition_of(%s)", conversation := uuid4()) != partition:
        pass
    return conversation


async def test_an_append_in_flight_holds_only_the_horizon_of_its_partitions(
    store: EventStore, one: Connection, other: Connection
) -> None:
    conversations = [await conversation_of(other, partition) for partition in range(16)]
    await store.append(conversations[0], [note()])

    async def horizons() -> dict[int, int]:
        found = [await value(other, "SELECT log_horizon(%s::smallint[])", [partition]) for partition in range(16)]
        return dict(enumerate(found))

    await one.execute("BEGIN")
    await append_raw_async(one, "first", conversation=conversations[3])
    await one.execute("SAVEPOINT s")
    await append_raw_async(one, "rolled back", conversation=conversations[5])
    assert await horizons() == dict.fromkeys(range(16), 3) | {3: 1, 5: 1}
    await one.execute("ROLLBACK TO SAVEPOINT s")
    assert await horizons() == dict.fromkeys(range(16), 3) | {3: 1}
    await append_raw_async(one, "second", conversation=conversations[7])
    assert await horizons() == dict.fromkeys(range(16), 4) | {3: 1, 7: 1}
    assert await value(other, "SELECT log_horizon('{2,4}')") == 4
    assert await value(other, "SELECT log_horizon('{2,3}')") == await horizon(other) == 1
    await one.execute("COMMIT")
    assert await horizons() == dict.fromkeys(range(16), 4)


async def test_a_gate_lock_without_a_lock_of_a_conversation_counts_for_all_partitions(
    store: EventStore, one: Connection, other: Connection
) -> None:
    await store.append(uuid4(), [note(), note()])
    await one.execute("BEGIN")
    await one.execute(
        "SELECT pg_advisory_xact_lock_shared('events_position'::regclass::oid::bigint::bit(32)::integer, 1)"
    )
    assert await value(other, "SELECT log_horizon('{4}')") == 1


async def test_rolling_back_to_a_savepoint_does_not_open_the_gate_for_later_appends(
    store: EventStore, one: Connection, other: Connection
) -> None:
    await one.execute("BEGIN")
    await one.execute("SAVEPOINT s")
    await append_raw_async(one, "rolled back")
    await one.execute("ROLLBACK TO SAVEPOINT s")
    await store.append(uuid4(), [note("between")])
    await append_raw_async(one, "kept")
    await store.append(uuid4(), [note("after")])
    assert [event.content async for event in store.read_log()] == ["between"]
    await one.execute("SAVEPOINT t")
    await append_raw_async(one, "rolled back")
    await one.execute("ROLLBACK TO SAVEPOINT t")
    await store.append(uuid4(), [note("last")])
    assert [event.content async for event in store.read_log()] == ["between"]
    await one.execute("COMMIT")
    assert [event.content async for event in store.read_log()] == ["between", "kept", "after", "last"]


async def test_an_error_that_the_caller_catches_does_not_open_the_gate(store: EventStore, one: Connection) -> None:
    await one.execute("BEGIN")
    await append_raw_async(one, "kept")
    await one.execute("""
        DO $$
        BEGIN
            PERFORM append_events(ARRAY['default'], ARRAY[gen_random_uuid()], ARRAY[5], ARRAY[1],
                                  ARRAY[gen_random_uuid()], ARRAY['noted'], ARRAY[1::smallint], ARRAY[''],
                                  ARRAY['1'::jsonb], ARRAY['{}'::jsonb]);
        EXCEPTION WHEN OTHERS THEN NULL;
        END $$
    """)
    await store.append(uuid4(), [note("other")])
    assert [event.content async for event in store.read_log()] == []
    await one.execute("COMMIT")
    assert [event.content async for event in store.read_log()] == ["kept", "other"]


STRANGERS = {
    "a one-integer key": "SELECT pg_advisory_lock(1)",
    "a one-integer key, shared": "SELECT pg_advisory_lock_shared(0)",
    "a negative key": "SELECT pg_advisory_lock(-1)",
    "the same 64 bits as one key": "SELECT pg_advisory_lock(('events_position'::regclass::oid::bigint << 32) | 1)",
    "two integers of another class": "SELECT pg_advisory_lock(1, 1)",
    "the lock of the migrations": "SELECT pg_advisory_lock_shared('eventstore_migrations'::regclass::oid::integer, 0)",
    "the table itself": "LOCK TABLE events IN SHARE UPDATE EXCLUSIVE MODE",
}


@pytest.mark.parametrize("stranger", STRANGERS)
async def test_locks_of_other_applications_do_not_freeze_the_horizon(
    store: EventStore, owner: Connection, stranger: str
) -> None:
    await owner.execute("BEGIN")
    await owner.execute(STRANGERS[stranger].encode())
    await store.append(uuid4(), [note(1), note(2)])
    assert [event.content async for event in store.read_log()] == [1, 2]


async def test_a_lock_on_the_same_key_in_another_database_does_not_freeze_the_horizon(
    store: EventStore, server: DatabaseServer, owner: Connection
) -> None:
    key = await value(owner, "SELECT 'events_position'::regclass::oid::bigint")
    name = server.create_database(migrated=False)
    try:
        async with await psycopg.AsyncConnection.connect(server.url(name), autocommit=True) as elsewhere:
            await elsewhere.execute("SELECT pg_advisory_lock_shared(%s::bigint::bit(32)::integer, 0)", (key,))
            await store.append(uuid4(), [note(1)])
            assert [event.content async for event in store.read_log()] == [1]
    finally:
        server.drop_database(name)


async def test_a_write_transaction_in_another_database_does_not_freeze_the_horizon(
    store: EventStore, server: DatabaseServer
) -> None:
    name = server.create_database(migrated=False)
    try:
        async with await psycopg.AsyncConnection.connect(server.url(name)) as elsewhere:
            await elsewhere.execute("CREATE TABLE theirs (id integer)")
            await elsewhere.execute("INSERT INTO theirs VALUES (1)")
            await store.append(uuid4(), [note(1)])
            assert [event.content async for event in store.read_log()] == [1]
    finally:
        server.drop_database(name)


async def test_a_gate_lock_above_the_last_value_that_was_read_is_decoded(one: Connection, other: Connection) -> None:
    for n in range(5):
        await append_raw_async(one, n)
    await one.execute("BEGIN")
    await append_raw_async(one, "in flight")
    # A reader that read last_value before these appends, and the locks after them.
    assert await value(other, "SELECT lowest_append_in_flight(2)") == 5
    assert await value(other, "SELECT least(2, lowest_append_in_flight(2))") == 2


BOUNDARIES = [0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**32 + 1, 2**33 + 5, 2**62, 2**63 - 1]


@pytest.mark.parametrize("position", BOUNDARIES)
async def test_the_low_half_of_a_position_is_a_signed_integer(one: Connection, position: int) -> None:
    low = await value(one, "SELECT low_32_bits(%s::bigint)", position)
    assert -(2**31) <= low < 2**31
    assert low % 2**32 == position % 2**32


@pytest.mark.parametrize("start", [2**31 - 3, 2**31, 2**32 - 3, 2**32, 3 * 2**32 - 2, 2**62])
async def test_the_order_holds_if_positions_exceed_the_range_of_lock_keys(
    store: EventStore, one: Connection, owner: Connection, start: int
) -> None:
    await owner.execute("SELECT setval('events_position', %s)", (start,))
    await one.execute("BEGIN")
    assert await append_raw_async(one, "slow") == [start + 1]
    for n in range(8):
        await store.append(uuid4(), [note(n)])
        assert await horizon(owner) == start
    assert [event.content async for event in store.read_log()] == []
    await one.execute("COMMIT")
    assert await horizon(owner) == start + 9
    assert [event.content async for event in store.read_log()] == ["slow", *range(8)]
    assert [event.content async for event in store.read_log(after=start + 1)] == list(range(8))


async def test_a_horizon_that_decreases_repeats_no_event(store: EventStore, one: Connection) -> None:
    async with Follower(store.subscribe()) as follower:
        await store.append(uuid4(), [note(n) for n in range(5)])
        assert await follower.contents(5) == list(range(5))
        # As an append would that read last_value long ago and takes its lock only now.
        await one.execute("BEGIN")
        await one.execute(
            "SELECT pg_advisory_xact_lock_shared('events_position'::regclass::oid::bigint::bit(32)::integer, 2)"
        )
        assert await horizon(one) == 2
        await store.append(uuid4(), [note(5)])
        await one.execute("ROLLBACK")
        await store.append(uuid4(), [note(6)])
        assert await follower.contents(2) == [5, 6]


@pytest.mark.parametrize("call", ["log_horizon()", "begin_wait(0)"])
async def test_old_snapshots_are_refused(one: Connection, call: str) -> None:
    await one.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    with pytest.raises(psycopg.Error, match="cannot be used in a REPEATABLE READ transaction") as refused:
        await one.execute(f"SELECT {call}".encode())
    assert refused.value.sqlstate == "ES003"


async def test_a_prepared_append_holds_the_horizon_until_it_is_decided(
    clean_environment: None, own_server: EmbeddedServer
) -> None:
    with psycopg.connect(own_server.superuser_url, autocommit=True) as superuser:
        superuser.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
    own_server.release()
    own_server.acquire()
    settings = Settings(database_url=own_server.url())
    Migrator(own_server.url(), settings).up()
    async with EventStore(settings) as store:
        async with await open_as_login(store) as reader:
            conversation = await conversation_of(reader, 6)
        async with await store.connect() as connection:
            await connection.execute("BEGIN")
            await append_raw_async(connection, "prepared", conversation=conversation)
            await connection.execute("PREPARE TRANSACTION 'later'")
        await store.append(uuid4(), [note("other")])
        assert [event.content async for event in store.read_log()] == []
        async with await open_as_login(store) as reader:
            assert await value(reader, "SELECT log_horizon('{6}')") == 0
            assert await value(reader, "SELECT log_horizon('{5,7}')") == 2
        async with await store.connect() as connection:
            await connection.execute("COMMIT PREPARED 'later'")
        assert [event.content async for event in store.read_log()] == ["prepared", "other"]


@pytest.mark.slow
async def test_readers_miss_no_event_of_sixty_four_writers_that_are_terminated_at_random(
    settings: Settings, database_url: str, server: DatabaseServer
) -> None:
    foreign = server.create_database(migrated=False)
    try:
        async with (
            EventStore(settings) as first,
            EventStore(settings) as second,
            await psycopg.AsyncConnection.connect(server.url(foreign)) as stranger,
            await open_scoped_async(database_url) as admin,
        ):
            await stranger.execute("CREATE TABLE left_open (id integer)")
            written = asyncio.Event()
            follower = Follower(first.subscribe())
            resumer = asyncio.create_task(_resuming(second, written))
            by_partition = asyncio.create_task(_read_by_partition(database_url, written))
            cutter = asyncio.create_task(_cut_off_writers(admin, random.Random(7)))

            acknowledged = await _run_writers(database_url)
            cutter.cancel()
            ends = await cutter
            cursor = await admin.execute("SELECT id FROM events ORDER BY position")
            log = [id for (id,) in await cursor.fetchall()]
            written.set()

            followed = [event.id for event in await follower.take(len(log))]
            resumed = await resumer
            read_by_partition = await by_partition
            await follower.__aexit__()
            horizon_at_rest = await horizon(admin)
            await stranger.rollback()
    finally:
        server.drop_database(foreign)
    assert len(acknowledged) == len(set(acknowledged)) > 5000
    assert ends > 0
    assert set(log) == set(acknowledged)
    assert followed == log
    assert resumed == log
    assert sorted(read_by_partition) == sorted(log)
    assert horizon_at_rest >= len(log)


async def _run_writers(database_url: str) -> list[UUID]:
    """Runs the processes to their end; returns the ids that were acknowledged."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "support.writer", database_url, str(seed), str(WRITERS), str(APPENDS),
            stdout=asyncio.subprocess.PIPE, env=child_environment(), cwd=TREE,
        )
        for seed in range(PROCESSES)
    ]  # fmt: skip
    try:
        outputs = await asyncio.gather(*(process.communicate() for process in processes))
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
    assert [process.returncode for process in processes] == [0] * PROCESSES
    return [UUID(line) for output, _ in outputs for line in output.decode().split()]


async def _cut_off_writers(admin: Connection, chance: random.Random) -> int:
    """Terminates backends in the middle of appends until it is cancelled; returns how many.

    The log has to grow in between: on a slow machine the readers would not reach the end otherwise.
    """
    ends = events = 0
    try:
        while True:
            await asyncio.sleep(chance.uniform(0.02, 0.2))
            before, events = events, await value(admin, "SELECT count(*) FROM events")
            if events < before + GROWTH:
                events = before
                continue
            ends += await value(
                admin,
                "SELECT count(pg_terminate_backend(a.pid)) FROM (SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ~ 'append_events'"
                " AND state <> 'idle' ORDER BY random() LIMIT 2) AS a",
            )
    except asyncio.CancelledError:
        return ends


async def _read_by_partition(database_url: str, written: asyncio.Event) -> list[UUID]:
    """Read the events of each partition up to its horizon, from where its last read ended, until all are read."""
    seen: list[UUID] = []
    positions = [0] * 16
    async with await open_scoped_async(database_url) as connection:
        while True:
            is_last = written.is_set()
            before = len(seen)
            for partition in range(16):
                final = await value(connection, "SELECT log_horizon(%s::smallint[])", [partition])
                cursor = await connection.execute(
                    "SELECT position, id FROM events WHERE position > %s AND position <= %s"
                    " AND partition_of(conversation_id) = %s ORDER BY position",
                    (positions[partition], final, partition),
                )
                for position, event_id in await cursor.fetchall():
                    seen.append(event_id)
                    positions[partition] = position
            if is_last and len(seen) == before:
                return seen


async def _resuming(store: EventStore, written: asyncio.Event) -> list[UUID]:
    """Reads the log in portions, each from where the last one ended, until all is read that was written."""
    seen: list[UUID] = []
    position = 0
    while True:
        done = written.is_set()
        before = len(seen)
        async for event in store.read_log(after=position, limit=257):
            seen.append(event.id)
            position = event.position
        if done and len(seen) == before:
            return seen
        if len(seen) == before:
            with suppress(TimeoutError):  # it does not learn of the end of the writing
                async with asyncio.timeout(1):
                    await store.wait(position)
