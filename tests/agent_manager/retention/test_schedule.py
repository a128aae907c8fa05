"""Workers apply the rules by themselves, one process at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from support.waiting import until_async

from agent_manager.backup.create import exclusively
from agent_manager.retention import RetentionRunning, Rules, apply_rules
from agent_manager.retention.run import retaining
from eventstore import EventStore, MessageAdded, Metadata, NewEvent
from projections import catch_up


async def begin_old(store: EventStore) -> None:
    """Begin a conversation of two days ago, and add a rule that erases it."""
    metadata = Metadata(occurred_at=datetime.now(UTC) - timedelta(days=2))
    await store.append(uuid4(), [NewEvent(MessageAdded(role="user", content="old"), metadata=metadata)])
    await catch_up(store)
    await Rules(store).add(timedelta(days=1))


async def is_erased(store: EventStore) -> bool:
    return all([event.salt is None async for event in store.read_log(types=["message.added"])])


async def test_workers_apply_the_rules(store: EventStore) -> None:
    await begin_old(store)
    store.settings = store.settings.model_copy(update={"retention_hours": 0.05 / 3600})
    async with retaining(store):
        await until_async(lambda: is_erased(store), "the conversation is erased")


async def test_one_process_applies_the_rules_at_a_time(store: EventStore) -> None:
    await begin_old(store)
    async with (
        await store.connect("eventstore_app") as connection,
        exclusively(connection, store, "retention", RetentionRunning),
    ):
        with pytest.raises(RetentionRunning, match="wait until it has ended"):
            await apply_rules(store)
        [result] = await apply_rules(store, dry_run=True)
        assert [rule.conversations for rule in result.rules] == [1]
    assert not await is_erased(store)
    async with (
        await store.connect("eventstore_app") as connection,
        exclusively(connection, store, "retention", RetentionRunning, store.tenant),
    ):
        with pytest.raises(RetentionRunning, match="wait until it has ended"):
            await apply_rules(store, store.tenant)
        assert store.tenant not in {result.tenant for result in await apply_rules(store)}
    assert not await is_erased(store)
    async with (
        await store.connect("eventstore_app") as connection,
        exclusively(connection, store, "retention", RetentionRunning, "another tenant"),
    ):
        await apply_rules(store, store.tenant)
    assert await is_erased(store)
