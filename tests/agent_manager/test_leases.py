"""Several processes on one tenant: each message is answered once, even if some of them end or are suspended."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import agent, text_of, user_message
from support.environment import child_environment
from support.waiting import until

from agent_manager import AsyncManager
from agent_manager.accepted_messages import Key
from agent_manager.agents.agent import Context, Reply, StatusUpdate, Update
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import LeaseStatus, ServerLog
from eventstore import EventStore

SECONDS = 3.0

PROCESS = """
import asyncio, sys, threading
from agent_manager import application_manager, leases

_, name, works_on_a_task, seconds = sys.argv
leases.LEASE_SECONDS, leases.RENEW_SECONDS = float(seconds), float(seconds) / 5
go_on = threading.Event()

async def waits(message):
    print("asked", message["messageId"], flush=True)
    if works_on_a_task == "True":
        yield {"id": f"T{name}", "status": {"state": "working"}}
        print("working", flush=True)
    while not go_on.is_set():
        await asyncio.sleep(0.01)
    yield f"by {name}"

async def main():
    print("answered", await manager.answer_pending(), flush=True)

manager = application_manager(answer=waits)
threading.Thread(target=lambda: (sys.stdin.readline(), go_on.set()), daemon=True).start()
print("open", flush=True)
asyncio.run(main())
manager.close()
"""


class Child:
    """A process that answers all pending messages by an agent that waits for a signal."""

    def __init__(self, name: str, folder: Path, database_url: str, *, works_on_a_task: bool = False) -> None:
        self.out = folder / f"out {name}"
        with self.out.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROCESS, name, str(works_on_a_task), str(SECONDS)],
                stdin=subprocess.PIPE,
                stdout=file,
                env=child_environment(DATABASE_URL=database_url),
                cwd=folder,
            )

    def wait_for(self, line: str) -> None:
        """Wait until the process has printed a line."""
        until(lambda: line in self.lines or self.process.poll() is not None, f"it says {line!r}")
        assert line in self.lines

    @property
    def lines(self) -> list[str]:
        """The lines that the process has printed."""
        return self.out.read_text().splitlines()

    def go_on(self) -> None:
        """Let the agents answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


Children = Callable[..., Child]


@pytest.fixture
def child(tmp_path: Path, database_url: str) -> Iterator[Children]:
    """A function that starts processes, which end with the test."""
    children: list[Child] = []

    def make(name: str, **options: Any) -> Child:
        children.append(Child(name, tmp_path, database_url, **options))
        return children[-1]

    yield make
    for each in children:
        each.process.kill()
        each.process.communicate()


async def replies(store: EventStore) -> list[str]:
    """Return the texts of all replies."""
    manager = Manager(ServerLog(store))
    return [text_of(m) for v in await manager.conversations() for m in v.messages if m["role"] == "agent"]


@pytest.mark.slow
async def test_a_second_process_skips_messages_that_the_first_is_answering(store: EventStore, child: Children) -> None:
    manager = AsyncManager(store, runs_worker=False)
    for number in range(3):
        await manager.accept(user_message("hello", f"m{number}", f"c{number}"))
    first = child("first")
    await asyncio.to_thread(first.wait_for, "asked m0")
    second = child("second")
    await asyncio.to_thread(second.wait_for, "asked m1")  # m0 was skipped
    assert "asked m0" not in second.lines
    second.go_on()
    await asyncio.to_thread(second.wait_for, "answered 2")
    first.go_on()
    await asyncio.to_thread(first.wait_for, "answered 3")  # two of them by the second process
    assert await replies(store) == ["by first", "by second", "by second"]
    assert await manager.pending() == []


@pytest.mark.slow
@pytest.mark.parametrize("works_on_a_task", [False, True], ids=["no word yet", "a task has begun"])
async def test_messages_of_a_killed_process_are_taken_over_once(
    store: EventStore, child: Children, works_on_a_task: bool
) -> None:
    manager = AsyncManager(store, runs_worker=False)
    await manager.accept(user_message("hello", "m0", "c"))
    first = child("first", works_on_a_task=works_on_a_task)
    await asyncio.to_thread(first.wait_for, "working" if works_on_a_task else "asked m0")
    processes = [child(name, works_on_a_task=works_on_a_task) for name in ("second", "third")]
    for process in processes:
        await asyncio.to_thread(process.wait_for, "open")
        process.go_on()
    first.process.kill()
    for process in processes:
        await asyncio.to_thread(process.process.wait, 60)
    assert await replies(store) in (["by second"], ["by third"])
    assert await manager.pending() == []
    states = {task["id"]: task["status"]["state"] for task in await manager.tasks()}
    assert states.get("Tfirst", "failed") == "failed"


