"""A migration that was interrupted anywhere and repeated has the same result."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from support.demoapp import Manager
from support.processes import Commands
from support.waiting import until

from agent_manager.importers import migrate
from agent_manager.importers.a2a_demo import ManagerSource
from agent_manager.importers.stored import read_stored
from agent_manager.storage import ServerLog
from eventstore import AppendResult, EventData, EventStore, NewEvent, Settings
from eventstore.errors import ConnectionLost
from projections import Reader, catch_up


class Breaking(EventStore):
    """Loses its connection at one append: before it is stored, or after."""

    at, after = -1, False
    appends = 0

    async def append(
        self, conversation_id: UUID | str, events: Sequence[EventData | NewEvent], **how: Any
    ) -> AppendResult:
        """As the store does it, or not."""
        self.appends += 1
        breaks = self.appends == self.at
        if breaks and not self.after:
            raise ConnectionLost("the connection broke: repeat the call")
        result = await super().append(conversation_id, events, **how)
        if breaks:
            raise ConnectionLost("the connection broke: repeat the call")
        return result


async def all_of(store: EventStore) -> list[dict[str, Any]]:
    """Everything in the store, in the form of sources."""
    await catch_up(store)
    rows = await Reader(store).conversations(by="created", newest_first=False)
    stored = [await read_stored(ServerLog(store), row.id) for row in rows]
    return [asdict(found.conversation) for found in stored]


@pytest.mark.parametrize("after", [False, True], ids=["before it is stored", "after it was stored"])
async def test_a_migration_continues_whichever_append_lost_its_connection(
    manager: Manager, settings: Settings, backups: Path, after: bool
) -> None:
    async with EventStore(settings) as store:
        whole = await migrate(ManagerSource(manager), store, backups=backups)
        expected = await all_of(store)
    at = 0
    while True:
        at += 1
        async with Breaking(settings.model_copy(update={"tenant": f"t{at}"})) as store:
            store.at, store.after = at, after
            try:
                report = await migrate(ManagerSource(manager), store, backups=backups)
            except ConnectionLost:
                report = await migrate(ManagerSource(manager), store, backups=backups)
            if store.appends < at:
                break
            assert report.is_clean
            assert await all_of(store) == expected
            assert sum([1 async for _ in store.read_log()]) == whole.new_events
    assert at > 2


@pytest.mark.slow
async def test_a_killed_migration_continues(
    manager: Manager, url: str, started: Commands, database_url: str, backups: Path, settings: Settings
) -> None:
    for number in range(300):
        manager.create_conversation(f"c{number}")
        for _ in range(3):
            manager.say({"role": "user", "messageId": "m", "contextId": f"c{number}", "parts": [{"text": "…"}]})
    command = ("import", "--from-url", url, "--backups", str(backups))
    running = started.start(*command, DATABASE_URL=database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        until(lambda: _events(connection) > 20 or running.ended, "some events are stored")
    running.kill()
    again = started.start(*command, DATABASE_URL=database_url)
    assert again.wait() == 0, again.err
    assert "302 conversations, 910 messages" in again.out
    async with EventStore(settings) as store:
        whole = await migrate(ManagerSource(manager), store, backups=backups)
        assert whole.is_clean
        assert whole.new_events == 0


def _events(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM events").fetchone()
    assert row is not None
    return int(row[0])


def test_a_signal_leaves_no_incomplete_backup(
    manager: Manager, url: str, started: Commands, database_url: str, backups: Path
) -> None:
    running = started.start("import", "--from-url", url, "--backups", str(backups), DATABASE_URL=database_url)
    code = running.interrupt(signal.SIGTERM)
    assert code in (0, 130, -signal.SIGTERM)
    assert not list(backups.glob(".*"))
