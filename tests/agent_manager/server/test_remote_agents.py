"""Messages over HTTP that remote agents answer, and requests about their tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib import metadata
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from support.callers import People
from support.official_agent import Recorded, official_agent
from support.serving import Served, served
from support.waiting import until_async

from agent_manager.agents.local import from_callable
from agent_manager.agents.remote import remote
from agent_manager.auth import TokenScope
from eventstore import EventStore

pytest.importorskip("a2a", reason="a2a-sdk is not installed")
pytestmark = [
    pytest.mark.shared_database,
    pytest.mark.skipif(metadata.version("a2a-sdk").startswith("0."), reason="the agents are made with a2a-sdk 1.x"),
]

Json = dict[str, Any]
HOOK = {"url": "https://client.example/hook", "token": "s3cr3t"}


@pytest.fixture(params=["0.3", "1.0"])
async def answered(request: pytest.FixtureRequest, store: EventStore) -> AsyncIterator[tuple[Served, Recorded]]:
    with official_agent(version=request.param, pushes=True) as (url, recorded):
        async with served(store, answer=remote(url)) as here:
            yield here, recorded


async def replies(here: Served, conversation: str) -> list[str]:
    items = (await here.client.get(f"/v1/conversations/{conversation}/messages")).json()["items"]
    return [item["content"] for item in items if item["role"] == "assistant"]


@pytest.mark.slow
async def test_every_example_of_a_message_is_answered(answered: tuple[Served, Recorded]) -> None:
    here, recorded = answered
    whole = (await here.client.get("/openapi.json")).json()
    path = "/v1/conversations/{conversation}/send"
    examples = whole["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["examples"]
    assert len(examples) >= 3
    own = {"message_id": "m1", "task_id": "", "role": "ROLE_USER", "content": [{"text": "hello"}]}
    for number, example in enumerate([*examples, own]):
        trip = await here.begin(id=f"example {number}")
        sent = await here.client.post(f"/v1/conversations/{trip}/send", json=example)
        assert sent.status_code == 202, sent.text

        async def is_answered(trip: str = trip) -> bool:
            return bool(await replies(here, trip))

        await until_async(is_answered, "the agent has answered")
        assert await replies(here, trip) == ["heard hello"]
        assert recorded.messages[-1]["messageId"]
        assert recorded.messages[-1]["role"] == "ROLE_USER"
    assert (await here.client.get("/v1/pending")).json()["items"] == []


@pytest.mark.parametrize("member", ["request", "params"])
async def test_another_request_around_a_message_is_refused_by_name(here: Served, member: str) -> None:
    trip = await here.begin()
    body = {member: {"role": "user", "parts": [{"text": "hello"}]}, "configuration": {"blocking": True}}
    refused = await here.client.post(f"/v1/conversations/{trip}/send", json=body)
    assert (refused.status_code, f"send its member '{member}'" in refused.json()["detail"]) == (422, True)


async def task_of(client: httpx.AsyncClient, trip: str, state: str) -> str:
    """The id that the agent gave the conversation's task, once it is in a state."""
    found: list[str] = []

    async def is_there() -> bool:
        tasks = (await client.get(f"/v1/conversations/{trip}/tasks")).json()["items"]
        found[:] = [task["given_id"] or task["id"] for task in tasks if task["status"] == state]
        return bool(found)

    await until_async(is_there, f"the task is {state}")
    return found[0]


