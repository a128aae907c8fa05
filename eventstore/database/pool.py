"""Connections of one purpose, shared by the coroutines of one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from eventstore.caller import Caller
from eventstore.database.asking import AskingConnection
from eventstore.database.connection import configure, connect_options, say_caller
from eventstore.database.fairness import FairQueue
from eventstore.database.settings import Settings
from eventstore.database.translate import translate
from eventstore.errors import ConnectionLost, EventStoreError


class Pool:
    """Connections under one role, shared fairly among the tenants that use them.

    Args:
        role: that they take, where the login may.
        size: of them at most.
        kept: so many stay open at rest.
        why: the better explanation of an error of the server.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        role: str | None,
        size: int,
        why: Callable[[EventStoreError], EventStoreError],
        *,
        kept: int = 1,
    ) -> None:
        self._why = why
        self._queue = FairQueue(size)
        self._timeout = settings.connect_timeout

        async def prepare(connection: AskingConnection) -> None:
            milliseconds = max(1, round(1000 * settings.statement_seconds))
            connection.role = await configure(connection, settings, role, milliseconds)

        self._pool: AsyncConnectionPool[AskingConnection] = AsyncConnectionPool(
            url,
            open=False,
            min_size=kept,
            max_size=size,
            timeout=settings.connect_timeout,
            reconnect_timeout=settings.connect_timeout,
            kwargs={"autocommit": True, **connect_options(settings)},
            configure=prepare,
            connection_class=AskingConnection,
        )

    async def open(self) -> None:
        """Starts to fill the pool; returns at once."""
        await self._pool.open()

    async def close(self) -> None:
        """Closes all connections."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self, caller: Caller | None = None) -> AsyncIterator[AskingConnection]:
        """Lend a connection to a caller, whom the session does not know yet.

        Raises:
            PoolTimeout: none became free in time.
        """
        tenant = None if caller is None else caller.tenant
        async with self._queue.permit(tenant, self._timeout), self._pool.connection() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self, caller: Caller | None, mode: str | None = None) -> AsyncIterator[AskingConnection]:
        """Lends a connection in a transaction, in which the caller asks.

        Args:
            mode: what the transaction begins with, such as a SET TRANSACTION.
        """
        async with self.connection(caller) as connection, connection.transaction():
            if mode is not None:
                await connection.execute(mode.encode())
            await say_caller(connection, caller, connection.role)
            yield connection

    async def fetch(
        self,
        query: Any,
        parameters: Any = None,
        *,
        caller: Caller | None = None,
        explain: Callable[[psycopg.Error], EventStoreError | None] = lambda _: None,
        cursor: type[psycopg.AsyncCursor[TupleRow]] = psycopg.AsyncCursor,
    ) -> list[TupleRow]:
        """Runs a query that may be repeated without harm, and returns all its rows.

        It takes one round trip and is one transaction. A connection that broke while it lay idle in the pool (a
        restarted server leaves such) is replaced and the query repeated, once for each that may lie there.

        Args:
            caller: who asks; None is nobody, who sees nothing that belongs to a tenant.
            explain: the error for those of the driver's that only the caller understands.
            cursor: how values are read.

        Raises:
            EventStoreError: what the driver's error means.
        """
        for spare in range(self._pool.max_size, -1, -1):
            try:
                async with self.connection(caller) as connection:
                    return await connection.ask(query, parameters, caller, cursor)
            except psycopg.Error as error:  # the pool's own errors are among them
                known = explain(error) or translate(error)
                if spare and isinstance(known, ConnectionLost):
                    continue
                raise self._why(known) from error
        raise AssertionError("the last round returns or raises")


class View:
    """What one caller sees through a pool: every query is asked for them.

    Attributes:
        caller: None is nobody; under the projector's role, everybody.
    """

    def __init__(self, pool: Pool, caller: Caller | None) -> None:
        self.pool = pool
        self.caller = caller

    async def fetch(
        self,
        query: Any,
        parameters: Any = None,
        *,
        explain: Callable[[psycopg.Error], EventStoreError | None] = lambda _: None,
        cursor: type[psycopg.AsyncCursor[TupleRow]] = psycopg.AsyncCursor,
    ) -> list[TupleRow]:
        """See :meth:`Pool.fetch`."""
        return await self.pool.fetch(query, parameters, caller=self.caller, explain=explain, cursor=cursor)


Fetching: TypeAlias = Pool | View
"""Answers queries."""
