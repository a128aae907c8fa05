"""An agent that answers several tenants and users is not led from one's conversation into another's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from support.callers import People
from support.endpoints import endpoints
from support.serving import Served, served
from support.waiting import until_async

from agent_manager.agents.agent import Context
from agent_manager.agents.local import from_callable
from agent_manager.auth import TokenScope
from eventstore import EventStore

pytestmark = pytest.mark.shared_database


class Remembering:
    """An agent that keeps messages by context and by task, and returns them to any caller that names one of them."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}
        self.contexts: set[str] = set()
        self.messages: list[dict[str, Any]] = []

    async def __call__(self, message: dict[str, Any], context: Context) -> dict[str, Any]:
        """A task that holds all texts of its context."""
        text = message["parts"][0]["text"]
        self.messages.append(message)
        self.contexts.add(context.conversation_id)
        context_id = message.get("contextId", str(uuid4()))
        heard = self.texts.setdefault(context_id, [])
        heard.append(text)
        task_id = message.get("taskId") or str(uuid4())
        if task_id in self.texts:
            heard += self.texts[task_id]
        self.texts[task_id] = heard
        return {
            "kind": "task", "id": task_id, "contextId": context_id,
            "status": {"state": "input-required", "message": {
                "kind": "message", "role": "agent", "messageId": str(uuid4()), "contextId": context_id,
                "parts": [{"kind": "text", "text": " ".join(heard)}]}},
        }  # fmt: skip


@pytest.fixture
def agent() -> Remembering:
    return Remembering()


@pytest.fixture
async def protected(store: EventStore, agent: Remembering) -> AsyncIterator[Served]:
    async with served(store, answer=from_callable(agent), requires_tokens=True) as protected:
        yield protected


def message(text: str, **members: Any) -> dict[str, Any]:
    parts = [{"kind": "text", "text": text}]
    return {"kind": "message", "messageId": str(uuid4()), "role": "user", "parts": parts} | members


async def begin(person: Any, conversation: str) -> None:
    made = await person.post("/v1/conversations", {"id": conversation})
    assert made.status_code == 201, made.text


async def answered(person: Any, conversation: str, sent: dict[str, Any], number: int = 1) -> list[dict[str, Any]]:
    """The conversation's tasks, once a message was answered."""
    accepted = await person.post(f"/v1/conversations/{conversation}/send", sent)
    assert accepted.status_code == 202, accepted.text

    async def all_are_answered() -> bool:
        events = (await person.get(f"/v1/conversations/{conversation}/events")).json()["items"]
        return sum(event["event_type"] == "message.answered" for event in events) == number

    await until_async(all_are_answered, "the message is answered")
    tasks: list[dict[str, Any]] = (await person.post("/task/list")).json()["result"]
    return tasks


async def test_answers_do_not_mix_conversations_of_two_tenants_with_the_same_id(
    people: People, agent: Remembering
) -> None:
    ana, eve = await people.person("acme", "ana"), await people.person("globex", "eve")
    own = await people.person("default", "dan")
    for person, text in ((ana, "xyzzy"), (own, "plugh"), (eve, "hello")):
        await begin(person, "main")
        [task] = await answered(person, "main", message(text, contextId="main"))
        assert task["status"]["message"]["parts"][0]["text"] == text
        assert task["contextId"] == task["status"]["message"]["contextId"] == "main"
    assert len(agent.contexts) == 3


@pytest.mark.parametrize("tenant", ["acme", "default"])
async def test_a_message_that_names_the_context_or_task_of_another_user_does_not_reach_them(
    people: People, agent: Remembering, tenant: str
) -> None:
    ana, bob = await people.person(tenant, "ana"), await people.person(tenant, "bob")
    await begin(ana, "anas")
    await begin(bob, "bobs")
    [task] = await answered(ana, "anas", message("xyzzy", contextId="anas"))
    forged = message("a", contextId="anas", taskId=task["id"], referenceTaskIds=[task["id"], "other"])
    await answered(bob, "bobs", forged, 1)
    await answered(bob, "bobs", message("b", taskId=task["id"]), 2)
    # A conversation cannot claim to be called like hers; that it began her task, it can, and nothing follows.
    claims = [
        {"event_type": "conversation.created", "content": {"given_id": "anas"}},
        {"event_type": "task.created", "content": {"task_id": str(uuid4()), "given_id": task["id"]}},
    ]
    refused = await bob.post("/v1/conversations/bobs/events", {"events": claims})
    assert (refused.status_code, "another conversation" in refused.text) == (422, True)
    assert (await bob.post("/v1/conversations/bobs/events", {"events": claims[1:]})).status_code == 201
    await answered(bob, "bobs", message("c", contextId="anas", taskId=task["id"]), 3)
    of_bob = [sent for sent in agent.messages if sent["parts"][0]["text"] != "xyzzy"]
    assert [sent.get("taskId") for sent in of_bob] == [None, None, task["id"]]
    assert agent.messages[0]["contextId"] not in {sent.get("contextId") for sent in of_bob}
    assert of_bob[2]["contextId"] == of_bob[0]["contextId"]  # by which an agent can tell that the task is not of it


async def test_only_administrators_write_to_the_agent_registry(people: People) -> None:
    admin = await people.person("acme", None, *TokenScope)
    writer = await people.person("acme", None, TokenScope.READ, TokenScope.WRITE, TokenScope.AUDIT)
    card = {"name": "ours", "url": "http://127.0.0.1:9"}
    assert (await admin.post("/v1/agents", {"card": card})).status_code == 201
    before = (await admin.get("/v1/log")).json()["items"]
    writing = [each for each in endpoints() if "{conversation}" in each.path and each.method != "GET"]
    assert writing
    for each in writing:
        answer = await each.request(writer.client, "eventstore:agents")
        assert answer.status_code == 403, (each, answer.text)
    assert (await admin.get("/v1/log")).json()["items"] == before
    assert [agent["name"] for agent in (await writer.get("/v1/agents")).json()["items"]] == ["ours"]
