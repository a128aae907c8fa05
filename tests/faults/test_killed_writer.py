"""An import killed at any instant and typed again adds what is missing, and nothing twice."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

from support.folding import fold, stored
from support.processes import Commands, Running
from support.waiting import until_async

from eventstore import EventStore
from eventstore.read import horizon, last_event
from projections import wait_for

CONVERSATIONS = 400
MESSAGES = 12


def conversation(number: int) -> str:
    messages: list[dict[str, object]] = []
    for index in range(0, MESSAGES, 3):
        call = {"id": "call", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        messages += [
            {"role": "user", "content": f"question {index} of {number}"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call", "content": f"answer {index} of {number}"},
        ]
    return json.dumps({"id": f"chat-{number}", "title": f"Chat {number}", "messages": messages})


async def test_an_import_killed_repeatedly_is_complete_and_exact(
    started: Commands, store: EventStore, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(conversation(number) + "\n" for number in range(CONVERSATIONS)))
    chance = random.Random(5)
    reached = []
    for _ in range(4):
        importing = started.start("import", str(file), DATABASE_URL=database_url)
        before = await last(store)

        async def begun(importing: Running = importing, before: int = before) -> bool:
            return importing.ended or await last(store) > before

        await until_async(begun, "something was added")
        await asyncio.sleep(chance.uniform(0, 0.1))
        importing.kill()
        reached.append(await last(store))
    assert len(set(reached)) > 1, "no import was killed in its middle"

    importing = started.start("import", str(file), DATABASE_URL=database_url)
    assert importing.wait() == 0, importing.err
    assert f"{CONVERSATIONS} conversations, {CONVERSATIONS * MESSAGES:,} messages" in importing.out
    events = [event async for event in store.read_log()]
    tasks = CONVERSATIONS * MESSAGES // 3
    assert len(events) == CONVERSATIONS * (1 + MESSAGES) + 3 * tasks
    await wait_for(store, events[-1].position)
    tables = stored(database_url)
    assert tables == fold(events)
    assert {name: len(rows) for name, rows in tables.items()} == {
        "conversations": CONVERSATIONS,
        "messages": CONVERSATIONS * MESSAGES,
        "tasks": tasks,
        "task_artifacts": tasks,
        "conversation_actors": 4 * CONVERSATIONS,  # importer, user, assistant, tool
        "pending_messages": 0,
    }

    again = started.start("import", str(file), DATABASE_URL=database_url)
    assert again.wait() == 0
    assert ": 0 new events" in again.out
    assert await last(store) == events[-1].position


async def last(store: EventStore) -> int:
    return await last_event(store.pool, await horizon(store.pool))
