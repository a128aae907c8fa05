"""A client of the demo's endpoints understands every message, whichever version of A2A it was sent in, or in none."""

from __future__ import annotations

from typing import Any

import pytest
from support.serving import Served

from agent_manager.a2a import invalid_member

pytestmark = pytest.mark.shared_database

OLD = {
    "kind": "message",
    "messageId": "m1",
    "contextId": "trip",
    "role": "user",
    "parts": [{"kind": "text", "text": "a"}],
}
NEW = {"messageId": "m1", "contextId": "trip", "role": "ROLE_USER", "parts": [{"text": "a"}]}
OLD_FILE = {"kind": "file", "file": {"bytes": "AA==", "mimeType": "a/b"}}
NEW_FILE = {"raw": "AA==", "mediaType": "a/b"}


async def lists(here: Served, version: str | None = None) -> list[list[dict[str, Any]]]:
    """The messages of the one conversation, as each endpoint tells them."""
    headers = {} if version is None else {"A2A-Version": version}

    async def result(path: str, params: Any = None) -> Any:
        answer = await here.client.post(path, json={"params": params}, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    [conversation] = await result("/conversation/list")
    events = await result("/events/get")
    contents = [event["content"] for event in events if event["content"]["messageId"] in ("m1", "m2")]
    return [await result("/message/list", "trip"), conversation["messages"], contents]


@pytest.mark.parametrize(("first", "second"), [(OLD, NEW), (NEW, OLD)], ids=["0.3 first", "1.x first"])
async def test_a_conversation_is_told_in_the_shape_of_its_first_message(here: Served, first: Any, second: Any) -> None:
    for message in (first, second | {"messageId": "m2"}):
        assert (await here.client.post("/message/send", json={"params": message})).status_code == 200
    for told in await lists(here):
        assert told == [first, first | {"messageId": "m2"}]


@pytest.mark.parametrize(("version", "shape", "file"), [("0.3", OLD, OLD_FILE), ("1.0", NEW, NEW_FILE)])
async def test_a_client_that_names_its_version_gets_that(here: Served, version: str, shape: Any, file: Any) -> None:
    for message in (OLD, NEW | {"messageId": "m2", "parts": [NEW_FILE]}):
        assert (await here.client.post("/message/send", json={"params": message})).status_code == 200
    listed, whole, events = await lists(here, version)
    assert whole == events == [shape, shape | {"messageId": "m2", "parts": [file]}]
    assert (listed[0], "/message/file/" in str(listed[1])) == (shape, True)
    refused = await here.client.post("/message/list", json={"params": "trip"}, headers={"A2A-Version": "7"})
    assert (refused.status_code, "A2A-Version" in refused.json()["error"]["message"]) == (422, True)


async def test_messages_of_no_shape_of_a2a_are_told_in_one(here: Served) -> None:
    await here.begin(id="trip")
    sent = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
        {"role": "tool", "content": "", "tool_call_id": "c"},
    ]
    for message in sent:
        answer = await here.client.post("/v1/conversations/trip/messages", json=message)
        assert answer.status_code == 201
    listed, whole, _ = await lists(here)
    assert listed == whole
    assert [(message["kind"], message["role"]) for message in listed] == [
        ("message", role) for role in ("agent", "user", "agent", "agent")
    ]
    assert [message["parts"] for message in listed] == [
        [{"kind": "text", "text": "be kind"}], [{"kind": "text", "text": "a"}], [], [],
    ]  # fmt: skip
    assert len({message["messageId"] for message in listed}) == 4
    kept = (await here.client.get("/v1/conversations/trip/messages")).json()["items"]
    assert [message["sent"] for message in kept] == sent


async def test_parts_that_are_none_cost_nobody_the_other_messages(here: Served) -> None:
    await here.begin(id="trip")
    good = {"kind": "data", "data": {"a": [1]}, "metadata": {"b": None}}
    sent = [
        {"role": "user", "messageId": "m1", "parts": [{"kind": "text", "text": 5}, good, {"kind": "file", "file": {}}]},
        {"role": "agent", "messageId": "m2", "parts": [{"text": "a"}], "metadata": "x", "extensions": [7]},
    ]
    for message in sent:
        answer = await here.client.post("/v1/conversations/trip/messages", json=message)
        assert answer.status_code == 201, answer.text
    for told in await lists(here):
        assert [invalid_member(message, "0.3") for message in told] == [None, None]
        assert [message["parts"] for message in told] == [
            [
                {"kind": "data", "data": {"kind": "text", "text": 5}},
                good,
                {"kind": "data", "data": {"kind": "file", "file": {}}},
            ],
            [{"kind": "text", "text": "a"}],
        ]
    kept = (await here.client.get("/v1/conversations/trip/messages")).json()["items"]
    assert [message["sent"] for message in kept] == sent


async def test_a_conversation_of_the_newer_version_costs_an_older_client_no_list(here: Served) -> None:
    for message in (NEW | {"contextId": "new"}, OLD | {"contextId": "old"}):
        assert (await here.client.post("/message/send", json={"params": message})).status_code == 200
    for path in ("/conversation/list", "/events/get"):
        told = (await here.client.post(path)).json()["result"]
        messages = [message for each in told for message in each.get("messages", [each.get("content")])]
        assert messages == [OLD | {"contextId": "new"}, OLD | {"contextId": "old"}]
    listed = (await here.client.post("/message/list", json={"params": "new"})).json()["result"]
    assert listed == [NEW | {"contextId": "new"}]