@pytest.mark.slow
async def test_a_process_that_was_suspended_finds_its_message_answered_and_stores_nothing(
    store: EventStore, child: Children
) -> None:
    manager = AsyncManager(store, runs_worker=False)
    accepted = await manager.accept(user_message("hello", "m0", "c"))
    first = child("first", works_on_a_task=True)
    await asyncio.to_thread(first.wait_for, "working")
    first.process.send_signal(signal.SIGSTOP)
    second = child("second")
    second.go_on()
    await asyncio.to_thread(second.wait_for, "answered 1")
    before = [event.id async for event in store.read(accepted.conversation)]
    first.go_on()
    first.process.send_signal(signal.SIGCONT)
    await asyncio.to_thread(first.process.wait, 60)
    assert first.lines[-1].startswith("answered")
    assert [event.id async for event in store.read(accepted.conversation)] == before
    assert await replies(store) == ["by second"]


class Unleased(MemoryLog):
    """A log that gives every lease to each caller, as if all others had been suspended for too long."""

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        statuses = await super().lease_answers(keys, holder, seconds)
        return {key: replace(status, holder=holder) for key, status in statuses.items()}


@given(steps=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=2, max_size=4))
def test_even_without_leases_one_answer_is_stored(steps: list[list[int]]) -> None:
    async def answering() -> None:
        log = Unleased()

        def manager(name: int) -> Manager:
            async def works(message: dict[str, Any], context: Context) -> AsyncIterator[Update]:
                for number, pauses in enumerate(steps[name]):
                    for _ in range(pauses):
                        await asyncio.sleep(0)
                    yield StatusUpdate(f"T{name}", None, {"state": "working", "timestamp": str(number)})
                yield Reply(user_message(f"by {name}", "r") | {"role": "agent"})

            return Manager(log, works)

        managers = [manager(name) for name in range(len(steps))]
        accepted = await managers[0].accept(user_message("hello", "m", "c"))
        replies = await asyncio.gather(*(each.answer(accepted) for each in managers))
        stored = [m for m in await managers[0].messages("c") if m["role"] == "agent"]
        assert len(stored) == 1
        assert replies == stored * len(steps)
        answered = [e for e in await log.events_of({accepted.conversation: 0}) if e.event_type == "message.answered"]
        assert len(answered) == 1
        for each in managers:
            await each.__aexit__()

    asyncio.run(answering())


async def test_answers_in_conversations_that_use_the_same_message_id_are_distinct(store: EventStore) -> None:
    async with AsyncManager(store, answer=agent) as manager:
        same = "00000000-0000-4000-8000-000000000001"
        accepted = [await manager.accept(user_message("hello", same, name)) for name in ("c", "d")]
        assert accepted[0].event_id == accepted[1].event_id
        await asyncio.gather(*map(manager.answer, accepted))
        assert [len(await manager.messages(name)) for name in ("c", "d")] == [2, 2]
        assert await manager.pending() == []


async def test_a_lease_that_cannot_be_renewed_expires_and_one_that_is_renewed_does_not(
    store: EventStore,
) -> None:
    log = ServerLog(store)
    key, first, second = (uuid4(), uuid4()), uuid4(), uuid4()

    async def holder(wanted_by: UUID, log: ServerLog = log) -> UUID:
        leased = await log.lease_answers([key, (uuid4(), uuid4())], wanted_by, 60)
        return leased[key].holder

    assert await holder(first) == await holder(second) == first
    assert await log.renew_leases([key], second, 60) == set()
    assert await log.renew_leases([key], first, 0) == {key}
    assert await holder(second) == second
    assert await log.renew_leases([key], first, 60) == set()
    await log.release_answers([key], first)
    assert await holder(first) == second
    await log.release_answers([key], second)
    assert await holder(first) == first
    assert await holder(second, ServerLog(store, "another tenant")) == second


async def test_leases_taken_renewed_and_released_by_many_at_once_never_deadlock(store: EventStore) -> None:
    log, keys = ServerLog(store), [(uuid4(), uuid4()) for _ in range(8)]

    async def work(number: int) -> None:
        holder, chance = uuid4(), Random(number)
        for _ in range(40):
            some = chance.sample(keys, 5)
            leased = await log.lease_answers(some, holder, 60)
            mine = [key for key, lease in leased.items() if lease.holder == holder]
            await log.renew_leases(chance.sample(mine, len(mine)), holder, 60)
            await log.release_answers(chance.sample(mine, len(mine)), holder)

    await asyncio.gather(*map(work, range(6)))
    assert len(await log.lease_answers(keys, uuid4(), 60)) == len(keys)
