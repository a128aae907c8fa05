"""Lists of the manager while the read tables are far behind."""

from __future__ import annotations

from uuid import uuid4

import pytest
from support.raw import note

from agent_manager import storage
from agent_manager.factory import AsyncManager
from eventstore import EventStore, conversation_uuid
from projections import PROJECTIONS, applied_position
from projections.apply import Applier
from projections.custom_projections import create_missing_tables


async def test_lists_wait_for_the_tenants_own_events_only(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "TAIL", 3)
    monkeypatch.setattr(storage, "WAIT_SECONDS", 0.2)
    await create_missing_tables(store, PROJECTIONS)
    async with AsyncManager(store, tenant="acme", runs_worker=False) as manager:
        await manager.create_conversation("trip", "trip")
        for _ in range(20):
            await store.append(uuid4(), [note()] * 10, tenant="globex")
        for number in range(4):
            await manager.save_message({"role": "user", "content": str(number)}, "trip")
        given = {"trip": conversation_uuid("acme", "trip")}
        [[partition]] = await store.connections.reader.fetch("SELECT partition_of(%(trip)s)", given)
        applier = await Applier.open(store)
        try:
            for projection in PROJECTIONS:
                await applier.register(projection)
                await applier.apply_all(projection, partitions=[partition])
        finally:
            await applier.close()
        assert await applied_position(store) == 0, "most partitions are behind"
        assert [view.conversation_id for view in await manager.conversations()] == ["trip"]
        assert await manager.tasks() == []
        assert await manager.pending() == []
