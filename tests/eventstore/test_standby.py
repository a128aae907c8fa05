"""A hot standby: what may be read there, and what is there when it takes the place of its primary."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from uuid import uuid4

import psycopg
import pytest
from support.raw import append_raw, note
from support.standby import promote, standby_of
from support.waiting import until_async

from eventstore import EventStore, NewEvent, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.errors import ConnectionLost, UnsuitableServer
from projections import PROJECTIONS, applied_position, catch_up
from projections.apply import Applier
from projections.projection import PARTITIONS


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.slow
async def test_a_standby_shows_final_events_only(own_server: EmbeddedServer) -> None:
    settings = Settings(data_dir=own_server.data_dir)
    async with EventStore(settings) as primary:
        await asyncio.to_thread(primary.server.migrator().up)
        first = [(await primary.append(uuid4(), [note(number)])).position for number in range(5)]
        await catch_up(primary)
        with standby_of(own_server) as url:
            async with EventStore(Settings(database_url=url)) as standby:

                async def seen() -> list[int]:
                    return [event.position async for event in standby.read_log(all_tenants=True)]

                assert await seen() == first

                # An append in flight is a hole that only the primary knows of.
                with psycopg.connect(own_server.url(), autocommit=True) as slow, slow.transaction():
                    late = append_raw(slow, "late", conversation=note.conversation)
                    above = (await primary.append(uuid4(), [note("above the hole")])).position
                    await until_async(lambda: is_replayed(standby, above), "the standby has replayed the append")
                    await catch_up(primary)
                    await catch_up_other_partitions(primary, late[0])
                    assert await seen() == first
                assert late[0] < above
                await catch_up(primary)
                await until_async(lambda: has_seen(seen, [*first, *late, above]), "the standby shows all")

                with pytest.raises(UnsuitableServer):
                    await standby.append(uuid4(), [note()])


async def catch_up_other_partitions(primary: EventStore, above: int) -> None:
    """Apply the log beyond a position, except in the partition of the conversation of the append in flight."""
    [[partition]] = await primary.connections.reader.fetch(
        "SELECT partition_of(%(id)s::uuid)", {"id": note.conversation}
    )
    applier = await Applier.open(primary)
    others = [each for each in range(PARTITIONS) if each != partition]
    for projection in PROJECTIONS:
        await applier.apply_all(projection, partitions=others)
    await applier.close()
    assert await applied_position(primary, partitions=others) > above


async def is_replayed(standby: EventStore, position: int) -> bool:
    return bool(await standby.log(standby.caller()).fetch("SELECT 1 FROM events WHERE position = %s", (position,)))


async def has_seen(seen: object, wanted: list[int]) -> bool:
    return await seen() == wanted  # type: ignore[operator,no-any-return]


@pytest.mark.slow
@pytest.mark.usefixtures("clean_environment")
async def test_an_acknowledged_event_is_on_the_synchronous_standby(own_server: EmbeddedServer) -> None:
    settings = Settings(database_url=own_server.url(), connect_timeout=2)
    async with EventStore(Settings(data_dir=own_server.data_dir)) as store:
        await asyncio.to_thread(store.server.migrator().up)
    with (
        standby_of(own_server) as url,
        psycopg.connect(own_server.superuser_url, autocommit=True) as primary,
        psycopg.connect(url.replace("eventstore@", "postgres@"), autocommit=True) as standby,
    ):
        [source] = standby.execute("SELECT current_setting('primary_conninfo')").fetchone() or ()

        def follow(conninfo: str) -> None:
            standby.execute(f"ALTER SYSTEM SET primary_conninfo = '{conninfo.replace(chr(39), chr(39) * 2)}'")
            standby.execute("SELECT pg_reload_conf()")

        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")

        def waiting() -> set[int]:
            """The backends that wait for the standby."""
            return {pid for (pid,) in primary.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")}

        async def waits_again(before: set[int]) -> set[int]:
            await until_async(lambda: is_true(lambda: bool(waiting() - before)), "an append waits for the standby")
            return waiting() - before

        async def interrupted(
            store: EventStore, events: int, function: str
        ) -> tuple[asyncio.Task[object], list[object]]:
            """An append whose backend was interrupted while it waited for the standby; and its ids."""
            given = [NewEvent(note(number)) for number in range(events)]
            task: asyncio.Task[object] = asyncio.create_task(store.append(uuid4(), given))
            [pid] = await waits_again(set())
            primary.execute(f"SELECT {function}(%s)", (pid,))
            if function == "pg_terminate_backend":
                await waits_again({pid})
            return task, [event.id for event in given]

        def stored(ids: list[object]) -> int:
            row = standby.execute("SELECT count(*) FROM events WHERE id = ANY (%s)", (ids,)).fetchone()
            return int(row[0]) if row else -1

        async def until_all_are_stored(ids: list[object]) -> None:
            await until_async(lambda: is_true(lambda: stored(ids) == len(ids)), "the standby shows what it has")

        async with EventStore(settings) as store:
            await store.append(uuid4(), [note()])
            for events, function in (
                (1, "pg_terminate_backend"),
                (2, "pg_terminate_backend"),
                (1, "pg_cancel_backend"),
            ):
                follow("")
                await until_async(lambda: is_true(lambda: is_away(primary)), "the standby is away")
                task, ids = await interrupted(store, events, function)
                done, _ = await asyncio.wait([task], timeout=0.5)
                assert not done, "it was acknowledged, although the standby does not have it"
                follow(source)
                await task
                await until_all_are_stored(ids)
            follow("")
            await until_async(lambda: is_true(lambda: is_away(primary)), "the standby is away")
            task, ids = await interrupted(store, 1, "pg_terminate_backend")
            assert own_server.pid is not None
            os.kill(own_server.pid, signal.SIGKILL)
            promote(standby)
            with pytest.raises(ConnectionLost) as lost:
                await task
            assert [*lost.value.event_ids] == ids
            assert stored(ids) == 0


async def is_true(condition: Callable[[], bool]) -> bool:
    return condition()


def is_away(primary: psycopg.Connection) -> bool:
    return primary.execute("SELECT 1 FROM pg_stat_replication").fetchone() is None
