"""Conversations from the tables of google-adk, in each layout that its versions have made."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from support.adk import CONTENTS, LAYOUTS, fill, make_sqlite, rows, statements

from agent_manager.migrating import migrate
from agent_manager.migrating.adk import AdkSource
from agent_manager.migrating.report import MigrationReport
from agent_manager.migrating.source import SourceUnreadable
from eventstore import EventStore, conversation_uuid
from projections import Reader

PARTS = [
    [{"kind": "text", "text": "Olá"}, {"kind": "file", "file": {"mimeType": "image/png", "bytes": "//79+w=="}}],
    [
        {"kind": "text", "text": "hm", "metadata": {"adk_thought": True}},
        {
            "kind": "data",
            "data": {"id": "c", "name": "f", "args": {"x": None}},
            "metadata": {"adk_type": "function_call"},
        },
    ],
    [
        {
            "kind": "data",
            "data": {"id": "c", "name": "f", "response": {"ok": 1.5}},
            "metadata": {"adk_type": "function_response"},
        }
    ],
    [
        {"kind": "file", "file": {"uri": "gs://a", "mimeType": "text/plain"}},
        {"kind": "data", "data": {"text": "bye", "extra": 1}, "metadata": {"adk_type": "part"}},
    ],
]
"""Of the messages."""


async def over(url: str, store: EventStore, backups: Path) -> MigrationReport:
    async with AdkSource(url) as source:
        return await migrate(source, store, backups=backups)


async def expect_the_session(store: EventStore) -> None:
    """Fails unless the session is in the store."""
    conversation = await Reader(store).conversation("s1")
    assert conversation.metadata == {"adk": {"app_name": "app", "user_id": "ana", "session_id": "s1"}}
    messages = await Reader(store).messages(conversation.id)
    assert [message.parts for message in messages] == PARTS
    assert [message.role for message in messages] == ["user", "assistant", "assistant", "assistant"]
    assert [message.given_id for message in messages] == ["e0", "e1", "e2", "e4"]
    seconds = [second for second, (_, content) in enumerate(CONTENTS) if content is not None]
    assert [message.created_at for message in messages] == [
        datetime(2026, 1, 2, 3, 4, second, 250_000, UTC) for second in seconds
    ]
    others = [event async for event in store.read(conversation.id) if event.event_type.startswith("adk.")]
    assert [event.event_type for event in others] == ["adk.event", "adk.state"]
    assert others[1].content == {"a": 1, "app:v": 2, "user:lang": "pt"}


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_from_sqlite(store: EventStore, tmp_path: Path, backups: Path, layout: str) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, layout)
    assert (await over(f"sqlite+aiosqlite:///{path}", store, backups)).is_clean
    await expect_the_session(store)
    assert (await over(str(path), store, backups)).new_events == 0


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_from_postgresql(store: EventStore, empty_database_url: str, backups: Path, layout: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        for statement in statements(layout, "postgresql"):
            connection.execute(statement.encode())
        for table, added in rows(layout).items():
            for row in added:
                names, marks = ", ".join(row), ", ".join(f"%({name})s" for name in row)
                connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})".encode(), row)
    url = empty_database_url.replace("postgresql://", "postgresql+asyncpg://")
    assert (await over(url, store, backups)).is_clean
    await expect_the_session(store)
    assert (await over(url, store, backups)).new_events == 0


async def test_only_what_is_new_is_taken(store: EventStore, tmp_path: Path, backups: Path) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "2.x")
    await over(str(path), store, backups)
    with sqlite3.connect(path) as connection:
        fill(connection, "2.x", session="s2")
        connection.execute("UPDATE sessions SET state = '{\"a\": 2}' WHERE id = 's1'")
    connection.close()
    report = await over(str(path), store, backups)
    assert report.is_clean
    assert report.new_events == 1 + 1 + len(CONTENTS) + 1  # a state; a conversation, its events, its state


async def test_sessions_of_one_id_are_told_apart(store: EventStore, tmp_path: Path, backups: Path) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "1.x")
    with sqlite3.connect(path) as connection:
        fill(connection, "1.x", user="bob")
    connection.close()
    report = await over(str(path), store, backups)
    assert report.is_clean
    names = [conversation.given_id for conversation in await Reader(store).conversations(by="created")]
    assert sorted(map(str, names)) == ["app/bob/s1", "s1"]
    messages = await Reader(store).messages(conversation_uuid(store.tenant, "app/bob/s1"))
    assert len(messages) == 4


async def test_what_is_no_database_of_google_adk_is_refused(
    tmp_path: Path, empty_database_url: str, database_url: str
) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE events (id TEXT)")
    connection.close()
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database at all, but long enough to be one" * 100)
    wrong = {
        str(tmp_path / "missing.db"): "is no file",
        str(other): "not google-adk's",
        str(broken): "not a database",
        f"sqlite:///{tmp_path}/missing.db": "is no file",
        empty_database_url: "not google-adk's",
        database_url: "not google-adk's",
        empty_database_url.rpartition("/")[0] + "/nowhere": "correct the URL",
        "mysql://localhost/x": "neither SQLite nor PostgreSQL",
    }
    for url, reason in wrong.items():
        with pytest.raises(SourceUnreadable, match=reason):
            async with AdkSource(url):
                pass


SCRIPT = """
import asyncio, sys
from google.adk.events import Event
from google.adk.sessions import DatabaseSessionService
from google.genai import types

async def main() -> None:
    service = DatabaseSessionService(sys.argv[1])
    session = await service.create_session(app_name="app", user_id="ana", session_id="s1", state={"a": 1})
    for author, text in (("user", "hello"), ("agent", "good day")):
        content = types.Content(role=author, parts=[types.Part(text=text)])
        await service.append_event(session, Event(author=author, invocation_id="i", content=content))

asyncio.run(main())
"""


async def test_from_what_google_adk_itself_writes(store: EventStore, tmp_path: Path, backups: Path) -> None:
    pytest.importorskip("google.adk", reason="google-adk is not installed (extra: bench)")
    url = f"sqlite+aiosqlite:///{tmp_path}/sessions.db"
    subprocess.run([sys.executable, "-c", SCRIPT, url], check=True)  # noqa: ASYNC221 - nothing else goes on
    assert (await over(url, store, backups)).is_clean
    messages = await Reader(store).messages(conversation_uuid(store.tenant, "s1"))
    assert [message.content for message in messages] == ["hello", "good day"]
