"""Connection pools: one for each role, shared fairly among tenants.

A queue in order of arrival gives the pool to the tenant that asks most. Here each tenant has a queue of its own, and a
connection that becomes free goes to the tenants in turn. A running query cannot be taken back, so taking turns alone
would leave a tenant waiting for the slowest query of another, or competing with as many for the processors. So a tenant
that holds a quarter of the pool gets more only if no other holds or waits for anything or has lately, and not the last
quarter either: a newcomer finds a connection at once, and competes with at most three quarters of the pool until the
statements that were begun before have ended. If there has never been another tenant, the one may have all; then the
first newcomer waits for the end of one statement.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from eventstore.database.connection import configure, connect_options, set_caller
from eventstore.database.scoped_connection import ScopedConnection
from eventstore.database.settings import Settings
from eventstore.errors import ConnectionLost, EventStoreError, translate
from eventstore.scope import Caller

# Sharing the connections of a pool fairly among tenants

ALONE_SECONDS = 10.0
"""So long after another tenant wanted a connection, a tenant counts as alone."""


class FairQueue:
    """A semaphore that tenants acquire in turn, and each tenant's callers in order of arrival.

    The tenant None stands for work of no tenant. It takes its turn like one, but no limit holds for it.

    Args:
        size: permits in all.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        quarter = size // 4
        self._limit = max(1, quarter)
        self._limit_alone = max(1, size - quarter)
        self._held: Counter[str | None] = Counter()
        self._waiting: OrderedDict[str | None, deque[asyncio.Future[None]]] = OrderedDict()
        """The tenant whose turn is next comes first; none has an empty queue."""
        self._wanted_at: OrderedDict[str, float] = OrderedDict()
        """When each tenant last wanted a permit, the latest last; at least the latest two are kept."""

    @asynccontextmanager
    async def permit(self, tenant: str | None, timeout: float) -> AsyncIterator[None]:
        """Hold a permit until the end of the block.

        Raises:
            PoolTimeout: none became free within ``timeout`` seconds.
        """
        await self._acquire(tenant, timeout)
        try:
            yield
        finally:
            self._release(tenant)

    async def _acquire(self, tenant: str | None, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        if tenant is not None:
            self._wanted_at[tenant] = loop.time()
            self._wanted_at.move_to_end(tenant)
            while len(self._wanted_at) > 2:
                self._wanted_at.popitem(last=False)
        permit = loop.create_future()
        self._waiting.setdefault(tenant, deque()).append(permit)
        self._grant()
        if permit.done():
            return
        try:
            async with asyncio.timeout(timeout):
                await permit
        except BaseException as error:
            if permit.cancelled():
                self._forget(tenant, permit)
            else:  # granted just before the wait was cancelled
                self._release(tenant)
            if isinstance(error, TimeoutError):
                raise PoolTimeout(f"all connections were in use for {timeout:g} seconds") from None
            raise

    def _release(self, tenant: str | None) -> None:
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._grant()

    def _grant(self) -> None:
        while self._held.total() < self._size:
            ready = next((item for item in self._waiting.items() if self._may_hold_more(item[0])), None)
            if ready is None:
                return
            tenant, queue = ready
            permit = queue.popleft()
            if queue:
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
            if not permit.done():
                self._held[tenant] += 1
                permit.set_result(None)

    def _may_hold_more(self, tenant: str | None) -> bool:
        if tenant is None or self._held[tenant] < self._limit:
            return True
        others = [at for other, at in self._wanted_at.items() if other != tenant]
        if not others:
            return True  # there has never been another
        is_alone = max(others) + ALONE_SECONDS <= asyncio.get_running_loop().time() and not any(
            other not in (tenant, None) for other in (*self._held, *self._waiting)
        )
        return is_alone and self._held[tenant] < self._limit_alone

    def _forget(self, tenant: str | None, permit: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and permit in queue:
            queue.remove(permit)
            if not queue:
                del self._waiting[tenant]


# Connections of one purpose, shared by the coroutines of one event loop


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

        async def prepare(connection: ScopedConnection) -> None:
            milliseconds = max(1, round(1000 * settings.statement_seconds))
            connection.role = await configure(connection, settings, role, milliseconds)

        self._pool: AsyncConnectionPool[ScopedConnection] = AsyncConnectionPool(
            url,
            open=False,
            min_size=kept,
            max_size=size,
            timeout=settings.connect_timeout,
            reconnect_timeout=settings.connect_timeout,
            kwargs={"autocommit": True, **connect_options(settings)},
            configure=prepare,
            connection_class=ScopedConnection,
        )

    async def open(self) -> None:
        """Starts to fill the pool; returns at once."""
        await self._pool.open()

    async def close(self) -> None:
        """Closes all connections."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self, caller: Caller | None = None) -> AsyncIterator[ScopedConnection]:
        """Lend a connection to a caller, whom the session does not know yet.

        Raises:
            PoolTimeout: none became free in time.
        """
        tenant = None if caller is None else caller.tenant
        async with self._queue.permit(tenant, self._timeout), self._pool.connection() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self, caller: Caller | None, mode: str | None = None) -> AsyncIterator[ScopedConnection]:
        """Lends a connection in a transaction, in which the caller asks.

        Args:
            mode: what the transaction begins with, such as a SET TRANSACTION.
        """
        async with self.connection(caller) as connection, connection.transaction():
            if mode is not None:
                await connection.execute(mode.encode())
            await set_caller(connection, caller, connection.role)
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
