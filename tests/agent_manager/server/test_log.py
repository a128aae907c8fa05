"""The trail of a conversation and the log, over HTTP; and appending any event."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from support.callers import People
from support.serving import Served

pytestmark = pytest.mark.shared_database


async def test_events_of_any_type_are_appended_all_or_none(here: Served) -> None:
    trip = await here.begin()
    path = f"/v1/conversations/{trip}/events"
    events: list[dict[str, Any]] = [
        {"event_type": "message.added", "content": {"role": "user", "content": "hi"}, "actor": "ana"},
        {"event_type": "my.own", "content": [1, None], "metadata": {"occurred_at": "2025-01-01T00:00:00Z", "x": 1}},
        {"event_type": "my.empty", "id": str(uuid4())},
    ]
    made = await here.client.post(path, json={"events": events, "expected_version": 1})
    assert (made.status_code, made.json()["version"], len(made.json()["events"])) == (201, 4, 3)
    repeated = await here.client.post(path, json={"events": events[2:]})
    assert repeated.json()["events"][0]["is_new"] is False
    read = (await here.client.get(path)).json()["items"]
    assert [event["event_type"] for event in read] == ["conversation.created", *(e["event_type"] for e in events)]
    assert read[2]["content"] == [1, None]
    assert read[2]["metadata"] == {"occurred_at": "2025-01-01T00:00:00+00:00", "x": 1}
    assert len(read[3]["digest"]) == 64


@pytest.mark.parametrize(
    ("event", "place"),
    [
        ({"event_type": "message.added", "content": {"role": "king"}}, "events[1].content.role"),
        ({"event_type": "message.added", "content": [1]}, "events[1].content"),
        ({"event_type": "message.unheard", "content": {}}, "events[1].event_type"),
        ({"event_type": "a", "metadata": {"occurred_at": "noon"}}, "events[1].metadata.occurred_at"),
        ({"event_type": "a\0"}, "events[1].event_type"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
async def test_an_error_names_the_member_of_an_invalid_event(here: Served, event: Any, place: str) -> None:
    trip = await here.begin()
    path = f"/v1/conversations/{trip}/events"
    refused = await here.client.post(path, json={"events": [{"event_type": "fine"}, event]})
    assert (refused.status_code, refused.json()["path"]) == (422, place)
    assert len((await here.client.get(path)).json()["items"]) == 1


async def test_the_history_of_a_conversation_is_paged(here: Served) -> None:
    trip = await here.begin()
    for number in range(5):
        await here.say(trip, f"{number}")
    path = f"/v1/conversations/{trip}/events"
    first = (await here.client.get(path, params={"limit": 4, "type": ["message.added", "x"]})).json()
    rest = (
        await here.client.get(path, params={"limit": 4, "type": ["message.added", "x"], "after": first["next"]})
    ).json()
    assert [event["version"] for event in first["items"] + rest["items"]] == [2, 3, 4, 5, 6]
    backwards = (await here.client.get(path, params={"newest_first": True, "limit": 1})).json()
    assert backwards["items"][0]["version"] == 6


async def test_the_log_is_read_page_by_page(here: Served) -> None:
    one, other = await here.begin(), await here.begin()
    await here.say(one, "a")
    first = (await here.client.get("/v1/log", params={"limit": 2})).json()
    rest = (await here.client.get("/v1/log", params={"after": first["next"]})).json()
    assert [event["conversation_id"] for event in first["items"] + rest["items"]] == [one, other, one]
    end = (await here.client.get("/v1/log", params={"after": rest["next"]})).json()
    assert end == {"items": [], "next": rest["next"]}
    await here.say(other, "b")
    more = (await here.client.get("/v1/log", params={"after": end["next"], "type": "message.added"})).json()
    assert [event["content"]["content"] for event in more["items"]] == ["b"]


async def test_messages_are_found_by_search_and_counted_by_statistics(here: Served) -> None:
    trip = await here.begin(id="trip")
    await here.say(trip, "duas viagens a Lisboa")
    await here.say(trip, "uma viagem ao Porto", role="assistant")
    found = (await here.client.get("/v1/search", params={"q": "viagem lisboa", "conversation": "trip"})).json()
    assert [hit["conversation_id"] for hit in found["items"]] == [trip]
    assert found["searched"] == "viagem lisboa"
    page = (await here.client.get("/v1/search", params={"q": "viagem", "limit": 1})).json()
    following = (await here.client.get("/v1/search", params={"q": "viagem", "after": page["next"]})).json()
    assert len({hit["id"] for hit in page["items"] + following["items"]}) == 2
    counted = (await here.client.get("/v1/statistics", params={"zone": "America/Sao_Paulo"})).json()
    assert {row["role"]: row["messages"] for row in counted["roles"]} == {"user": 1, "assistant": 1}
    assert counted["response_times"]["answered"] == 1
    assert counted["zone"] == "America/Sao_Paulo"
    assert (await here.client.get("/v1/statistics")).json()["zone"] == "UTC"
    unknown = await here.client.get("/v1/statistics", params={"zone": "Mars"})
    assert (unknown.status_code, "Mars" in unknown.json()["detail"]) == (422, True)


@pytest.mark.parametrize("name", ["trip", "a/b %?#é.. +:", "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e"])
async def test_an_append_begins_the_conversation_if_it_is_new(here: Served, name: str) -> None:
    path = f"/v1/conversations/{quote(name, safe='')}"
    message = {"role": "user", "content": "hello"}
    assert (await here.client.post(f"{path}/messages", json=message)).status_code == 404
    assert (await here.client.post(f"{path}/events", json={"events": [{"event_type": "a"}]})).status_code == 404
    for number in range(2):
        query = {"begin": "true", "name": f"Trip {number}"}
        made = await here.client.post(f"{path}/messages", params=query, json=message)
        assert (made.status_code, made.json()["version"], len(made.json()["events"])) == (201, number + 2, 1), made.text
    begin = {"name": "Another", "metadata": {"language": "pt"}}
    made = await here.client.post(f"{path}/events", json={"events": [{"event_type": "my.own"}], "begin": begin})
    assert (made.status_code, made.json()["version"]) == (201, 4), made.text
    begun = (await here.client.get(path)).json()
    assert (begun["name"], begun["message_count"], begun["version"]) == ("Trip 0", 2, 4)
    assert name in (begun["given_id"], begun["id"])


async def test_of_concurrent_appends_one_begins_the_conversation(here: Served) -> None:
    def body(number: int) -> dict[str, Any]:
        return {
            "events": [{"event_type": "my.own", "content": number}],
            "begin": {"name": "Trip", "metadata": {"a": 1}},
        }

    path = "/v1/conversations/trip/events"
    made = await asyncio.gather(*(here.client.post(path, json=body(number)) for number in range(16)))
    assert {each.status_code for each in made} == {201}
    key = {"Idempotency-Key": "1"}
    repeated = await asyncio.gather(
        *(here.client.post("/v1/conversations/b/events", json=body(0), headers=key) for _ in range(16))
    )
    assert len({each.content for each in repeated}) == 1
    for name, contents in (("trip", list(range(16))), ("b", [0])):
        created, *others = (await here.client.get(f"/v1/conversations/{name}/events")).json()["items"]
        assert created["content"] == {"name": "Trip", "given_id": name, "metadata": {"a": 1}}
        assert sorted(each["content"] for each in others) == contents


async def test_an_append_that_is_refused_begins_nothing(here: Served) -> None:
    event = {"event_type": "a"}
    for name, body, status in (
        ("eventstore:agents", {"events": [event], "begin": {}}, 422),
        ("trip", {"events": [event], "begin": {"name": "x" * 256}}, 422),
        ("trip", {"events": [event], "begin": {"metadata": {"a": "\0"}}}, 422),
        ("trip", {"events": [event], "begin": {}, "expected_version": 3}, 422),
        ("trip", {"events": [event], "begin": {"nome": ""}}, 422),
        ("trip", {"events": [], "begin": {}}, 422),
        ("\0", {"events": [event], "begin": {}}, 422),
    ):
        refused = await here.client.post(f"/v1/conversations/{quote(name, safe='')}/events", json=body)
        assert refused.status_code == status, (name, body, refused.text)
    refused = await here.client.post("/v1/conversations/trip/messages?name=x", json={"role": "user", "content": ""})
    assert refused.status_code == 422
    assert (await here.client.get("/v1/log")).json()["items"] == []


async def test_only_who_may_write_to_a_conversation_appends_to_it(protected: Served, people: People) -> None:
    ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
    eve = await people.person("other", "eve")
    body = {"events": [{"event_type": "a"}], "begin": {"name": "mine"}}
    path = "/v1/conversations/trip/events"
    assert (await ana.post(path, body)).status_code == 201
    assert (await bob.post(path, body)).status_code == 403
    assert (
        await bob.post("/v1/conversations/trip/messages?begin=true", {"role": "user", "content": ""})
    ).status_code == 403
    assert (await eve.post(path, body)).status_code == 201, "another tenant has a conversation of its own"
    assert (await ana.post("/v1/conversations/trip/members", {"user": "bob", "access": "read"})).status_code == 201
    assert (await bob.post(path, body)).status_code == 403
    assert [each["actor"] for each in (await ana.get(path)).json()["items"]][:2] == ["ana", "ana"]
    assert len((await ana.get(path)).json()["items"]) == 3
