"""A form comes back with its fields in the order in which it was sent, wherever it is read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from support.serving import served
from support.waiting import until_async

from agent_manager.agents.agent import ArtifactUpdate, Context, Reply, StatusUpdate, TaskSnapshot, Update
from agent_manager.factory import AsyncManager
from eventstore import EventStore, conversation_uuid
from projections import Reader, catch_up, rebuild

FORM = {"name": "Ana", "date": "2026-01-01", "street": {"zip": "1000", "no": 7}, "zip": [{"b": 1, "a": 2}]}
FIELDS = json.dumps(FORM)


def has_form(value: Any, times: int = 1) -> bool:
    """Return whether the form stands there, so often at least, and each time with its fields in order."""
    text = json.dumps(value)
    return times <= text.count(FIELDS) == text.count('"street"')


async def fill(asked: dict[str, Any], context: Context) -> AsyncIterator[Update]:
    """Give the form back in every place that an agent has."""
    context_id, parts = context.conversation_id, [{"kind": "data", "data": FORM}]
    message = {"kind": "message", "role": "agent", "messageId": "s1", "parts": parts, "metadata": FORM}
    yield TaskSnapshot(
        {"kind": "task", "id": "t1", "contextId": context_id, "status": {"state": "working"}, "metadata": FORM}
    )
    yield ArtifactUpdate("t1", context_id, {"artifactId": "a1", "parts": parts, "metadata": FORM}, last_chunk=True)
    yield StatusUpdate("t1", context_id, {"state": "completed", "message": message}, final=True)
    yield Reply({"parts": parts, "kind": "message", "role": "agent", "messageId": "r1", "metadata": FORM})


async def test_the_order_of_members_is_kept_everywhere(store: EventStore) -> None:
    sent = {
        "messageId": "m1", "role": "user", "parts": [{"kind": "data", "data": FORM}], "kind": "message",
        "metadata": FORM, "contextId": "trip",
    }  # fmt: skip
    async with served(store, answer=fill) as here:
        http = here.client

        async def rpc(method: str, params: Any = None) -> Any:
            body = {"jsonrpc": "2.0", "id": "1", "method": method, "params": params}
            return (await http.post(f"/{method}", json=body)).json()["result"]

        made = await http.post("/v1/conversations", json={"id": "trip", "metadata": FORM})
        assert has_form(made.json())
        await rpc("message/send", sent)

        async def is_answered() -> bool:
            return bool(await rpc("message/pending") == [])

        await until_async(is_answered, "the message was answered")
        listed = await rpc("message/list", "trip")
        assert has_form(listed, 4)
        [task] = await rpc("task/list")
        assert has_form(task["artifacts"], 2)
        assert has_form(task["status"], 2)
        assert has_form(task["metadata"])
        assert has_form(await rpc("events/get"), 4)
        assert has_form(await rpc("conversation/list"), 4)
        [shown] = (await http.get("/v1/conversations")).json()["items"]
        assert has_form(shown)
        messages = (await http.get("/v1/conversations/trip/messages")).json()["items"]
        assert has_form(messages, 4)
        assert json.dumps(messages[0]["sent"]) == json.dumps(sent)
        assert has_form((await http.get("/v1/conversations/trip/tasks")).json()["items"], 5)
        assert has_form((await http.get("/v1/conversations/trip/events")).json()["items"], 10)
        assert has_form((await http.get("/v1/conversations/trip/state")).json(), 10)
        version = shown["version"]
        assert has_form((await http.get(f"/v1/conversations/trip/state?version={version}")).json(), 10)
        plain = {"note": FORM, "kind": "x"}
        await http.post("/v1/conversations/trip/events", json={"events": [{"event_type": "noted", "content": plain}]})

    trip = conversation_uuid("default", "trip")
    *_, noted = [event async for event in store.read(trip)]
    assert json.dumps(noted.content) == json.dumps(plain)
    await catch_up(store)
    for _ in range(2):
        assert has_form([message.sent for message in await Reader(store).messages(trip)], 4)
        assert has_form(
            [[row.artifacts, row.metadata, row.status_message] for row in await Reader(store).tasks(trip)], 5
        )
        await rebuild(store)
    async with AsyncManager(store) as manager:
        view = await manager.get_conversation("trip")
        assert view is not None
        assert json.dumps(view.messages[0]) == json.dumps(sent)
        assert has_form(view.messages, 4)
