"""No migration blocks a large log for long, or stops the code before it, without saying so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.environment import TREE, child_environment

from tools.migrations.composition import CompositionError
from tools.migrations.locks import problems_after

pytestmark = pytest.mark.any_server

HARMLESS = """
SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);
CREATE TABLE notes (id bigint PRIMARY KEY, conversation_id uuid NOT NULL REFERENCES conversations (id));
CREATE INDEX ON notes (conversation_id);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
SELECT eventstore_grant('SELECT', 'TABLE notes', 'eventstore_reader');
ALTER TABLE events ADD COLUMN note text;
ALTER TABLE events ADD COLUMN weight integer NOT NULL DEFAULT 1;
ALTER TABLE events ADD CONSTRAINT heavy CHECK (weight > 0) NOT VALID;
CREATE OR REPLACE FUNCTION double(n integer) RETURNS integer LANGUAGE sql RETURN n * 2;
"""
BLOCKING = {
    "require-concurrent-index-creation": "CREATE INDEX events_note ON events (note);",
    "require-concurrent-index-deletion": "DROP INDEX events_note;",
    "changing-column-type": "ALTER TABLE events ALTER COLUMN actor TYPE varchar(20);",
    "adding-not-nullable-field": "ALTER TABLE events ALTER COLUMN salt SET NOT NULL;",
    "adding-foreign-key-constraint": "ALTER TABLE events ADD CONSTRAINT a FOREIGN KEY (actor) REFERENCES users (id);",
    "constraint-missing-not-valid": "ALTER TABLE events ADD CONSTRAINT c CHECK (actor <> '');",
    "disallowed-unique-constraint": "ALTER TABLE events ADD CONSTRAINT u UNIQUE (note);",
    "adding-field-with-default": "ALTER TABLE events ADD COLUMN chance float DEFAULT random();",
    "require-concurrent-reindex": "REINDEX TABLE events;",
}
STOPPING = {
    "ban-drop-column": "ALTER TABLE events DROP COLUMN metadata;",
    "ban-drop-table": "DROP TABLE messages;",
    "ban-drop-function": "DROP FUNCTION append_one(text);",
    "ban-drop-not-null": "ALTER TABLE events ALTER COLUMN salt DROP NOT NULL;",
    "renaming-column": "ALTER TABLE events RENAME COLUMN actor TO author;",
    "renaming-table": "ALTER TABLE messages RENAME TO posts;",
}
REQUIRES = "INSERT INTO eventstore_migrations VALUES ('0 20270101000000');"


def reported(folder: Path, up: str, *, option: str = "") -> list[str]:
    """Return the findings on a migration."""
    path = folder / "29990101000000_new.sql"
    path.write_text(f"-- migrate:up{option}\n{up}\n-- migrate:down\nDROP TABLE notes;\n")
    return problems_after([], folder)


def test_no_migration_blocks_the_log_or_stops_older_code_without_saying_so() -> None:
    command = [sys.executable, "-m", "tools.migrations", "locks"]
    done = subprocess.run(command, cwd=TREE, env=child_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_baseline_is_not_examined(tmp_path: Path) -> None:
    (tmp_path / "1_baseline.sql").write_text("-- migrate:up\nDROP TABLE events;\n")
    assert problems_after(["1_baseline"], tmp_path) == []
    assert len(problems_after(["2_another"], tmp_path)) == 1


def test_what_takes_short_locks_passes(tmp_path: Path) -> None:
    assert reported(tmp_path, HARMLESS) == []
    assert (
        reported(tmp_path, "CREATE INDEX CONCURRENTLY events_note ON events (note);", option=" transaction:false") == []
    )
    assert reported(tmp_path, "DROP INDEX CONCURRENTLY events_note;", option=" transaction:false") == []


@pytest.mark.parametrize(("rule", "statement"), BLOCKING.items(), ids=BLOCKING)
def test_what_blocks_a_large_table_is_reported_with_its_line(tmp_path: Path, rule: str, statement: str) -> None:
    lines = reported(tmp_path, f"SELECT;\n{statement}\n{REQUIRES}")
    assert any(line.startswith(f"29990101000000_new.sql:3: {rule}: ") for line in lines)


@pytest.mark.parametrize(("rule", "statement"), STOPPING.items(), ids=STOPPING)
def test_what_older_code_may_use_is_only_removed_by_a_migration_that_requires_newer_code(
    tmp_path: Path, rule: str, statement: str
) -> None:
    [line] = reported(tmp_path, statement)
    assert line.startswith(f"29990101000000_new.sql:2: {rule}: ")
    assert reported(tmp_path, f"{statement}\n{REQUIRES}") == []


def test_a_file_that_is_no_migration_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "29990101000000_new.sql").write_text("SELECT;\n")
    with pytest.raises(CompositionError, match=r"29990101000000_new.sql: has no line -- migrate:up"):
        problems_after([], tmp_path)
