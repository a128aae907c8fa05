"""The endpoints of the A2A demo application, called as its own client calls them."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from support.serving import Served, served
from support.waiting import until_async

from agent_manager.agents.agent import Context, Reply, StatusUpdate, TaskSnapshot, Update
from eventstore import ConversationRewound, EventStore
from projections import rebuild

pytestmark = pytest.mark.shared_database

PNG = b"\x89PNG\r\n\x1a\n\x00\xff"


async def call(http: httpx.AsyncClient, method: str, params: Any = None, status: int = 200) -> Any:
    """The result of a call; of one that fails, the error."""
    body = {"jsonrpc": "2.0", "id": "abc", "method": method} | ({} if params is None else {"params": params})
    answer = await http.post(f"/{method}", json=body)
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert told.keys() == {"jsonrpc", "id", "result", "error"}
    assert (told["jsonrpc"], told["id"]) == ("2.0", "abc")
    return told["result"] if status == 200 else told["error"]


def message(context: str, text: str = "olá", **members: Any) -> dict[str, Any]:
    """A message as the demo's client writes it: with Python's names."""
    parts = [{"kind": "text", "text": text}]
    return {"kind": "message", "message_id": "m1", "context_id": context, "role": "user", "parts": parts} | members


async def answering(asked: dict[str, Any], context: Context) -> AsyncIterator[Update]:
    """Says what was asked, and works on a task meanwhile."""
    told = context.conversation_id
    task = {"kind": "task", "id": "t1", "contextId": told, "status": {"state": "working"}}
    yield TaskSnapshot(task)
    yield StatusUpdate("t1", told, {"state": "completed"}, final=True)
    yield Reply({"kind": "message", "role": "agent", "messageId": "r1", "contextId": told, "parts": asked["parts"]})


@pytest.fixture
async def demo(store: EventStore, works: bool) -> AsyncIterator[Served]:
    """A server whose agent answers."""
    async with served(store, answer=answering, works=works) as here:
        yield here


async def test_a_round_of_the_demo(demo: Served) -> None:
    http = demo.client
    made = await call(http, "conversation/create")
    trip = made["conversation_id"]
    assert made == {"conversation_id": trip, "is_active": True, "name": "", "task_ids": [], "messages": []}
    sent = message(trip, metadata={"message_id": "stays"}, reference_task_ids=["t0"])
    assert await call(http, "message/send", sent) == {"message_id": "m1", "context_id": trip}

    async def is_answered() -> bool:
        return await call(http, "message/pending") == []

    await until_async(is_answered, "the message was answered")
    stored = {
        "kind": "message", "messageId": "m1", "contextId": trip, "role": "user", "referenceTaskIds": ["t0"],
        "parts": [{"kind": "text", "text": "olá"}], "metadata": {"message_id": "stays"},
    }  # fmt: skip
    listed = await call(http, "message/list", trip)
    assert listed[0] == stored
    assert [each["messageId"] for each in listed] == ["m1", "r1"]
    [conversation] = await call(http, "conversation/list")
    assert (conversation["name"], conversation["task_ids"]) == ("olá", ["t1"])
    assert conversation["messages"] == listed
    [task] = await call(http, "task/list")
    assert (task["id"], task["contextId"], task["status"]["state"]) == ("t1", trip, "completed")
    events = await call(http, "events/get")
    assert all(event.keys() == {"id", "actor", "content", "timestamp"} for event in events)
    assert events[0]["content"] == stored
    assert isinstance(events[0]["timestamp"], float)


async def test_a_message_waits_for_its_answer_and_says_so(store: EventStore) -> None:
    go_on = asyncio.Event()

    async def slow(asked: dict[str, Any], context: Context) -> AsyncIterator[Update]:
        await go_on.wait()
        yield Reply({"kind": "message", "role": "agent", "messageId": "r", "parts": []})

    async with served(store, answer=slow) as here:
        await call(here.client, "message/send", message("trip"))
        assert [each[0] for each in await call(here.client, "message/pending")] == ["m1"]
        [pending] = (await here.client.get("/v1/pending")).json()["items"]
        assert (pending["conversation_id"], pending["message_id"]) == ("trip", "m1")
        go_on.set()

        async def is_answered() -> bool:
            return (await here.client.get("/v1/pending")).json()["items"] == []

        await until_async(is_answered, "the message was answered")


async def test_what_waits_when_the_server_ends_still_waits_at_the_next(store: EventStore) -> None:
    async def never(asked: dict[str, Any], context: Context) -> AsyncIterator[Update]:
        await asyncio.Event().wait()
        yield Reply({})

    async with served(store, answer=never) as here:
        here.server_context.answering_seconds = 0.1
        await call(here.client, "message/send", message("trip"))
    async with served(store) as here:
        assert [each[0] for each in await call(here.client, "message/pending")] == ["m1"]


async def test_a_message_may_go_to_a_conversation_that_nobody_has_begun(demo: Served) -> None:
    assert (await call(demo.client, "message/send", message("new one")))["context_id"] == "new one"
    assert (await call(demo.client, "message/list", "new one"))[0]["messageId"] == "m1"
    assert await call(demo.client, "message/list", "unheard of") == []


async def test_a_message_of_v1_is_sent_and_answered(demo: Served) -> None:
    trip = await demo.begin(id="trip")
    sent = {"messageId": "m9", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
    accepted = await demo.client.post("/v1/conversations/trip/send", json=sent)
    assert (accepted.status_code, accepted.json()["conversation"]) == (202, trip)

    async def has_reply() -> Any:
        items = (await demo.client.get("/v1/conversations/trip/messages")).json()["items"]
        return len(items) == 2 and items

    items = await until_async(has_reply, "the reply is there")
    assert items[0]["id"] == accepted.json()["event_id"]
    assert items[1]["sent"]["messageId"] == "r1"


FILES: dict[str, tuple[dict[str, Any], str, str]] = {
    "image": ({"kind": "file", "file": {"bytes": "", "mime_type": "image/png", "name": "á"}}, "image/png", "inline"),
    "page": ({"kind": "file", "file": {"bytes": "", "mimeType": "text/html"}}, "text/html", "attachment"),
    "drawing": ({"kind": "file", "file": {"bytes": "", "mimeType": "image/svg+xml"}}, "image/svg+xml", "attachment"),
    "unsaid": ({"kind": "file", "file": {"bytes": ""}}, "application/octet-stream", "attachment"),
    "forged": (
        {"kind": "file", "file": {"bytes": "", "mimeType": "a/b\r\nX: y"}}, "application/octet-stream", "attachment",
    ),
    "1.x": ({"raw": "", "mediaType": "audio/wav", "filename": "a.wav"}, "audio/wav", "inline"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.slow
async def test_a_file_is_listed_as_an_address_and_served_as_it_was(store: EventStore, kind: str) -> None:
    given, media_type, way = FILES[kind]
    encoded = base64.b64encode(PNG).decode()
    part = given | ({"raw": encoded} if "raw" in given else {"file": given["file"] | {"bytes": encoded}})
    elsewhere = {"kind": "file", "file": {"uri": "https://example.org/a.png", "mimeType": "image/png"}}
    async with served(store) as here:
        sent = message("trip", parts=[elsewhere, part])
        if "raw" in given:
            elsewhere = {"url": "https://example.org/a.png", "mediaType": "image/png"}
            sent = {"messageId": "m1", "contextId": "trip", "role": "ROLE_USER", "parts": [elsewhere, part]}
        await call(here.client, "message/send", sent)
        [listed] = await call(here.client, "message/list", "trip")
    assert listed["parts"][0] == elsewhere
    told = listed["parts"][1]
    address = told["url"] if "raw" in given else told["file"]["uri"]
    assert encoded not in str(told)
    async with served(store) as here:  # another server, after a restart
        await rebuild(store)
        assert [listed] == await call(here.client, "message/list", "trip")
        file = await here.client.get(address)
        assert (file.status_code, file.content) == (200, PNG)
        assert file.headers["content-type"] == media_type
        assert file.headers["content-disposition"].startswith(way)
        assert file.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in file.headers["content-security-policy"]


async def test_a_file_that_is_not_there_is_not_found(demo: Served) -> None:
    await call(demo.client, "message/send", message("trip", parts=[{"kind": "file", "file": {"bytes": "AA=="}}]))
    [listed, *_] = await call(demo.client, "message/list", "trip")
    there = listed["parts"][0]["file"]["uri"]
    place, version, _ = there.rsplit("-", 2)
    for path in (
        "/message/file/nope", f"{place}-{version}-1", f"{place}-999-0", f"{place}-0-0", f"{place}-1-0",
        f"/message/file/{'0' * 32}-1-0", f"{there}/..%2f", "/message/file/%01", "/message/file/" + "9" * 5000,
    ):  # fmt: skip
        missing = await demo.client.get(path)
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert (await demo.client.get(there)).status_code == 200
    await demo.store.append(UUID(place.rpartition("/")[2]), [ConversationRewound(to_version=0)])
    assert (await demo.client.get(there)).status_code == 404, "the conversation hides its message"


async def test_bytes_that_are_no_base64_are_not_served(demo: Served) -> None:
    await call(demo.client, "message/send", message("trip", parts=[{"kind": "file", "file": {"bytes": "no!"}}]))
    [listed, *_] = await call(demo.client, "message/list", "trip")
    refused = await demo.client.get(listed["parts"][0]["file"]["uri"])
    assert (refused.status_code, "base64" in refused.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("params", "place"),
    [
        (None, "params"),
        ([], "params"),
        ({"role": "user", "parts": []}, "params.messageId"),
        ({"message_id": 7, "role": "user", "parts": []}, "params.messageId"),
        ({"message_id": "m", "context_id": 7, "role": "user", "parts": []}, "params.contextId"),
        ({"message_id": "m", "role": "king", "parts": []}, "params.role"),
        ({"message_id": "m", "role": "user", "parts": "x"}, "params.parts"),
        ({"message_id": "m", "role": "user", "parts": ["x"]}, "params.parts"),
        ({"message_id": "m", "role": "user", "parts": [{"kind": "text", "text": 5}]}, "params.parts[0].text"),
        ({"message_id": "m", "role": "ROLE_USER", "parts": [{"text": 5}]}, "params.parts[0].text"),
        ({"message_id": "m", "role": "user", "parts": [], "metadata": "x"}, "params.metadata"),
    ],
)
async def test_a_message_that_is_none_is_refused_by_name(http: httpx.AsyncClient, params: Any, place: str) -> None:
    error = await call(http, "message/send", params, status=422)
    assert (error["code"], error["data"]["path"], error["message"].startswith(place)) == (-32602, place, True)
    assert await call(http, "conversation/list") == []


async def test_a_body_that_is_no_json_or_no_call_is_refused(http: httpx.AsyncClient) -> None:
    for body, status, code in ((b"{", 400, -32700), (b"\xff\xfe", 400, -32700), (b"[1]", 422, -32602)):
        refused = await http.post("/message/send", content=body, headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()["error"]["code"], refused.json()["id"]) == (status, code, None)
    assert (await http.post("/conversation/list")).json()["result"] == []
    assert (await http.post("/message/list", json={"params": None})).status_code == 422
    assert (await http.get("/conversation/list")).status_code == 405


async def test_agents_are_registered_listed_and_forgotten(http: httpx.AsyncClient) -> None:
    card = {"name": "Echo", "url": "http://localhost:1/", "version": "1", "skills": [], "capabilities": {}}
    made = await http.post("/v1/agents", json={"card": card})
    assert (made.status_code, made.json()) == (201, card)
    demanded = {"description": "", "defaultInputModes": [], "defaultOutputModes": []}  # of a card, by the client
    assert await call(http, "agent/list") == [card | demanded]
    assert (await http.delete("/v1/agents", params={"url": card["url"]})).status_code == 204
    assert (await http.get("/v1/agents")).json()["items"] == []
    assert (await http.delete("/v1/agents", params={"url": card["url"]})).status_code == 404
    unreachable = await call(http, "agent/register", "http://127.0.0.1:1/", status=502)
    assert unreachable["data"]["type"] == "AgentUnreachable"
    assert (await call(http, "agent/register", status=422))["code"] == -32602


async def test_a_key_that_a_client_sends_changes_no_process(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "old")
    for wrong in ({}, {"api_key": 7}, {"api_key": ""}):
        assert (await http.post("/api_key/update", json=wrong)).status_code == 422
    before = dict(os.environ)
    assert (await http.post("/api_key/update", json={"api_key": "new"})).json() == {"status": "success"}
    assert dict(os.environ) == before
