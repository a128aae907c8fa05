"""The commands ``eventstore migrate``: migrations up and down, and what they refuse to destroy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.commandline import Eventstore, rows_of
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
    rows: list[dict[str, Any]] = json.loads(result.out)["items"]
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


@pytest.mark.slow
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
        assert eventstore("seed").code == 0
        refused = eventstore("migrate", "roles")
        assert (refused.code, len(refused.err.splitlines())) == (1, 1)
        assert "A superuser can: CREATE ROLE eventstore_app NOLOGIN NOINHERIT;" in refused.err
        superuser.execute("ALTER ROLE eventstore CREATEROLE")
    assert eventstore("migrate", "roles").lines[0].startswith("executed ")
    assert "eventstore.roles_migrated" in eventstore("audit", "trail", "--system").out
    again = eventstore("migrate", "roles")
    assert (again.lines, again.err) == (["nothing to do: the roles are in place"], "")
    assert [eventstore("migrate", command).err for command in ("up", "status")] == ["", ""]


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("command", "lost"),
    [
        ("tenants add acme", "the tenants with their users and keys"),
        ("tenants suspend default", "the tenants with their users and keys"),
        ("users add ana", "the users"),
        ("keys add ci", "the keys"),
    ],
)
@pytest.mark.slow
def test_tenants_users_and_keys_are_destroyed_on_request_only(empty: Eventstore, command: str, lost: str) -> None:
    assert empty(*command.split()).code == 0
    refused = empty("migrate", "down", "--all")
    assert refused.code == 1
    assert f"would destroy {lost}" in refused.err
    assert len(applied(empty)) == len(VERSIONS)  # none was reverted before it was refused
    assert empty("migrate", "down", "--all", "--destroy-events").code == 0
    assert applied(empty) == []


@pytest.mark.slow
def test_reverted_read_tables_are_rebuilt_from_the_log(empty: Eventstore) -> None:
    empty("seed")
    before = rows_of(empty, "conversations")
    assert empty("migrate", "down").code == 0
    assert empty("migrate", "up").code == 0
    assert empty("rebuild").code == 0
    assert rows_of(empty, "conversations") == before


@pytest.mark.slow
def test_no_command_but_migrate_up_applies_what_was_reverted_on_request(
    eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EVENTSTORE_DATA_DIR", str(tmp_path / "data"))
    assert eventstore("seed").code == 0
    assert eventstore("migrate", "down").lines == [f"reverted {VERSIONS[-1]}"]
    for command in ("up --port 0", "project", "seed", "conversations", "status", "pending", "keys list", "rebuild"):
        result = eventstore(*command.split())
        assert (result.code, result.out) == (1, "")
        assert f"migrate down has reverted migrations, last {VERSIONS[-1]}: eventstore migrate up applies" in result.err
    assert applied(eventstore) == VERSIONS[:-1]
    assert eventstore("migrate", "up").lines == [f"applied {VERSIONS[-1]}"]
    assert len(rows_of(eventstore, "conversations")) == 2


@pytest.mark.slow
def test_a_service_does_not_apply_to_a_named_server_what_was_reverted_on_request(bare: Eventstore) -> None:
    assert bare("migrate", "up").code == 0
    assert bare("migrate", "down", "--all").code == 0
    refused = bare("up", "--port", "0")
    assert refused.code == 1
    assert "eventstore migrate up applies them again" in refused.err
    assert applied(bare) == []
