"""Where the benchmark works: a database of its own or, where the login may make none, a schema of its own.

Nothing else on the server is touched, and what was made is dropped at the end, the roles of the migrations included
where nobody had them before.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from pydantic import SecretStr

from eventstore import Settings
from eventstore.database.connection import Connection, unreachable
from eventstore.database.migrate import Migrator
from eventstore.database.server import Server
from eventstore.database.translate import translated

_ROLES = [
    f"eventstore_{role}" for role in ("owner", "migrator", "app", "writer", "projector", "reader", "auditor", "search")
]
TENANT = "bench"
APPLICATION = "eventstore bench"
"""How the server knows the bare connections."""

_SyncConnection = psycopg.Connection[tuple[Any, ...]]


class Place:
    """A database or schema of the benchmark's own.

    Attributes:
        url: of the database.
        schema: the store's in it; further ones begin with its name.
        settings: of a store there.
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

    def migrated(self, suffix: str) -> Settings:
        """Makes a further schema with the store's objects, and returns the settings of a store in it."""
        schema = self.own_schema(suffix)
        settings = self._settings(schema)
        Migrator(self.url, settings).up()
        return settings

    def own_schema(self, suffix: str) -> str:
        """Makes a further schema, and returns its name."""
        name = f"bench_{suffix}" if self.own_database else f"{self.schema}_{suffix}"
        self.make_schema(name)
        return name

    def make_schema(self, name: str) -> None:
        """Makes a schema that is dropped in the end."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        self._made.append(name)

    def drop_schema(self, name: str) -> None:
        """Drops one of the further schemas, with those that a rebuild of its read tables uses."""
        all_of_it = sql.SQL(", ").join(map(sql.Identifier, (name, f"{name}_next", f"{name}_previous")))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(all_of_it))
        self._made.remove(name)

    def drop_schemas(self) -> None:
        """Drops all of them, the store's own included."""
        for name in list(self._made):
            self.drop_schema(name)

    async def connect(self, schema: str | None = None) -> Connection:
        """A bare connection of the driver's, in autocommit mode, with the schema as search path."""
        connection = await Connection.connect(self.url, autocommit=True, application_name=APPLICATION)
        path, tenant = sql.Identifier(schema or self.schema), sql.Literal(TENANT)
        # A connection of the benchmark's own is nobody else's: it may say once for all for whom it asks.
        await connection.execute(sql.SQL("SET search_path TO {}").format(path))
        await connection.execute(sql.SQL("SET eventstore.tenant TO {}").format(tenant))
        return connection

    @asynccontextmanager
    async def connections(self, number: int, schema: str | None = None) -> AsyncIterator[list[Connection]]:
        """Several of them, for the length of a block."""
        opened: list[Connection] = []
        try:
            while len(opened) < number:
                opened.append(await self.connect(schema))
            yield opened
        finally:
            for connection in opened:
                await connection.close()


@contextmanager
def prepared_place(settings: Settings) -> Iterator[Place]:
    """Makes a place on the server that the settings name, or the embedded one, and drops it in the end.

    Raises:
        ServerUnreachable, UnsuitableServer, EmbeddedServerError: there is no server to use.
        PermissionDenied: the login may make neither a database nor a schema.
    """
    name = f"eventstore_bench_{secrets.token_hex(6)}"
    with Server(settings, migrate=False) as server, _connected(server.url) as connection:
        roles_before = _roles(connection)
        try:
            if _may_make_databases(connection):
                with _own_database(connection, server.url, name) as url:
                    yield _with_objects(Place(settings, url, "public", own_database=True))
            else:
                place = Place(settings, server.url, name, own_database=False)
                try:
                    yield _with_objects(place)
                finally:
                    place.drop_schemas()
        finally:
            _drop_roles(connection, _roles(connection) - roles_before)


def _with_objects(place: Place) -> Place:
    if not place.own_database:
        place.make_schema(place.schema)
    Migrator(place.url, place.settings).up()
    return place


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


def _may_make_databases(connection: _SyncConnection) -> bool:
    found = connection.execute(
        "SELECT r.rolcreatedb OR r.rolsuper FROM pg_roles r WHERE r.rolname = current_user"
    ).fetchone()
    return bool(found and found[0])


def _roles(connection: _SyncConnection) -> set[str]:
    rows = connection.execute("SELECT r.rolname FROM pg_roles r WHERE r.rolname = ANY (%s)", [_ROLES]).fetchall()
    return {str(name) for (name,) in rows}


def _drop_roles(connection: _SyncConnection, made: set[str]) -> None:
    """Drops the roles that only the benchmark had; one that somebody else uses by now stays."""
    for name in made:
        role, database = sql.Identifier(name), sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(database, role))
        with suppress(psycopg.errors.DependentObjectsStillExist, psycopg.errors.ObjectInUse):
            connection.execute(sql.SQL("DROP ROLE {}").format(role))
