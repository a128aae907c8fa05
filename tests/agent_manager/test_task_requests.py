"""Tasks are cancelled at their agents and push notifications are set there, over every transport; both are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import metadata
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.official_agent import Recorded, official_agent
from support.waiting import until_async

from agent_manager.agents.agent import Context, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.cards import fetch_card
from agent_manager.agents.remote import remote
from agent_manager.errors import AgentUnreachable, AnswerFailed, RequestUnsupported, TaskNotCancelable
from agent_manager.factory import async_manager
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from eventstore import EventData, NewEvent, Settings, TaskCreated
from eventstore.errors import InputError, NotFound

pytest.importorskip("a2a", reason="a2a-sdk is not installed")
pytest.importorskip("grpc", reason="grpcio is not installed")
pytestmark = [
    pytest.mark.any_server,
    pytest.mark.skipif(metadata.version("a2a-sdk").startswith("0."), reason="the agents are made with a2a-sdk 1.x"),
]

Json = dict[str, Any]
SERVED = [(version, transport) for version in ("0.3", "1.0") for transport in ("JSONRPC", "HTTP+JSON", "GRPC")]
HOOK = "https://client.example/hook"


@pytest.fixture(scope="module", params=SERVED, ids=" ".join)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[str, Recorded]]:
    version, transport = request.param
    with official_agent(version=version, transport=transport, pushes=True) as agent:
        yield agent


def managing(answer: Any) -> Any:
    return async_manager(Settings(), storage="memory", answer=answer)


async def with_task(manager: Manager, conversation: str, text: str) -> Json:
    """A task that the agent works on, or waits for input with, once its status is stored."""
    sending = asyncio.create_task(manager.send_message(conversation, {"role": "user", "content": text}))

    async def has_begun() -> bool:
        states = [task["status"]["state"] for task in await manager.tasks(conversation)]
        return bool(states) and "submitted" not in states[0].lower()

    await until_async(has_begun, "the agent has begun")
    if text == "ask":
        await sending
    [task] = await manager.tasks(conversation)
    return task | {"sending": sending}


@asynccontextmanager
async def working(url: str, text: str) -> AsyncIterator[tuple[Manager, Json]]:
    async with managing(remote(url)) as manager:
        yield manager, await with_task(manager, "trip", text)


@pytest.mark.parametrize("text", ["work", "ask"])
async def test_a_task_is_cancelled_at_the_agent(served: tuple[str, Recorded], text: str) -> None:
    async with working(served[0], text) as (manager, task):
        canceled = await manager.cancel_task("trip", task["id"])
        assert canceled["id"] == task["id"]
        assert "CANCELED" in canceled["status"]["state"].upper()
        await task["sending"]
        [stored] = await manager.tasks("trip")
        assert stored["status"]["state"] == canceled["status"]["state"]
        assert not await manager.pending()
        with pytest.raises(TaskNotCancelable, match="it is canceled"):
            await manager.cancel_task("trip", task["id"])


async def test_a_task_that_the_agent_cannot_cancel_is_an_error(served: tuple[str, Recorded]) -> None:
    async with working(served[0], "stubborn") as (manager, task):
        with pytest.raises(TaskNotCancelable, match="official: "):
            await manager.cancel_task("trip", task["id"])
        [stored] = await manager.tasks("trip")
        assert "CANCELED" not in stored["status"]["state"].upper()
        task["sending"].cancel()


async def test_push_notifications_are_set_at_the_agent_and_kept_without_their_secrets(
    served: tuple[str, Recorded],
) -> None:
    url, _ = served
    is_rest_03 = (await fetch_card(url)).get("preferredTransport") == "HTTP+JSON"
    async with working(url, "ask") as (manager, task):
        given = {"id": "p1", "url": HOOK, "token": "s3cr3t", "authentication": {"scheme": "Bearer", "credentials": "c"}}
        shown = {"id": "p1", "url": HOOK, "authentication": {"scheme": "Bearer"}}
        assert await manager.set_push_notification("trip", task["id"], given) == shown
        assert await manager.push_notifications("trip", task["id"]) == [shown]
        assert await manager.push_notification("trip", task["id"], "p1") == given
        v03 = {"pushNotificationConfig": {"url": HOOK, "authentication": {"schemes": ["Basic"]}}}
        second = await manager.set_push_notification("trip", task["id"], v03)
        assert second == {"id": second["id"], "url": HOOK, "authentication": {"scheme": "Basic"}}
        assert [each["id"] for each in await manager.push_notifications("trip", task["id"])] == ["p1", second["id"]]
        if is_rest_03:  # a2a-sdk has no request for it
            with pytest.raises(RequestUnsupported, match="a2a-sdk cannot"):
                await manager.delete_push_notification("trip", task["id"], "p1")
            assert len(await manager.push_notifications("trip", task["id"])) == 2
        else:
            await manager.delete_push_notification("trip", task["id"], "p1")
            assert [each["id"] for each in await manager.push_notifications("trip", task["id"])] == [second["id"]]
            with pytest.raises(NotFound):
                await manager.push_notification("trip", task["id"], "p1")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "url: expected"),
        ({"url": "ftp://h"}, "url: expected"),
        ({"url": 5}, "url: is not a text"),
        ({"url": HOOK, "token": {}}, "token: is not a text"),
        ({"url": HOOK, "authentication": "Bearer"}, "authentication: is not an object"),
        ({"url": HOOK, "authentication": {"credentials": "c"}}, r"authentication\.scheme: is missing"),
        ({"url": HOOK, "id": "../../tasks"}, "id: expected at most 255 letters"),
        ({"pushNotificationConfig": []}, "is not an object"),
    ],
)
async def test_a_setting_that_is_not_valid_is_an_error(config: Json, problem: str) -> None:
    with official_agent(pushes=True) as (url, _):
        async with working(url, "ask") as (manager, task):
            with pytest.raises(InputError, match=problem):
                await manager.set_push_notification("trip", task["id"], config)
            assert await manager.push_notifications("trip", task["id"]) == []


async def test_an_agent_without_push_notifications_refuses_them_and_nothing_is_kept() -> None:
    with official_agent(pushes=False) as (url, _):
        async with working(url, "ask") as (manager, task):
            with pytest.raises(RequestUnsupported, match=r"(?i)not support"):
                await manager.set_push_notification("trip", task["id"], {"url": HOOK})
            assert await manager.push_notifications("trip", task["id"]) == []


async def test_a_setting_is_read_without_its_secrets_if_the_agent_is_gone() -> None:
    async with AsyncExitStack() as stack:
        with official_agent(pushes=True) as (url, _):
            manager, task = await stack.enter_async_context(working(url, "ask"))
            await manager.set_push_notification("trip", task["id"], {"id": "p", "url": HOOK, "token": "s3cr3t"})
        assert await manager.push_notification("trip", task["id"], "p") == {"id": "p", "url": HOOK}


async def test_an_agent_that_cannot_be_reached_cancels_nothing() -> None:
    async with AsyncExitStack() as stack:
        with official_agent() as (url, _):
            manager, task = await stack.enter_async_context(working(url, "ask"))
        with pytest.raises(AgentUnreachable):
            await manager.cancel_task("trip", task["id"])
        [stored] = await manager.tasks("trip")
        assert "INPUT" in stored["status"]["state"]
        with pytest.raises(NotFound, match="has no task 'other'"):
            await manager.cancel_task("trip", "other")
        with pytest.raises(NotFound, match="no conversation"):
            await manager.cancel_task("other", task["id"])


async def test_a_task_of_a_function_is_cancelled_if_nobody_works_on_it() -> None:
    goes_on = asyncio.Event()

    async def clerk(message: Json) -> AsyncIterator[Json]:
        if message["content"] == "ask":
            yield {"id": "t1", "status": {"state": "input-required"}}
        else:
            yield {"id": "t2", "status": {"state": "working"}}
            await goes_on.wait()

    async with managing(clerk) as manager:
        task = await with_task(manager, "trip", "ask")
        canceled = await manager.cancel_task("trip", "t1")
        assert canceled["status"]["state"] == "canceled"
        task = await with_task(manager, "other", "work")
        with pytest.raises(TaskNotCancelable, match="is working on it"):
            await manager.cancel_task("other", "t2")
        with pytest.raises(RequestUnsupported, match="sends no push notifications"):
            await manager.set_push_notification("other", "t2", {"url": HOOK})
        goes_on.set()
        await task["sending"]
        assert (await manager.cancel_task("other", "t2"))["status"]["state"] == "canceled"


class Stopped:
    """An agent whose answer fails when its task is cancelled."""

    name = "stopped"

    def __init__(self) -> None:
        self.stops = asyncio.Event()

    async def __call__(self, message: Json, context: Context) -> AsyncIterator[Update]:
        yield TaskSnapshot({"id": "t", "status": {"state": "working"}})
        await self.stops.wait()
        raise RuntimeError("stopped")

    async def cancel(self, task_id: str, context: Context) -> Update:
        assert (task_id, context.conversation_id) == ("t", "trip")
        return StatusUpdate(task_id, None, {"state": "canceled"})


async def test_a_cancelled_task_whose_answer_fails_stays_cancelled() -> None:
    agent = Stopped()
    async with managing(agent) as manager:
        task = await with_task(manager, "trip", "work")
        await manager.cancel_task("trip", "t")
        agent.stops.set()
        with pytest.raises(AnswerFailed, match="stopped"):
            await task["sending"]
        [stored] = await manager.tasks("trip")
        assert stored["status"]["state"] == "canceled"


async def test_a_task_that_the_agent_did_not_begin_is_not_cancelled_there() -> None:
    log = MemoryLog("default")

    async def begin(conversation: str, event: EventData) -> None:
        view = await manager.create_conversation(conversation_id=conversation)
        await log.append(view.id, [NewEvent(event, actor="bob")])

    with official_agent(pushes=True) as (url, _):
        async with Manager(log, remote(url)) as manager:
            task = await with_task(manager, "trip", "work")
            await begin("forged", TaskCreated(task_id=uuid4(), given_id=task["id"], status="in_progress"))
            own = await with_task(manager, "renamed", "ask")
            await begin("renamed", TaskCreated(task_id=UUID(own["id"]), given_id=task["id"]))
            for conversation in ("forged", "renamed"):
                with pytest.raises(RequestUnsupported, match="was begun by"):
                    await manager.cancel_task(conversation, task["id"])
                with pytest.raises(RequestUnsupported, match="was begun by"):
                    await manager.set_push_notification(conversation, task["id"], {"url": HOOK})
            assert "WORKING" in (await manager.tasks("trip"))[0]["status"]["state"]
            await manager.cancel_task("trip", task["id"])
            await task["sending"]
