"""Connections with a tenant and user set, or under a role, for tests that query tables directly."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from eventstore import EventStore
from eventstore.database.connection import Connection


def open_scoped(url: str, tenant: str = "default", user: str = "") -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection in autocommit mode with a tenant, and optionally a user, set for its session."""
    return set_scope(psycopg.connect(url, autocommit=True), tenant, user)


def set_scope(
    connection: psycopg.Connection[tuple[Any, ...]], tenant: str = "default", user: str = ""
) -> psycopg.Connection[tuple[Any, ...]]:
    """Set the tenant and user of a session; return the connection."""
    connection.execute(
        "SELECT set_config('eventstore.tenant', %s, false), set_config('eventstore.user', %s, false)", (tenant, user)
    )
    return connection


def open_as(url: str, role: str = "eventstore_projector") -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection in autocommit mode under a role; without the role, as the login, which owns all."""
    return set_role(psycopg.connect(url, autocommit=True), role)


def set_role(connection: psycopg.Connection[tuple[Any, ...]], role: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Set the role of a session if it exists; return the connection."""
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchall():
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    return connection


async def open_as_login(store: EventStore, tenant: str = "default") -> Connection:
    """Open a connection of the store's login, with the rights of the owner, and with a tenant set."""
    connection = await store.connect(None)
    await connection.execute("SELECT set_config('eventstore.tenant', %s, false)", (tenant,))
    return connection


async def open_scoped_async(url: str, tenant: str = "default", *, autocommit: bool = True) -> Connection:
    """Open an asynchronous connection with a tenant set for its session."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=autocommit)
    await connection.execute("SELECT set_config('eventstore.tenant', %s, false)", (tenant,))
    await connection.commit()
    return connection
