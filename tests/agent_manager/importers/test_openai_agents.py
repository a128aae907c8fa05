"""Sessions from the tables of the OpenAI Agents SDK, which EventStoreSession continues."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.commandline import Eventstore

from agent_manager.importers import migrate
from agent_manager.importers.migration import MigrationReport, SourceContradictsStore
from agent_manager.importers.openai_agents import OpenaiAgentsSource
from agent_manager.importers.source import SourceUnreadable
from eventstore import ConversationCreated, EventStore, MessageAdded, conversation_uuid
from eventstore.errors import InputError
from projections import Reader

pytestmark = pytest.mark.shared_database

TABLES = """
CREATE TABLE agent_sessions (session_id {text} PRIMARY KEY, created_at {time}, updated_at {time});
CREATE TABLE agent_messages (id {id}, session_id {text} NOT NULL, message_data TEXT NOT NULL, created_at {time});
"""
"""The tables as the SDK's SQLiteSession and SQLAlchemySession make them."""
ITEMS: list[Any] = [
    {"role": "user", "content": "Olá"},
    {"id": "rs_1", "type": "reasoning", "summary": []},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "42"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "42", "annotations": []}], "type": "message"},
    {"role": "user", "content": "a\0b"},
]
BEGAN = "2026-01-02 03:04:05"


def fill(connection: Any, session: str, items: list[Any], mark: str = "?", first: int = 1) -> None:
    """Insert a session and its items."""
    connection.execute(f"INSERT INTO agent_sessions VALUES ({mark}, {mark}, {mark})", (session, BEGAN, BEGAN))
    add(connection, session, items, mark, first)


def add(connection: Any, session: str, items: list[Any], mark: str = "?", first: int = 1) -> None:
    """Insert items, as the SDK serializes them."""
    for number, item in enumerate(items, first):
        row = (number, session, item if isinstance(item, str) else json.dumps(item), f"2026-01-02 03:05:{number:02}")
        connection.execute(f"INSERT INTO agent_messages VALUES ({mark}, {mark}, {mark}, {mark})", row)


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """An SQLite file with the session ``s1``."""
    path = tmp_path / "sessions.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(TABLES.format(text="TEXT", time="TIMESTAMP", id="INTEGER PRIMARY KEY AUTOINCREMENT"))
        fill(connection, "s1", ITEMS)
    connection.close()
    return path


async def migrated(url: str | Path, store: EventStore, backups: Path, time_zone: str | None = None) -> MigrationReport:
    async with OpenaiAgentsSource(str(url), time_zone) as source:
        return await migrate(source, store, backups=backups)


async def expect_the_session(store: EventStore, hour: int = 3) -> None:
    """Check that the session is in the store as it was."""
    conversation = await Reader(store).conversation("s1")
    assert conversation.given_id == "s1"
    assert conversation.created_at == datetime(2026, 1, 2, hour, 4, 5, tzinfo=UTC)
    messages = await Reader(store).messages(conversation.id)
    assert [(message.role, message.content, message.actor) for message in messages] == [
        ("user", "Olá", "user"), ("assistant", "42", "assistant"), ("user", "a\ufffdb", "user"),
    ]  # fmt: skip
    assert [message.created_at.second for message in messages] == [1, 5, 6]
    [task] = await Reader(store).tasks(conversation.id)
    assert (task.description, task.status) == ("f({})", "completed")
    stored = [event.event_type async for event in store.read(conversation.id)]
    assert stored == [
        "conversation.created", "message.added", "openai.item", "task.created", "task.artifact_added",
        "task.status_changed", "message.added", "message.added",
    ]  # fmt: skip


async def test_from_sqlite(store: EventStore, sessions: Path, backups: Path) -> None:
    report = await migrated(f"sqlite+aiosqlite:///{sessions}", store, backups)
    assert report.is_clean
    assert (report.verified.messages, report.verified.tasks, report.backup.messages) == (3, 1, 3)
    await expect_the_session(store)
    assert (await migrated(sessions, store, backups)).new_events == 0


