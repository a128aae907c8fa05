"""Sharing the connections of a pool fairly among tenants.

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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg_pool import PoolTimeout

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
