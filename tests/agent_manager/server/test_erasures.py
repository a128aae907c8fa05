"""Erasing over HTTP, with the scope erase."""

from __future__ import annotations

import httpx
import pytest
from support.callers import People
from support.eventsource import EventSource
from support.serving import Served
from support.waiting import until_async

from agent_manager.auth import TokenScope

pytestmark = pytest.mark.shared_database
SECRET = "pomegranate"


async def texts(client: httpx.AsyncClient, conversation: str) -> list[str]:
    read = await client.get(f"/v1/conversations/{conversation}/messages")
    assert read.status_code == 200, read.text
    return [message["content"] for message in read.json()["items"]]


async def test_a_conversation_is_erased_and_no_cached_response_shows_it(here: Served) -> None:
    trip = await here.begin(id="my trip", name=SECRET)
    await here.say(trip, SECRET)
    paths = [f"/v1/conversations/{trip}{path}" for path in ("", "/messages", "/state", "/events")]
    etags = []
    for path in paths:
        read = await here.client.get(path)
        assert SECRET in read.text
        etags.append(read.headers["ETag"])
    planned = await here.client.post("/v1/erasures", json={"conversation": "my trip", "dry_run": True})
    assert planned.json()["items"][0]["rows"]["messages"] == 1
    done = await here.client.post("/v1/erasures", json={"conversation": "my trip", "reason": "asked"})
    assert done.status_code == 200, done.text
    [item] = done.json()["items"]
    assert (item["conversation_id"], item["events"]) == (trip, 2)
    for path, etag in zip(paths, etags, strict=True):
        read = await here.client.get(path, headers={"If-None-Match": etag})
        assert (read.status_code, SECRET in read.text) == (200, False), path
    assert await texts(here.client, trip) == [""]
    [message] = (await here.client.get(f"/v1/conversations/{trip}/messages")).json()["items"]
    assert message["sent"]["metadata"] == {"eventstore.erased": True}
    trail = (await here.client.get(f"/v1/conversations/{trip}/events")).json()["items"]
    assert (trail[-1]["event_type"], trail[-1]["content"]["reason"]) == ("conversation.erased", "asked")
    found = await here.client.get("/v1/search", params={"q": SECRET})
    assert found.json()["items"] == []


async def test_a_repeated_request_does_not_repeat_what_was_erased(here: Served) -> None:
    trip = await here.begin()
    message = {"role": "user", "content": SECRET}
    path, headers = f"/v1/conversations/{trip}/messages", {"Idempotency-Key": f"key of {trip}"}
    first = await here.client.post(path, json=message, headers=headers)
    erased = [first.json()["events"][0]["event_id"]]
    await here.client.post("/v1/erasures", json={"conversation": trip, "events": erased})
    again = await here.client.post(path, json=message, headers=headers)
    assert again.status_code == 201
    assert await texts(here.client, trip) == [""]


async def test_only_the_scope_erase_erases_and_only_what_is_ones_own(people: People) -> None:
    ana = await people.person("acme", "ana", TokenScope.READ, TokenScope.WRITE, TokenScope.ERASE)
    ben = await people.person("acme", "ben", TokenScope.READ, TokenScope.WRITE, TokenScope.ERASE)
    plain = await people.person("acme", "ana", TokenScope.READ, TokenScope.WRITE, TokenScope.AUDIT)
    admin = await people.person("acme", None, TokenScope.ERASE, TokenScope.ADMIN)
    stranger = await people.person("other", None, TokenScope.ERASE, TokenScope.ADMIN)
    begun = await ana.post("/v1/conversations", {"name": "of ana"})
    trip = begun.json()["id"]
    await ana.post(f"/v1/conversations/{trip}/messages", {"role": "user", "content": SECRET})
    wanted = {"conversation": trip}
    assert (await plain.post("/v1/erasures", wanted)).status_code == 403
    for person in (ben, stranger):
        assert (await person.post("/v1/erasures", wanted)).status_code == 404
    await ana.post(f"/v1/conversations/{trip}/members", {"user": "ben", "access": "write"})
    appended = await ben.post(f"/v1/conversations/{trip}/messages", {"role": "user", "content": SECRET})
    assert (await ben.post("/v1/erasures", wanted)).status_code == 403
    own = await ben.post("/v1/erasures", {"conversation": trip, "events": [appended.json()["events"][0]["event_id"]]})
    assert (own.status_code, own.json()["items"][0]["events"]) == (200, 1)
    assert (await ben.post("/v1/erasures", {"user": "ana"})).status_code == 403
    assert (await ana.post("/v1/erasures", wanted)).json()["items"][0]["events"] == 3
    assert (await admin.post("/v1/erasures", {"user": "ana"})).status_code == 200

    async def is_rejected() -> bool:
        return (await ana.get(f"/v1/conversations/{trip}")).status_code == 401

    await until_async(is_rejected, "their keys are gone")


@pytest.mark.parametrize(
    "body", [{}, {"user": "ana", "conversation": "x"}, {"user": "ana", "events": []}, {"conversation": "x", "more": 1}]
)
async def test_a_request_names_one_thing(here: Served, body: dict[str, object]) -> None:
    assert (await here.client.post("/v1/erasures", json=body)).status_code == 422


async def test_streams_do_not_send_what_was_erased_meanwhile(here: Served) -> None:
    """Events that are held in memory for streams are dropped, also for a stream of other types of events."""
    trip = await here.begin()
    path = "/v1/log/stream?type=message.added"
    async with EventSource(here.address, path, decode=str) as first:
        appended = await here.say(trip, SECRET)
        assert SECRET in (await first.next()).data
        await here.client.post(
            "/v1/erasures", json={"conversation": trip, "events": [appended["events"][0]["event_id"]]}
        )
        later = await here.say(trip, "later")
        assert later["events"][0]["event_id"] in (await first.next()).data
        async with EventSource(here.address, f"{path}&after=0", decode=str) as second:
            texts = [(await second.next()).data for _ in range(2)]
    assert SECRET not in "".join(texts)
