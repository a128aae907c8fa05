"""Conversations from the tables of google-adk, in each layout that its versions have made."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import ANY
from uuid import UUID

import psycopg
import pytest
from support.adk import CONTENTS, LAYOUTS, fill, make_sqlite, rows, statements

from agent_manager.adapters.google_adk_events import conversation_name
from agent_manager.importers import migrate
from agent_manager.importers.backup import BackupMismatch, choose_backup
from agent_manager.importers.google_adk import AdkSource
from agent_manager.importers.migration import MigrationReport, SourceContradictsStore
from agent_manager.importers.source import SourceUnreadable
from eventstore import EventStore, conversation_uuid
from eventstore.errors import InputError
from projections import Reader

pytestmark = pytest.mark.shared_database

PARTS = [
    [{"kind": "text", "text": "Olá"}, {"kind": "file", "file": {"mimeType": "image/png", "bytes": "//79+w=="}}],
    [
        {"kind": "text", "text": "hm", "metadata": {"adk_thought": True}},
        {
            "kind": "data",
            "data": {"id": "c", "name": "f", "args": None},
            "metadata": {"adk_type": "function_call", "adk_event": ANY},
        },
    ],
    [
        {
            "kind": "data",
            "data": {"id": "c", "name": "f", "response": None},
            "metadata": {"adk_type": "function_response", "adk_event": ANY},
        }
    ],
    [
        {"kind": "file", "file": {"uri": "gs://a", "mimeType": "text/plain"}},
        {"kind": "text", "text": "bye", "metadata": {"adk_part": {"extra": 1}}},
    ],
]
"""The parts of the messages of the session. The arguments and the result of the call are those of its task."""


S1 = "app/ana/s1"
"""The id of the session's conversation."""


async def migrated(url: str, store: EventStore, backups: Path, time_zone: str | None = "UTC") -> MigrationReport:
    async with AdkSource(url, time_zone) as source:
        return await migrate(source, store, backups=backups)


def altered(path: Path, *statements: str) -> str:
    """Run statements in an SQLite file and return its path as a text."""
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return str(path)


async def stored_events(store: EventStore) -> list[UUID]:
    """Return the ids of all events of the store."""
    return [event.id async for event in store.read_log()]


async def dates(store: EventStore, conversation: str = S1) -> list[str]:
    """Return the times of the messages of a conversation, in UTC."""
    messages = await Reader(store).messages(conversation_uuid(store.tenant, conversation))
    return [message.created_at.astimezone(UTC).strftime("%d %H:%M:%S") for message in messages]


async def expect_the_session(store: EventStore, layout: str) -> None:
    """Check that the session is in the store as it was. In the layouts 1.x the tool is a long-running one."""
    conversation = await Reader(store).conversation(S1)
    assert conversation.given_id == S1
    assert conversation.metadata == {"adk": {"app_name": "app", "user_id": "ana", "session_id": "s1"}}
    messages = await Reader(store).messages(conversation.id)
    assert [message.parts for message in messages] == PARTS
    assert [message.role for message in messages] == ["user", "assistant", "assistant", "assistant"]
    assert [message.given_id for message in messages] == ["e0", "e1", "e2", "e4"]
    seconds = [second for second, (_, content) in enumerate(CONTENTS) if content is not None]
    times = [datetime(2026, 1, 2, 3, 4, second, 250_000, UTC) for second in seconds]
    assert [message.created_at for message in messages] == times
    [task] = await Reader(store).tasks(conversation.id)
    status = "completed" if layout == "2.x" else "in_progress"
    assert (task.given_id, task.description, task.status) == ("c", 'f({"x": null})', status)
    assert [artifact["parts"] for artifact in task.artifacts] == [[{"kind": "data", "data": {"ok": 1.5}}]]
    assert (task.created_at, task.updated_at) == (times[1], times[2])
    application_events = [event async for event in store.read(conversation.id) if event.event_type.startswith("adk.")]
    assert [event.event_type for event in application_events] == ["adk.event", "adk.state"]
    assert application_events[1].content == {"a": 1, "app:v": 2, "user:lang": "pt"}


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_from_sqlite(store: EventStore, tmp_path: Path, backups: Path, layout: str) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, layout)
    assert (await migrated(f"sqlite+aiosqlite:///{path}", store, backups)).is_clean
    await expect_the_session(store, layout)
    assert (await migrated(str(path), store, backups)).new_events == 0


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
    assert (await migrated(url, store, backups)).is_clean
    await expect_the_session(store, layout)
    assert (await migrated(url, store, backups)).new_events == 0


