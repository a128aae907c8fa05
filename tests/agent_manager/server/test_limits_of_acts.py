"""Limits of what came to the API later: administrative acts, erasures, exports, comparisons, reads of the past."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.callers import People, Person
from support.console import console_routes
from support.serving import Served, served

from agent_manager.auth import TokenScope
from agent_manager.server.routes import forks
from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.connection import APP
from eventstore.errors import ServerUnreachable

pytestmark = pytest.mark.shared_database


@asynccontextmanager
async def limited(settings: Settings, **limits: Any) -> AsyncIterator[tuple[Served, Person]]:
    """A server with other limits, and a person with every scope."""
    async with (
        EventStore(settings.model_copy(update=limits)) as store,
        served(store, works=False, requires_tokens=True) as here,
    ):
        people = People(here.store, here.url)
        try:
            yield here, await people.person("acme", "root", *TokenScope)
        finally:
            await people.close()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/holds", {"user": "bob", "reason": "case 1"}),
        ("/v1/retention/rules", {"age_seconds": 86_400}),
        ("/v1/retention/runs", {"dry_run": True}),
        ("/v1/erasures", {"user": "nobody"}),
    ],
)
async def test_an_administrative_act_counts_as_an_event(settings: Settings, path: str, body: Any) -> None:
    async with limited(settings, events_per_second=2) as (_, root):
        statuses = [(await root.post(path, body)).status_code for _ in range(6)]
        assert statuses[0] < 300
        assert 429 in statuses


async def test_erased_events_count_as_events(settings: Settings) -> None:
    async with limited(settings, events_per_second=20) as (here, root):
        trip = (await root.post("/v1/conversations", {})).json()["id"]
        messages = [MessageAdded(role="user", content="x")] * 50
        await here.store.append(UUID(trip), messages, tenant=root.tenant)
        assert (await root.post("/v1/erasures", {"conversation": trip})).json()["items"][0]["events"] == 51
        refused = await root.post("/v1/conversations", {})
        assert (refused.status_code, "events of one" in refused.text) == (429, True)


async def test_recorded_reading_counts_as_an_event(settings: Settings) -> None:
    async with limited(settings, events_per_second=2, audit_reads=True) as (_, root):
        statuses = [(await root.get("/v1/audit/trail")).status_code for _ in range(6)]
        assert (statuses[0], statuses[-1]) == (200, 429)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
async def test_an_export_counts_against_the_budget_of_responses(settings: Settings, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    async with limited(settings, response_bytes=2**20) as (here, root):
        trip = uuid4()
        await here.store.append(trip, [MessageAdded(role="user", content="x" * 50_000)] * 8, tenant=root.tenant)
        path = f"/v1/audit/trail/export?format={ending}&conversation={trip}"
        spool = here.server_context.response_cache.spool
        for _ in range(4):
            assert (await root.get(f"{path}&limit=3")).status_code == 200
        refused = await root.get(path)
        assert (refused.status_code, "EVENTSTORE_RESPONSE_BYTES" in refused.text) == (422, True)
        assert spool.used == 0, "what was sent, or refused, is released"


async def test_a_comparison_takes_no_more_than_its_part_of_memory(
    here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "COMPARED_BYTES", 300_000)
    trip, other = await here.begin(), await here.begin()
    for text in ("first", "x" * 200_000, "second"):
        await here.say(trip, text)
    fork = (await here.client.post(f"/v1/conversations/{trip}/forks", json={"version": 3})).json()["id"]
    compared = await here.client.get(f"/v1/conversations/{trip}/comparison", params={"other": fork})
    assert [each["content"] for each in compared.json()["removed"]] == ["second"], "what both share is not kept"
    await here.say(other, "y" * 290_000)
    compared = await here.client.get(f"/v1/conversations/{trip}/comparison", params={"other": other})
    assert (len(compared.json()["removed"]), len(compared.json()["added"])) == (3, 1)
    await here.say(other, "y" * 20_000)
    refused = await here.client.get(f"/v1/conversations/{trip}/comparison", params={"other": other})
    assert (refused.status_code, "closer to each other" in refused.text) == (422, True), refused.text


async def test_no_tenant_takes_the_separate_connections_of_another(settings: Settings) -> None:
    async with EventStore(settings.model_copy(update={"pool_size": 4, "connect_timeout": 1})) as store:
        async with AsyncExitStack() as held:
            for tenant in ("one", "two"):
                await held.enter_async_context(store.connections.separate(APP, tenant))
            with pytest.raises(ServerUnreachable, match="no connection to the server became free"):
                await held.enter_async_context(store.connections.separate(APP, "one"))
            await held.enter_async_context(store.connections.separate(APP, "three"))
        async with store.connections.separate(APP, "one") as connection:
            assert await (await connection.execute("SELECT 1")).fetchall() == [(1,)]


async def test_the_past_is_read_over_few_connections_however_many_ask(settings: Settings) -> None:
    async with limited(settings, pool_size=4) as (here, root):
        trip = (await root.post("/v1/conversations", {})).json()["id"]
        assert (await root.post(f"/v1/conversations/{trip}/messages", {"role": "user", "content": "x"})).is_success
        separate = here.store.connections.separate_queue
        paths = [f"/v1/conversations/{trip}/comparison?version=1", f"/console/conversations/{trip}/compare.json?a=1"]
        asking = [
            asyncio.create_task(root.get(paths[number % 2] + f"&x={number}" * (number % 2 == 1))) for number in range(8)
        ]
        most = 0
        while not all(task.done() for task in asking):
            most = max(most, separate.held)
            await asyncio.sleep(0)
        assert {task.result().status_code for task in asking} <= {200, 422}
        assert 1 <= most <= 4


@pytest.mark.slow
async def test_each_page_of_the_console_needs_the_scope_that_it_declares(protected: Served, people: People) -> None:
    persons = {scope: await people.person("acme", None, scope) for scope in TokenScope}
    nobody = protected.client
    for route in console_routes():
        path, needed = route.path, route.needed
        for name in ("conversation", "version", "file_id", "task", "artifact", "part", "position", "name"):
            path = path.replace(f"{{{name}}}", "1")
        for method in route.methods or ():
            if needed is None:
                continue
            program = {"Accept": "application/json"}
            assert (await nobody.request(method, path, headers=program)).status_code in (303, 401), path
            for scope, person in persons.items():
                if "/live" in path and scope == needed:
                    continue
                found = await person.client.request(method, path, headers=program)
                allowed = "is needed" not in found.text
                assert allowed == ([scope] == [needed, *route.also_needed]), (method, path, scope, found.text[:300])


async def test_on_loopback_what_came_through_a_proxy_needs_a_token_for_the_console(here: Served) -> None:
    trip = await here.begin()
    paths = ("", "conversations", f"conversations/{trip}/export.json", "people", "operations", "log")
    for path in paths:
        assert (await here.client.get(f"/console/{path}")).status_code == 200, path
    for header in ("X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP", "X_Forwarded_Host", "CF-Ray", "X-Envoy-Id"):
        for path in paths:
            found = await here.client.get(f"/console/{path}", headers={header: "x"})
            assert found.status_code in (303, 401), (header, path, found.status_code)
