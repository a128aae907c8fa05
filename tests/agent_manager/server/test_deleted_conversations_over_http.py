"""A deleted conversation over HTTP: what is written to it is refused, lists hide it, and it can be reactivated.

One table over all endpoints: a new endpoint must declare there what it does with a deleted conversation.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.endpoints import TASK, Endpoint, endpoints
from support.serving import Served

pytestmark = pytest.mark.shared_database

WORD = "xyzzy"
MESSAGE = {"messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": WORD}]}
REFUSED, HIDDEN, SHOWN, SAME, OTHER = "refused", "hidden", "shown", "as before", "of no conversation"

TABLE: dict[tuple[str, str], str] = {
    ("POST", "/v1/conversations"): REFUSED,
    ("GET", "/v1/conversations"): HIDDEN,
    ("GET", "/v1/conversations/{conversation}"): SHOWN,
    ("PATCH", "/v1/conversations/{conversation}"): REFUSED,
    ("DELETE", "/v1/conversations/{conversation}"): SAME,
    ("GET", "/v1/conversations/{conversation}/state"): SHOWN,
    ("GET", "/v1/conversations/{conversation}/members"): OTHER,
    ("POST", "/v1/conversations/{conversation}/members"): REFUSED,
    ("DELETE", "/v1/conversations/{conversation}/members/{user}"): OTHER,  # access can always be withdrawn
    ("GET", "/v1/conversations/{conversation}/messages"): SHOWN,
    ("POST", "/v1/conversations/{conversation}/messages"): REFUSED,
    ("POST", "/v1/conversations/{conversation}/send"): REFUSED,
    ("GET", "/v1/conversations/{conversation}/tasks"): SHOWN,
    ("POST", "/v1/conversations/{conversation}/tasks/{task}/cancel"): REFUSED,
    ("POST", "/v1/conversations/{conversation}/tasks/{task}/push-notifications"): OTHER,  # here is no agent to set them
    ("GET", "/v1/conversations/{conversation}/tasks/{task}/push-notifications"): OTHER,
    ("GET", "/v1/conversations/{conversation}/tasks/{task}/push-notifications/{config}"): OTHER,
    ("DELETE", "/v1/conversations/{conversation}/tasks/{task}/push-notifications/{config}"): OTHER,
    ("GET", "/v1/messages"): HIDDEN,
    ("GET", "/v1/tasks"): HIDDEN,
    ("GET", "/v1/conversations/{conversation}/events"): SHOWN,
    ("POST", "/v1/conversations/{conversation}/events"): REFUSED,
    ("POST", "/v1/conversations/{conversation}/forks"): REFUSED,
    ("GET", "/v1/conversations/{conversation}/ancestry"): OTHER,
    ("GET", "/v1/conversations/{conversation}/comparison"): SHOWN,
    ("GET", "/v1/conversations/{conversation}/stream"): OTHER,
    ("GET", "/v1/log"): SHOWN,  # the audit trail holds what happened
    ("GET", "/v1/log/stream"): OTHER,
    ("GET", "/v1/audit/trail"): SHOWN,
    ("GET", "/v1/audit/trail/export"): OTHER,  # compressed
    ("GET", "/v1/conversations/{conversation}/events/{event}/causation"): OTHER,  # of no event of it
    ("GET", "/v1/log/replay"): OTHER,
    ("GET", "/v1/search"): HIDDEN,
    ("GET", "/v1/statistics"): OTHER,  # they count what happened, and deleting undoes nothing
    ("POST", "/v1/erasures"): OTHER,  # what is deleted can be erased, too
    ("GET", "/v1/projections"): OTHER,
    ("POST", "/v1/projections/{projection}/pause"): OTHER,
    ("POST", "/v1/projections/{projection}/resume"): OTHER,
    ("GET", "/v1/agents"): OTHER,
    ("POST", "/v1/agents"): OTHER,
    ("DELETE", "/v1/agents"): OTHER,
    ("GET", "/v1/holds"): OTHER,
    ("POST", "/v1/holds"): OTHER,
    ("DELETE", "/v1/holds/{hold}"): OTHER,
    ("GET", "/v1/retention/rules"): OTHER,
    ("POST", "/v1/retention/rules"): OTHER,
    ("DELETE", "/v1/retention/rules/{rule}"): OTHER,
    ("POST", "/v1/retention/runs"): OTHER,
    ("GET", "/v1/pending"): HIDDEN,
    ("POST", "/conversation/create"): OTHER,
    ("POST", "/conversation/list"): HIDDEN,
    ("POST", "/message/send"): REFUSED,
    ("POST", "/message/list"): HIDDEN,
    ("POST", "/message/pending"): HIDDEN,
    ("POST", "/events/get"): HIDDEN,
    ("POST", "/task/list"): HIDDEN,
    ("POST", "/agent/register"): OTHER,
    ("POST", "/agent/list"): OTHER,
    ("POST", "/api_key/update"): OTHER,
    ("GET", "/message/file/{file_id}"): OTHER,
    ("GET", "/health"): OTHER,
    ("GET", "/ready"): OTHER,
    ("GET", "/metrics"): OTHER,
}


async def fill(here: Served) -> str:
    """A conversation with something of every kind, everywhere the word; gives its id."""
    trip = await here.begin(id="another", name=WORD)
    events = [
        {"event_type": "message.added", "content": MESSAGE_ADDED},
        {"event_type": "task.created", "content": {"task_id": TASK, "description": WORD, "given_id": WORD}},
        {"event_type": "task.status_changed", "content": {"task_id": TASK, "status": "in_progress"}},
    ]
    added = await here.client.post(f"/v1/conversations/{trip}/events", json={"events": events})
    assert added.status_code == 201, added.text
    for path in ("/v1/search", "/v1/statistics"):
        asked_for = {"at_least": added.json()["position"]} | ({"q": WORD} if path == "/v1/search" else {})
        caught = await here.client.get(path, params=asked_for)
        assert caught.status_code == 200
    return trip


MESSAGE_ADDED = {"role": "user", "content": WORD, "given_id": WORD, "awaits_answer": True}


def test_the_table_lists_every_endpoint() -> None:
    assert {(each.method, each.path) for each in endpoints()} - set(TABLE) == set()


def asked(endpoint: Endpoint, here: Served, trip: str) -> Any:
    if endpoint.path == "/v1/search":
        return here.client.get("/v1/search", params={"q": WORD})
    return endpoint.request(here.client, trip)


async def test_every_endpoint_treats_a_deleted_conversation_as_the_table_says(here: Served) -> None:
    trip = await fill(here)
    assert all([WORD in (await asked(each, here, trip)).text for each in endpoints() if rule_of(each) == HIDDEN])
    counted = (await here.client.get("/v1/statistics")).json()["roles"]
    assert (await here.client.delete(f"/v1/conversations/{trip}")).status_code == 204
    versions = (await here.client.get(f"/v1/conversations/{trip}")).json()["version"]
    for endpoint in endpoints():
        rule = rule_of(endpoint)
        if rule == OTHER:
            continue
        answer = await asked(endpoint, here, trip)
        if rule == REFUSED:
            assert (answer.status_code, "reactivate" in answer.text) == (409, True), (endpoint, answer.text)
            assert "ConversationIsDeleted" in answer.text, (endpoint, answer.text)
        elif rule == HIDDEN:
            found = answer.json().get("items", answer.json().get("result"))
            assert (answer.status_code, found) == (200, []), (endpoint, answer.text)
        elif rule == SHOWN:
            assert (answer.status_code, WORD in answer.text) == (200, True), (endpoint, answer.text)
        else:
            assert answer.status_code == 204, endpoint
    assert (await here.client.get("/v1/statistics")).json()["roles"] == counted
    shown = (await here.client.get(f"/v1/conversations/{trip}")).json()
    assert (shown["version"], shown["is_deleted"]) == (versions, True)
    for path in ("/v1/conversations", "/v1/messages", "/v1/tasks"):
        [item] = (await here.client.get(path, params={"deleted": True})).json()["items"]
        assert WORD in str(item)

    back = await here.client.patch(f"/v1/conversations/{trip}", json={"is_active": True, "name": WORD})
    assert (back.status_code, back.json()["is_deleted"]) == (200, False)
    for endpoint in endpoints():
        if rule_of(endpoint) == HIDDEN:
            assert WORD in (await asked(endpoint, here, trip)).text, endpoint
    assert (
        await endpoint_of("/v1/conversations/{conversation}/messages").request(here.client, trip)
    ).status_code == 201


def rule_of(endpoint: Endpoint) -> str:
    return TABLE[endpoint.method, endpoint.path]


def endpoint_of(path: str, method: str = "POST") -> Endpoint:
    return next(each for each in endpoints() if (each.method, each.path) == (method, path))


async def test_deleting_again_and_at_the_same_time_adds_no_event(here: Served) -> None:
    trip = await here.begin()
    answers = await asyncio.gather(*(here.client.delete(f"/v1/conversations/{trip}") for _ in range(5)))
    answers.append(await here.client.delete(f"/v1/conversations/{trip}"))
    assert [answer.status_code for answer in answers] == [204] * 6
    assert (await here.client.get(f"/v1/conversations/{trip}")).json()["version"] == 2


@pytest.mark.parametrize("given", ["trip", None], ids=["a client's id", "a UUID"])
async def test_creating_a_deleted_conversation_again_explains_how_to_reactivate_it(
    here: Served, given: str | None
) -> None:
    trip = await here.begin(**({} if given is None else {"id": given}))
    await here.client.delete(f"/v1/conversations/{trip}")
    again = await here.client.post("/v1/conversations", json={"id": given or trip})
    assert again.status_code == 409
    assert (again.json()["title"], again.json()["conversation_id"]) == ("ConversationIsDeleted", trip)
    assert f'PATCH /v1/conversations/{trip} with {{"is_active": true}}' in again.json()["detail"]
