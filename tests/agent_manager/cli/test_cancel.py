"""``eventstore cancel`` cancels a task at the agent that the settings name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from support.commandline import Eventstore
from support.official_agent import official_agent

from agent_manager.agents import from_callable
from agent_manager.agents.remote import remote
from agent_manager.factory import AsyncManager
from eventstore import EventStore, Settings

pytestmark = pytest.mark.shared_database

MESSAGE = {"role": "user", "content": "ask", "contextId": "trip"}


async def test_a_task_is_cancelled_once(empty: Eventstore, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def clerk(message: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield {"id": "order-1", "status": {"state": "input-required"}}

    agent = from_callable(clerk)
    async with EventStore(settings) as store, AsyncManager(store, answer=agent, runs_worker=False) as manager:
        await manager.answer(await manager.accept(MESSAGE))
    canceled = await asyncio.to_thread(empty, "cancel", "trip", "order-1")
    assert canceled.out.strip() == "task order-1: canceled"
    again = await asyncio.to_thread(empty, "cancel", "trip", "ord")
    assert (again.code, again.err.strip().endswith("task 'order-1' cannot be cancelled: it is canceled")) == (1, True)
    assert "has no task 'other'" in (await asyncio.to_thread(empty, "cancel", "trip", "other")).err


@pytest.mark.skipif(metadata.version("a2a-sdk").startswith("0."), reason="the agent is made with a2a-sdk 1.x")
async def test_the_agent_receives_its_credentials(
    empty: Eventstore, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with official_agent() as (url, recorded):
        async with EventStore(settings) as store, AsyncManager(store, answer=remote(url), runs_worker=False) as manager:
            await manager.answer(await manager.accept(MESSAGE))
            [task] = await manager.tasks("trip")
        file = tmp_path / "credentials.toml"
        file.write_text(f'[[agents]]\nurl = "{url}"\nbearer_token = "s3cr3t"\n')
        monkeypatch.setenv("EVENTSTORE_ANSWER", url)
        monkeypatch.setenv("EVENTSTORE_AGENT_CREDENTIALS", str(file))
        result = await asyncio.to_thread(empty, "cancel", "trip", task["id"], "--json")
        canceled = json.loads(result.out)
        assert "CANCELED" in canceled["status"]["state"]
        assert recorded.headers[-1]["authorization"] == "Bearer s3cr3t"
        file.write_text("agents = s3cr3t")
        for command in (["cancel", "trip", task["id"]], ["up", "--port", "0"], ["pending"]):
            failed = await asyncio.to_thread(empty, *command)
            assert (failed.code, f"EVENTSTORE_AGENT_CREDENTIALS: {file}: is not TOML" in failed.err) == (1, True)
            assert "s3cr3t" not in failed.err + failed.out
