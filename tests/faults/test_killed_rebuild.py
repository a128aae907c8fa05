"""A rebuild that is killed at any stage leaves the live tables as they were, and the next one finishes it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from uuid import uuid4

import psycopg
import pytest
from support.folding import fold, stored
from support.processes import Commands, Running
from support.waiting import until_async

from eventstore import EventStore, MessageAdded, TaskCreated
from projections import catch_up, verify

Sync = psycopg.Connection[tuple[object, ...]]


def is_filling(connection: Sync) -> bool:
    row = connection.execute("SELECT max(position) FROM checkpoints WHERE stage = 'next'").fetchone()
    return bool(row and row[0])


def is_made(connection: Sync) -> bool:
    return bool(connection.execute("SELECT FROM projection_definitions WHERE stage = 'next'").fetchall())


def is_indexing(connection: Sync) -> bool:
    return bool(connection.execute("SELECT FROM pg_indexes WHERE schemaname = stage_schema('next')").fetchall())


def is_swapped(connection: Sync) -> bool:
    return bool(connection.execute("SELECT FROM projection_definitions WHERE stage = 'previous'").fetchall())


@pytest.mark.parametrize("stage", [is_made, is_filling, is_indexing, is_swapped], ids=lambda stage: stage.__name__)
async def test_a_rebuild_killed_at_a_stage_is_finished_by_the_next(
    started: Commands, store: EventStore, database_url: str, stage: Callable[[Sync], bool]
) -> None:
    for _ in range(10):
        await store.append(uuid4(), [MessageAdded(role="user", content=str(n)) for n in range(400)])
        await store.append(uuid4(), [TaskCreated(task_id=uuid4(), description="a task")])
    await catch_up(store)
    expected = fold([event async for event in store.read_log()])
    with psycopg.connect(database_url, autocommit=True) as watching:
        rebuilding = started.start("rebuild", DATABASE_URL=database_url)

        async def reached(rebuilding: Running = rebuilding) -> bool:
            return rebuilding.ended or stage(watching)

        await until_async(reached, "the rebuild has come so far")
        rebuilding.kill()
        assert stored(database_url) == expected
        result = started.start("rebuild", DATABASE_URL=database_url)
        await until_async(lambda: _ended(result), "the second rebuild is done")
        assert result.err == ""
        assert not is_made(watching)
    assert stored(database_url) == expected


async def _ended(running: Running) -> bool:
    return running.ended


async def test_rebuilds_killed_at_random_beside_writers_and_workers_leave_correct_tables(
    started: Commands, store: EventStore, database_url: str, kills: int
) -> None:
    chance = random.Random(kills)
    conversations = [uuid4() for _ in range(8)]
    started.start("project", DATABASE_URL=database_url)

    async def write() -> None:
        while True:
            await store.append(chance.choice(conversations), [MessageAdded(role="user", content="x")])
            await asyncio.sleep(0.002)

    writer = asyncio.create_task(write())
    for _ in range(max(kills // 3, 3)):
        rebuilding = started.start("rebuild", DATABASE_URL=database_url)
        await asyncio.sleep(chance.uniform(0.3, 2.0))
        rebuilding.kill()
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)
    await catch_up(store)
    assert stored(database_url) == fold([event async for event in store.read_log()])
    assert not any(found.differences for found in await verify(store))
