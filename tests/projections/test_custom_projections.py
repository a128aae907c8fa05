"""Custom projections, as files and in Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from support.environment import TREE
from support.scoped_queries import open_as

from eventstore import Event, EventStore, MessageAdded
from eventstore.database.connection import Connection
from eventstore.errors import RebuildError, SettingsError
from projections import (
    PROJECTIONS,
    catch_up,
    load_projections,
    projection,
    read_parked,
    read_status,
    rebuild,
    retry_parked,
    undo_rebuild,
    verify,
)
from projections.custom_projections import from_file

Sync = psycopg.Connection[tuple[object, ...]]

DOCUMENTED = (TREE / "docs/guides/projections.md").read_text(encoding="utf-8")
[TOOL_USAGE] = re.findall(r"^```sql[^\n]*\n(-- projection: tool_usage\n.*?)^```$", DOCUMENTED, re.MULTILINE | re.DOTALL)
[LENGTHS] = re.findall(r"^```python title=\"usage.py\"\n(.*?)^```$", DOCUMENTED, re.MULTILINE | re.DOTALL)


@pytest.fixture
def owner(database_url: str) -> Iterator[Sync]:
    with open_as(database_url, "eventstore_owner") as connection:
        yield connection


def calling(tools: int) -> MessageAdded:
    return MessageAdded(role="assistant", content="", extra={"tool_calls": [{"name": "look"}] * tools})


@projection(
    "lengths",
    setup="CREATE TABLE lengths (tenant_id text, conversation_id uuid, version integer, length integer,"
    " PRIMARY KEY (tenant_id, conversation_id, version))",
)
async def lengths(connection: Connection, events: Sequence[Event]) -> None:
    """Store how long messages are."""
    rows = []
    for event in events:
        if isinstance(event.data, MessageAdded):
            if event.data.content == "poison":
                raise ValueError("cannot be measured")
            rows.append((event.tenant_id, event.conversation_id, event.version, len(event.data.content or "")))
    async with connection.cursor() as cursor:
        await cursor.executemany("INSERT INTO lengths VALUES (%s, %s, %s, %s)", rows)


async def test_a_file_is_a_projection_like_the_others(store: EventStore, owner: Sync, tmp_path: Path) -> None:
    path = tmp_path / "tool_usage.sql"
    path.write_text(TOOL_USAGE)
    *built_in, own = load_projections(str(path))
    assert tuple(built_in) == PROJECTIONS
    conversation = uuid4()
    await store.append(conversation, [calling(2), calling(1)], actor="agent")
    await catch_up(store, [own])
    await store.append(conversation, [calling(3)], actor="agent")
    await catch_up(store, [own])
    assert owner.execute("SELECT agent, tool, calls FROM tool_usage").fetchall() == [("agent", "look", 6)]
    await rebuild(store, [own])
    assert owner.execute("SELECT agent, tool, calls FROM tool_usage").fetchall() == [("agent", "look", 6)]
    assert not (await verify(store, [own]))[0].differences
    assert "tool_usage" in {one.name for one in (await read_status(store, [own])).projections}


async def test_a_function_is_a_projection_like_the_others(store: EventStore, owner: Sync) -> None:
    sick, well = uuid4(), uuid4()
    await store.append(sick, [MessageAdded(role="user", content=text) for text in ("one", "poison", "three")])
    await store.append(well, [MessageAdded(role="user", content="four")])
    await catch_up(store, [lengths])
    assert sorted(owner.execute("SELECT length FROM lengths").fetchall()) == [(3,), (4,)]
    [found] = await read_parked(store, [lengths])
    assert (found.sqlstate, found.error, found.version) == ("PYERR", "ValueError: cannot be measured", 2)
    assert (await retry_parked(store, [lengths])).parked == 1
    await rebuild(store, [lengths])
    assert not (await verify(store, [lengths]))[0].differences


async def test_the_documented_function_works(
    store: EventStore, owner: Sync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usage_of_words.py").write_text(LENGTHS)
    monkeypatch.syspath_prepend(tmp_path)
    *_, own = load_projections("usage_of_words:lengths")
    await store.append(uuid4(), [MessageAdded(role="user", content="four"), calling(1)])
    await catch_up(store, [own])
    assert owner.execute("SELECT length FROM lengths ORDER BY version").fetchall() == [(4,), (0,)]


async def test_tables_made_by_missing_code_stay_until_they_are_rebuilt(store: EventStore, owner: Sync) -> None:
    await store.append(uuid4(), [MessageAdded(role="user", content="one")])
    await catch_up(store, [lengths])
    owner.execute(
        "UPDATE projection_definitions SET definition_hash = 'of an older version' WHERE projection = 'lengths'"
    )
    await store.append(uuid4(), [MessageAdded(role="user", content="two")])
    await catch_up(store, [lengths])
    assert owner.execute("SELECT count(*) FROM lengths").fetchone() == (1,)
    with pytest.raises(RebuildError, match="eventstore rebuild lengths"):
        await verify(store, [lengths])
    await rebuild(store, [lengths])
    assert owner.execute("SELECT count(*) FROM lengths").fetchone() == (2,)
    with pytest.raises(RebuildError, match="does not have"):
        await undo_rebuild(store, [lengths])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SELECT 1", "no section '-- batch'"),
        ("-- projection: Not-a-name\n-- batch\nSELECT 1", "is not a name for a projection"),
        ("-- projection: messages\n-- batch\nSELECT 1", "messages is taken by projection messages"),
        ("-- tables: tasks\n-- batch\nSELECT 1", "tasks is taken by projection tasks"),
    ],
)
def test_an_invalid_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mine.sql"
    path.write_text(text)
    with pytest.raises(SettingsError, match=reason):
        load_projections(str(path))


@pytest.mark.parametrize(
    "word", ["missing.sql", "nowhere:thing", "projections:nothing", "projections:select_projections", "plain"]
)
def test_the_error_names_what_cannot_be_loaded(word: str) -> None:
    with pytest.raises(SettingsError, match=word.split(":")[0].replace(".", r"\.")):
        load_projections(word)


async def test_a_setup_that_creates_no_table_is_refused(store: EventStore, tmp_path: Path) -> None:
    path = tmp_path / "mine.sql"
    path.write_text("-- setup\nSELECT 1;\n-- batch\nSELECT 1;")
    with pytest.raises(SettingsError, match="does not create the table mine"):
        await catch_up(store, [from_file(path)])


def test_the_definition_hash_of_a_function_is_that_of_its_module() -> None:
    assert len(lengths.definition_hash) == 64
    made: dict[str, Any] = {"__name__": "typed_somewhere"}
    exec("async def fold(connection, events): ...", made)
    with pytest.raises(SettingsError, match="put it into a module"):
        _ = replace(lengths, function=made["fold"]).definition_hash
