"""Forks over HTTP: made, edited, compared; and who may read what they share."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest
from support.callers import People
from support.eventsource import EventSource
from support.serving import Served

from agent_manager.auth import TokenScope
from agent_manager.server.read_your_writes import log_change_token
from agent_manager.server.routes import forks
from eventstore.database.pools import ScopedPool

pytestmark = pytest.mark.shared_database


async def texts(client: httpx.AsyncClient, conversation: str) -> list[str]:
    read = await client.get(f"/v1/conversations/{conversation}/messages")
    assert read.status_code == 200, read.text
    return [message["content"] for message in read.json()["items"]]


async def fork(client: httpx.AsyncClient, conversation: str, **members: Any) -> str:
    made = await client.post(f"/v1/conversations/{conversation}/forks", json=members)
    assert made.status_code == 201, made.text
    assert made.headers["Location"] == f"/v1/conversations/{made.json()['id']}"
    return str(made.json()["id"])


async def test_an_ancestry_read_during_an_append_is_not_older_than_its_change_token(
    here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    trip = await here.begin()
    path = f"/v1/conversations/{trip}/ancestry"

    async def after_an_append(view: ScopedPool) -> str:
        await here.say(trip, "meanwhile")
        return await log_change_token(view)

    monkeypatch.setattr(forks, "log_change_token", after_an_append)
    assert (await here.client.get(path)).status_code == 200
    monkeypatch.undo()
    assert (await here.client.get(path)).json()["items"][0]["last_version"] == 2


async def test_a_conversation_is_forked_at_a_version(here: Served) -> None:
    trip = await here.begin(id="my trip", name="Trip")
    for text in ("one", "two"):
        await here.say(trip, text)
    made = await here.client.post(
        "/v1/conversations/my trip/forks", json={"version": 2, "name": "Other", "actor": "ana"}
    )
    body = made.json()
    assert (made.status_code, body["name"], body["version"], body["message_count"]) == (201, "Other", 1, 0)
    assert body["forked_from"] == {"conversation_id": trip, "version": 2}
    await here.say(body["id"], "own")
    assert await texts(here.client, body["id"]) == ["one", "own"]
    ancestry = (await here.client.get(f"/v1/conversations/{body['id']}/ancestry")).json()["items"]
    assert [(each["conversation_id"], each["last_version"]) for each in ancestry] == [(body["id"], 2), (trip, 2)]
    state = (await here.client.get(f"/v1/conversations/{body['id']}/state")).json()
    assert [message["content"] for message in state["messages"]] == ["one", "own"]
    past = await here.client.get(f"/v1/conversations/{body['id']}/state", params={"version": 1})
    assert [message["content"] for message in past.json()["messages"]] == ["one"]
    trail = await here.client.get(f"/v1/conversations/{body['id']}/events", params={"shared": True})
    assert [event["event_type"].partition(".")[2] for event in trail.json()["items"]] == [
        "created", "added", "forked", "added",
    ]  # fmt: skip


async def test_a_message_is_edited_and_the_new_one_answered_in_a_fork(here: Served) -> None:
    trip = await here.begin()
    for text in ("one", "two", "three"):
        await here.say(trip, text)
    listed = (await here.client.get(f"/v1/conversations/{trip}/messages")).json()["items"]
    new = {"role": "user", "content": "zwei"}
    edited = await fork(here.client, trip, replaces=listed[1]["id"], message=new)
    assert await texts(here.client, edited) == ["one", "zwei"]
    assert await texts(here.client, trip) == ["one", "two", "three"]
    found = (await here.client.get(f"/v1/conversations/{trip}/comparison", params={"other": edited})).json()
    assert [[message["content"] for message in found[side]] for side in ("removed", "added")] == [
        ["two", "three"], ["zwei"],
    ]  # fmt: skip
    assert found["shared"] == {"conversation_id": trip, "last_version": 2}
    # A message that a fork shares is replaced where it was written.
    again = await fork(here.client, edited, replaces=listed[0]["id"], message=new)
    assert await texts(here.client, again) == ["zwei"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"version": 9}, 404, "has no version 9"),
        ({"version": -1}, 422, "version"),
        ({"replaces": str(uuid4())}, 404, "has no message"),
        ({"replaces": "x"}, 422, "replaces"),
        ({"version": 1, "replaces": str(uuid4())}, 422, "not both"),
        ({"unknown": 1}, 422, "unknown"),
    ],
)
async def test_a_fork_that_cannot_be_made_says_why(here: Served, body: Any, status: int, word: str) -> None:
    trip = await here.begin()
    made = await here.client.post(f"/v1/conversations/{trip}/forks", json=body)
    assert (made.status_code, word in made.text) == (status, True), made.text


async def test_a_repeated_request_makes_one_fork(here: Served) -> None:
    trip = await here.begin()
    headers = {"Idempotency-Key": f"fork {uuid4()}"}
    made = [await here.client.post(f"/v1/conversations/{trip}/forks", json={}, headers=headers) for _ in range(2)]
    assert made[0].json()["id"] == made[1].json()["id"]
    taken = await here.client.post(f"/v1/conversations/{trip}/forks", json={"id": made[0].json()["id"]})
    assert taken.status_code == 409


async def test_two_versions_are_compared_by_auditors(people: People) -> None:
    ana = await people.person("acme", "ana")
    trip = (await ana.post("/v1/conversations", {"name": "Trip"})).json()["id"]
    await ana.post(f"/v1/conversations/{trip}/messages", {"role": "user", "content": "one"})
    path = f"/v1/conversations/{trip}/comparison?version=1"
    found = (await ana.get(path)).json()
    assert ([message["content"] for message in found["added"]], found["removed"]) == (["one"], [])
    reader = await people.person("acme", "ana", TokenScope.READ)
    assert (await reader.get(path)).status_code == 403
    assert (await reader.get(f"/v1/conversations/{trip}/comparison")).status_code == 200


async def test_members_of_a_fork_read_what_it_shares_only_while_they_may_read_it_there(people: People) -> None:
    ana, bob, eve = [await people.person("acme", name) for name in ("ana", "bob", "eve")]
    mallory = await people.person("other", "ana")
    trip = (await ana.post("/v1/conversations", {})).json()["id"]
    await ana.post(f"/v1/conversations/{trip}/messages", {"role": "user", "content": "secret"})
    for stranger in (bob, mallory):
        assert (await stranger.post(f"/v1/conversations/{trip}/forks", {})).status_code == 404
    await ana.post(f"/v1/conversations/{trip}/members", {"user": "bob"})
    made = await fork(bob.client, trip, message={"role": "user", "content": "own"})
    await bob.post(f"/v1/conversations/{made}/members", {"user": "eve"})
    assert await texts(bob.client, made) == ["secret", "own"]
    assert await texts(eve.client, made) == ["own"]
    for stranger in (ana, mallory):
        for path in ("messages", "state", "ancestry", "comparison", "events"):
            assert (await stranger.get(f"/v1/conversations/{made}/{path}")).status_code == 404
        assert (await stranger.post(f"/v1/conversations/{made}/forks", {})).status_code == 404
    paths = ("messages", "state", "state?version=2", "events?shared=true", f"comparison?other={made}")
    before = [(await bob.get(f"/v1/conversations/{made}/{path}")).text for path in paths]
    assert all("secret" in text for text in before[:4])
    assert (await ana.client.delete(f"/v1/conversations/{trip}/members/bob")).status_code == 204
    for path in paths:
        assert "secret" not in (await bob.get(f"/v1/conversations/{made}/{path}")).text, path
    writer = await people.person("acme", "ana", TokenScope.WRITE)
    written = await writer.post(f"/v1/conversations/{trip}/forks", {"name": "mine"})
    assert (written.status_code, set(written.json())) == (201, {"id"})


async def test_a_deleted_conversation_hides_what_its_forks_share(here: Served) -> None:
    trip = await here.begin()
    await here.say(trip, "one")
    made = await fork(here.client, trip, message={"role": "user", "content": "two"})
    assert await texts(here.client, made) == ["one", "two"]
    await here.client.delete(f"/v1/conversations/{trip}")
    assert await texts(here.client, made) == ["two"]
    assert (await here.client.post(f"/v1/conversations/{trip}/forks", json={})).status_code == 409
    await here.client.patch(f"/v1/conversations/{trip}", json={"is_active": True})
    assert await texts(here.client, made) == ["one", "two"]


async def test_the_log_is_replayed_and_ends(here: Served) -> None:
    trip = await here.begin()
    added = await here.say(trip, "one")
    source = await EventSource(here.address, "/v1/log/replay?speed=1000&longest_pause=1&type=message.added").open()
    event = await source.next()
    assert (event.id, event.data["content"]["content"]) == (added["position"], "one")
    source.cut()
    for wrong in ("speed=0", "speed=x", "longest_pause=-1"):
        assert (await here.client.get(f"/v1/log/replay?{wrong}")).status_code == 422
