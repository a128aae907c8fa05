"""The migrations are composed from db/schema, which has one file for each object."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from support.environment import TREE, child_environment

OBJECTS = """
SELECT c.relname FROM pg_class c WHERE c.relkind IN ('r', 'S', 'v', 'm') AND c.relnamespace = 'public'::regnamespace
 UNION ALL
SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
 UNION ALL
SELECT t.typname
  FROM pg_type t
  LEFT JOIN pg_class c ON c.oid = t.typrelid
 WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('c', 'd', 'e') AND (c.relkind = 'c' OR c.oid IS NULL)
 UNION ALL
SELECT rolname FROM pg_roles WHERE rolname LIKE 'eventstore\\_%'
"""
BY_DBMATE = "eventstore_migrations"
APPEND = "append/append_one.sql"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m tools.migrations`` for the folder ``db`` in a folder."""
    environment = child_environment() | {"PYTHONPATH": str(TREE)}
    command = [sys.executable, "-m", "tools.migrations", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def sections(path: Path) -> tuple[str, str]:
    """The ways up and down of a migration."""
    up, _, down = path.read_text().partition("-- migrate:down")
    return up, down


def source(connection: psycopg.Connection[tuple[object, ...]], function: str) -> str:
    row = connection.execute("SELECT prosrc FROM pg_proc WHERE oid = %s::regproc", (function,)).fetchone()
    assert row is not None
    return str(row[0])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of ``db`` as it is after the first release."""
    shutil.copytree(TREE / "db", tmp_path / "db")
    with (tmp_path / "db/schema/order.txt").open("a") as order:
        order.write("\nreleased\n")
    return tmp_path


def change(folder: Path, file: str, old: str, new: str) -> None:
    path = folder / "db/schema" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_migrations_are_what_the_files_compose_to() -> None:
    done = run(TREE, "check")
    assert (done.returncode, done.stderr) == (0, "")


def test_composing_again_changes_nothing(tmp_path: Path) -> None:
    shutil.copytree(TREE / "db", tmp_path / "db")
    (tmp_path / "db/migrations/29990101000000_left_over.sql").write_text("")
    assert "29990101000000_left_over.sql" in run(tmp_path, "check").stderr
    assert run(tmp_path).returncode == 0
    for folder in (TREE, tmp_path):
        paths = sorted((folder / "db/migrations").iterdir())
        if folder == TREE:
            expected = {path.name: path.read_text() for path in paths}
    assert {path.name: path.read_text() for path in paths} == expected


def test_every_object_has_one_file_and_every_file_one_object(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        objects = [name for (name,) in connection.execute(OBJECTS)]
    files = [path.stem for path in (TREE / "db/schema").rglob("*.sql")]
    assert sorted(files) == sorted(set(objects) - {BY_DBMATE})
    assert len(objects) == len(set(objects)), "overloaded functions"


def test_a_file_that_is_missing_from_the_order_is_named(copy: Path) -> None:
    (copy / "db/schema/log/stray.sql").write_text("CREATE TABLE stray (id integer);\n")
    assert "log/stray.sql" in run(copy).stderr


def test_after_the_release_a_changed_function_becomes_the_next_migration(copy: Path, database_url: str) -> None:
    change(copy, APPEND, "\nDECLARE\n", "\nDECLARE  -- changed\n")
    assert APPEND in run(copy, "check").stderr
    assert "use next NAME" in run(copy).stderr
    done = run(copy, "next", "changed_append")
    assert done.returncode == 0, done.stderr
    up, down = sections(copy / done.stdout.strip())
    with psycopg.connect(database_url) as connection:
        before = source(connection, "append_one")
        connection.execute(up.encode())
        assert source(connection, "append_one") == before.replace("DECLARE", "DECLARE  -- changed", 1)
        connection.execute(down.encode())
        assert source(connection, "append_one") == before
    assert run(copy, "check").returncode == 0
    assert "no file differs" in run(copy, "next", "again").stderr


def test_after_the_release_a_new_object_is_created_and_dropped(copy: Path, database_url: str) -> None:
    (copy / "db/schema/log/notes.sql").write_text("CREATE TABLE notes (id integer);\nCREATE INDEX ON notes (id);\n")
    change(copy, "order.txt", "    log/events\n", "    log/events\n    log/notes\n")
    up, down = sections(copy / run(copy, "next", "notes").stdout.strip())
    with psycopg.connect(database_url) as connection:
        connection.execute(up.encode())
        connection.execute("SELECT FROM notes")
        connection.execute(down.encode())
        assert connection.execute("SELECT to_regclass('notes')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("log/events.sql", "salt            bytea,", "salt            bytea NOT NULL,"),
        (APPEND, "    OUT problem      text", "    OUT problem      varchar"),
        (APPEND, ", 'eventstore_writer')", ", 'eventstore_reader')"),
    ],
    ids=["table", "result", "right taken away"],
)
def test_a_change_that_cannot_be_derived_is_refused_until_a_manual_migration_names_it(
    copy: Path, file: str, old: str, new: str
) -> None:
    change(copy, file, old, new)
    refused = run(copy, "next", "underivable")
    assert refused.returncode == 1
    message, line = refused.stderr.strip().split("\n")
    assert file in message
    assert "by hand" in message
    by_hand = copy / "db/migrations/29990101000000_by_hand.sql"
    by_hand.write_text(f"-- migrate:up\n{line}\nSELECT;\n\n-- migrate:down\nSELECT;\n")
    assert run(copy, "check").returncode == 0
