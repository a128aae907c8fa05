"""Connections that say for whom they ask, or that see what no tenant does: for tests that look at tables themselves."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from eventstore import EventStore
from eventstore.database.connection import Connection


def asking(url: str, tenant: str = "default", user: str = "") -> psycopg.Connection[tuple[Any, ...]]:
    """A connection, in autocommit mode, that asks for a tenant, or for a user of it, as long as it lives."""
    return ask(psycopg.connect(url, autocommit=True), tenant, user)


def ask(
    connection: psycopg.Connection[tuple[Any, ...]], tenant: str = "default", user: str = ""
) -> psycopg.Connection[tuple[Any, ...]]:
    """The connection, which asks for that tenant and user from now on."""
    connection.execute(
        "SELECT set_config('eventstore.tenant', %s, false), set_config('eventstore.user', %s, false)", (tenant, user)
    )
    return connection


def connected_as(url: str, role: str = "eventstore_projector") -> psycopg.Connection[tuple[Any, ...]]:
    """A connection, in autocommit mode, that took a role; where there is no such role, the login, which owns all."""
    return act_as(psycopg.connect(url, autocommit=True), role)


def act_as(connection: psycopg.Connection[tuple[Any, ...]], role: str) -> psycopg.Connection[tuple[Any, ...]]:
    """The connection, which took a role where there is one."""
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,)).fetchall():
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    return connection


async def login_of(store: EventStore, tenant: str = "default") -> Connection:
    """A connection of the store's login with all its rights, those of the owner among them, which asks for a tenant."""
    connection = await store.connect(None)
    await connection.execute("SELECT set_config('eventstore.tenant', %s, false)", (tenant,))
    return connection


async def asking_async(url: str, tenant: str = "default", *, autocommit: bool = True) -> Connection:
    """As :func:`asking`."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=autocommit)
    await connection.execute("SELECT set_config('eventstore.tenant', %s, false)", (tenant,))
    await connection.commit()
    return connection
