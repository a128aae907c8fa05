"""Projections over HTTP: how far they are, pausing and resuming, which only operators may."""

from __future__ import annotations

from typing import Any

import pytest
from support.callers import People
from support.serving import Served

from agent_manager.auth import TokenScope

pytestmark = pytest.mark.shared_database


async def items(here: Served) -> dict[str, Any]:
    """The projections by name."""
    return {each["name"]: each for each in (await here.client.get("/v1/projections")).json()["items"]}


@pytest.mark.own_database
async def test_a_projection_is_paused_and_resumed_and_both_are_recorded(here: Served) -> None:
    trip = await here.begin(name="Trip")
    await here.say(trip, "before")
    assert len((await here.client.get(f"/v1/conversations/{trip}/messages")).json()["items"]) == 1
    done = await here.client.post("/v1/projections/messages/pause")
    assert (done.status_code, done.json()["paused_at"] is not None) == (200, True)
    await here.say(trip, "meanwhile")
    refused = await here.client.get(f"/v1/conversations/{trip}/messages")
    assert refused.status_code == 503
    assert "eventstore resume messages" in refused.json()["detail"]
    resumed = await here.client.post("/v1/projections/messages/resume")
    assert resumed.json()["paused_at"] is None
    assert len((await here.client.get(f"/v1/conversations/{trip}/messages")).json()["items"]) == 2
    now = await items(here)
    assert now["messages"]["batch_events"] >= 1
    assert 0 < now["messages"]["batch_seconds"] < 60
    assert (await here.client.post("/v1/projections/nothing/pause")).status_code == 404
    acts = "SELECT act, details FROM audit_acts WHERE tenant_id = 'eventstore:system' ORDER BY position"
    assert await here.store.connections.projector.fetch(acts) == [
        ("projection_paused", {"projection": "messages"}),
        ("projection_resumed", {"projection": "messages"}),
    ]


async def test_administrators_of_other_tenants_are_refused(protected: Served, people: People) -> None:
    admin = await people.person("acme", "root", *TokenScope)
    reader = await people.person("acme", "ana", TokenScope.READ)
    for person in (admin, reader):
        assert (await person.get("/v1/projections")).status_code == 403
        for action in ("pause", "resume"):
            assert (await person.post(f"/v1/projections/messages/{action}", None)).status_code == 403
