"""The commands about the schema: migrations up and down, the sample, and rebuilding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.commandline import Eventstore
from support.scoped_queries import open_as

from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import known_versions
from projections import PROJECTIONS

ALL = ", ".join(projection.name for projection in PROJECTIONS)
VERSIONS = list(known_versions())


@pytest.fixture
def bare(eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, empty_database_url: str) -> Eventstore:
    """The command line on a database with nothing in it."""
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    return eventstore


def applied(eventstore: Eventstore) -> list[str]:
    result = eventstore("migrate", "status", "--json")
    assert result.code == 0
    rows: list[dict[str, Any]] = json.loads(result.out)
    assert [set(row) for row in rows] == [{"version", "name", "applied"}] * len(VERSIONS)
    return [row["version"] for row in rows if row["applied"]]


def test_up_down_and_up_again(bare: Eventstore) -> None:
    assert applied(bare) == []
    assert bare("migrate", "up").lines == [f"applied {version}" for version in VERSIONS]
    assert applied(bare) == VERSIONS
    assert bare("migrate", "up").lines == ["nothing to apply: the schema is up to date"]
    assert bare("migrate", "down").lines == [f"reverted {VERSIONS[-1]}"]
    assert applied(bare) == VERSIONS[:-1]
    down = bare("migrate", "down", "--all").lines
    assert down == [*(f"reverted {version}" for version in reversed(VERSIONS[:-1])), "nothing to revert"]
    assert applied(bare) == []
    assert bare("migrate", "up").code == 0
    assert bare("seed").code == 0


def test_the_list_of_migrations_for_people(bare: Eventstore) -> None:
    bare("migrate", "up")
    lines = bare("migrate", "status").lines
    assert lines[0].split() == ["version", "name", "applied"]
    assert [line.split()[::2] for line in lines[1:]] == [[version, "yes"] for version in VERSIONS]


def test_up_and_status_warn_until_migrate_roles_has_put_row_level_security_in_force(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, own_server: EmbeddedServer
) -> None:
    monkeypatch.setenv("DATABASE_URL", own_server.url())
    with psycopg.connect(own_server.superuser_url, autocommit=True) as superuser:
        superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
        for command in ("up", "status"):
            [warning] = eventstore("migrate", command).err.splitlines()
            assert warning.startswith("warning: row-level security is not in force")
            assert "eventstore_app" in warning
        assert len(applied(eventstore)) == len(VERSIONS)
        refused = eventstore("migrate", "roles")
        assert (refused.code, len(refused.err.splitlines())) == (1, 1)
        assert "A superuser can: CREATE ROLE eventstore_app NOLOGIN NOINHERIT;" in refused.err
        superuser.execute("ALTER ROLE eventstore CREATEROLE")
    assert eventstore("migrate", "roles").lines[0].startswith("executed ")
    again = eventstore("migrate", "roles")
    assert (again.lines, again.err) == (["nothing to do: the roles are in place"], "")
    assert [eventstore("migrate", command).err for command in ("up", "status")] == ["", ""]


def test_a_log_with_events_is_destroyed_on_request_only(empty: Eventstore, database_url: str) -> None:
    assert empty("seed").code == 0
    refused = empty("migrate", "down", "--all")
    assert refused.code == 1
    assert len(refused.err.splitlines()) == 1
    assert "would destroy the log, and it holds events" in refused.err
    assert "--destroy-events" in refused.err
    assert len(applied(empty)) == len(VERSIONS)  # none was reverted before it was refused
    with open_as(database_url, "eventstore_owner") as connection:
        assert connection.execute("SELECT count(*) > 0 FROM events").fetchone() == (True,)
    assert empty("migrate", "down", "--all", "--destroy-events").code == 0
    assert applied(empty) == []


def test_keys_are_destroyed_on_request_only(empty: Eventstore) -> None:
    assert empty("tenants", "add", "acme").code == 0
    refused = empty("migrate", "down", "--all")
    assert refused.code == 1
    assert "would destroy the tenants with their users and keys" in refused.err
    assert len(applied(empty)) == len(VERSIONS)  # none was reverted before it was refused
    assert json.loads(empty("tenants", "list", "--json").out)[0]["id"] == "acme"
    assert empty("migrate", "down", "--all", "--destroy-events").code == 0
    assert applied(empty) == []


def test_reverted_read_tables_are_rebuilt_from_the_log(empty: Eventstore) -> None:
    empty("seed")
    before = json.loads(empty("conversations", "--json").out)
    assert empty("migrate", "down").code == 0
    assert empty("migrate", "up").code == 0
    assert empty("rebuild").code == 0
    assert json.loads(empty("conversations", "--json").out) == before


def test_the_sample_is_imported_once(empty: Eventstore) -> None:
    first, second = empty("seed"), empty("seed")
    assert (first.code, first.err, second.code) == (0, "", 0)
    assert "2 conversations, 9 messages, 2 tasks: 15 new events, 0 known already" in first.out
    assert "0 new events, 15 known already" in second.out
    status = [row["status"] for row in json.loads(empty("tasks", "sample-trip", "--json").out)]
    assert status == ["completed", "in_progress"]
    assert len(json.loads(empty("conversations", "--json").out)) == 2


def test_the_sample_is_imported_into_the_given_tenant(empty: Eventstore) -> None:
    assert empty("seed", "--tenant", "ana").code == 0
    assert json.loads(empty("conversations", "--json").out) == []
    assert len(json.loads(empty("conversations", "--tenant", "ana", "--json").out)) == 2


def test_a_rebuild_refills_the_given_projections(empty: Eventstore, database_url: str) -> None:
    empty("seed")
    with open_as(database_url, "eventstore_owner") as connection:
        connection.execute("UPDATE messages SET content = 'wrong'")
        connection.execute("UPDATE conversations SET name = 'wrong'")
    refused = empty("rebuild", "messages")
    assert (refused.code, refused.out) == (1, "")
    assert "eventstore rebuild messages --accept-differences" in refused.err
    named = empty("verify", "messages")
    assert named.code == 1
    assert "messages: 2 conversations differ from the log" in named.out
    assert empty("rebuild", "messages", "--accept-differences").lines == ["rebuilt messages up to position 15"]
    assert "wrong" not in empty("messages", "sample-trip").out
    assert "wrong" in empty("conversations").out
    rebuilt = empty("rebuild", "--accept-differences")
    assert rebuilt.lines == [f"rebuilt {ALL} up to position 15"]
    assert rebuilt.err.count("conversations: changed: conversation ") == 2
    assert "wrong" not in empty("conversations").out
    assert empty("rebuild", "conversations", "--undo").lines == ["restored conversations"]
    assert "wrong" in empty("conversations").out


def test_parked_conversations_are_listed_and_retried(empty: Eventstore, database_url: str) -> None:
    assert empty("parked").err.splitlines() == ["nothing is parked"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE tasks ADD CONSTRAINT none_done CHECK (status <> 'completed')")
        empty("seed")
        [parked] = json.loads(empty("parked", "--json").out)
        assert (parked["projection"], parked["sqlstate"]) == ("tasks", "23514")
        assert "none_done" in empty("parked").out
        again = empty("retry")
        assert (again.code, again.lines) == (1, ["applied 0, still parked 1"])
        connection.execute("ALTER TABLE tasks DROP CONSTRAINT none_done")
    assert empty("retry", "tasks").lines == ["applied 1, still parked 0"]
    assert [line.split(":")[1] for line in empty("verify").lines] == [" equal to the log up to position 15"] * (
        len(PROJECTIONS) + 1  # and the members
    )


def test_a_setting_adds_a_custom_projection(empty: Eventstore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "roles_seen.sql"
    path.write_text(
        "-- setup\nCREATE TABLE roles_seen (tenant_id text, conversation_id uuid, version int, role text);\n"
        "-- batch\nINSERT INTO roles_seen SELECT tenant_id, conversation_id, version, content ->> 'role' FROM batch"
        " WHERE event_type = 'message.added';\n"
    )
    empty("seed")
    monkeypatch.setenv("EVENTSTORE_PROJECTIONS", str(path))
    assert empty("rebuild", "roles_seen").lines == ["rebuilt roles_seen up to position 15"]
    assert empty("verify", "roles_seen").lines == ["roles_seen: equal to the log up to position 15"]
    assert "roles_seen" in empty("status").out
    monkeypatch.setenv("EVENTSTORE_PROJECTIONS", str(tmp_path / "missing.sql"))
    broken = empty("verify")
    assert (broken.code, len(broken.err.splitlines())) == (1, 1)


def test_an_empty_log_can_be_rebuilt(empty: Eventstore) -> None:
    assert empty("rebuild").lines == [f"rebuilt {ALL} up to position 0"]


def test_an_unknown_projection_is_an_error(empty: Eventstore) -> None:
    result = empty("rebuild", "nonsense")
    assert result.code == 1
    assert "no projection 'nonsense': choose among conversations, messages, tasks" in result.err
    assert len(result.err.splitlines()) == 1
