"""A process killed during an answer: a remote agent resumes its task, or receives the message again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from importlib import metadata
from typing import Any

import pytest
from support.a2a_server import Agent, agent_in_thread
from support.agents import text_of, user_message
from support.environment import child_environment
from support.waiting import until_async

from agent_manager import AsyncManager
from agent_manager.agents import Answer, from_callable, remote
from agent_manager.agents.agent import Context, Reply, StatusUpdate, Update, push_notifications_of, resumption
from agent_manager.agents.tenant_isolation import TenantIsolatedAgent
from agent_manager.manager import Manager
from agent_manager.storage import ServerLog
from eventstore import EventStore

pytestmark = pytest.mark.shared_database

pytest.importorskip("a2a", reason="a2a-sdk is not installed")

SHAPES = ["0.3"] if metadata.version("a2a-sdk").startswith("0.") else ["0.3", "1.0"]

PROCESS = """
import asyncio, sys
from agent_manager import application_manager, leases

leases.LEASE_SECONDS = leases.RENEW_SECONDS = 0.5
manager = application_manager(answer=sys.argv[1])
message = {"role": "user", "messageId": "m", "contextId": "c", "parts": [{"kind": "text", "text": sys.argv[2]}]}
asyncio.run(manager.process_message(message))
"""


WAYS = [f"{shape} {how}" for shape in SHAPES for how in ("streaming", "at once")]


@pytest.fixture(params=[WAYS[-1], *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[:-1])])
def agent(request: pytest.FixtureRequest) -> Any:
    shape, how = request.param.split(" ", 1)
    with agent_in_thread(shape, streams=how == "streaming") as agent:
        yield agent


async def killed_while_the_agent_works(store: EventStore, agent: Agent, text: str, database_url: str) -> Manager:
    """Send the text in a process, kill it when the agent's task is stored, and return a manager."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROCESS,
        agent.url,
        text,
        env=child_environment(DATABASE_URL=database_url, EVENTSTORE_TENANT=store.tenant),
    )
    manager = Manager(ServerLog(store), remote(agent.url))

    async def works() -> bool:
        assert process.returncode is None
        return [task["id"] for task in await manager.tasks()] == ["t"]

    try:
        await until_async(works, "the task is stored")
    finally:
        process.kill()
        await process.wait()
    return manager


@pytest.mark.slow
async def test_a_remote_task_is_resumed(store: EventStore, agent: Agent, database_url: str) -> None:
    # An agent that does not stream responds immediately with a task that it continues to work on.
    text = "stall" if agent.streams else "leave"
    agent.looks = -1000  # until the first process is killed
    manager = await killed_while_the_agent_works(store, agent, text, database_url)
    agent.looks = 0
    [(pending, error)] = await manager.answer_pending()
    assert (pending.message_id, error) == ("m", None)
    assert len(agent.asked) == 1
    assert agent.listens == agent.streams
    [task] = await manager.tasks()
    assert task["status"]["state"] in ("completed", "TASK_STATE_COMPLETED")
    assert [len(artifact["parts"]) for artifact in task.get("artifacts", [])] == [1] * agent.streams
    assert [text_of(message) for message in await manager.messages("c")] == [text, "look 3"]
    assert await manager.pending() == []


@pytest.mark.slow
async def test_a_message_is_sent_again_if_the_agent_does_not_know_the_task(
    store: EventStore, agent: Agent, database_url: str
) -> None:
    agent.looks = -1000  # until the first process is killed
    manager = await killed_while_the_agent_works(store, agent, "leave once", database_url)
    agent.knows = False
    [(_, error)] = await manager.answer_pending()
    assert error is None
    assert len(agent.asked) == 2
    states = {task["id"]: task["status"]["state"].lower().split("_")[-1] for task in await manager.tasks()}
    assert states == {"t": "failed", "t2": "completed"}
    assert [text_of(message) for message in await manager.messages("c")] == ["leave once", "done after all"]


@pytest.mark.slow
async def test_an_agent_that_is_no_longer_reachable_has_failed(store: EventStore, database_url: str) -> None:
    with agent_in_thread("0.3", streams=True) as agent:
        manager = await killed_while_the_agent_works(store, agent, "stall", database_url)
    [(_, error)] = await manager.answer_pending()
    assert error is not None
    assert [task["status"]["state"] for task in await manager.tasks()] == ["failed"]
    assert await manager.pending() == []


