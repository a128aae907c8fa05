"""The text that an agent has sent so far is readable while it works, is kept if a process dies, and is stored once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.a2a_server import Agent, agent_in_process, agent_in_thread
from support.agents import user_message
from support.eventsource import EventSource
from support.ports import free_port
from support.processes import Commands, Running
from support.serving import Served, served
from support.waiting import SECONDS, until, until_async

from agent_manager import AsyncManager
from agent_manager.a2a import parts_text
from agent_manager.agents import ReplyChunk, from_callable, remote
from agent_manager.agents.agent import Answer
from eventstore import EventStore

pytestmark = pytest.mark.shared_database

TOKENS = [f"{number} {'é' if number % 7 else chr(10)}" for number in range(1000)]


def texts_of(tasks: list[dict[str, Any]]) -> list[str]:
    """The texts of the artifacts of tasks, each chunk by itself."""
    return [parts_text(chunk["parts"]) for task in tasks for chunk in task["artifacts"]]


async def begun(here: Served, text: str = "go") -> str:
    """The id of a conversation with a message that an agent answers."""
    trip = await here.begin()
    sent = await here.client.post(f"/v1/conversations/{trip}/send", json=user_message(text))
    assert sent.status_code == 202, sent.text
    return trip


async def items(here: Served, trip: str, what: str) -> list[dict[str, Any]]:
    found = await here.client.get(f"/v1/conversations/{trip}/{what}")
    assert found.status_code == 200, found.text
    return list(found.json()["items"])


async def answered(here: Served, trip: str) -> dict[str, Any]:
    """The question, once its answer has ended."""

    async def question() -> Any:
        [first, *_] = await items(here, trip, "messages")
        return None if first["status"] == "pending" else first

    found: dict[str, Any] = await until_async(question, "the answer has ended")
    return found


async def test_the_text_of_a_function_so_far_is_readable_and_its_end_is_one_message(store: EventStore) -> None:
    go_on, tokens = asyncio.Event(), ["Hel", "lo, ", "wor", "ld\n"]

    async def speak(message: dict[str, Any]) -> AsyncIterator[str]:
        for token in tokens:
            yield token
            await go_on.wait()
            go_on.clear()

    async with served(store, answer=from_callable(speak)) as here:
        trip = await begun(here)
        async with EventSource(here.address, f"/v1/conversations/{trip}/stream?after=0") as source:
            streamed: list[str] = []
            for number in range(1, len(tokens) + 1):
                sent = "".join(tokens[:number])
                while "".join(streamed) != sent:
                    event = await source.next()
                    if event.name.startswith("task.artifact"):
                        streamed.append(parts_text(event.data["content"]["parts"]))

                async def shown(sent: str = sent) -> bool:
                    return "".join(texts_of(await items(here, trip, "tasks"))) == sent

                await until_async(shown, "the tasks show what was sent so far")
                [question] = await items(here, trip, "messages")
                assert (question["status"], question["error"]) == ("pending", None)
                go_on.set()
        assert (await answered(here, trip))["status"] == "answered"
        [_, reply] = await items(here, trip, "messages")
        assert (reply["content"], reply["status"]) == ("".join(tokens), None)
        [task] = await items(here, trip, "tasks")
        assert task["status"] == "completed"
        assert reply["sent"]["taskId"] == task["id"]


async def test_a_text_that_is_complete_at_once_is_a_message_without_a_task(store: EventStore) -> None:
    async def speak(message: dict[str, Any]) -> AsyncIterator[Any]:
        yield "at "
        yield "once"
        yield {"role": "agent", "messageId": "m2", "parts": [{"kind": "text", "text": "and another"}]}

    async with AsyncManager(store, answer=from_callable(speak)) as manager:
        await manager.send_message("c", user_message("go"))
        assert [parts_text(message["parts"]) for message in await manager.messages("c")] == [
            "go",
            "at once",
            "and another",
        ]
        assert await manager.tasks("c") == []


@pytest.mark.parametrize("is_eager", [True, False])
async def test_a_stream_of_tokens_takes_few_events_and_loses_no_byte(store: EventStore, is_eager: bool) -> None:
    async def speak(message: dict[str, Any]) -> AsyncIterator[str]:
        for token in TOKENS:
            yield token
            if not is_eager:
                await asyncio.sleep(0)

    async with AsyncManager(store, answer=from_callable(speak)) as manager:
        reply = await manager.send_message("c", user_message("go"))
        assert reply is not None
        assert parts_text(reply["parts"]) == "".join(TOKENS)
        found = await manager.get_conversation("c")
        assert found is not None
        assert found.version < len(TOKENS) // 2
        assert (await manager.messages("c"))[-1] == reply


@pytest.fixture(params=["0.3", "1.0"])
def streaming(request: pytest.FixtureRequest) -> Iterator[Agent]:
    with agent_in_thread(request.param, streams=True) as agent:
        yield agent


async def test_the_tokens_of_a_remote_agent_take_few_events_and_its_artifact_is_as_sent(
    store: EventStore, streaming: Agent
) -> None:
    async with AsyncManager(store, answer=remote(streaming.url)) as manager:
        reply = await manager.send_message("c", user_message("tokens"))
        [task] = await manager.tasks("c")
        [artifact] = task["artifacts"]
        sent = [f"{number} " for number in range(1000)]
        assert [part["text"] for part in artifact["parts"]] == sent
        assert reply is not None
        assert [part["text"] for part in reply["parts"]] == ["".join(sent)]
        found = await manager.get_conversation("c")
        assert found is not None
        assert found.version < 500


FAILURES = {
    "die": "the connection broke while it answered",
    "http 503": "answered with the HTTP status 503",
    "refuse": "not today",
    "no json": "what it sent cannot be understood",
}


@pytest.mark.parametrize("shape", ["0.3", "1.0"])
@pytest.mark.parametrize("play", FAILURES)
@pytest.mark.slow
async def test_the_failure_of_a_remote_agent_shows_in_messages_tasks_and_events(
    store: EventStore, shape: str, play: str
) -> None:
    with agent_in_process(shape, streams=True) as url:
        async with served(store, answer=remote(url)) as here:
            trip = await begun(here, play)
            question = await answered(here, trip)
            assert question["status"] == "failed"
            assert FAILURES[play] in question["error"]
            assert "127.0.0.1" not in question["error"]
            tasks = await items(here, trip, "tasks")
            if play == "die":  # in the middle of an artifact
                assert texts_of(tasks) == ["half"]
            for task in tasks:
                assert task["status"] == "failed"
                assert parts_text(task["status_message"]["parts"]) == question["error"]
            async with EventSource(here.address, f"/v1/conversations/{trip}/stream?after=0") as source:
                while (event := await source.next()).name != "message.answered":
                    pass
            assert event.data["content"]["error"] == question["error"]


class _Unreachable:
    url = f"http://127.0.0.1:{free_port()}"


async def _raises(message: dict[str, Any]) -> AsyncIterator[str]:
    yield "so far "
    await asyncio.sleep(0.01)
    raise ValueError("postgresql://ana:hunter2@10.0.0.7/secret")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (from_callable(_raises), "the agent raised ValueError"),
        (remote(_Unreachable.url), "the agent: cannot be reached"),
        (remote({"name": "clerk", "url": _Unreachable.url}), "clerk: cannot be reached"),
        (remote({"name": "clerk", "url": "http://agents.invalid/"}), "clerk: cannot be reached"),
    ],
)
async def test_the_reason_of_a_failure_has_no_secrets_and_addresses(
    store: EventStore, answer: Answer, reason: str
) -> None:
    async with served(store, answer=answer) as here:
        trip = await begun(here)
        question = await answered(here, trip)
        assert question["status"] == "failed"
        assert question["error"].startswith(reason)
        shown = json.dumps([await items(here, trip, what) for what in ("messages", "tasks", "events")])
        assert not any(secret in shown for secret in ("hunter2", "10.0.0.7", "127.0.0.1", "invalid", _Unreachable.url))


SPEAKER = """
import asyncio, pathlib

