"""A migration that was interrupted anywhere and repeated has the same result."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.demoapp import Manager
from support.processes import Commands
from support.waiting import until

from agent_manager.importers import migrate
from agent_manager.importers.a2a_demo import ManagerSource
from agent_manager.importers.stored import read_stored
from agent_manager.storage import ServerLog
from eventstore import Append, AppendResult, EventStore, Settings
from eventstore.errors import ConnectionLost
from projections import Reader, catch_up


class UnreliableStore(EventStore):
    """A store that loses its connection at one append, before or after it is stored."""

    failing_append, is_stored = -1, False
    appends = 0

    async def append_all(self, appends: Iterable[Append], **options: Any) -> AppendResult:
        """Append, and lose the connection if this is the append to fail."""
        self.appends += 1
        fails = self.appends == self.failing_append
        if fails and not self.is_stored:
            raise ConnectionLost("the connection broke: repeat the call")
        result = await super().append_all(appends, **options)
        if fails:
            raise ConnectionLost("the connection broke: repeat the call")
        return result


async def conversations_of(store: EventStore) -> list[dict[str, Any]]:
    """Return all conversations of the store, in the form of sources."""
    await catch_up(store)
    rows = await Reader(store).conversations(by="created", newest_first=False)
    stored = [await read_stored(ServerLog(store), row.id) for row in rows]
    return [asdict(found.conversation) for found in stored]


@pytest.mark.parametrize("is_stored", [False, True], ids=["before it is stored", "after it was stored"])
@pytest.mark.slow
async def test_a_migration_continues_whichever_append_lost_its_connection(
    manager: Manager, settings: Settings, backups: Path, is_stored: bool
) -> None:
    async with EventStore(settings) as store:
        complete = await migrate(ManagerSource(manager), store, backups=backups)
        expected = await conversations_of(store)
    number = 0
    while True:
        number += 1
        async with UnreliableStore(settings.model_copy(update={"tenant": f"t{number}"})) as store:
            store.failing_append, store.is_stored = number, is_stored
            try:
                report = await migrate(ManagerSource(manager), store, backups=backups)
            except ConnectionLost:
                report = await migrate(ManagerSource(manager), store, backups=backups)
            if store.appends < number:
                break
            assert report.is_clean
            assert await conversations_of(store) == expected
            assert sum([1 async for _ in store.read_log()]) == complete.new_events
    assert number > 2


@pytest.mark.slow
async def test_a_killed_migration_continues(
    manager: Manager, url: str, started: Commands, database_url: str, backups: Path, settings: Settings
) -> None:
    for number in range(300):
        manager.create_conversation(f"c{number}")
        for _ in range(3):
            manager.add_message({"role": "user", "messageId": "m", "contextId": f"c{number}", "parts": [{"text": "…"}]})
    command = ("import", "--from-url", url, "--backups", str(backups))
    running = started.start(*command, DATABASE_URL=database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET ROLE eventstore_owner")
        until(lambda: _events(connection) > 20 or running.ended, "some events are stored")
    running.kill()
    again = started.start(*command, DATABASE_URL=database_url)
    assert again.wait() == 0, again.err
    assert "302 conversations, 910 messages" in again.out
    async with EventStore(settings) as store:
        complete = await migrate(ManagerSource(manager), store, backups=backups)
        assert complete.is_clean
        assert complete.new_events == 0


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