async def test_an_agent_isolated_by_tenant_is_resumed_too(agent: Agent) -> None:
    resume = resumption(TenantIsolatedAgent(remote(agent.url)))
    assert resume is not None
    agent.looks = 2
    updates = [update async for update in resume("t", Context("other", "trip"))]
    assert isinstance(updates[-1], Reply)
    assert resumption(TenantIsolatedAgent(_replies("hello"))) is None


def _replies(*texts: str, state: str | None = None) -> Answer:
    async def answer(message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
        if state is not None:
            status = {"state": state, "message": user_message("the task's", "s") | {"role": "agent"}}
            yield StatusUpdate("T", None, status)
        for text in texts:
            yield Reply(user_message(text, "r") | {"role": "agent"})

    return answer


@pytest.mark.parametrize(
    ("texts", "state", "expected"),
    [
        (["done"], None, ["done"]),
        (["done"], "working", ["done"]),
        ([], "completed", ["the task's"]),
        ([], "input-required", ["the task's"]),
        ([], "working", ["anew"]),
    ],
)
async def test_updates_of_an_interrupted_function_count(
    store: EventStore, texts: list[str], state: str | None, expected: list[str]
) -> None:
    cut_off = asyncio.Event()

    async def never_ends(message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
        async for update in _replies(*texts, state=state)(message, context):
            yield update
        cut_off.set()
        await asyncio.Event().wait()

    async with AsyncManager(store, answer=never_ends, runs_worker=False) as before:
        accepted = await before.accept(user_message("hello", "m", "c"))
        answering = asyncio.create_task(before.answer(accepted))
        await cut_off.wait()
        answering.cancel()
    asked = 0

    async def anew(message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
        nonlocal asked
        asked += 1
        async for update in _replies("anew")(message, context):
            yield update

    async with AsyncManager(store, answer=anew, runs_worker=False) as manager:
        assert [error for _, error in await manager.answer_pending()] == [None]
        assert [text_of(message) for message in await manager.messages("c")] == ["hello", *expected]
        assert asked == (expected == ["anew"])
        states = [task["status"]["state"] for task in await manager.tasks()]
        assert states == ([] if state is None else ["failed" if state == "working" else state])
        assert await manager.pending() == []


class Clerk:
    """An agent of the application's own that can continue a task."""

    name = "clerk"

    def __init__(self) -> None:
        self.resumed: list[tuple[str, str]] = []
        self.worked = asyncio.Event()

    async def __call__(self, message: dict[str, Any], context: Context) -> AsyncIterator[Any]:
        yield {"id": "T", "status": {"state": "working"}}
        self.worked.set()
        await asyncio.Event().wait()

    async def resume(self, task_id: str, context: Context) -> AsyncIterator[Any]:
        self.resumed.append((task_id, context.conversation_id))
        yield {"taskId": task_id, "status": {"state": "completed"}}
        yield "all "
        yield "done"


async def test_an_agent_of_the_application_is_resumed(store: EventStore) -> None:
    before, after = Clerk(), Clerk()
    async with AsyncManager(store, answer=from_callable(before), runs_worker=False) as manager:
        answering = asyncio.create_task(manager.answer(await manager.accept(user_message("hello", "m", "c"))))
        await before.worked.wait()
        answering.cancel()
    async with AsyncManager(store, answer=from_callable(after), runs_worker=False) as manager:
        assert [error for _, error in await manager.answer_pending()] == [None]
        assert after.resumed == [("T", "c")]
        assert [text_of(message) for message in await manager.messages("c")] == ["hello", "all done"]
        assert (await manager.tasks())[0]["status"]["state"] == "completed"


def test_an_agent_of_the_application_can_have_push_notifications() -> None:
    class Notifies(Clerk):
        async def set_push_notification(self, task_id: str, config: dict[str, Any]) -> None: ...

    agent = Notifies()
    found: object = push_notifications_of(TenantIsolatedAgent(from_callable(agent)))
    assert found is agent
    assert push_notifications_of(from_callable(Clerk())) is None
