"""The workspace of the benchmark: a database of its own or, if the login may not create one, a schema of its own.

The benchmark touches nothing else on the server, and drops what it made at the end, including the roles of the
migrations if they did not exist before.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from pydantic import SecretStr

from eventstore import Settings
from eventstore.database.connection import Connection, unreachable
from eventstore.database.migrate import Migrator
from eventstore.database.queries import query
from eventstore.database.server import Server
from eventstore.errors import translated

_ROLES = [
    f"eventstore_{role}"
    for role in ("owner", "migrator", "app", "writer", "projector", "reader", "auditor", "search", "eraser")
]
TENANT = "bench"
APPLICATION = "eventstore benchmark"
"""Application name of the plain connections."""

_SyncConnection = psycopg.Connection[tuple[Any, ...]]


class Workspace:
    """A database or schema of the benchmark's own.

    Attributes:
        url: URL of the database.
        schema: schema of the store; the names of further schemas begin with it.
        settings: settings of a store in it.
    """

    def __init__(self, settings: Settings, url: str, schema: str, *, own_database: bool) -> None:
        self.url = url
        self.schema = schema
        self.own_database = own_database
        self._base = settings
        self._made: list[str] = []
        self.settings = self._settings(schema)

    def __str__(self) -> str:
        return f"database {urlsplit(self.url).path[1:]}" if self.own_database else f"schema {self.schema}"

    def _settings(self, schema: str) -> Settings:
        return self._base.model_copy(
            update={"database_url": SecretStr(self.url), "db_schema": schema, "tenant": TENANT}
        )

    @contextmanager
    def migrated(self, suffix: str) -> Iterator[Settings]:
        """Create a further schema with the store's objects for the length of a block; yield settings for it."""
        with self.own_schema(suffix) as schema:
            settings = self._settings(schema)
            Migrator(self.url, settings).up()
            yield settings

    @contextmanager
    def own_schema(self, suffix: str) -> Iterator[str]:
        """Create a further schema for the length of a block; yield its name."""
        name = self.further(suffix)
        self.make_schema(name)
        try:
            yield name
        finally:
            self.drop_schema(name)

    def further(self, suffix: str) -> str:
        """Return the name of a further schema."""
        return f"bench_{suffix}" if self.own_database else f"{self.schema}_{suffix}"

    def make_schema(self, name: str) -> None:
        """Create a schema that is dropped at the end."""
        self._execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        self._made.append(name)

    def drop_schema(self, name: str) -> None:
        """Drop a schema, and those that a rebuild of its read tables uses."""
        names = sql.SQL(", ").join(map(sql.Identifier, (name, f"{name}_next", f"{name}_previous")))
        self._execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(names))
        self._made.remove(name)

    def drop_schemas(self) -> None:
        """Drop all schemas that were made."""
        for name in list(self._made):
            self.drop_schema(name)

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    async def connect(self, schema: str | None = None) -> Connection:
        """Open a plain psycopg connection, in autocommit mode, with the schema as search path."""
        connection = await Connection.connect(self.url, autocommit=True, application_name=APPLICATION)
        path, tenant = sql.Identifier(schema or self.schema), sql.Literal(TENANT)
        try:
            # Only the benchmark uses this connection, so the tenant may be set for the whole session.
            await connection.execute(sql.SQL("SET search_path TO {}").format(path))
            await connection.execute(sql.SQL("SET eventstore.tenant TO {}").format(tenant))
        except BaseException:
            await connection.close()
            raise
        return connection

    @asynccontextmanager
    async def connections(self, number: int, schema: str | None = None) -> AsyncIterator[list[Connection]]:
        """Open several plain connections for the length of a block."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(await self.connect(schema)) for _ in range(number)]

    async def vacuum_and_checkpoint(self, schema: str) -> None:
        """Do what the server would do in the background after a large import, before anything is measured."""
        async with self.connections(1, schema) as (connection,):
            cursor = await connection.execute(query("tools.benchmark", "tables"), {"schema": schema})
            for (table,) in await cursor.fetchall():
                await connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(schema, table)))
            with suppress(psycopg.errors.InsufficientPrivilege):
                await connection.execute("CHECKPOINT")


@contextmanager
def prepared_workspace(settings: Settings) -> Iterator[Workspace]:
    """Create a workspace on the configured or embedded server, and drop it at the end.

    Raises:
        ServerUnreachable, UnsuitableServer, EmbeddedServerError: there is no server to use.
        PermissionDenied: the login may create neither a database nor a schema.
    """
    name = f"eventstore_bench_{secrets.token_hex(6)}"
    with Server(settings, migrate=False) as server, _connected(server.url) as connection:
        roles_before = _roles(connection)
        try:
            if _may_create_databases(connection):
                with _own_database(connection, server.url, name) as url:
                    workspace = Workspace(settings, url, "public", own_database=True)
                    Migrator(url, workspace.settings).up()
                    yield workspace
            else:
                workspace = Workspace(settings, server.url, name, own_database=False)
                try:
                    workspace.make_schema(name)
                    Migrator(server.url, workspace.settings).up()
                    yield workspace
                finally:
                    workspace.drop_schemas()
        finally:
            _drop_roles(connection, _roles(connection) - roles_before)


@contextmanager
def _own_database(connection: _SyncConnection, server_url: str, name: str) -> Iterator[str]:
    identifier = sql.Identifier(name)
    connection.execute(sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(identifier))
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(identifier))


@contextmanager
def _connected(url: str) -> Iterator[_SyncConnection]:
    try:
        connection = psycopg.connect(url, autocommit=True)
    except psycopg.Error as error:
        raise unreachable(url, error) from error
    with translated(), connection:
        yield connection


def _may_create_databases(connection: _SyncConnection) -> bool:
    found = connection.execute(
        "SELECT r.rolcreatedb OR r.rolsuper FROM pg_roles r WHERE r.rolname = current_user"
    ).fetchone()
    return bool(found and found[0])


def _roles(connection: _SyncConnection) -> set[str]:
    rows = connection.execute("SELECT r.rolname FROM pg_roles r WHERE r.rolname = ANY (%s)", [_ROLES]).fetchall()
    return {str(name) for (name,) in rows}


def _drop_roles(connection: _SyncConnection, made: set[str]) -> None:
    """Drop the roles that the benchmark made; a role that something else uses by now stays."""
    for name in made:
        role, database = sql.Identifier(name), sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(database, role))
        with suppress(psycopg.errors.DependentObjectsStillExist, psycopg.errors.ObjectInUse):
            connection.execute(sql.SQL("DROP ROLE {}").format(role))
