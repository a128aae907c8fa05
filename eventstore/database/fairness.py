"""Sharing the connections of a pool fairly among tenants.

A queue in order of arrival gives the pool to the tenant that asks most. Here each tenant has a queue of its own, and a
connection that becomes free goes to the tenants in turn. A running query cannot be taken back, so taking turns alone
would leave a tenant waiting for the slowest query of another, or competing with as many for the processors: as soon as
a pool serves more than one tenant, none may hold more than a quarter of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg_pool import PoolTimeout


class FairQueue:
    """A semaphore that tenants acquire in turn, and each tenant's callers in order of arrival.

    The tenant None stands for work of no tenant. It takes its turn like one, but no limit holds for it.

    Args:
        size: permits in all.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._limit = max(1, size // 4)
        self._held: Counter[str | None] = Counter()
        self._waiting: OrderedDict[str | None, deque[asyncio.Future[None]]] = OrderedDict()
        """The tenant whose turn is next comes first; none has an empty queue."""
        self._first: str | None = None
        self._is_shared = False

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
        self._is_shared = self._is_shared or (None not in (tenant, self._first) and tenant != self._first)
        self._first = self._first or tenant
        permit = asyncio.get_running_loop().create_future()
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
        return tenant is None or not self._is_shared or self._held[tenant] < self._limit

    def _forget(self, tenant: str | None, permit: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and permit in queue:
            queue.remove(permit)
            if not queue:
                del self._waiting[tenant]
