"""A deterministic agent whose behaviour is selected by the text of the message, and messages for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agent_manager.agents.agent import ArtifactUpdate, Context, Reply, StatusUpdate, TaskSnapshot, Update

Json = dict[str, Any]


def user_message(text: str, message_id: str = "m", context_id: str | None = None, **more: Any) -> Json:
    """A message of A2A 0.3."""
    context = {} if context_id is None else {"contextId": context_id}
    return {
        "kind": "message", "role": "user", "messageId": message_id, "parts": [{"kind": "text", "text": text}],
        **context, **more,
    }  # fmt: skip


def text_of(message: Json) -> str:
    """The text of its first part."""
    return str(message["parts"][0]["text"])


async def agent(message: Json, context: Context) -> AsyncIterator[Update]:
    """Echoes, or works on a task: ``task NAME`` finishes it, ``ask NAME`` leaves it open, ``fail NAME`` breaks off."""
    text = str(message["parts"][0].get("text", "")) if message.get("parts") else ""
    word, _, task = text.partition(" ")
    given = message.get("messageId")
    reply: Json = {"kind": "message", "role": "agent", "messageId": f"reply to {given}"}
    if word not in ("task", "ask", "fail"):
        yield Reply(reply | {"parts": [{"kind": "text", "text": f"echo: {text}"}]})
        return
    task = context.task_id or task
    yield TaskSnapshot(
        {"kind": "task", "id": task, "contextId": context.conversation_id, "status": {"state": "submitted"}}
    )
    working = reply | {"messageId": f"working on {given}", "parts": [{"kind": "text", "text": "on it"}]}
    yield StatusUpdate(task, None, {"state": "working", "message": working})
    if word == "fail":
        raise RuntimeError("the agent broke off")
    yield ArtifactUpdate(task, None, {"artifactId": "a", "parts": [{"kind": "text", "text": "one "}]}, last_chunk=False)
    yield ArtifactUpdate(task, None, {"artifactId": "a", "parts": [{"kind": "text", "text": "two"}]}, append=True)
    yield StatusUpdate(task, None, {"state": "completed" if word == "task" else "input-required"}, final=True)
    yield Reply(reply | {"parts": [{"kind": "text", "text": "one two"}], "taskId": task})
