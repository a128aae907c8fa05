"""``eventstore pending`` lists, answers and abandons the messages that a killed process left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.commandline import Eventstore, rows_of
from support.ports import free_port

from agent_manager.agents.agent import Context, Reply, Update
from agent_manager.factory import AsyncManager
from eventstore import EventStore, Settings

pytestmark = pytest.mark.shared_database

QUESTION = {"kind": "message", "messageId": "m1", "role": "user", "contextId": "trip", "parts": []}


@pytest.fixture
async def asked(empty: Eventstore, settings: Settings) -> Eventstore:
    """A message was accepted, and the process that was to have it answered is gone."""
    async with EventStore(settings) as store:
        await AsyncManager(store, runs_worker=False).accept(QUESTION)
    return empty


def test_pending_messages_are_listed(asked: Eventstore) -> None:
    [row] = rows_of(asked, "pending")
    assert (row["message_id"], row["conversation_id"]) == ("m1", "trip")
    assert asked("pending").out.splitlines()[1].split()[2:4] == ["trip", "m1"]


def test_pending_messages_are_answered(asked: Eventstore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "EVENTSTORE_ANSWER" in asked("pending", "--answer").err
    monkeypatch.setenv("EVENTSTORE_ANSWER", "echo")
    assert asked("pending", "--answer").out.strip() == "1 answered, 0 failed"
    assert asked("pending").err.strip() == "nothing is pending"


def test_the_failure_of_an_agent_shows_in_the_conversation(asked: Eventstore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "[awaits an answer]" in asked("conversation", "trip").out
    monkeypatch.setenv("EVENTSTORE_ANSWER", f"http://127.0.0.1:{free_port()}")
    assert asked("pending", "--answer").code == 1
    for command in ("conversation", "history"):
        out = " ".join(asked(command, "trip").out.split())
        assert "answer failed: the agent: cannot be reached" in out
        assert "127.0.0.1" not in out


@pytest.mark.slow
async def test_messages_that_another_process_answers_are_left_to_it(
    asked: Eventstore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, go_on = asyncio.Event(), asyncio.Event()

    async def waits(message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
        asking.set()
        await go_on.wait()
        yield Reply(QUESTION | {"messageId": "r", "role": "agent"})

    monkeypatch.setenv("EVENTSTORE_ANSWER", "echo")
    async with EventStore(settings) as store, AsyncManager(store, answer=waits, runs_worker=False) as manager:
        answering = asyncio.create_task(manager.answer_pending())
        await asking.wait()
        result = await asyncio.to_thread(asked, "pending", "--answer")
        assert (result.code, result.out.strip()) == (0, "0 answered, 0 failed")
        assert "1 more are being answered by another process" in result.err
        go_on.set()
        assert len(await answering) == 1
        assert len(await manager.messages("trip")) == 2


def test_a_failing_agent_is_reported(asked: Eventstore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_ANSWER", "json:loads")  # takes no message
    result = asked("pending", "--answer")
    assert (result.code, result.out.strip()) == (1, "0 answered, 1 failed")
    assert "message m1 of trip: TypeError" in result.err
    assert rows_of(asked, "pending") == []


@pytest.mark.parametrize(
    ("option", "numbers"), [("--answer", {"answered": 1, "failed": 0}), ("--abandon", {"abandoned": 1})]
)
def test_the_outcome_as_json(
    asked: Eventstore, monkeypatch: pytest.MonkeyPatch, option: str, numbers: dict[str, int]
) -> None:
    monkeypatch.setenv("EVENTSTORE_ANSWER", "echo")
    assert json.loads(asked("pending", option, "--json").out) == numbers


def test_pending_messages_are_abandoned(asked: Eventstore) -> None:
    assert asked("pending", "--answer", "--abandon").code == 2
    assert asked("pending", "--abandon").out.strip() == "1 abandoned"
    assert rows_of(asked, "pending") == []
