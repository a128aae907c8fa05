"""Workers killed at any instant lose and double nothing: rows and checkpoint move in one transaction."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

from support.folding import fold, stored
from support.processes import Commands
from support.waiting import until_async

from eventstore import (
    ConversationRenamed,
    EventData,
    EventStore,
    MessageAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskStatusChanged,
)
from projections import applied_position, read_status, rebuild, wait_for

CONVERSATIONS = [uuid4() for _ in range(12)]
TASKS = [uuid4() for _ in range(5)]


def some_events(chance: random.Random) -> list[EventData]:
    task = chance.choice(TASKS)
    choices: list[EventData] = [
        MessageAdded(role="user", content="one"),
        MessageAdded(role="assistant", parts=[{"text": "two"}]),
        ConversationRenamed(name=f"name {chance.random()}"),
        TaskCreated(task_id=task, description="a task"),
        TaskStatusChanged(task_id=task, status="completed"),
        TaskArtifactExtended(task_id=task, artifact_id="a", parts=[{"text": "chunk"}]),
    ]
    return chance.choices(choices, k=chance.randint(1, 30))


@asynccontextmanager
async def writing(store: EventStore, conversations: list[UUID], chance: random.Random) -> AsyncIterator[None]:
    """Somebody who appends without a pause until the block ends."""

    async def write() -> None:
        while True:
            await store.append(chance.choice(conversations), some_events(chance))
            await asyncio.sleep(0.002)

    writer = asyncio.create_task(write())
    try:
        yield
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    assert writer.cancelled()


async def test_workers_killed_repeatedly_apply_every_event_once(
    started: Commands, store: EventStore, database_url: str, kills: int
) -> None:
    chance = random.Random(kills)
    async with writing(store, CONVERSATIONS, chance):
        workers = [started.start("project", DATABASE_URL=database_url) for _ in range(2)]
        for kill in range(kills):
            victim = workers[kill % 2]
            # Until it works, so that the instants at random are not all instants of its start.
            await asyncio.to_thread(victim.until_printed, "follow the log")
            moved = await applied_position(store) + 1
            await wait_for(store, moved, timeout=30)
            await asyncio.sleep(chance.uniform(0, 0.1))
            victim.kill()
            workers[kill % 2] = started.start("project", DATABASE_URL=database_url)
    events = [event async for event in store.read_log()]
    await wait_for(store, events[-1].position, timeout=60)
    for worker in workers:
        worker.kill()
    followed = stored(database_url)
    assert followed == fold(events)
    assert sum(row["message_count"] for row in followed["conversations"].values()) == len(followed["messages"])
    await rebuild(store)
    assert stored(database_url) == followed


async def test_another_worker_takes_over_from_one_that_dies(
    started: Commands, store: EventStore, database_url: str
) -> None:
    """Each worker follows its shares alone, and within seconds those of one that is gone."""

    async def shares() -> list[list[int]]:
        return sorted(worker.partitions for worker in (await read_status(store)).workers)

    async def spread() -> bool:
        now = await shares()
        return [len(part) for part in now] == [8, 8] and sorted(share for part in now for share in part) == list(
            range(16)
        )

    async def alone() -> bool:
        return await shares() == [list(range(16))]

    first, second = (started.start("project", DATABASE_URL=database_url) for _ in range(2))
    await until_async(spread, "the shares are spread")
    for number in range(40):
        result = await store.append(uuid4(), [MessageAdded(role="user", content=str(number))])
    await wait_for(store, result.position, timeout=30)
    second.kill()
    await until_async(alone, "the other has them all")
    for number in range(40):
        result = await store.append(uuid4(), [MessageAdded(role="user", content=str(number))])
    await wait_for(store, result.position, timeout=30)
    assert not first.ended
    assert stored(database_url) == fold([event async for event in store.read_log()])
