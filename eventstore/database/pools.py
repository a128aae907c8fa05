"""Connection pools: one for each role, shared fairly among tenants.

In a FIFO queue the tenant with the most queries would get the whole pool. Here each tenant has its own queue, and free
connections go to the tenants in turn. A running query cannot be preempted, so turns alone would leave a tenant waiting
for the slowest query of another, or competing with many of them for the processors. So a tenant that holds a quarter of
the pool gets more only if no other tenant holds, awaits or has recently wanted a connection, and even then not the last
quarter: a new tenant gets a connection at once, and competes with at most three quarters of the pool until the running
statements have ended. If there has never been another tenant, the only one may use the whole pool; then the first new
tenant waits for the end of one statement.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from eventstore.concurrency import independent_task
from eventstore.database.connection import RECONNECT_SECONDS, configure, connect_options
from eventstore.database.scoped_connection import Cursor, ScopedConnection
from eventstore.database.standby import Standby
from eventstore.errors import ConnectionLost, EventStoreError, RecoveryConflict, translate
from eventstore.scope import Caller
from eventstore.settings import Settings

ALONE_SECONDS = 10.0
"""A tenant counts as the only one if no other tenant has requested a connection for this time."""
CONFLICT_REPEATS = 2
"""The number of times that a read is repeated if the recovery of a standby has canceled it. The change that it
conflicted with is replayed by then; a read that takes longer than max_standby_streaming_delay may meet the next one."""


class FairQueue:
    """A semaphore that tenants acquire in turn, and the callers of each tenant in FIFO order.

    The tenant None stands for work that belongs to no tenant. It has its turn like a tenant, without a limit.

    Attributes:
        size: the number of permits.
        timeouts: the number of callers that got none in time.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.timeouts = 0
        quarter = size // 4
        self._limit = max(1, quarter)
        self._limit_alone = max(1, size - quarter)
        self._held: Counter[str | None] = Counter()
        self._waiting: OrderedDict[str | None, deque[asyncio.Future[None]]] = OrderedDict()
        """Queues by tenant, the next one first; no queue is empty."""
        self._wanted_at: OrderedDict[str, float] = OrderedDict()
        """The time at which each tenant last wanted a permit, the latest last; only the latest two are kept."""

    @property
    def held(self) -> int:
        """The number of permits that are held."""
        return self._held.total()

    @property
    def waiting(self) -> int:
        """The number of callers that wait for one."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def permit(self, tenant: str | None, timeout: float) -> AsyncIterator[None]:
        """Hold a permit until the end of the block."""
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
                self._remove(tenant, permit)
            else:  # granted just before the wait was cancelled
                self._release(tenant)
            if isinstance(error, TimeoutError):
                self.timeouts += 1
                raise PoolTimeout(f"all connections were in use for {timeout:g} seconds") from None
            raise

    def _release(self, tenant: str | None) -> None:
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._grant()

    def _grant(self) -> None:
        while self.held < self.size:
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

    def _remove(self, tenant: str | None, permit: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and permit in queue:
            queue.remove(permit)
            if not queue:
                del self._waiting[tenant]


class Pool:
    """Connections under one role, shared fairly among the tenants that use them.

    Args:
        role: the role that they set, if the login may.
        size: the most connections.
        explain: returns a better explanation of an error, such as a full disk behind a lost connection.
        kept: the number of connections that stay open while they are idle.
        standby: admits the connections, if they lead to a standby of the store's server.

    Attributes:
        queue: of the callers; a connection is lent to the holder of each permit.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        role: str | None,
        size: int,
        explain: Callable[[EventStoreError], EventStoreError],
        *,
        kept: int = 1,
        standby: Standby | None = None,
    ) -> None:
        self._explain = explain
        self._standby = standby
        self.queue = FairQueue(size)
        self._timeout = settings.connect_timeout
        self._waiting = 0

        async def prepare(connection: ScopedConnection) -> None:
            milliseconds = max(1, round(1000 * settings.statement_seconds))
            await configure(connection, settings, role, milliseconds)
            if standby is not None:
                await standby.admit(connection)

        async def keep_trying(pool: AsyncConnectionPool[ScopedConnection]) -> None:
            """Start another attempt to connect if callers wait, and no other attempt is in progress."""
            if self._waiting and not pool.get_stats()["pool_size"]:
                await pool.resize(kept + 1, max(kept + 1, size))
                await pool.resize(kept, size)

        self._pool: AsyncConnectionPool[ScopedConnection] = AsyncConnectionPool(
            url,
            open=False,
            min_size=kept,
            max_size=size,
            reconnect_timeout=RECONNECT_SECONDS,  # psycopg's pauses would grow with it
            reconnect_failed=keep_trying,
            kwargs={"autocommit": True, **connect_options(url, settings)},
            configure=prepare,
            connection_class=ScopedConnection,
        )

    async def open(self) -> None:
        """Begin to fill the pool, and return at once."""
        await self._pool.open()

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self, caller: Caller | None = None) -> AsyncIterator[ScopedConnection]:
        """Lend a connection, on the tenant's account; the caller is not set on it."""
        tenant = None if caller is None else caller.tenant
        async with self.queue.permit(tenant, self._timeout), self._usable_connection() as connection:
            yield connection

    @asynccontextmanager
    async def _usable_connection(self) -> AsyncIterator[ScopedConnection]:
        while True:
            self._waiting += 1
            try:
                connection = await self._pool.getconn(self._timeout)
            finally:
                self._waiting -= 1
            try:
                async with connection:
                    if self._standby is None or self._standby.has_admitted(connection):
                        yield connection
                        return
                    await connection.close()  # another one takes its place
            finally:
                # In a task of its own: if it were cancelled, the connection would be lost, and the caller to whom the
                # pool hands it would wait in vain.
                await asyncio.shield(independent_task(self._pool.putconn(connection)))

    @asynccontextmanager
    async def transaction(self, caller: Caller | None, mode: str | None = None) -> AsyncIterator[ScopedConnection]:
        """Lend a connection in a transaction of a caller.

        Args:
            mode: the first statement of the transaction, such as SET TRANSACTION.
        """
        async with self.connection(caller) as connection, connection.transaction():
            if mode is not None:
                await connection.execute(mode.encode())
            await connection.set_caller(caller)
            yield connection

    async def fetch(
        self,
        query: Any,
        parameters: Any = None,
        *,
        caller: Caller | None = None,
        explain: Callable[[psycopg.Error], EventStoreError | None] = lambda _: None,
        cursor: Cursor = psycopg.AsyncCursor,
    ) -> list[TupleRow]:
        """Run a query that may be repeated, in one round trip and transaction, and return all its rows.

        If an idle connection of the pool turns out to be broken, as after a restart of the server, the query is
        repeated on another one, as often as there may be broken ones. A query that conflicts with the recovery of a
        standby is repeated a few times.

        Args:
            caller: the scope whose data is visible; None sees no tenant's data.
            explain: returns the error for a driver's error that only the calling code understands.
            cursor: the class of cursor that determines how values are read.

        Raises:
            EventStoreError: the error that corresponds to the driver's.
        """
        conflicts = 0
        for remaining in range(self._pool.max_size + CONFLICT_REPEATS, -1, -1):
            try:
                async with self.connection(caller) as connection:
                    return await connection.fetch(query, parameters, caller, cursor)
            except psycopg.Error as error:  # includes the pool's own errors
                reason = explain(error) or translate(error)
                conflicts += isinstance(reason, RecoveryConflict)
                may_repeat = isinstance(reason, ConnectionLost) or (
                    isinstance(reason, RecoveryConflict) and conflicts <= CONFLICT_REPEATS
                )
                if remaining and may_repeat:
                    continue
                raise self._explain(reason) from error
        raise AssertionError("the last round returns or raises")


@dataclass(frozen=True, slots=True)
class ScopedPool:
    """A pool whose queries see the data of one caller.

    Attributes:
        caller: None sees no tenant's data; under the projector's role, everyone's.
    """

    pool: Pool
    caller: Caller | None

    async def fetch(self, query: Any, parameters: Any = None, **options: Any) -> list[TupleRow]:
        """Run a query for the caller; see :meth:`Pool.fetch` for the options."""
        return await self.pool.fetch(query, parameters, caller=self.caller, **options)


Queryable: TypeAlias = Pool | ScopedPool
"""An object that runs queries."""
