"""A server killed under its users comes back by itself, with every acknowledged event exactly once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from support.folding import fold, stored
from support.processes import Commands, Running, server_processes
from support.servers import open_folder
from support.waiting import until, until_async

from eventstore import EventStore, MessageAdded, NewEvent, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.embedded.postmaster import read_postmaster
from eventstore.errors import ConnectionLost, ServerUnreachable
from projections import wait_for

KILLS = int(os.environ.get("EVENTSTORE_TEST_SERVER_KILLS", "4"))
CONVERSATIONS = [uuid4() for _ in range(8)]


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder / "server"


@pytest.fixture
def up(data_dir: Path, started: Commands) -> Running:
    """``eventstore up`` on a data directory of its own, running."""
    return another_up(data_dir, started)


def another_up(data_dir: Path, started: Commands) -> Running:
    running = started.start("up", "--data-dir", str(data_dir))
    running.until_printed("Ctrl-C")
    return running


def url_of(data_dir: Path) -> str:
    return EmbeddedServer(data_dir).url()


def postmaster(data_dir: Path) -> int:
    found = read_postmaster(data_dir / "pgdata")
    assert found is not None
    return found.pid


def until_stopped(data_dir: Path) -> None:
    until(lambda: not server_processes(data_dir), "no process of the server is left")


class Writer:
    """A client that repeats each append until it is acknowledged."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.acknowledged: list[tuple[UUID, UUID]] = []

    async def write(self, chance: random.Random) -> None:
        while True:
            conversation = chance.choice(CONVERSATIONS)
            events = [
                NewEvent(MessageAdded(role="user", content=str(chance.random()))) for _ in range(chance.randint(1, 5))
            ]
            await self._until_acknowledged(conversation, events)
            self.acknowledged += [(conversation, event.id) for event in events]

    async def _until_acknowledged(self, conversation: UUID, events: list[NewEvent]) -> None:
        while True:
            try:
                await self._store.append(conversation, events)
            except (ConnectionLost, ServerUnreachable):
                await asyncio.sleep(0.05)
            else:
                return


async def test_acknowledged_events_survive_a_server_killed_repeatedly(data_dir: Path, up: Running) -> None:
    chance = random.Random(KILLS)
    # The client names the server as a stranger would, so that only "up" can bring it back.
    async with EventStore(Settings(database_url=url_of(data_dir), connect_timeout=2)) as store:
        writers = [Writer(store) for _ in range(3)]
        writing = [asyncio.create_task(writer.write(random.Random(n))) for n, writer in enumerate(writers)]
        for _ in range(KILLS):
            await more_than(writers, sum(len(writer.acknowledged) for writer in writers) + 50)
            await asyncio.sleep(chance.uniform(0, 0.2))
            killed = postmaster(data_dir)
            os.kill(killed, signal.SIGKILL)
            await until_another(data_dir, killed)
        await more_than(writers, sum(len(writer.acknowledged) for writer in writers) + 50)
        for task in writing:
            task.cancel()
        ended = await asyncio.gather(*writing, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended

        events = [event async for event in store.read_log()]
        await wait_for(store, events[-1].position, timeout=60)
    assert not up.ended
    in_log = [(event.conversation_id, event.id) for event in events]
    assert len(set(in_log)) == len(in_log)
    assert {pair for writer in writers for pair in writer.acknowledged} <= set(in_log)
    for conversation in CONVERSATIONS:
        versions = [event.version for event in events if event.conversation_id == conversation]
        assert versions == list(range(1, len(versions) + 1))
    assert stored(url_of(data_dir)) == fold(events)
    assert up.interrupt() == 0, up.err


async def more_than(writers: list[Writer], count: int) -> None:
    async def enough() -> bool:
        return sum(len(writer.acknowledged) for writer in writers) > count

    await until_async(enough, "appends are acknowledged", 60)


async def until_another(data_dir: Path, killed: int) -> None:
    async def runs() -> bool:
        found = read_postmaster(data_dir / "pgdata")
        return found is not None and found.pid != killed and found.status == "ready"

    await until_async(runs, "another server runs", 60)


def test_a_killed_up_leaves_no_server_behind(data_dir: Path, up: Running) -> None:
    assert server_processes(data_dir)
    up.kill()
    until_stopped(data_dir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interrupted_up_stops_everything(data_dir: Path, up: Running, number: signal.Signals) -> None:
    assert up.interrupt(number) == 0
    assert not server_processes(data_dir)
    assert up.warnings == []


def test_a_second_up_joins_and_continues_without_the_first(data_dir: Path, up: Running, started: Commands) -> None:
    server = postmaster(data_dir)
    second = another_up(data_dir, started)
    assert "joined, it was running already" in second.out
    assert up.interrupt() == 0
    assert postmaster(data_dir) == server
    assert not second.ended
    seeded = started.start("seed", "--data-dir", str(data_dir))
    assert seeded.wait() == 0
    assert second.interrupt() == 0
    assert not server_processes(data_dir)


def test_stored_events_are_readable_after_the_next_start(data_dir: Path, up: Running, started: Commands) -> None:
    assert started.start("seed", "--data-dir", str(data_dir)).wait() == 0
    up.kill()
    again = another_up(data_dir, started)
    listed = started.start("conversations", "--data-dir", str(data_dir))
    assert listed.wait() == 0
    assert "Weekend in Lisbon" in listed.out
    assert again.interrupt() == 0
