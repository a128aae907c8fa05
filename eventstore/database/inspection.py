"""What is wrong with a database whose migrations are all applied: by its catalogs, and as other roles see it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql

from eventstore.database.catalog import (
    CATALOG,
    OWNER,
    ROLES_COMMAND,
    compare_catalog,
    describe,
    expected_facts,
    missing_events,
    remedy,
)
from eventstore.database.queries import query

_SyncConnection = psycopg.Connection[tuple[Any, ...]]

_EXPOSED = query("eventstore.database", "exposed")
_LOOKING = ("eventstore_reader", "eventstore_auditor")
"""The roles that see what row-level security shows them."""
_LOOK_MILLISECONDS = "50"
"""For each table: a row that should not be visible is found at once, but where none is, all rows would be read."""


def inspect(connection: _SyncConnection, schema: str) -> list[str]:
    """Return what is wrong, in sentences that say what to do; empty if nothing is.

    Args:
        connection: in a transaction whose search path begins with the schema.
    """
    comparison = compare_catalog(connection.execute(CATALOG).fetchall())
    found = []
    if not comparison.has_roles:
        missing = f" (roles that do not exist: {', '.join(comparison.missing_roles)})"
        found.append(
            f"row-level security is not in force: the log belongs to a login and not to {OWNER}"
            f"{missing if comparison.missing_roles else ''}; logins with its rights see every tenant: "
            f"{ROLES_COMMAND}"
        )
    if differences := comparison.differences:
        found.append(f"not as the migrations make it: {describe(differences)}: {remedy(differences)}")
    if comparison.has_roles:
        for role in (None, *_LOOKING):
            found += _exposed(connection, schema, role, "undo what is named above" if differences else ROLES_COMMAND)
    if not comparison.structural():  # or the function could be missing, or see less than there is
        with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            row = connection.execute("SELECT last_event, last_checkpoint FROM positions_are_sound()").fetchone()
            found += missing_events(*row) if row is not None else []
    return found


def _exposed(connection: _SyncConnection, schema: str, role: str | None, advice: str) -> list[str]:
    """Return what the login, or a role that it may take, sees without naming a tenant."""
    who = f"the role {role}" if role else f"the login {connection.info.user}"
    tables = [
        name
        for (kind, name), detail in expected_facts().items()
        if (kind, detail) == ("row-level security on", "forced")
    ]
    with connection.transaction(force_rollback=True):
        if role is not None:
            try:
                with connection.transaction():
                    connection.execute("SELECT set_config('role', %s, true)", (role,))
            except psycopg.errors.InsufficientPrivilege:
                return []
        row = connection.execute(_EXPOSED, {"tables": tables}).fetchone()
        is_exempt, readable = row or (False, [])
        if is_exempt:
            return [
                f"row-level security does not hold for {who}, a superuser or with BYPASSRLS: "
                "let the service connect as another login"
            ]
        connection.execute(
            "SELECT set_config('eventstore.tenant', '', true), set_config('statement_timeout', %s, true)",
            (_LOOK_MILLISECONDS,),
        )
        visible = [table for table in readable if _is_visible(connection, schema, table)]
    if not visible:
        return []
    return [f"{who} sees rows without naming a tenant: {', '.join(visible)}: {advice}"]


def _is_visible(connection: _SyncConnection, schema: str, table: str) -> bool:
    text = sql.SQL("SELECT NOT row_security_active({}) OR EXISTS (SELECT FROM {})").format(
        sql.Literal(f"{schema}.{table}"), sql.Identifier(schema, table)
    )
    # A policy may read what a role that only runs the service cannot: then it sees nothing.
    with suppress(psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege), connection.transaction():
        return connection.execute(text).fetchone() == (True,)
    return False