async def test_a_second_import_adds_only_what_is_new(store: EventStore, tmp_path: Path, backups: Path) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "2.x")
    await migrated(str(path), store, backups)
    with sqlite3.connect(path) as connection:
        fill(connection, "2.x", session="s2")
        connection.execute("UPDATE sessions SET state = '{\"a\": 2}' WHERE id = 's1'")
    connection.close()
    report = await migrated(str(path), store, backups)
    assert report.is_clean
    assert report.new_events == 1 + 1 + len(CONTENTS) + 3 + 1  # a state; a conversation, its events, task and state


async def test_sessions_of_several_users_with_the_same_id_are_distinct(
    store: EventStore, tmp_path: Path, backups: Path
) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "1.x")
    with sqlite3.connect(path) as connection:
        fill(connection, "1.x", user="bob")
    connection.close()
    report = await migrated(str(path), store, backups)
    assert report.is_clean
    names = [conversation.given_id for conversation in await Reader(store).conversations(by="created")]
    assert sorted(map(str, names)) == [S1, "app/bob/s1"]
    messages = await Reader(store).messages(conversation_uuid(store.tenant, "app/bob/s1"))
    assert len(messages) == 4


async def test_a_session_does_not_depend_on_other_sessions(store: EventStore, tmp_path: Path, backups: Path) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "2.x")
    with sqlite3.connect(path) as connection:
        fill(connection, "2.x", user="bob")
        connection.execute("UPDATE events SET event_data = replace(event_data, 'Olá', 'of bob') WHERE user_id = 'bob'")
    connection.close()
    await migrated(str(path), store, backups)
    before = await stored_events(store)
    without_ana = ("DELETE FROM events WHERE user_id = 'ana'", "DELETE FROM sessions WHERE user_id = 'ana'")
    report = await migrated(altered(path, *without_ana), store, backups)
    assert (report.is_clean, report.new_events, report.verified.conversations) == (True, 0, 1)
    assert await stored_events(store) == before


@pytest.mark.parametrize(
    ("first", "second"), [(("a/b", "c", "d"), ("a", "b/c", "d")), (("a%2Fb", "c", "d"), ("a/b", "c", "d"))]
)
def test_every_session_has_its_own_name(first: tuple[str, str, str], second: tuple[str, str, str]) -> None:
    assert conversation_name(*first) != conversation_name(*second)


async def test_if_a_session_was_begun_again_nothing_is_written(
    store: EventStore, tmp_path: Path, backups: Path
) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "2.x")
    first = (await migrated(str(path), store, backups)).backup
    before = await stored_events(store)
    with sqlite3.connect(path) as connection:
        fill(connection, "2.x", session="s0")  # is new, and in order
        connection.execute("UPDATE events SET id = 'again-' || id WHERE session_id = 's1'")
    connection.close()
    with pytest.raises(
        SourceContradictsStore, match="'app/ana/s1' is another in the store: it begins with message"
    ) as e:
        await migrated(str(path), store, backups)
    assert "nothing was written" in str(e.value)
    assert await stored_events(store) == before
    assert choose_backup(backups, store.tenant) == first


