"""The commands seed, rebuild, verify, parked and retry."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from support.commandline import Eventstore, rows_of
from support.scoped_queries import open_as

from projections import PROJECTIONS

ALL = ", ".join(projection.name for projection in PROJECTIONS)


def test_the_sample_is_imported_once(empty: Eventstore) -> None:
    first, second = empty("seed"), empty("seed")
    assert (first.code, first.err, second.code) == (0, "", 0)
    assert "2 conversations, 9 messages, 2 tasks: 15 new events, 0 known already" in first.out
    assert "0 new events, 15 known already" in second.out
    status = [row["status"] for row in rows_of(empty, "tasks", "sample-trip")]
    assert status == ["completed", "in_progress"]
    assert len(rows_of(empty, "conversations")) == 2


def test_the_sample_is_imported_into_the_given_tenant(empty: Eventstore) -> None:
    assert empty("tenants", "add", "ana").code == 0
    assert empty("seed", "--tenant", "ana").code == 0
    assert rows_of(empty, "conversations") == []
    assert len(rows_of(empty, "conversations", "--tenant", "ana")) == 2


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
    assert empty("rebuild", "messages", "--accept-differences").out.startswith("rebuilt messages up to position 16")
    assert "wrong" not in empty("messages", "sample-trip").out
    assert "wrong" in empty("conversations").out
    rebuilt = empty("rebuild", "--accept-differences")
    assert rebuilt.out.startswith(f"rebuilt {ALL} up to position ")
    assert rebuilt.err.count("conversations: changed: conversation ") == 2
    assert "wrong" not in empty("conversations").out
    assert empty("rebuild", "conversations", "--undo").lines == ["restored conversations"]
    assert "wrong" in empty("conversations").out


@pytest.mark.slow
def test_parked_conversations_are_listed_and_retried(empty: Eventstore, database_url: str) -> None:
    assert empty("parked").err.splitlines() == ["nothing is parked"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE tasks ADD CONSTRAINT none_done CHECK (status <> 'completed')")
        empty("seed")
        [parked] = rows_of(empty, "parked")
        assert (parked["projection"], parked["sqlstate"]) == ("tasks", "23514")
        assert "none_done" in empty("parked").out
        again = empty("retry")
        assert (again.code, again.lines) == (1, ["applied 0, still parked 1"])
        connection.execute("ALTER TABLE tasks DROP CONSTRAINT none_done")
    assert empty("retry", "tasks").lines == ["applied 1, still parked 0"]
    assert [line.split(" up to")[0].split(":")[1] for line in empty("verify").lines] == [" equal to the log"] * (
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
    assert empty("rebuild", "roles_seen").lines == ["rebuilt roles_seen up to position 16"]
    assert empty("verify", "roles_seen").lines == ["roles_seen: equal to the log up to position 16"]
    assert "roles_seen" in empty("status").out
    monkeypatch.setenv("EVENTSTORE_PROJECTIONS", str(tmp_path / "missing.sql"))
    broken = empty("verify")
    assert (broken.code, len(broken.err.splitlines())) == (1, 1)


@pytest.mark.slow
def test_an_empty_log_can_be_rebuilt(empty: Eventstore) -> None:
    assert empty("rebuild").lines == [f"rebuilt {ALL} up to position 1"], "the act that it was started"


def test_an_unknown_projection_is_an_error(empty: Eventstore) -> None:
    result = empty("rebuild", "nonsense")
    assert result.code == 1
    assert "no projection 'nonsense': choose among conversations, messages, tasks" in result.err
    assert len(result.err.splitlines()) == 1
