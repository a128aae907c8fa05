"""The log refuses every change but an append, from every role, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.errors import RestrictViolation
from support.catalog import roles_of_the_store
from support.raw import append_raw

CHANGES = {
    "UPDATE": "UPDATE events SET actor = 'another actor'",
    "UPDATE of no rows": "UPDATE events SET actor = '' WHERE false",
    "UPDATE of the content": "UPDATE events SET content = '0', salt = NULL WHERE position = 1",
    "DELETE": "DELETE FROM events",
    "DELETE of no rows": "DELETE FROM events WHERE false",
    "DELETE ONLY": "DELETE FROM ONLY events WHERE position = 1",
    "TRUNCATE": "TRUNCATE events",
    "TRUNCATE CASCADE": "TRUNCATE ONLY events RESTART IDENTITY CASCADE",
    "MERGE that updates": """
        MERGE INTO events e USING (VALUES (1)) AS v (position) ON e.position = v.position
         WHEN MATCHED THEN UPDATE SET actor = 'another actor'""",
    "MERGE that deletes": """
        MERGE INTO events e USING (VALUES (1)) AS v (position) ON e.position = v.position
         WHEN MATCHED THEN DELETE""",
    "ON CONFLICT DO UPDATE": """
        INSERT INTO events SELECT * FROM events
            ON CONFLICT ON CONSTRAINT events_pkey DO UPDATE SET actor = 'another actor'""",
    "UPDATE below WITH": "WITH changed AS (UPDATE events SET actor = '' RETURNING 1) SELECT FROM changed",
}


pytestmark = pytest.mark.shared_database


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """The owner of the log, which holds two events."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        append_raw(connection, 1, 2)
        if roles_of_the_store(connection):
            connection.execute("SET ROLE eventstore_owner")
        yield connection


@pytest.fixture
def superuser(
    owner: psycopg.Connection[tuple[Any, ...]], superuser_url: str
) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """The superuser, on the same log."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        yield connection


def refuses(connection: psycopg.Connection[tuple[Any, ...]], change: str) -> None:
    before = connection.execute("SELECT * FROM events ORDER BY position").fetchall()
    with pytest.raises(RestrictViolation) as refused:
        connection.execute(CHANGES[change].encode())
    assert refused.value.diag.message_primary is not None
    assert "on the table events is refused: the log is append-only" in refused.value.diag.message_primary
    assert "source of truth" in (refused.value.diag.message_detail or "")
    assert "Append another event" in (refused.value.diag.message_hint or "")
    assert connection.execute("SELECT * FROM events ORDER BY position").fetchall() == before


@pytest.mark.parametrize("change", CHANGES)
def test_the_owner_cannot_change_an_event(owner: psycopg.Connection[tuple[Any, ...]], change: str) -> None:
    refuses(owner, change)


@pytest.mark.parametrize("change", CHANGES)
def test_the_superuser_cannot_change_an_event(superuser: psycopg.Connection[tuple[Any, ...]], change: str) -> None:
    refuses(superuser, change)


@pytest.mark.parametrize("change", CHANGES)
def test_the_superuser_cannot_change_an_event_as_a_replica(
    superuser: psycopg.Connection[tuple[Any, ...]], change: str
) -> None:
    superuser.execute("SET session_replication_role = replica")
    refuses(superuser, change)


@pytest.mark.own_database
def test_truncating_a_table_that_events_reference_is_refused(superuser: psycopg.Connection[tuple[Any, ...]]) -> None:
    superuser.execute("""
        CREATE TABLE theirs (tenant_id varchar(255) COLLATE "C", conversation_id uuid, version integer PRIMARY KEY);
        ALTER TABLE events ADD FOREIGN KEY (version) REFERENCES theirs ON DELETE CASCADE NOT VALID
    """)
    with pytest.raises(RestrictViolation):
        superuser.execute("TRUNCATE theirs CASCADE")
    assert superuser.execute("SELECT count(*) FROM events").fetchone() == (2,)


def test_the_refusal_names_the_operation(owner: psycopg.Connection[tuple[Any, ...]]) -> None:
    for word in ("UPDATE", "DELETE", "TRUNCATE"):
        with pytest.raises(RestrictViolation, match=f"^{word} on the table events"):
            owner.execute(CHANGES[word].encode())


@pytest.mark.own_database
@pytest.mark.parametrize("change", ["UPDATE above_events SET actor = 'x'", "DELETE FROM above_events"])
def test_a_change_through_a_parent_table_is_refused(
    superuser: psycopg.Connection[tuple[Any, ...]], change: str
) -> None:
    superuser.execute("CREATE TABLE above_events (position bigint NOT NULL, actor varchar(255) NOT NULL)")
    superuser.execute("ALTER TABLE events INHERIT above_events")
    with pytest.raises(RestrictViolation, match="append-only"):
        superuser.execute(change)
