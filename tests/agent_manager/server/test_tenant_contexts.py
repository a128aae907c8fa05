"""The contexts of tenants are bounded, and closing one has no visible effect."""

from __future__ import annotations

from support.callers import People
from support.eventsource import EventSource
from support.serving import Served

from agent_manager.factory import AsyncManager
from agent_manager.server.tenant_contexts import TenantContexts
from eventstore import EventStore


async def test_the_contexts_of_the_most_recent_tenants_are_kept(store: EventStore) -> None:
    tenant_contexts = TenantContexts(store, AsyncManager(store, runs_worker=False), max_tenants=3)
    first = await tenant_contexts.of("a")
    first.manager.written.note_position(7)
    assert await tenant_contexts.of("a") is first
    for tenant in "bcd":
        await tenant_contexts.of(tenant)
    assert len(tenant_contexts) == 3
    again = await tenant_contexts.of("a")
    assert again is not first
    assert again.manager.written.position == 7, "what was written through this server is forgotten"
    assert await tenant_contexts.of(store.tenant) is tenant_contexts.own
    await tenant_contexts.close()


async def test_a_context_in_use_is_not_closed(store: EventStore) -> None:
    tenant_contexts = TenantContexts(store, AsyncManager(store, runs_worker=False), max_tenants=2)
    first = await tenant_contexts.of("a")
    with first.in_use():
        for tenant in "bcd":
            await tenant_contexts.of(tenant)
        assert await tenant_contexts.of("a") is first
    for tenant in "bcd":
        await tenant_contexts.of(tenant)
    assert (len(tenant_contexts), await tenant_contexts.of("a") is first) == (2, False)
    await tenant_contexts.close()


async def test_a_stream_continues_while_contexts_of_other_tenants_are_closed(protected: Served, people: People) -> None:
    protected.server_context.tenant_contexts = TenantContexts(
        protected.store, protected.server_context.tenant_contexts.own.manager, max_tenants=2
    )
    ana = await people.person("acme", "ana")
    path = f"/v1/conversations/{(await ana.post('/v1/conversations')).json()['id']}"
    async with EventSource(protected.address, f"{path}/stream", token=ana.token) as source:
        for number in range(5):
            other = await people.person(f"tenant-{number}", "somebody")
            assert (await other.post("/conversation/create")).status_code == 200
            assert len((await other.get("/v1/conversations")).json()["items"]) == 1
        appended = await ana.post(f"{path}/messages", {"role": "user", "content": "still there"})
        assert (await source.next()).id == appended.json()["position"]
    assert len(protected.server_context.tenant_contexts) <= 3
