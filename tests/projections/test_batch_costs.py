"""The costs of a batch do not depend on the length of its conversations."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from eventstore import EventData, EventStore, MessageAdded, Settings, TaskArtifactAdded, TaskCreated, TaskStatusChanged
from projections import PROJECTIONS, catch_up

READ = """
SELECT coalesce(idx_tup_fetch, 0) + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'events'
"""


@pytest.mark.own_database
async def test_a_long_conversation_is_read_once_in_a_database_without_statistics(
    settings: Settings, superuser_url: str
) -> None:
    """Without statistics the planner takes any table for small, and joins by nested loops."""
    events: list[EventData] = []
    for number in range(250):
        task_id = uuid4()
        events += [
            MessageAdded(role="user", content=f"message {number}", awaits_answer=True),
            TaskCreated(task_id=task_id, description="a task"),
            TaskStatusChanged(task_id=task_id, status="completed"),
            TaskArtifactAdded(task_id=task_id, artifact_id="a", parts=[{"text": "result"}]),
        ]
    async with EventStore(settings) as store:
        await store.append(uuid4(), events)
        with psycopg.connect(superuser_url, autocommit=True) as superuser:
            superuser.execute("ALTER TABLE events SET (autovacuum_enabled = false)")
            await catch_up(store)
    # The sessions are closed, so that the server has counted what they read.
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        [[read]] = superuser.execute(READ).fetchall()
    assert 0 < read < 30 * len(PROJECTIONS) * len(events)
