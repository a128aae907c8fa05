"""The trail of a conversation and the log, over HTTP; and appending any event."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
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
    unknown = await here.client.get("/v1/statistics", params={"zone": "Mars"})
    assert (unknown.status_code, "Mars" in unknown.json()["detail"]) == (422, True)
