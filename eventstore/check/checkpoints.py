"""A reader's checkpoint in a table of the database that it reads from, made by the checker."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from eventstore.database.connection import TCP_TIMEOUTS
from eventstore.database.queries import query

_LOAD = query("eventstore.check", "load_checkpoint")
_SAVE = query("eventstore.check", "save_checkpoint")
_CONNECT_SECONDS = 2


class TableCheckpoint:
    """One row, on a connection of its own."""

    def __init__(self, reader: str, url: str, schema: str) -> None:
        self._reader = reader
        self._url = url
        self._schema = schema
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def load(self) -> int:
        """The position that was saved last; 0 if none was. Connects anew.

        Raises:
            psycopg.Error: the server is away.
        """
        await self.close()
        self._connection = await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=_CONNECT_SECONDS, **TCP_TIMEOUTS
        )
        await self._connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(self._schema)))
        row = await (await self._connection.execute(_LOAD, {"reader": self._reader})).fetchone()
        return 0 if row is None else int(row[0])

    async def save(self, position: int) -> None:
        """Saves a position; it holds once this returns, and may hold if it raises.

        Raises:
            psycopg.Error: the connection broke.
        """
        assert self._connection is not None  # it was loaded before
        await self._connection.execute(_SAVE, {"reader": self._reader, "position": position})

    async def close(self) -> None:
        """Disconnects."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