async def test_a_backup_names_the_database_of_the_sessions(store: EventStore, tmp_path: Path, backups: Path) -> None:
    for session, name in (("s1", "one.db"), ("s2", "two.db")):
        make_sqlite(tmp_path / name, "2.x")
        altered(tmp_path / name, f"UPDATE sessions SET id = '{session}'", f"UPDATE events SET session_id = '{session}'")
        await migrated(f"sqlite:///{tmp_path / name}", store, backups)
    with pytest.raises(BackupMismatch, match=r"several sources .*google-adk in .*/one\.db.* in .*/two\.db"):
        choose_backup(backups, store.tenant)


async def test_a_session_that_was_begun_again_without_events_is_rejected(
    store: EventStore, tmp_path: Path, backups: Path
) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "2.x")
    await migrated(str(path), store, backups)
    again = ("DELETE FROM events", "UPDATE sessions SET create_time = '2026-02-02 00:00:00', state = '{}'")
    with pytest.raises(SourceContradictsStore, match="began at 2026-02-02"):
        await migrated(altered(path, *again), store, backups)


LOCAL = "UPDATE events SET timestamp = datetime(timestamp, '-3 hours')"
"""The times of the events as they are in Brazil; those of sessions are in UTC, in SQLite."""


@pytest.mark.parametrize("layout", ["1.0", "1.x"])
async def test_older_layouts_require_a_time_zone(store: EventStore, tmp_path: Path, backups: Path, layout: str) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, layout)
    altered(path, LOCAL)
    with pytest.raises(SourceUnreadable, match=r"e0 has a local time without a zone .*--time-zone"):
        await migrated(str(path), store, backups, None)
    with pytest.raises(SourceUnreadable, match="in UTC, before its session began"):
        await migrated(str(path), store, backups, "UTC")
    assert await stored_events(store) == []
    assert (await migrated(str(path), store, backups, "America/Sao_Paulo")).is_clean
    assert await dates(store) == ["02 03:04:00", "02 03:04:01", "02 03:04:02", "02 03:04:04"]
    with pytest.raises(InputError, match="'Brazil/Nowhere' is not a time zone"):
        await migrated(str(path), store, backups, "Brazil/Nowhere")


async def test_a_zone_that_dates_events_in_the_future_is_rejected(
    store: EventStore, tmp_path: Path, backups: Path
) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "1.x")
    altered(path, "UPDATE events SET timestamp = datetime('now', '+9 hours')")  # local time in Japan
    with pytest.raises(SourceUnreadable, match="in UTC, in the future"):
        await migrated(str(path), store, backups, "UTC")
    assert (await migrated(str(path), store, backups, "Asia/Tokyo")).is_clean


async def test_exact_times_require_no_zone(store: EventStore, tmp_path: Path, backups: Path) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "2.x")
    assert (await migrated(altered(path, LOCAL), store, backups, None)).is_clean
    assert (await dates(store))[0] == "02 03:04:00"


async def test_exact_times_order_events_whose_local_times_repeat_an_hour(
    store: EventStore, tmp_path: Path, backups: Path
) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "2.x")
    await migrated(altered(path, "UPDATE events SET timestamp = '2026-01-02 02:00:00' WHERE id = 'e4'"), store, backups)
    assert await dates(store) == ["02 03:04:00", "02 03:04:01", "02 03:04:02", "02 03:04:04"]


async def test_of_a_repeated_hour_the_one_within_the_session_is_meant(
    store: EventStore, tmp_path: Path, backups: Path
) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "1.x")
    second_pass = (
        "UPDATE sessions SET create_time = '2025-10-26 01:10:00', update_time = '2025-10-26 01:30:04'",
        "UPDATE events SET timestamp = '2025-10-26 02:30:0' || substr(id, 2)",
    )
    assert (await migrated(altered(path, *second_pass), store, backups, "Europe/Berlin")).is_clean
    assert await dates(store) == ["26 01:30:00", "26 01:30:01", "26 01:30:02", "26 01:30:04"]


