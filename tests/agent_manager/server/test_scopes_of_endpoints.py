"""The data that each scope receives, over all endpoints: below audit, no position of the log."""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from support.callers import People, Person
from support.endpoints import TASK, Endpoint, endpoints
from support.serving import Served, served

from agent_manager.auth import TokenScope
from agent_manager.server.authorization import Data, needs
from agent_manager.server.sealed_tokens import open_sealer
from eventstore import EventStore

pytestmark = pytest.mark.shared_database

FIRST = 765_432_100_000
"""Positions begin here, so that they are found in any response."""
PAGED = ("conversations", "messages", "tasks", "search")
NAME, TEXT = "zanzibar", "a train to Lisbon"


@dataclass(frozen=True)
class Callers:
    """The same user with different keys, and a conversation of theirs.

    Attributes:
        everything: has all scopes but admin.
    """

    here: Served
    people: People
    everything: Person
    reader: Person
    writer: Person
    trip: str
    file: str


@pytest.fixture
async def callers(superuser_url: str, protected: Served, people: People) -> Callers:
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute("SELECT setval('events_position', greatest(last_value, %s)) FROM events_position", [FIRST])
    everything = await people.person("acme", "ana", TokenScope.READ, TokenScope.WRITE, TokenScope.AUDIT)
    made = await everything.post("/v1/conversations", {"id": "trip", "name": NAME, "metadata": {"x": NAME}})
    trip = made.json()["id"]
    file = {"kind": "file", "file": {"name": "n", "bytes": "aGVsbG8="}}
    for number in range(3):
        parts = [{"kind": "text", "text": TEXT}, file]
        message = {"messageId": f"m{number}", "contextId": "trip", "role": "user", "parts": parts}
        assert (await everything.post(f"/v1/conversations/{trip}/messages", message)).status_code == 201
    waiting = {"role": "user", "content": TEXT, "given_id": "w", "awaits_answer": True}
    task = {"task_id": TASK, "description": TEXT}
    push = {"task_id": TASK, "config_id": "p1", "config": {"url": "https://client.example"}}
    events = [
        {"event_type": "message.added", "content": waiting},
        {"event_type": "task.created", "content": task},
        {"event_type": "task.push_notification_set", "content": push},
    ]
    last = await everything.post(f"/v1/conversations/{trip}/events", {"events": events})
    for path in ("/v1/search?q=x", "/v1/statistics"):
        await everything.get(path, params={"at_least": last.json()["position"]})
    listed = (await everything.post("/message/list", {"params": trip})).json()["result"]
    file_id = listed[0]["parts"][1]["file"]["uri"].rpartition("/")[2]
    reader = await people.person("acme", "ana", TokenScope.READ)
    writer = await people.person("acme", "ana", TokenScope.WRITE)
    return Callers(protected, people, everything, reader, writer, trip, file_id)


def tells_positions(text: str) -> bool:
    """Return whether a text has a position of the log in it, also inside what is encoded."""
    words = [text, *re.findall(r"[\w-]{8,}", text)]
    for word in list(words):
        try:
            words.append(urlsafe_b64decode(word + "=" * (-len(word) % 4)).decode("latin-1"))
        except (ValueError, Base64Error):
            continue
    start = str(FIRST)[:8]
    raw = FIRST.to_bytes(8)[:5].decode("latin-1")
    return any(start in word or raw in word for word in words)


def of_scope(scope: TokenScope) -> list[Endpoint]:
    return [each for each in endpoints() if each.needs == scope]


async def ask(person: Person, endpoint: Endpoint, callers: Callers, **params: Any) -> httpx.Response:
    path = endpoint.filled_path(callers.trip, callers.file)
    if endpoint.method == "GET":
        params |= {"q": "Lisbon"} if "search" in path else {}
        params |= {"limit": 1} if path.rpartition("/")[2] in PAGED else {}
        return await person.get(path, params=params)
    return await endpoint.request(person.client, callers.trip, callers.file)


@pytest.mark.any_server
def test_the_kinds_of_data_decide_which_scope_each_endpoint_needs() -> None:
    assert {data: data.scope for data in Data} == {
        Data.STATUS: None, Data.CONTENT: "read", Data.PAST: "audit", Data.LOG: "audit", Data.CONVERSATION: "write",
        Data.REGISTRY: "admin", Data.RETENTION: "admin", Data.ERASURE: "erase", Data.METRICS: "admin",
    }  # fmt: skip
    assert needs(Data.LOG)["security"] == [{"token": ["audit"]}]
    assert {each.path for each in of_scope(TokenScope.AUDIT)} == {
        "/v1/log", "/v1/log/stream", "/v1/log/replay", "/v1/conversations/{conversation}/events",
        "/v1/conversations/{conversation}/stream", "/v1/audit/trail", "/v1/audit/trail/export",
        "/v1/conversations/{conversation}/events/{event}/causation",
    }  # fmt: skip