async def test_a_task_is_cancelled_once(answered: tuple[Served, Recorded]) -> None:
    here, _ = answered
    trip = await here.begin(id="trip")
    await here.client.post("/v1/conversations/trip/send", json={"role": "user", "content": "work"})
    task = await task_of(here.client, "trip", "in_progress")
    path = f"/v1/conversations/trip/tasks/{task}/cancel"
    canceled = await here.client.post(path, headers={"Idempotency-Key": "k"})
    assert (canceled.status_code, canceled.json()["id"]) == (200, task), canceled.text
    assert "CANCELED" in canceled.json()["status"]["state"].upper()
    again = await here.client.post(path, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (200, canceled.json())
    # The process died between what it wrote and the answer.
    await here.store.pool.fetch("UPDATE idempotency_keys SET status = NULL RETURNING 1")
    again = await here.client.post(path, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["status"]) == (200, canceled.json()["status"])
    refused = await here.client.post(path)
    assert (refused.status_code, refused.json()["title"]) == (409, "TaskNotCancelable"), refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert await task_of(here.client, "trip", "canceled") == task
    events = (await here.client.get(f"/v1/conversations/{trip}/events")).json()["items"]
    assert [event["event_type"] for event in events].count("task.cancel_requested") == 1
    missing = await here.client.post("/v1/conversations/trip/tasks/other/cancel")
    assert (missing.status_code, "'other'" in missing.json()["detail"]) == (404, True)


async def test_a_stubborn_task_is_a_conflict(answered: tuple[Served, Recorded]) -> None:
    here, _ = answered
    await here.begin(id="trip")
    await here.client.post("/v1/conversations/trip/send", json={"role": "user", "content": "stubborn"})
    task = await task_of(here.client, "trip", "in_progress")
    refused = await here.client.post(f"/v1/conversations/trip/tasks/{task}/cancel")
    assert (refused.status_code, refused.json()["title"]) == (409, "TaskNotCancelable"), refused.text


@pytest.mark.slow
async def test_the_examples_of_push_notifications_are_set_read_and_deleted(answered: tuple[Served, Recorded]) -> None:
    here, _ = answered
    await here.begin(id="trip")
    await here.client.post("/v1/conversations/trip/send", json={"role": "user", "content": "ask"})
    task = await task_of(here.client, "trip", "input-required")
    path = f"/v1/conversations/trip/tasks/{task}/push-notifications"
    whole = (await here.client.get("/openapi.json")).json()
    described = whole["paths"]["/v1/conversations/{conversation}/tasks/{task}/push-notifications"]["post"]
    examples = described["requestBody"]["content"]["application/json"]["schema"]["examples"]
    for example in examples:
        made = await here.client.post(path, json=example)
        assert made.status_code == 201, made.text
        given = example.get("pushNotificationConfig", example)
        read = await here.client.get(f"{path}/{made.json()['id']}")
        assert (read.status_code, read.json().get("token")) == (200, given.get("token")), read.text
        assert "secret" not in made.text
    listed = (await here.client.get(path)).json()["items"]
    assert [each["url"] for each in listed] == ["https://client.example/hook"] * len(examples)
    answers = [await here.client.post(path, json=examples[0], headers={"Idempotency-Key": "k"}) for _ in range(2)]
    await here.store.pool.fetch("UPDATE idempotency_keys SET status = NULL RETURNING 1")
    answers.append(await here.client.post(path, json=examples[0], headers={"Idempotency-Key": "k"}))
    assert [answer.json() for answer in answers] == [answers[0].json()] * 3
    listed = (await here.client.get(path)).json()["items"]
    assert len(listed) == len(examples) + 1
    for each in listed:
        assert (await here.client.delete(f"{path}/{each['id']}")).status_code == 204
    assert (await here.client.get(path)).json()["items"] == []
    assert (await here.client.delete(f"{path}/p1")).status_code == 404
    refused = await here.client.post(path, json={"url": 5})
    assert (refused.status_code, "url: is not" in refused.json()["detail"]) == (422, True)


@pytest.mark.parametrize("member", ["pushNotificationConfig", "taskPushNotificationConfig"])
async def test_push_notifications_come_with_a_message(answered: tuple[Served, Recorded], member: str) -> None:
    here, recorded = answered
    await here.begin(id="trip")
    config = {"id": "p1", "url": HOOK["url"], "token": "s3cr3t"}
    message = {"role": "user", "messageId": "m", "parts": [{"text": "ask"}]}
    body = {"message": message, "configuration": {member: config}}
    sent = await here.client.post("/v1/conversations/trip/send", json=body)
    assert sent.status_code == 202, sent.text
    task = await task_of(here.client, "trip", "input-required")
    assert len(recorded.headers) == 2, "the card and the message"
    path = f"/v1/conversations/trip/tasks/{task}/push-notifications"
    assert (await here.client.get(path)).json()["items"] == [{"id": "p1", "url": HOOK["url"]}]
    assert (await here.client.get(f"{path}/p1")).json() == config
    assert "s3cr3t" not in (await here.client.get("/v1/conversations/trip/events")).text
    body["configuration"] = {member: {"url": 5}}
    refused = await here.client.post("/v1/conversations/trip/send", json=body)
    assert (refused.status_code, "url: is not a text" in refused.json()["detail"]) == (422, True)
    assert (await here.client.delete(f"{path}/p1")).status_code == 204


async def test_a_message_with_push_notifications_is_refused_or_fails_if_the_agent_sends_none(store: EventStore) -> None:
    async def clerk(message: Json) -> str:
        return "hello"

    body = {"message": {"role": "user", "content": "ask"}, "configuration": {"pushNotificationConfig": HOOK}}
    async with served(store, answer=from_callable(clerk)) as here:
        await here.begin(id="trip")
        refused = await here.client.post("/v1/conversations/trip/send", json=body)
        assert (refused.status_code, refused.json()["title"]) == (409, "RequestUnsupported"), refused.text
        assert (await here.client.get("/v1/conversations/trip/messages")).json()["items"] == []
    with official_agent(pushes=False) as (url, _):
        async with served(store, answer=remote(url)) as here:
            await here.client.post("/v1/conversations/trip/send", json=body)

            async def has_failed() -> bool:
                [item] = (await here.client.get("/v1/conversations/trip/messages")).json()["items"]
                return item["status"] == "failed" and "sends no push notifications" in item["error"]

            await until_async(has_failed, "the answer has failed")


async def test_a_message_that_is_sent_begins_the_conversation_if_it_is_new(answered: tuple[Served, Recorded]) -> None:
    here, _ = answered
    for given in ("trip 7", "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e"):
        path = f"/v1/conversations/{quote(given)}"
        body = {"role": "user", "content": "hello"}
        assert (await here.client.post(f"{path}/send", json=body)).status_code == 404
        for name in ("First", "Second"):
            sent = await here.client.post(f"{path}/send", params={"begin": "true", "name": name}, json=body)
            assert (sent.status_code, sent.json()["conversation_id"]) == (202, given), sent.text

        async def is_answered(path: str = path) -> bool:
            return (await here.client.get(path)).json()["message_count"] == 4

        await until_async(is_answered, "both messages are answered")
        assert (await here.client.get(path)).json()["name"] == "First"
    refused = await here.client.post("/v1/conversations/eventstore:x/send", params={"begin": "true"}, json=body)
    assert refused.status_code == 422, refused.text


async def test_a_task_is_named_by_its_encoded_id_or_by_its_id_in_the_tables(store: EventStore) -> None:
    async def clerk(message: Json) -> AsyncIterator[Json]:
        yield {"id": message["content"], "status": {"state": "input-required"}}

    async with served(store, answer=from_callable(clerk)) as here:
        for number, given in enumerate(("a/b c%", "é..", "plain")):
            trip = await here.begin(id=f"named {number}")
            await here.client.post(f"/v1/conversations/{trip}/send", json={"role": "user", "content": given})
            assert await task_of(here.client, trip, "input-required") == given
            [task] = (await here.client.get(f"/v1/conversations/{trip}/tasks")).json()["items"]
            name = task["id"] if given == "plain" else quote(given, safe="")
            canceled = await here.client.post(f"/v1/conversations/named%20{number}/tasks/{name}/cancel")
            assert (canceled.status_code, canceled.json()["id"]) == (200, given), canceled.text


async def test_permissions_decide_before_the_agent_is_reached_and_secrets_are_shown_to_nobody_else(
    store: EventStore, superuser_url: str
) -> None:
    with official_agent(pushes=True) as (url, recorded):
        async with served(store, answer=remote(url), requires_tokens=True) as here:
            people = People(store, here.url)
            try:
                ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
                carl = await people.person("acme", "carl")
                writer = await people.person("acme", "ana", TokenScope.WRITE)
                await ana.post("/v1/conversations", {"id": "trip"})
                await ana.post("/v1/conversations/trip/send", {"role": "user", "content": "ask"})

                task = await task_of(ana.client, "trip", "input-required")
                await ana.post("/v1/conversations/trip/members", {"user": "bob", "access": "read"})
                path = f"/v1/conversations/trip/tasks/{task}"
                made = await ana.post(f"{path}/push-notifications", HOOK)
                assert made.status_code == 201, made.text
                one = f"{path}/push-notifications/{made.json()['id']}"
                assert (await ana.get(one)).json()["token"] == "s3cr3t"
                reached = len(recorded.headers)
                assert "token" not in (await bob.get(one)).json()
                for other, status in ((bob, 403), (carl, 404)):
                    assert (await other.post(f"{path}/cancel")).status_code == status
                    assert (await other.post(f"{path}/push-notifications", HOOK)).status_code == status
                    assert (await other.client.delete(one)).status_code == status
                begun = await carl.post("/v1/conversations/trip/send?begin=true", {"role": "user", "content": "ask"})
                assert begun.status_code == 403, begun.text
                assert len(recorded.headers) == reached
                for text in [
                    (await bob.get("/v1/conversations/trip/events")).text,
                    (await bob.get(f"{path}/push-notifications")).text,
                ]:
                    assert "client.example" in text
                    assert "s3cr3t" not in text
                cancelled = await writer.post(f"{path}/cancel")
                assert cancelled.json().keys() == {"id", "status"}
            finally:
                await people.close()
