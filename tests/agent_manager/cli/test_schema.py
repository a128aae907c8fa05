"""The commands about the schema: migrations up and down, the sample, and rebuilding."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from support.commandline import Eventstore

from eventstore.database.migrate import known_versions

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


def test_a_log_with_events_is_destroyed_only_when_told_so(empty: Eventstore, database_url: str) -> None:
    assert empty("seed").code == 0
    refused = empty("migrate", "down", "--all")
    assert refused.code == 1
    assert len(refused.err.splitlines()) == 1
    assert "would destroy the log, and it holds events" in refused.err
    assert "--destroy-events" in refused.err
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM events").fetchone() == (True,)
    assert empty("migrate", "down", "--all", "--destroy-events").code == 0
    assert applied(empty) == []


def test_the_read_tables_can_be_reverted_and_come_back_from_the_log(empty: Eventstore) -> None:
    empty("seed")
    before = json.loads(empty("conversations", "--json").out)
    assert empty("migrate", "down").code == 0
    assert empty("migrate", "up").code == 0
    assert empty("rebuild").code == 0
    assert json.loads(empty("conversations", "--json").out) == before


def test_the_sample_is_put_in_once(empty: Eventstore) -> None:
    first, second = empty("seed"), empty("seed")
    assert (first.code, first.err, second.code) == (0, "", 0)
    assert "2 conversations, 9 messages, 2 tasks: 15 new events, 0 known already" in first.out
    assert "0 new events, 15 known already" in second.out
    status = [row["status"] for row in json.loads(empty("tasks", "sample-trip", "--json").out)]
    assert status == ["completed", "in_progress"]
    assert len(json.loads(empty("conversations", "--json").out)) == 2


def test_the_sample_goes_to_the_tenant_named(empty: Eventstore) -> None:
    assert empty("seed", "--tenant", "ana").code == 0
    assert json.loads(empty("conversations", "--json").out) == []
    assert len(json.loads(empty("conversations", "--tenant", "ana", "--json").out)) == 2


def test_rebuilding_refills_what_was_asked_for(empty: Eventstore, database_url: str) -> None:
    empty("seed")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE messages SET content = 'wrong'")
        connection.execute("UPDATE conversations SET name = 'wrong'")
    assert empty("rebuild", "messages").lines == ["rebuilt messages up to position 15"]
    assert "wrong" not in empty("messages", "sample-trip").out
    assert "wrong" in empty("conversations").out
    assert empty("rebuild").lines == ["rebuilt conversations, messages, tasks up to position 15"]
    assert "wrong" not in empty("conversations").out


def test_an_empty_log_can_be_rebuilt(empty: Eventstore) -> None:
    assert empty("rebuild").lines == ["rebuilt conversations, messages, tasks up to position 0"]


def test_an_unknown_projection_is_refused(empty: Eventstore) -> None:
    result = empty("rebuild", "nonsense")
    assert result.code == 1
    assert "no projection 'nonsense': choose among conversations, messages, tasks" in result.err
    assert len(result.err.splitlines()) == 1