async def test_a_time_that_the_zone_skips_is_rejected(store: EventStore, tmp_path: Path, backups: Path) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "1.x")
    with pytest.raises(InputError, match="2025-03-30 02:30:00 does not exist in Europe/Berlin"):
        await migrated(
            altered(path, "UPDATE events SET timestamp = '2025-03-30 02:30:00'"), store, backups, "Europe/Berlin"
        )


@pytest.mark.parametrize("session_times", ["2026-01-02 03:04:00", "2026-01-02 00:04:00"], ids=["in UTC", "local"])
async def test_sessions_in_postgresql_may_be_in_utc_or_in_local_time(
    store: EventStore, empty_database_url: str, backups: Path, session_times: str
) -> None:
    with psycopg.connect(empty_database_url) as connection:
        for statement in statements("1.x", "postgresql"):
            connection.execute(statement.encode())
        for table, added in rows("1.x").items():
            for row in added:
                names, marks = ", ".join(row), ", ".join(f"%({name})s" for name in row)
                connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})".encode(), row)
        connection.execute("UPDATE events SET timestamp = timestamp - interval '3 hours'")
        connection.execute(
            "UPDATE sessions SET create_time = %(time)s, update_time = %(time)s", {"time": session_times}
        )
    assert (await migrated(empty_database_url, store, backups, "America/Sao_Paulo")).is_clean
    conversation = await Reader(store).conversation(S1)
    assert conversation.created_at == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    assert (await dates(store))[0] == "02 03:04:00"


async def test_messages_with_times_that_cannot_be_right_are_named(
    store: EventStore, tmp_path: Path, backups: Path
) -> None:
    path = tmp_path / "sessions.db"
    make_sqlite(path, "2.x")
    late = "UPDATE events SET event_data = json_set(event_data, '$.timestamp', 1e10) WHERE id = 'e4'"
    early = "UPDATE events SET event_data = json_set(event_data, '$.timestamp', 1e9) WHERE id = 'e0'"
    report = await migrated(altered(path, late, early), store, backups)
    assert report.is_clean
    assert [(problem.place, problem.reason.partition(",")[2][:14]) for problem in report.misdated] == [
        ("messages[0]", " before its co"), ("messages[3]", " in the future"),
    ]  # fmt: skip


def open_files() -> set[str]:
    """Return the paths of the files that this process has open."""
    return {os.path.realpath(each) for each in os.scandir("/proc/self/fd")}


async def test_a_database_without_google_adks_tables_is_rejected(
    tmp_path: Path, empty_database_url: str, database_url: str
) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE events (id TEXT)")
    connection.close()
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database at all, but long enough to be one" * 100)
    wrong = {
        str(tmp_path / "missing.db"): "is not a file",
        str(other): "not google-adk's",
        str(broken): "not a database",
        f"sqlite:///{tmp_path}/missing.db": "is not a file",
        empty_database_url: "not google-adk's",
        database_url: "not google-adk's",
        empty_database_url.rpartition("/")[0] + "/nowhere": "correct the URL",
        "mysql://localhost/x": "neither SQLite nor PostgreSQL",
    }
    for url, reason in wrong.items():
        with pytest.raises(SourceUnreadable, match=reason):
            async with AdkSource(url):
                pass
    assert not {str(other), str(broken)} & open_files()


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


@pytest.mark.slow
async def test_a_database_that_google_adk_itself_wrote_is_imported(
    store: EventStore, tmp_path: Path, backups: Path
) -> None:
    for name in ("google.adk", "sqlalchemy", "aiosqlite", "greenlet"):
        pytest.importorskip(
            name, reason="google-adk and what its database service needs are not installed (extra: frameworks)"
        )
    url = f"sqlite+aiosqlite:///{tmp_path}/sessions.db"
    subprocess.run([sys.executable, "-c", SCRIPT, url], check=True)  # noqa: ASYNC221 - nothing else goes on
    assert (await migrated(url, store, backups)).is_clean
    messages = await Reader(store).messages(conversation_uuid(store.tenant, S1))
    assert [message.content for message in messages] == ["hello", "good day"]
