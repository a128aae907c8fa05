"""An asynchronous SQLAlchemy engine on asyncpg, as the peers' documentation recommends, for one place."""

from __future__ import annotations

from typing import Any

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agent_manager.bench.place import Place


def engine(place: Place, schema: str, connections: int) -> AsyncEngine:
    """An engine that keeps so many connections."""
    return create_async_engine(url(place), **options(schema, connections))


def url(place: Place) -> URL:
    """The place in SQLAlchemy's words."""
    given: dict[str, Any] = conninfo_to_dict(place.url)
    where = {"host": given.get("host", "localhost"), "port": str(given.get("port", 5432))}
    socket = where["host"].startswith("/")
    return URL.create(
        "postgresql+asyncpg",
        username=given.get("user"),
        password=given.get("password"),
        database=given.get("dbname"),
        host=None if socket else where["host"],
        port=None if socket else int(where["port"]),
        query=where if socket else {},
    )


def options(schema: str, connections: int) -> dict[str, Any]:
    """A pool of so many connections, kept open."""
    return {
        "pool_size": connections,
        "max_overflow": 0,
        "connect_args": {"server_settings": {"search_path": schema}},
    }
