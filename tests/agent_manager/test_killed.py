"""A process killed while it answers: accepted messages are durable, pending, and answered by the next process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.agents import agent, user_message
from support.environment import child_environment
from support.waiting import until

from agent_manager.factory import AsyncManager
from eventstore import EventStore

MESSAGES = 40

PROCESS = """
import asyncio, sys, threading
from agent_manager.factory import application_manager
from agent_manager.default_classes import Message
from support.agents import agent, user_message

async def stalls(message, context):
    if int(message["messageId"]) % 2:
        await asyncio.Event().wait()
    async for update in agent(message, context):
        yield update

manager = application_manager(answer=stalls)
for number in range(MESSAGES):
    given = Message(**user_message(f"{number}", f"{number}", f"c{number % 4}"))
    accepted = manager.sanitize_message(given)
    print("accepted", number, flush=True)
    threading.Thread(target=lambda m=accepted: asyncio.run(manager.process_message(m)), daemon=True).start()
threading.Event().wait()
"""


@pytest.mark.slow
async def test_accepted_messages_survive_kill_9_and_are_pending(
    store: EventStore, database_url: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", PROCESS.replace("MESSAGES", str(MESSAGES))],
            stdout=file,
            env=child_environment(DATABASE_URL=database_url),
            cwd=tmp_path,
        )
    try:
        until(lambda: out.read_text().count("\n") > MESSAGES // 2 or process.poll() is not None, "half are accepted")
    finally:
        os.kill(process.pid, 9)
        process.wait(30)
    acknowledged = [int(line.split()[1]) for line in out.read_text().splitlines()]
    assert len(acknowledged) > MESSAGES // 2

    async with AsyncManager(store, answer=agent) as manager:
        stored = {m["messageId"] for v in await manager.conversations() for m in v.messages if m["role"] == "user"}
        assert stored >= set(map(str, acknowledged))
        pending = await manager.pending()
        waiting = {row.message_id for row in pending}
        assert waiting >= {str(number) for number in acknowledged if number % 2}
        answered = {
            m["messageId"].removeprefix("reply to ")
            for v in await manager.conversations()
            for m in v.messages
            if m["role"] == "agent"
        }
        assert stored - waiting <= answered  # every message is answered or pending
        for row in pending:
            await manager.answer(await manager.accepted(row))
        assert await manager.pending() == []
        await manager.accept(user_message("goes on", "further", "c0"))
        assert [row.message_id for row in await manager.pending()] == ["further"]
