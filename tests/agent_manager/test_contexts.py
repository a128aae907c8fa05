"""A remote agent receives a conversation as one context and one task, and no ids of other conversations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from support.agents import text_of, user_message

from agent_manager import default_classes
from agent_manager.agents.agent import Context, Reply, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.local import from_callable
from agent_manager.agents.remote import remote
from agent_manager.factory import AsyncManager, application_manager
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from eventstore import EventStore, MessageAdded, NewEvent, Settings, TaskCreated, conversation_uuid

pytest.importorskip("a2a", reason="a2a-sdk is not installed")
pytest.importorskip("sse_starlette", reason="the server of a2a-sdk is not installed")
from support.official_agent import official_agent

pytestmark = pytest.mark.shared_database


@pytest.mark.slow
async def test_messages_without_a_context_reach_the_agent_in_the_same_context(store: EventStore) -> None:
    with official_agent() as (url, recorded):
        async with AsyncManager(store, answer=remote(url)) as manager:
            for conversation in ("c", "d"):
                for number in range(3):
                    reply = await manager.send_message(conversation, user_message(f"hello {number}"))
                    assert reply is not None
        assert [context for context, _, _ in recorded.requests] == ["c"] * 3 + ["d"] * 3


def test_the_manager_of_applications_sends_no_ids_of_other_conversations() -> None:
    with official_agent() as (url, recorded), application_manager(storage="memory", answer=remote(url)) as manager:
        manager.send_message("a", user_message("hello"))
        manager.send_message("b", user_message("hello", "m1", context_id="a"))
        manager.send_message("b", user_message("hello", "m2"))
        manager.send_message(str(conversation_uuid("default", "b")), user_message("hello", "m3"))
        assert [context for context, _, _ in recorded.requests] == ["a", "b", "b", "b"]


async def test_an_agent_that_names_its_own_context_receives_that(store: EventStore) -> None:
    with official_agent(own_contexts=True) as (url, recorded):
        async with AsyncManager(store, answer=remote(url)) as manager:
            for conversation in ("c", "d"):
                await manager.send_message(conversation, user_message("hello"))
        async with AsyncManager(store, answer=remote(url)) as manager:  # after a restart
            for number, conversation in enumerate(("c", "d", "c")):
                await manager.send_message(conversation, user_message("again", f"m{number}"))
        assert [context for context, _, _ in recorded.requests] == ["c", "d", "own-0", "own-1", "own-0"]


async def test_a_waiting_task_is_continued_even_if_its_status_message_names_no_task(store: EventStore) -> None:
    with official_agent() as (url, recorded):
        async with AsyncManager(store, answer=remote(url)) as manager:
            question = await manager.send_message("c", user_message("ask"))
            assert question is not None
            assert text_of(question) == "which?"
            assert not question.get("taskId")
            await manager.send_message("c", user_message("blue", "m2"))
            [task] = await manager.tasks("c")
            await manager.send_message("c", user_message("hello", "m3"))
        (first, task_id, known), (second, continued, known_then), (third, fresh, _) = recorded.requests
        assert (first, second, third) == ("c", "c", "c")
        assert (known, known_then) == (False, True)
        assert task_id == continued != fresh
        assert task["status"]["state"] in ("completed", "TASK_STATE_COMPLETED")


@pytest.mark.parametrize("state", ["input-required", "auth-required", "TASK_STATE_AUTH_REQUIRED"])
@pytest.mark.any_server
async def test_only_the_task_that_changed_last_is_continued(state: str) -> None:
    received: list[str | None] = []

    async def agent(message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
        received.append(message.get("taskId"))
        word = text_of(message)
        yield TaskSnapshot({"id": word, "status": {"state": state if word.startswith("ask") else "completed"}})
        yield Reply({"role": "agent", "parts": [{"kind": "text", "text": "?"}]})

    manager = Manager(MemoryLog(), from_callable(agent))
    for text in ("ask 1", "do", "ask 2", "ask 3"):
        await manager.send_message("c", user_message(text))
    await manager.send_message("c", user_message("ask 4", taskId="ask 2"))
    await manager.send_message("c", user_message("end"))
    assert received == [None, "ask 1", None, "ask 2", "ask 2", "ask 4"]


@pytest.mark.any_server
async def test_only_the_agent_itself_changes_its_context() -> None:
    received: list[str] = []

    async def agent(message: dict[str, Any]) -> StatusUpdate | None:
        received.append(message["contextId"])
        return StatusUpdate("t", "victim", {"state": "completed"}) if text_of(message) == "lie" else None

    log = MemoryLog()
    answer = from_callable(agent)
    manager = Manager(log, answer)
    await manager.send_message("victim", user_message("hello"))
    forged = [
        NewEvent(MessageAdded(role="assistant", parts=[], extra={"contextId": "x"}), actor="eve"),
        NewEvent(TaskCreated(task_id=uuid4(), extra={"contextId": "x"}), actor="eve"),
        NewEvent(MessageAdded(role="user", parts=[], extra={"contextId": "x"}), actor=answer.name),
    ]
    await manager.send_message("c", user_message("lie"))
    await log.append(conversation_uuid("default", "c"), forged)
    await manager.send_message("c", user_message("hello"))
    assert received == ["victim", "c", "c"]


async def test_a_message_without_an_id_reaches_an_agent_with_one() -> None:
    with official_agent() as (url, _):
        manager = Manager(MemoryLog(), remote(url))
        sent = {name: value for name, value in user_message("hello").items() if name != "messageId"}
        reply = await manager.send_message("c", sent)
        assert reply is not None
        assert text_of(reply) == "heard hello"
        assert (await manager.messages("c"))[0] == sent


OWN = SimpleNamespace(Message=default_classes.Message, Task=default_classes.Task, AgentCard=default_classes.AgentCard)
FORGED = {"taskId": "task of the victim", "referenceTaskIds": ["task of the victim", "no task"]}
"""A message that names a task of another conversation, in any context."""


class RecordingAgent:
    """An agent that begins a task for each message, and keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.contexts: list[tuple[str, str | None]] = []

    async def __call__(self, message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
        self.messages.append(message)
        self.contexts.append((context.conversation_id, context.task_id))
        yield TaskSnapshot({"id": f"task of the {text_of(message)}", "status": {"state": "completed"}})

    def check(self) -> None:
        """Check that only the victim's own message named the victim's context or task."""
        assert [message["contextId"] for message in self.messages] == ["victim", "c", "c"]
        for message in self.messages[1:]:
            assert "taskId" not in message
            assert message.get("referenceTaskIds", []) == []
        assert self.contexts == [("victim", None), ("c", None), ("c", None)]


@pytest.mark.parametrize("storage", ["memory", "postgres", "both"])
def test_no_manager_of_applications_sends_an_agent_the_ids_of_another_conversation(
    settings: Settings, storage: Any
) -> None:
    agent = RecordingAgent()
    with application_manager(settings, storage=storage, answer=from_callable(agent), types=OWN) as manager:
        manager.send_message("victim", user_message("victim"))
        manager.send_message("c", user_message("eve", "m2", "victim", **FORGED))
        manager.save_message(user_message("first", "m0", "c"))
        forged = manager.sanitize_message(user_message("eve", "m3", "c", **FORGED))
        asyncio.run(manager.process_message(forged))
    agent.check()


@pytest.mark.parametrize("kind", ["memory", "postgres"])
async def test_neither_asynchronous_manager_sends_an_agent_the_ids_of_another_conversation(
    store: EventStore, kind: str
) -> None:
    agent = RecordingAgent()
    answer = from_callable(agent)
    manager = AsyncManager(store, answer=answer) if kind == "postgres" else Manager(MemoryLog(), answer)
    async with manager:
        await manager.send_message("victim", user_message("victim"))
        await manager.send_message("c", user_message("eve", "m2", "victim", **FORGED))
        await manager.accept(user_message("eve", "m3", "c", **FORGED))
        assert [error for _, error in await manager.answer_pending()] == [None]
    agent.check()
