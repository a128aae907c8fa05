"""The costs of a batch depend neither on the length of its conversations nor on the number of all others."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

from eventstore import (
    Append,
    EventData,
    EventStore,
    MessageAdded,
    Settings,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatusChanged,
)
from eventstore.concurrency import cancel_and_wait
from projections import PROJECTIONS, Worker, catch_up, rebuild, wait_for

READ = """
SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'events'
"""


def message_with_task(number: int) -> list[EventData]:
    task_id = uuid4()
    return [
        MessageAdded(role="user", content=f"message {number}", awaits_answer=True),
        TaskCreated(task_id=task_id, description="a task"),
        TaskStatusChanged(task_id=task_id, status="completed"),
        TaskArtifactAdded(task_id=task_id, artifact_id="a", parts=[{"text": "result"}]),
    ]


@pytest.mark.own_database
async def test_a_long_conversation_is_read_once_in_a_database_without_statistics(
    settings: Settings, superuser_url: str
) -> None:
    """Without statistics the planner takes any table for small, and joins by nested loops."""
    events = [event for number in range(250) for event in message_with_task(number)]
    async with EventStore(settings) as store:
        await store.append(uuid4(), events)
        with psycopg.connect(superuser_url, autocommit=True) as superuser:
            superuser.execute("ALTER TABLE events SET (autovacuum_enabled = false)")
            await catch_up(store)
    # The sessions are closed, so that the server has counted what they read.
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        [[read]] = superuser.execute(READ).fetchall()
    assert 0 < read < 30 * len(PROJECTIONS) * len(events)


INDEXES_READ = """
SELECT i.indexrelname
  FROM pg_stat_user_indexes i
  JOIN pg_index k USING (indexrelid)
 WHERE i.relname = ANY (%s) AND i.idx_scan > 0 AND NOT k.indisprimary
"""


@pytest.mark.own_database
@pytest.mark.parametrize("is_rebuilt", [False, True])
async def test_a_worker_that_began_with_empty_tables_finds_their_rows_by_the_primary_keys(
    settings: Settings, superuser_url: str, is_rebuilt: bool
) -> None:
    """Its plans are made before the tables have statistics; other indexes begin with the tenant, too."""
    tables = [table for projection in PROJECTIONS for table in projection.tables]
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        async with EventStore(settings) as store:
            if is_rebuilt:
                await rebuild(store)
            for table in tables:
                superuser.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)".encode())
            superuser.execute("SELECT pg_stat_reset()")
            worker = asyncio.create_task(Worker(store).run())
            try:
                for number in range(8):
                    result = await store.append_all([Append(uuid4(), message_with_task(number)) for _ in range(2)])
                    await wait_for(store, result.position)
            finally:
                await cancel_and_wait([worker])
        # The sessions are closed, so that the server has counted what they read.
        assert superuser.execute(INDEXES_READ, [tables]).fetchall() == []
