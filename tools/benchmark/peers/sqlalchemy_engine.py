"""An asynchronous SQLAlchemy engine on asyncpg, as the peers' documentation recommends, for a workspace."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tools.benchmark.workspace import Workspace

import_module("asyncpg")  # the driver: without it, a peer is missing


def engine(workspace: Workspace, schema: str, connections: int) -> AsyncEngine:
    """Return an engine that keeps a number of connections."""
    return create_async_engine(url(workspace), **options(schema, connections))


def url(workspace: Workspace) -> URL:
    """Return the workspace's URL in SQLAlchemy's form."""
    given: dict[str, Any] = conninfo_to_dict(workspace.url)
    address = {"host": given.get("host", "localhost"), "port": str(given.get("port", 5432))}
    is_socket = address["host"].startswith("/")
    return URL.create(
        "postgresql+asyncpg",
        username=given.get("user"),
        password=given.get("password"),
        database=given.get("dbname"),
        host=None if is_socket else address["host"],
        port=None if is_socket else int(address["port"]),
        query=address if is_socket else {},
    )


def options(schema: str, connections: int) -> dict[str, Any]:
    """Return the options of an engine with a pool of fixed size."""
    return {
        "pool_size": connections,
        "max_overflow": 0,
        "connect_args": {"server_settings": {"search_path": schema}},
    }
