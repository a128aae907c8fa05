"""A remote agent answers through a2a-sdk, whichever version is installed, and every failure has its error."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from importlib import metadata
from typing import Any
from uuid import UUID

import pytest
from support.a2a_server import Agent, agent_in_process, agent_in_thread
from support.waiting import until_async

from agent_manager.a2a import parts_text, status_of
from agent_manager.agents.agent import ArtifactUpdate, Context, Reply, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.cards import fetch_card
from agent_manager.agents.recorder import Recording
from agent_manager.agents.remote import remote
from agent_manager.errors import (
    AgentError,
    AgentLost,
    AgentRefused,
    AgentStalled,
    AgentUnreachable,
    AgentUnsupported,
    InvalidAgentUrl,
    InvalidUpdate,
)

pytest.importorskip("a2a", reason="a2a-sdk is not installed")
pytestmark = pytest.mark.any_server

OLD = metadata.version("a2a-sdk").startswith("0.")
SHAPES = ["0.3"] if OLD else ["0.3", "1.0"]


def user_message(text: str, shape: str = "0.3") -> dict[str, Any]:
    """Return a message of a user."""
    if shape == "0.3":
        part, head = {"kind": "text", "text": text}, {"kind": "message", "role": "user"}
    else:
        part, head = {"text": text}, {"role": "ROLE_USER"}
    return {**head, "messageId": "m", "contextId": "c", "parts": [part]}


@pytest.fixture(scope="module", params=[f"{shape} {how}" for shape in SHAPES for how in ("streaming", "at once")])
def agent(request: pytest.FixtureRequest) -> Iterator[Agent]:
    shape, how = request.param.split(" ", 1)
    with agent_in_thread(shape, streams=how == "streaming") as agent:
        yield agent


@pytest.fixture(scope="module", params=SHAPES)
def streaming(request: pytest.FixtureRequest) -> Iterator[Agent]:
    with agent_in_thread(request.param, streams=True) as agent:
        yield agent


@pytest.fixture(scope="module", params=[*SHAPES, *(["1.0 HTTP+JSON"] if "1.0" in SHAPES else [])])
def misspelling(request: pytest.FixtureRequest) -> Iterator[Agent]:
    shape, _, transport = request.param.partition(" ")
    with agent_in_thread(shape, streams=True, transport=transport or "JSONRPC") as agent:
        yield agent


async def heard(url: str, text: str, **limits: float) -> list[Update]:
    return [update async for update in remote(url, **limits)(user_message(text), Context())]


async def collect(stream: AsyncIterator[Update], updates: list[Update]) -> None:
    async for update in stream:
        updates.append(update)  # noqa: PERF401  (what is received before an error is wanted, too)


async def heard_until_it_failed(url: str, text: str, kind: type[AgentError], **limits: float) -> list[Update]:
    updates: list[Update] = []
    with pytest.raises(kind) as error:
        await collect(remote(url, **limits)(user_message(text), Context()), updates)
    assert url in str(error.value) or "little" in str(error.value)
    return updates


def states(updates: list[Update]) -> list[str]:
    statuses = [u.task["status"] if isinstance(u, TaskSnapshot) else u.status for u in updates if not_a_part(u)]
    return [str(status_of(status["state"])) for status in statuses]


def not_a_part(update: Update) -> bool:
    return isinstance(update, TaskSnapshot | StatusUpdate)


async def test_a_message_is_answered_by_a_message(agent: Agent) -> None:
    [update] = await heard(agent.url, "hello")
    assert isinstance(update, Reply)
    assert parts_text(update.message["parts"]) == "hello"
    assert update.message["messageId"] == "of hello"
    assert update.message["metadata"] == {"mood": "good"}


async def test_the_message_arrives_as_it_was_sent_in_either_version(agent: Agent) -> None:
    for shape in ("0.3", "1.0"):
        message = user_message("hello", shape) | {"metadata": {"from": shape}, "referenceTaskIds": ["r"]}
        answer = remote(agent.url)
        assert [update async for update in answer(message, Context(task_id="open"))]
        assert answer.name == f"little {agent.shape}"
        asked = agent.asked[-1]
        assert (asked["messageId"], asked["contextId"], asked["taskId"]) == ("m", "c", "open")
        assert asked["metadata"] == {"from": shape}
        assert asked["referenceTaskIds"] == ["r"]
        assert asked["role"] == ("user" if agent.shape == "0.3" else "ROLE_USER")


async def test_line_separators_within_a_text_do_not_divide_an_update(agent: Agent) -> None:
    [update] = await heard(agent.url, "separators")
    assert isinstance(update, Reply)
    assert parts_text(update.message["parts"]) == "a\u2028b\u2029c\x85d\ve\x1ef"


async def test_updates_arrive_while_the_agent_works(streaming: Agent) -> None:
    updates = await heard(streaming.url, "work")
    kinds = [type(update) for update in updates]
    assert kinds == [TaskSnapshot, StatusUpdate, ArtifactUpdate, ArtifactUpdate, ArtifactUpdate, StatusUpdate, Reply]
    assert states(updates) == ["pending", "in_progress", "completed"]
    working = updates[1]
    assert isinstance(working, StatusUpdate)
    assert parts_text(working.status["message"]["parts"]) == "thinking"
    assert working.metadata == {"step": "one"}
    chunks = [update for update in updates if isinstance(update, ArtifactUpdate)]
    assert [(chunk.append, bool(chunk.last_chunk)) for chunk in chunks] == [(False, False), (True, False), (True, True)]
    reply = updates[-1]
    assert isinstance(reply, Reply)
    assert parts_text(reply.message["parts"]) == "one two three"
    assert reply.message["taskId"] == "t"


async def test_a_task_without_a_reply_ends_with_its_artifacts_as_the_reply(agent: Agent) -> None:
    task, reply = await heard(agent.url, "whole")
    assert isinstance(task, TaskSnapshot)
    assert isinstance(reply, Reply)
    assert task.task["history"][0]["messageId"] == "of before"
    assert parts_text(reply.message["parts"]) == "all"


async def test_a_request_for_input_is_the_reply(agent: Agent) -> None:
    task, reply = await heard(agent.url, "ask")
    assert states([task]) == ["input-required"]
    assert isinstance(reply, Reply)
    assert reply.message["messageId"] == "of which?"


async def test_an_open_task_is_polled(agent: Agent) -> None:
    agent.looks = 0
    updates = await heard(agent.url, "leave")
    assert states(updates) == ["in_progress", "in_progress", "in_progress", "completed"]
    assert isinstance(updates[-1], Reply)
    assert updates[-1].message["messageId"] == "of look 3"


async def test_updates_with_other_ids_are_returned_as_sent(streaming: Agent) -> None:
    updates = await heard(streaming.url, "lie")
    assert [(u.task_id, u.context_id) for u in updates if isinstance(u, StatusUpdate)] == [
        ("another", "elsewhere"),
        ("other", "foreign"),
    ]
    recording = Recording("default", UUID(int=1))
    types = [event.data.event_type for update in updates for event in recording.events_of(update)]
    assert types == [
        "task.created", "task.created", "task.status_changed", "task.status_changed",
    ] or types == [
        "task.created", "task.status_changed", "task.created", "task.status_changed", "task.status_changed",
    ]  # fmt: skip


async def test_a_chunk_without_a_beginning_is_kept(streaming: Agent) -> None:
    updates = await heard(streaming.url, "no first chunk")
    assert isinstance(updates[0], ArtifactUpdate)
    assert updates[0].append
    assert isinstance(updates[-1], Reply)
    assert parts_text(updates[-1].message["parts"]) == "the end"


@pytest.mark.slow
async def test_an_agent_that_sends_nothing_stalls(streaming: Agent) -> None:
    updates = await heard_until_it_failed(streaming.url, "stall", AgentStalled, silence=3)
    assert states(updates) == ["in_progress"]


@pytest.mark.slow
async def test_an_agent_that_sends_updates_forever_stalls(streaming: Agent) -> None:
    updates = await heard_until_it_failed(streaming.url, "chatter", AgentStalled, silence=10, total=1)
    assert set(states(updates)) == {"in_progress"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.slow
async def test_the_updates_of_an_agent_that_dies_are_kept(shape: str) -> None:
    with agent_in_process(shape, streams=True) as url:
        updates = await heard_until_it_failed(url, "die", AgentLost)
    assert [type(update) for update in updates] == [TaskSnapshot, ArtifactUpdate]
    with agent_in_process(shape, streams=False) as url:
        assert states(await heard_until_it_failed(url, "nothing", InvalidUpdate)) == []


@pytest.mark.parametrize("text", ["no json", "number", "nothing"])
async def test_a_malformed_response_is_an_invalid_update(agent: Agent, text: str) -> None:
    assert await heard_until_it_failed(agent.url, text, InvalidUpdate) == []


async def test_updates_before_a_malformed_one_are_kept(streaming: Agent) -> None:
    if OLD or streaming.shape == "1.0":
        updates = await heard_until_it_failed(streaming.url, "nonsense", InvalidUpdate)
        assert states(updates) == ["in_progress"]
    else:  # a2a-sdk skips it, and the task is polled
        assert states(await heard(streaming.url, "nonsense"))[0] == "in_progress"


async def test_other_spellings_are_accepted(misspelling: Agent) -> None:
    updates = await heard(misspelling.url, "spelled")
    assert states(updates) == ["in_progress", "in_progress", "canceled"]
    assert isinstance(updates[1], StatusUpdate)
    assert parts_text(updates[1].status["message"]["parts"]) == "thinking"


async def test_an_unknown_state_is_rejected_and_later_updates_are_kept(misspelling: Agent) -> None:
    updates = await heard_until_it_failed(misspelling.url, "invented", InvalidUpdate)
    assert states(updates) == ["in_progress", "completed"]
    assert isinstance(updates[1], ArtifactUpdate)


async def test_an_error_of_the_agent_is_raised_with_its_text(agent: Agent) -> None:
    with pytest.raises(AgentRefused, match="not today"):
        await heard(agent.url, "refuse")


async def test_an_http_error_is_raised_with_its_status(agent: Agent) -> None:
    with pytest.raises(AgentRefused, match="503") as error:
        await heard(agent.url, "http 503")
    assert error.value.code == 503


async def test_an_unreachable_agent_is_an_error_that_names_the_url() -> None:
    with socket.socket() as taken:  # bound and not listening: no other process gets the port, and none answers
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AgentUnreachable, match=url):
            await heard(url, "hello")
    with pytest.raises(InvalidAgentUrl, match="expected http://"):
        remote("ftp://host")


async def test_closing_the_iterator_closes_the_connection(streaming: Agent) -> None:
    updates = remote(streaming.url)(user_message("stall"), Context())
    assert isinstance(await anext(updates), TaskSnapshot)
    await updates.aclose()

    async def nobody_waits() -> bool:
        return not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    await until_async(nobody_waits, "no task of the client's is left")


async def test_answers_run_concurrently_in_their_own_event_loops(agent: Agent) -> None:
    answer = remote(agent.url)

    def one() -> int:
        async def all_of_it() -> int:
            return len([update async for update in answer(user_message("hello"), Context())])

        return asyncio.run(all_of_it())

    assert await asyncio.gather(*(asyncio.to_thread(one) for _ in range(8))) == [1] * 8


async def test_a_card_without_a_supported_interface_is_rejected(agent: Agent) -> None:
    card = await fetch_card(agent.url)
    for name in ("url", "supportedInterfaces", "additionalInterfaces"):
        card.pop(name, None)
    soap = {"url": agent.url, "preferredTransport": "SOAP"}
    with pytest.raises(AgentUnsupported, match=r"JSONRPC, HTTP\+JSON, GRPC"):
        assert [update async for update in remote(card | soap)(user_message("hello"), Context())]


@pytest.mark.skipif(not OLD, reason="a2a-sdk 1.x speaks both")
async def test_an_older_sdk_names_the_version_that_a_newer_agent_needs() -> None:
    with agent_in_thread("1.0", streams=True) as newer, pytest.raises(AgentUnsupported, match=r"a2a-sdk 1\.0"):
        await heard(newer.url, "hello")


async def test_a_given_card_is_used_without_fetching(agent: Agent) -> None:
    card = await fetch_card(agent.url)
    given = remote(card)
    assert given.name == f"little {agent.shape}"
    assert len([update async for update in given(user_message("hello"), Context())]) == 1
