"""Retention rules and legal holds over HTTP: for administrators; a run also needs the scope that erases."""

from __future__ import annotations

import pytest
from support.callers import People, Person
from support.serving import Served

from agent_manager.auth import TokenScope
from eventstore import EventStore
from projections import catch_up

pytestmark = pytest.mark.shared_database

ALL = (TokenScope.READ, TokenScope.WRITE, TokenScope.ADMIN, TokenScope.ERASE)


@pytest.fixture
async def admin(protected: Served, people: People) -> Person:
    return await people.person("acme", None, *ALL)


async def begun(person: Person) -> str:
    """Begin a conversation with a message, and return its id."""
    made = await person.post("/v1/conversations", {"name": "Trip"})
    conversation = str(made.json()["id"])
    appended = await person.post(f"/v1/conversations/{conversation}/messages", {"role": "user", "content": "hello"})
    assert appended.status_code == 201
    return conversation


async def test_rules_are_added_listed_applied_and_removed(admin: Person, store: EventStore) -> None:
    held, other = await begun(admin), await begun(admin)
    wanted = {"age_seconds": 0.000_001, "state": "active", "reason": "policy 7"}
    added = await admin.post("/v1/retention/rules", wanted)
    assert added.status_code == 201, added.text
    rule = added.json()
    assert wanted.items() <= rule.items()
    assert (rule["since"], rule["added_by"], rule["applied_at"]) == ("last_event", "key:tests", None)
    assert (await admin.get("/v1/retention/rules")).json() == {"next": None, "items": [rule]}
    hold = (await admin.post("/v1/holds", {"conversation_id": held, "reason": "case 4711"})).json()
    await catch_up(store)
    expected = {"rule": rule["id"], "conversations": 1, "events": 2, "held": 1, "skipped": 0, "failed": 0}
    for dry_run in (True, False):
        ran = await admin.post("/v1/retention/runs", {"dry_run": dry_run})
        assert (ran.status_code, ran.json()["rules"]) == (200, [expected])
    assert "hello" in (await admin.get(f"/v1/conversations/{held}/messages")).text
    assert "hello" not in (await admin.get(f"/v1/conversations/{other}/messages")).text
    assert (await admin.client.delete(f"/v1/retention/rules/{rule['id']}")).status_code == 204
    assert (await admin.get("/v1/retention/rules")).json()["items"] == []
    assert (await admin.client.delete(f"/v1/retention/rules/{rule['id']}")).status_code == 404
    assert (await admin.client.delete(f"/v1/holds/{hold['id']}")).status_code == 204


async def test_a_hold_refuses_an_erasure_until_it_is_released(admin: Person) -> None:
    conversation = await begun(admin)
    placed = await admin.post("/v1/holds", {"conversation_id": conversation, "reason": "case 4711"})
    assert placed.status_code == 201, placed.text
    hold = placed.json()
    assert (hold["conversation_id"], hold["user"], hold["placed_by"]) == (conversation, None, "key:tests")
    assert (await admin.get("/v1/holds")).json()["items"] == [hold]
    erasing = {"conversation": conversation}
    refused = await admin.post("/v1/erasures", erasing)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:eventstore:on-legal-hold")
    assert refused.json()["hold"] == hold["id"]
    assert (await admin.client.delete(f"/v1/holds/{hold['id']}")).status_code == 204
    assert (await admin.post("/v1/erasures", erasing)).status_code < 300


async def test_who_is_no_administrator_does_not_learn_of_which_case_a_hold_is(people: People, admin: Person) -> None:
    ana = await people.person("acme", "ana", TokenScope.READ, TokenScope.WRITE, TokenScope.ERASE)
    conversation = (await ana.post("/v1/conversations", {})).json()["id"]
    for hold in ({"user": "ana"}, {"conversation_id": conversation}, {}):
        placed = (await admin.post("/v1/holds", hold | {"reason": "case 4711"})).json()
        for body in ({"conversation": conversation}, {"user": "ana"}, {"user": "ana", "dry_run": True}):
            refused = await ana.post("/v1/erasures", body)
            assert (refused.status_code, "legal hold" in refused.text) == (409, True)
            assert not any(told in refused.text for told in ("4711", placed["id"], "user ana", "counsel"))
        await admin.client.delete(f"/v1/holds/{placed['id']}")


async def test_only_administrators_see_and_change_them(people: People, admin: Person) -> None:
    without = await people.person("acme", "ana", TokenScope.READ, TokenScope.WRITE, TokenScope.AUDIT, TokenScope.ERASE)
    for path in ("/v1/holds", "/v1/retention/rules"):
        assert (await without.get(path)).status_code == 403
    assert (await without.post("/v1/holds", {"reason": "mine"})).status_code == 403
    assert (await without.post("/v1/retention/rules", {"age_seconds": 1})).status_code == 403
    assert (await without.post("/v1/retention/runs")).status_code == 403, "it is not for one user"
    not_erasing = await people.person("acme", None, TokenScope.ADMIN)
    assert (await not_erasing.post("/v1/retention/runs")).status_code == 403


async def test_wrong_values_are_named(admin: Person) -> None:
    unknown = "00000000-0000-0000-0000-000000000000"
    for path, body, status in (
        ("/v1/holds", {"user": "ana"}, 422),
        ("/v1/holds", {"user": "ana", "reason": ""}, 422),
        ("/v1/holds", {"conversation_id": unknown, "user": "ana", "reason": "case"}, 404),
        ("/v1/holds", {"conversation_id": unknown, "reason": "case"}, 404),
        ("/v1/retention/rules", {}, 422),
        ("/v1/retention/rules", {"age_seconds": 0}, 422),
        ("/v1/retention/rules", {"age_seconds": 1, "state": "gone"}, 422),
    ):
        assert (await admin.post(path, body)).status_code == status, (path, body)


async def test_an_event_that_a_client_writes_names_no_files(people: People) -> None:
    writer = await people.person("acme", None, TokenScope.READ, TokenScope.WRITE)
    files = {"event_type": "my.own", "metadata": {"eventstore.files": ["00" * 32]}}
    sent = await writer.post("/v1/conversations/another/events", {"events": [files], "begin": {}})
    assert (sent.status_code, "eventstore.files" in sent.text) == (422, True)
