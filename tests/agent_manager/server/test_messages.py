"""Messages and tasks over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from support.serving import Served

from eventstore import TaskArtifactAdded, TaskCreated, TaskStatusChanged

pytestmark = pytest.mark.shared_database

SHAPES: dict[str, dict[str, Any]] = {
    "A2A 0.3": {
        "kind": "message", "messageId": "m1", "role": "agent", "contextId": "else",
        "parts": [{"kind": "text", "text": "olá"}, {"kind": "data", "data": {"a": [1, 2.5, None, 10**25]}}],
        "metadata": {"x": {"y": ""}}, "extensions": ["urn:e"],
    },
    "A2A 1.x": {
        "messageId": "m1", "role": "ROLE_AGENT", "parts": [{"text": "olá"}, {"raw": "AA==", "mediaType": "a/b"}],
    },
    "OpenAI": {"role": "assistant", "content": "olá", "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_message_is_returned_as_it_was_sent(here: Served, shape: str) -> None:
    trip = await here.begin()
    response = await here.client.post(
        f"/v1/conversations/{trip}/messages", json=SHAPES[shape], params={"actor": "bot", "expected_version": 1}
    )
    assert (response.status_code, response.json()["version"]) == (201, 2)
    [message] = (await here.client.get(f"/v1/conversations/{trip}/messages")).json()["items"]
    assert message["sent"] == SHAPES[shape]
    assert (message["role"], message["actor"], message["content"]) == ("assistant", "bot", "olá")
    assert message["given_id"] == SHAPES[shape].get("messageId")


async def test_messages_are_filtered_and_paged(here: Served) -> None:
    trip = await here.begin()
    for number in range(5):
        await here.say(trip, f"{number}", role="user" if number % 2 else "assistant")
    path = f"/v1/conversations/{trip}/messages"

    async def texts(**asked: Any) -> list[str]:
        return [item["content"] for item in (await here.client.get(path, params=asked)).json()["items"]]

    assert await texts() == ["0", "1", "2", "3", "4"]
    assert await texts(role="user", newest_first=True) == ["3", "1"]
    assert await texts(after_version=4) == ["3", "4"]
    first = (await here.client.get("/v1/messages", params={"limit": 2})).json()
    rest = (await here.client.get("/v1/messages", params={"limit": 9, "after": first["next"]})).json()
    assert [item["content"] for item in first["items"] + rest["items"]] == ["0", "1", "2", "3", "4"]
    assert rest["next"] is None


async def test_tasks_are_listed_with_their_artifacts(here: Served) -> None:
    trip, task = await here.begin(id="trip"), uuid4()
    result = await here.store.append(trip, [
        TaskCreated(task_id=task, description="book", given_id="t1"),
        TaskStatusChanged(task_id=task, status="in_progress", message={"a": 1}),
        TaskArtifactAdded(task_id=task, artifact_id="a", parts=[{"text": "ticket"}], last_chunk=False),
    ])  # fmt: skip
    for path in ("/v1/tasks", "/v1/conversations/trip/tasks"):
        answer = await here.client.get(path, params={"status": "in_progress", "at_least": result.position})
        [found] = answer.json()["items"]
        assert (found["id"], found["given_id"], found["status_message"]) == (str(task), "t1", {"a": 1})
        assert found["artifacts"][0]["parts"] == [{"text": "ticket"}]
        assert (await here.client.get(path, params={"status": "failed"})).json()["items"] == []


async def test_a_message_to_an_unknown_conversation_is_not_found(here: Served) -> None:
    for path in ("messages", "send", "events"):
        body = (
            {"events": [{"event_type": "x"}]} if path == "events" else {"role": "user", "parts": [], "messageId": "m"}
        )
        missing = await here.client.post(f"/v1/conversations/nowhere/{path}", json=body)
        assert missing.status_code == 404


async def test_an_error_names_the_member_that_cannot_be_stored(here: Served) -> None:
    trip = await here.begin()
    path = f"/v1/conversations/{trip}/messages"
    for message, status, place in (
        ('{"content": "x"}', 422, "role"),
        ('{"role": "king", "content": "x"}', 422, "role"),
        (r'{"role": "user", "content": "a\u0000b"}', 422, "content"),
        (r'{"role": "user", "parts": [{"text": "\ud800"}]}', 422, "parts"),
        ('{"role": "user", "metadata": {"n": NaN}}', 422, "metadata.n"),
        ('{"role": "user", "content": "%s"}' % ("x" * here.store.settings.max_content_bytes), 413, "content"),
    ):
        refused = await here.client.post(path, content=message, headers={"Content-Type": "application/json"})
        assert (refused.status_code, place in refused.json()["detail"]) == (status, True), refused.text
        assert refused.headers["content-type"] == "application/problem+json"
    assert (await here.client.get(path)).json()["items"] == []