async def test_the_scope_read_shows_current_data_but_not_the_log(callers: Callers) -> None:
    asked = 0
    for endpoint in of_scope(TokenScope.READ):
        answer = await ask(callers.reader, endpoint, callers)
        assert answer.status_code == 200, (endpoint, answer.text)
        text = answer.text + str(dict(answer.headers))
        assert '"salt"' not in text, endpoint
        assert '"digest"' not in text, endpoint
        assert not tells_positions(text), (endpoint, text)
        asked += 1
    assert asked >= 15
    trip = f"/v1/conversations/{callers.trip}"
    for past in ("version=1", "position=1", "time=2020-01-01T00:00:00Z", "version=x", "version=&version=1"):
        answer = await callers.reader.get(f"{trip}/state?{past}")
        assert (answer.status_code, "scope audit" in answer.text) == (403, True), past
    for path in ("/v1/log", "/v1/log/stream", f"{trip}/events", f"{trip}/stream?after=0"):
        assert (await callers.reader.get(path)).status_code == 403, path
    auditor = await callers.people.person("acme", "ana", TokenScope.AUDIT)
    assert (await auditor.get(f"{trip}/state?version=1")).status_code == 403, "the state is content, too"
    assert (await callers.everything.get(f"{trip}/state?version=1")).json()["messages"] == []
    assert tells_positions((await callers.everything.get("/v1/log")).text), "or the rest would prove nothing"


async def test_the_scope_write_alone_shows_only_ids_and_what_was_sent(callers: Callers) -> None:
    for endpoint in of_scope(TokenScope.WRITE):
        answer = await ask(callers.writer, endpoint, callers)
        assert answer.status_code in (200, 201, 202, 204, 404, 409), (endpoint, answer.text)
        assert NAME not in answer.text, endpoint
        assert TEXT not in answer.text, endpoint
        assert not tells_positions(answer.text + str(dict(answer.headers))), (endpoint, answer.text)
    trip = f"/v1/conversations/{callers.trip}"
    await callers.writer.client.patch(trip, json={"is_active": True})
    changed = await callers.writer.client.patch(trip, json={"is_active": False})
    assert (changed.status_code, changed.json()) == (200, {"id": callers.trip})
    made = await callers.writer.post("/v1/conversations", {"id": "other", "name": "mine"})
    assert made.json().keys() == {"id"}
    both = await callers.everything.client.patch(trip, json={"is_active": True})
    assert both.json()["name"] == "mine now"


async def test_positions_are_sealed_for_their_tenant_and_work_as_at_least_everywhere(callers: Callers) -> None:
    mixed = await callers.people.person("acme", "ana", TokenScope.READ, TokenScope.WRITE)
    appended = (await mixed.post(f"/v1/conversations/{callers.trip}/messages", {"role": "user", "content": "x"})).json()
    sealed = appended["position"]
    assert appended["events"][0]["position"] == sealed
    async with served(callers.here.store, requires_tokens=True, works=False) as other:
        headers = {"Authorization": f"Bearer {mixed.token}"}
        path = f"/v1/conversations/{callers.trip}/messages"
        held = await other.client.get(path, params={"at_least": sealed}, headers=headers)
        assert held.json()["items"][-1]["content"] == "x", held.text
    whole = await callers.everything.get("/v1/conversations", params={"at_least": FIRST})
    assert whole.status_code == 200
    eve = await callers.people.person("globex", "ana", *TokenScope)
    bob = await callers.people.person("acme", "bob", TokenScope.READ)
    assert (await bob.get("/v1/conversations", params={"at_least": sealed})).status_code == 200
    refused = [
        (mixed, str(FIRST)), (mixed, "1"), (mixed, "0"), (mixed, sealed[:-2]), (mixed, sealed + "A"), (mixed, "é"),
        (eve, sealed), (eve, str(2**63)), (eve, "9" * 50), (eve, "-1"),
    ]  # fmt: skip
    for person, at_least in refused:
        answer = await person.get("/v1/conversations", params={"at_least": at_least})
        assert (answer.status_code, "at_least" in answer.text) == (422, True), (person.tenant, at_least)


async def test_cursors_and_etags_of_a_search_do_not_reveal_that_others_write(callers: Callers) -> None:
    asked = {"q": "Lisbon", "limit": 2}
    first = await callers.reader.get("/v1/search", params=asked)
    eve = await callers.people.person("globex", "eve")
    await eve.post("/v1/conversations", {"id": "hers"})
    again = await callers.reader.get("/v1/search", params=asked)
    same = await callers.reader.get("/v1/search", params=asked)
    assert first.headers["etag"] == again.headers["etag"] == same.headers["etag"]
    cursors = {answer.json()["next"] for answer in (first, again, same)}
    assert len(cursors) == 3, "an unchanged cursor would tell that nobody wrote"
    assert len({len(cursor) for cursor in cursors}) == 1
    unchanged = await callers.reader.get("/v1/search", params=asked, headers={"If-None-Match": first.headers["etag"]})
    assert unchanged.status_code == 304
    seen = [hit["id"] for hit in first.json()["items"]]
    async with served(callers.here.store, requires_tokens=True) as other:  # another process opens it, too
        headers = {"Authorization": f"Bearer {callers.reader.token}"}
        for cursor in cursors:
            page = await other.client.get("/v1/search", params=asked | {"after": cursor}, headers=headers)
            assert page.status_code == 200, page.text
            assert not {hit["id"] for hit in page.json()["items"]} & set(seen)
    bob = await callers.people.person("acme", "bob")
    for person in (bob, eve):
        foreign = await person.get("/v1/search", params=asked | {"after": cursors.copy().pop()})
        assert (foreign.status_code, foreign.json()["title"]) == (400, "InvalidCursor")


async def test_servers_that_start_together_share_one_sealing_key(store: EventStore, superuser_url: str) -> None:
    before = await open_sealer(store)
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute("DELETE FROM server_secrets")
    made = await asyncio.gather(*(open_sealer(store) for _ in range(4)))
    sealed = made[0].seal_position("acme", 7)
    assert {each.open_position("acme", sealed) for each in made} == {7}
    assert before.open_position("acme", sealed) is None
