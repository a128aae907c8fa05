"""A POST that changes something can be repeated under an Idempotency-Key: it is done once, and answered alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from support.a2a_server import agent_in_thread
from support.callers import People
from support.endpoints import BODIES, MESSAGE, Endpoint, endpoints
from support.serving import Served, served
from support.waiting import until_async

from agent_manager.agents.agent import Context, Reply, Update
from agent_manager.auth import TokenScope
from agent_manager.server.app import create_app
from eventstore import EventStore

pytestmark = pytest.mark.shared_database

READING = {
    "/conversation/list", "/message/list", "/message/pending", "/events/get", "/task/list", "/agent/list",
}  # fmt: skip
"""POSTs that change nothing, as JSON-RPC has it."""
REPEATABLE = {
    "/v1/erasures", "/v1/retention/runs", "/v1/projections/{projection}/pause", "/v1/projections/{projection}/resume",
}  # fmt: skip
"""POSTs that change nothing when they are repeated, so that they take no key."""
WITHOUT_EVENTS = {"/api_key/update"}


def taking() -> list[Endpoint]:
    return [each for each in endpoints() if each.method == "POST" and each.path not in READING | REPEATABLE]


def without_a_task() -> list[Endpoint]:
    """Endpoints that need no task of an agent; test_remote_agents.py has the others."""
    return [each for each in taking() if "{task}" not in each.path]


def key() -> dict[str, str]:
    return {"Idempotency-Key": f'"{uuid4()}"'}


async def replying(message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
    yield Reply({"kind": "message", "role": "agent", "messageId": "r", "parts": [{"kind": "text", "text": "yes"}]})


@pytest.fixture(scope="module")
def agent_url() -> Iterator[str]:
    with agent_in_thread("0.3", streams=False) as agent:
        yield agent.url


@pytest.fixture
async def answered(store: EventStore, works: bool) -> AsyncIterator[Served]:
    """A server whose agent replies."""
    async with served(store, answer=replying, works=works) as here:
        yield here


def body_of(endpoint: Endpoint, conversation: str, agent_url: str) -> Any:
    text = json.dumps(BODIES["POST", endpoint.path]).replace("{conversation}", conversation)
    return json.loads(text.replace("http://127.0.0.1:1/", agent_url))


def plain(answer: httpx.Response) -> Any:
    """The response, apart from whether an event is new."""
    return answer.status_code, json.loads(answer.text.replace('"is_new":false', '"is_new":true'))


def another(body: Any) -> Any:
    """Another body that could be sent as well."""
    changed = json.loads(json.dumps(body))
    if isinstance(changed.get("params"), dict):
        changed["params"]["parts"] = [{"kind": "text", "text": "another"}]
    elif "params" in changed:
        changed["params"] += "?"
    else:
        changed |= {"content": "another", "events": [{"event_type": "other"}], "name": "other"}
    return changed


async def events_of(here: Served) -> list[tuple[Any, int]]:
    return [(event.id, event.version) async for event in here.store.read_log()]


async def until_answered(here: Served) -> None:
    async def is_answered() -> bool:
        return not (await here.client.get("/v1/pending")).json()["items"]

    await until_async(is_answered, "nothing is pending")


def test_every_post_that_writes_documents_the_idempotency_key(answered: Served) -> None:
    described = create_app(answered.server_context).openapi()["paths"]
    for endpoint in endpoints():
        operation = described[endpoint.path.replace("{user}", "{user}")][endpoint.method.lower()]
        headers = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "header"]
        assert ("Idempotency-Key" in headers) == (endpoint in taking()), endpoint


@pytest.mark.parametrize("endpoint", without_a_task(), ids=lambda endpoint: endpoint.path)
async def test_a_repetition_changes_nothing_and_gets_the_same_response(
    answered: Served, agent_url: str, endpoint: Endpoint
) -> None:
    here, headers = answered, key()
    trip = await here.begin()
    path, body = endpoint.path.replace("{conversation}", trip), body_of(endpoint, trip, agent_url)

    async def post(what: Any, **more: str) -> httpx.Response:
        return await here.client.post(path, json=what, headers=headers | more)

    first = await post(body)
    assert first.status_code < 300, first.text
    await until_answered(here)
    before = await events_of(here)
    assert (len(before) > 1) == (endpoint.path not in WITHOUT_EVENTS)
    written_otherwise = dict(reversed(body.items()))
    for again in (await post(body), await post(written_otherwise), *await asyncio.gather(*(post(body) for _ in "abc"))):
        assert (again.status_code, again.text) == (first.status_code, first.text)
        assert again.headers.get("location") == first.headers.get("location")
    clash = await post(another(body))
    assert (clash.status_code, "IdempotencyKeyReused" in clash.text) == (422, True), clash.text

    # The process died between what it wrote and the answer.
    await here.store.pool.fetch("UPDATE idempotency_keys SET status = NULL RETURNING 1")
    done_again = await post(body)
    assert done_again.status_code == first.status_code
    assert plain(done_again) == plain(first)
    await until_answered(here)
    assert await events_of(here) == before


@pytest.mark.parametrize("endpoint", without_a_task(), ids=lambda endpoint: endpoint.path)
async def test_concurrent_repetitions_are_carried_out_once(
    store: EventStore, works: bool, agent_url: str, endpoint: Endpoint
) -> None:
    """Over two servers, whose processes know nothing of each other."""
    headers = key()
    async with served(store, answer=replying, works=works) as one, served(store, works=False) as other:
        trip = await one.begin()
        path, body = endpoint.path.replace("{conversation}", trip), body_of(endpoint, trip, agent_url)
        clients = [one.client, other.client] if "send" not in path else [one.client]
        sending = (client.post(path, json=body, headers=headers) for client in clients * 4)
        answers = await asyncio.gather(*sending)
        await until_answered(one)
        assert all(plain(answer) == plain(answers[0]) for answer in answers)
        written = {"/agent/register": (2, 3), "/v1/agents": (2, 3)}  # the same card again is the same agent
        events = await events_of(one)
        once = 1 if endpoint.path in WITHOUT_EVENTS else 4 if "send" in path else 2
        assert len(events) in written.get(endpoint.path, (once,)), events


async def test_a_message_without_an_id_is_stored_once_for_a_key(answered: Served) -> None:
    trip = await answered.begin()
    message = {"role": "user", "parts": [{"kind": "text", "text": "no id"}]}
    path, headers = f"/v1/conversations/{trip}/send", key()
    answers = [await answered.client.post(path, json=message, headers=headers) for _ in range(2)]
    await answered.store.pool.fetch("DELETE FROM idempotency_keys RETURNING 1")  # forgotten
    answers.append(await answered.client.post(path, json=message, headers=headers))
    assert [answer.text for answer in answers] == [answers[0].text] * 3
    await answered.client.post(path, json=message)
    await answered.client.post(path, json=message, headers=key())
    await until_answered(answered)
    listed = (await answered.client.get(f"/v1/conversations/{trip}/messages")).json()["items"]
    assert [item["content"] for item in listed].count("no id") == 3


@pytest.mark.parametrize("path", ["/message/send", "/v1/conversations/{conversation}/send"])
@pytest.mark.parametrize("has_context", [True, False])
async def test_the_same_message_sent_twice_is_one_message_and_one_answer(
    answered: Served, path: str, has_context: bool
) -> None:
    trip = await answered.begin()
    message = MESSAGE | ({"contextId": trip} if has_context else {})
    body = message if path.startswith("/v1") else {"params": message}
    sending = (answered.client.post(path.replace("{conversation}", trip), json=body) for _ in range(6))
    answers = [
        *await asyncio.gather(*sending),
        await answered.client.post(path.replace("{conversation}", trip), json=body),
    ]
    assert all((one.status_code, one.json()) == (answers[0].status_code, answers[0].json()) for one in answers)
    await until_answered(answered)
    types = [event.event_type async for event in answered.store.read_log()]
    assert sorted(types[1:]) == sorted(
        ["message.added", "message.added", "message.answered"]
        + (["conversation.created"] if path == "/message/send" and not has_context else [])
    )


async def test_a_repeated_call_gets_its_own_id_back(answered: Served) -> None:
    headers = key()
    for number in (1, "two"):
        call = {"jsonrpc": "2.0", "id": number, "method": "message/send", "params": MESSAGE}
        answer = (await answered.client.post("/message/send", json=call, headers=headers)).json()
        assert (answer["id"], answer["error"]) == (number, None)
        assert answer["result"]["message_id"] == MESSAGE["messageId"]


async def test_a_rejected_request_can_be_corrected_with_the_same_key(answered: Served) -> None:
    trip = await answered.begin()
    path, headers = f"/v1/conversations/{trip}/messages", key()
    for body, status in (
        ({"role": "king", "content": "x"}, 422),
        ([], 422),
        ({"role": "user", "content": "x"}, 201),
        ({"role": "user", "content": "y"}, 422),
    ):
        assert (await answered.client.post(path, json=body, headers=headers)).status_code == status
    missing = f"/v1/conversations/{uuid4()}/messages"
    assert (
        await answered.client.post(missing, json={"role": "user", "content": "x"}, headers=headers)
    ).status_code == 404
    for headers in ({"Idempotency-Key": ""}, {"Idempotency-Key": "k" * 256}):
        refused = await answered.client.post(path, json={"role": "user", "content": "x"}, headers=headers)
        assert (refused.status_code, "Idempotency-Key" in refused.text) == (422, True)


async def test_a_key_belongs_to_its_caller(protected: Served, people: People) -> None:
    ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
    eve, service = await people.person("globex", "eve"), await people.person("acme", None, *TokenScope)
    headers = key()
    made = [await one.post("/v1/conversations", {"name": one.key}, headers=headers) for one in (ana, bob, eve, service)]
    again = [
        await one.post("/v1/conversations", {"name": one.key}, headers=headers) for one in (ana, bob, eve, service)
    ]
    assert [answer.status_code for answer in made] == [201] * 4
    assert [answer.json() for answer in again] == [answer.json() for answer in made]
    assert len({answer.json()["id"] for answer in made}) == 4


@pytest.mark.own_database
async def test_keys_are_deleted_after_a_week(answered: Served) -> None:
    for age in (6, 8):
        await answered.client.post("/v1/conversations", json={}, headers=key())
        await answered.store.pool.fetch(
            "UPDATE idempotency_keys SET created_at = now() - make_interval(days => %s) "
            "WHERE created_at > now() - interval '1 day' RETURNING 1",
            (age,),
        )
    await answered.client.post("/v1/conversations", json={}, headers=key())
    [(left,)] = await answered.store.pool.fetch("SELECT count(*) FROM idempotency_keys")
    assert left == 2