async def speak(message):
    tokens = [f"{number} " for number in range(300)]
    for token in tokens[:200]:
        yield token
        await asyncio.sleep(0)
    while not pathlib.Path("go on").exists():
        await asyncio.sleep(0.02)
    for token in tokens[200:]:
        yield token
"""


@pytest.mark.slow
def test_text_so_far_is_kept_if_the_server_is_killed_and_is_not_stored_twice(
    started: Commands, tmp_path: Path, database_url: str, own_tenant: str
) -> None:
    (tmp_path / "speaker.py").write_text(SPEAKER)
    environment = {
        "DATABASE_URL": database_url, "EVENTSTORE_TENANT": own_tenant, "EVENTSTORE_ANSWER": "speaker:speak",
    }  # fmt: skip

    def serve() -> tuple[Running, str]:
        up = started.start("up", "--port", "0", **environment)
        words = until(lambda: [word for word in up.out.split() if word.startswith("http://127")], "it serves")
        return up, words[0].strip(";,") + "/v1/conversations"

    def read(what: str) -> list[dict[str, Any]]:
        return list(httpx.get(f"{url}/{trip}/{what}", timeout=30).json()["items"])

    sent = "".join(f"{number} " for number in range(200))
    up, url = serve()
    trip = httpx.post(url, json={}, timeout=SECONDS).json()["id"]
    assert httpx.post(f"{url}/{trip}/send", json=user_message("go"), timeout=SECONDS).status_code == 202
    until(lambda: "".join(texts_of(read("tasks"))) == sent, "the tasks show what was sent")
    up.kill()

    up, url = serve()
    assert "".join(texts_of(read("tasks"))) == sent
    [question] = read("messages")
    assert question["status"] == "pending"
    (tmp_path / "go on").touch()
    answering = started.start("pending", "--answer", **environment)
    assert answering.wait() == 0, answering.err
    until(lambda: read("messages")[0]["status"] == "answered", "it is answered")
    [_, reply] = read("messages")
    assert reply["content"] == "".join(f"{number} " for number in range(300))
    interrupted, completed = read("tasks")
    assert (interrupted["status"], completed["status"]) == ("failed", "completed")
    assert "interrupted" in parts_text(interrupted["status_message"]["parts"])
    assert "".join(texts_of([interrupted])) == sent
    assert "".join(texts_of([completed])) == reply["content"]


async def test_pieces_with_another_id_are_another_message(store: EventStore) -> None:
    async def speak(message: dict[str, Any], context: Any) -> AsyncIterator[ReplyChunk]:
        for message_id, text in (("a", "one "), ("a", "two"), ("b", "three")):
            yield ReplyChunk({"role": "agent", "messageId": message_id, "parts": [{"kind": "text", "text": text}]})
            await asyncio.sleep(0)

    async with AsyncManager(store, answer=speak) as manager:
        await manager.send_message("c", user_message("go"))
        replies = (await manager.messages("c"))[1:]
        assert [(reply["messageId"], parts_text(reply["parts"])) for reply in replies] == [
            ("a", "one two"),
            ("b", "three"),
        ]
