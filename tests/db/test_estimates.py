"""Estimates of the planner concern all rows of a table, and must not disclose values of hidden rows."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from psycopg import sql
from support.logins import Logins, Session
from support.scoped_queries import open_as

from eventstore import EventStore
from projections.projection import select_projections
from projections.rebuild import rebuild

PROTECTED_COLUMNS = [
    ("conversations", "name"),
    ("messages", "content"),
    ("messages", "given_id"),
    ("tasks", "description"),
    ("task_artifacts", "name"),
]
HIDDEN_CONVERSATION = UUID(int=7)


def fill(database_url: str, table: str, column: str) -> None:
    """Insert many rows of another tenant, half of which have the same value."""
    with open_as(database_url) as projector:
        for number in range(200):
            given = {"tenant_id": "globex", "conversation_id": HIDDEN_CONVERSATION, "id": UUID(int=number)}
            given |= {
                "task_id": HIDDEN_CONVERSATION,
                "version": number,
                "first_version": number,
                "role": "user",
                "status": "pending",
                "name": "",
                "content": "",
            }
            given |= {
                "artifact_id": "a",
                "parts": "[]",
                "description": "",
                "created_at": "2026-01-01Z",
                "updated_at": "2026-01-01Z",
                "extends": False,
                "last_chunk": False,
            }
            given |= {column: "xyzzy" if number % 2 else f"plugh {number}"}
            known = projector.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", (table,)
            ).fetchall()
            row = {name: given[name] for (name,) in known if name in given}
            projector.execute(
                sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    sql.Identifier(table),
                    sql.SQL(", ").join(map(sql.Identifier, row)),
                    sql.SQL(", ").join(map(sql.Literal, row.values())),
                )
            )


def analyze(database_url: str, table: str) -> None:
    with open_as(database_url, "eventstore_owner") as owner:
        owner.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table)))


def estimated_rows(session: Session, table: str, column: str, comparison: str, text: str) -> int:
    """Return the number of rows that the planner expects."""
    explained = session.execute(
        sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM {} WHERE {} {} {}").format(
            sql.Identifier(table), sql.Identifier(column), sql.SQL(comparison), sql.Literal(text)
        )
    ).fetchone()
    assert explained is not None
    plan = explained[0] if isinstance(explained[0], list) else json.loads(explained[0])
    return int(plan[0]["Plan"]["Plan Rows"])


@pytest.mark.parametrize(("table", "column"), PROTECTED_COLUMNS)
def test_no_estimate_depends_on_texts_of_another_tenant(
    logins: Logins, database_url: str, table: str, column: str
) -> None:
    fill(database_url, table, column)
    analyze(database_url, table)
    stranger = logins.session("reader", tenant="acme")
    assert estimated_rows(stranger, table, column, "=", "xyzzy") == estimated_rows(
        stranger, table, column, "=", "nothing"
    )
    assert estimated_rows(stranger, table, column, "<", "plugh 1") == estimated_rows(
        stranger, table, column, "<", "zzz"
    )


async def test_no_estimate_depends_on_texts_of_another_tenant_after_a_rebuild(
    logins: Logins, store: EventStore, database_url: str
) -> None:
    await rebuild(store, select_projections(["messages"]))
    fill(database_url, "messages", "content")
    analyze(database_url, "messages")
    stranger = logins.session("reader", tenant="acme")
    assert estimated_rows(stranger, "messages", "content", "=", "xyzzy") == estimated_rows(
        stranger, "messages", "content", "=", "nothing"
    )