@pytest.mark.parametrize(("zone", "hour"), [(None, 6), ("UTC", 3), ("Asia/Tokyo", 18)])
async def test_from_postgresql_in_the_zone_of_the_server_or_the_given_one(
    store: EventStore, empty_database_url: str, backups: Path, zone: str | None, hour: int
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(TABLES.format(text="VARCHAR", time="TIMESTAMP", id="SERIAL PRIMARY KEY").encode())
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE \"{name}\" SET timezone = 'America/Sao_Paulo'".encode())
        fill(connection, "s1", ITEMS, "%s")
    url = empty_database_url.replace("postgresql://", "postgresql+asyncpg://")
    assert (await migrated(url, store, backups, zone)).is_clean
    if hour == 18:  # the day before
        assert (await Reader(store).conversation("s1")).created_at == datetime(2026, 1, 1, 18, 4, 5, tzinfo=UTC)
    else:
        await expect_the_session(store, hour)
    assert (await migrated(url, store, backups, zone)).new_events == 0


async def test_a_second_import_adds_only_what_is_new(store: EventStore, sessions: Path, backups: Path) -> None:
    await migrated(sessions, store, backups)
    await store.append(conversation_uuid(store.tenant, "s1"), [MessageAdded(role="user", content="since")])
    with sqlite3.connect(sessions) as connection:
        fill(connection, "s2", ITEMS[:2], first=20)
        add(connection, "s1", ITEMS[2:4], first=30)  # the id of the call repeats
    connection.close()
    report = await migrated(sessions, store, backups)
    assert report.is_clean
    assert report.new_events == 3 + 3
    assert len(await Reader(store).tasks(conversation_uuid(store.tenant, "s1"))) == 2


async def test_a_row_that_is_not_json_is_kept(store: EventStore, sessions: Path, backups: Path) -> None:
    with sqlite3.connect(sessions) as connection:
        add(connection, "s1", ['{"role": "us'], first=9)
    connection.close()
    assert (await migrated(sessions, store, backups)).is_clean
    events = [event async for event in store.read(conversation_uuid(store.tenant, "s1"), types=["openai.unreadable"])]
    assert [event.content for event in events] == [{"json": '{"role": "us'}]


async def test_nothing_is_written_if_the_store_has_another_conversation_of_that_name(
    store: EventStore, sessions: Path, backups: Path
) -> None:
    await store.append("s1", [MessageAdded(role="user", content="hello")], begin=ConversationCreated())
    with pytest.raises(SourceContradictsStore, match="conversation 's1' is another in the store"):
        await migrated(sessions, store, backups)


async def test_a_session_that_began_again_at_its_source_is_refused(
    store: EventStore, sessions: Path, backups: Path
) -> None:
    await migrated(sessions, store, backups)
    with sqlite3.connect(sessions) as connection:
        connection.execute("UPDATE agent_sessions SET created_at = '2026-02-01 00:00:00'")
    connection.close()
    with pytest.raises(SourceContradictsStore, match="it began at 2026-02-01"):
        await migrated(sessions, store, backups)


async def test_what_is_not_a_database_of_the_sdk_is_refused(store: EventStore, tmp_path: Path, backups: Path) -> None:
    sqlite3.connect(tmp_path / "empty.db").close()
    with pytest.raises(SourceUnreadable, match=r"no such table: agent_sessions.*openai-agents' sessions"):
        await migrated(tmp_path / "empty.db", store, backups)
    with pytest.raises(SourceUnreadable, match="names neither SQLite nor PostgreSQL"):
        await migrated("mysql://x/y", store, backups)
    with pytest.raises(InputError, match="time_zone"):
        OpenaiAgentsSource("x", "Nowhere")


def test_the_command_imports_the_sessions(empty: Eventstore, sessions: Path) -> None:
    done = empty("import", "--from-openai-agents", f"sqlite:///{sessions}")
    assert done.code == 0, done.err
    assert "all are in the store as they were" in done.out
    assert empty("import", "--from-openai-agents", "a", "--from-adk", "b").code == 2


@pytest.mark.slow
async def test_the_sdk_continues_an_imported_session(store: EventStore, sessions: Path, backups: Path) -> None:
    pytest.importorskip("agents")
    from agents import SQLiteSession

    from agent_manager.adapters.openai_agents import EventStoreSession

    own = SQLiteSession("s1", sessions)
    before = await own.get_items()
    own.close()
    await migrated(sessions, store, backups)
    session = EventStoreSession("s1", store)
    assert await session.get_items() == before == ITEMS
    await session.add_items([{"role": "user", "content": "more"}])
    assert await session.pop_item() == {"role": "user", "content": "more"}
    assert await session.pop_item() == ITEMS[-1]
    assert (await migrated(sessions, store, backups)).is_clean
    assert await session.get_items() == ITEMS[:-1]
