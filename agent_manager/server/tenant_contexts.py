"""The contexts of tenants, which their requests share, and the turns that requests of one tenant take."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from time import perf_counter
from typing import TypeVar

from agent_manager.agents.tenant_isolation import TenantIsolatedAgent
from agent_manager.factory import AsyncManager
from agent_manager.server.limits import SLICE_SECONDS
from agent_manager.server.streams import ChangeNotifier
from eventstore import EventStore
from eventstore.concurrency import run_in_thread

Result = TypeVar("Result")

MAX_TENANTS = 200
"""The most contexts of tenants that are kept, unless more are in use at the same time."""
RUNNING = 8
"""Reads, and appends, of a tenant that run at a time: as many as its connections."""
LARGE_BYTES = 64 * 1024
"""Requests with larger bodies run one at a time for each tenant."""
LARGE_READS = 2
"""The large pages of a tenant that run at a time: one is encoded, one read."""
OWN_FOLD_BYTES = 64 * 1024 * 1024
FOLD_BYTES = OWN_FOLD_BYTES // MAX_TENANTS
"""The approximate sizes of the folded conversations that the manager of the server's own tenant, and that of each other
tenant, caches."""


class TenantContext:
    """The context of a tenant, shared by its requests.

    Attributes:
        manager: The manager of the tenant's conversations, agents and answers.
        change_notifier: Notifies the tenant's streams of changes to their conversations.
    """

    def __init__(self, store: EventStore, manager: AsyncManager) -> None:
        self.tenant = manager.tenant
        self.manager = manager
        self.change_notifier = ChangeNotifier(store, manager.tenant)
        self._users = 0
        self._large_appends = asyncio.Lock()
        self._large_reads = asyncio.Semaphore(LARGE_READS)
        self._in_thread = asyncio.Lock()
        self._running = {appends: asyncio.Semaphore(RUNNING) for appends in (False, True)}

    @property
    def is_idle(self) -> bool:
        """True if no request or answer uses the context."""
        return self._users == 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the context open until the end of the block."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    @asynccontextmanager
    async def turn_for(self, body_bytes: int, *, reads_large_page: bool, appends: bool) -> AsyncIterator[None]:
        """Run the block when it is the request's turn among those of its tenant.

        Every step of a request waits for one step of each other request that runs. Because few of each tenant run at a
        time, none of another tenant waits for long. Reads wait for workers, and must not delay appends.

        A large body takes memory and a second of the event loop for ten thousand events. So only one of a tenant is
        held in parsed form, and the next ones are rejected once it has spent the tenant's events. Large pages take time
        of the event loop, too.
        """
        large_append = self._large_appends if body_bytes > LARGE_BYTES else nullcontext()
        large_read = self._large_reads if reads_large_page else nullcontext()
        async with large_append, large_read, self._running[appends]:
            yield

    async def in_thread(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Return what a function returns that may take long.

        One works at a time, so that other tenants find threads, and then pauses for as long as it has worked: a thread
        that parses or encodes much keeps the event loop from running.
        """
        async with self._in_thread:
            began = perf_counter()
            done = await run_in_thread(work, *arguments)
            if (worked := perf_counter() - began) > SLICE_SECONDS:
                await asyncio.sleep(worked)
            return done

    async def close(self) -> None:
        """Close the notifier and the manager."""
        await self.change_notifier.close()
        await self.manager.__aexit__()


class TenantContexts:
    """The contexts of tenants: opened on demand, the least recently used closed first.

    Args:
        manager: The manager of the store's own tenant; the caller closes it.
        count: Called with a tenant and the number of events that its manager has appended for answers.
        max_tenants: The number of contexts to keep.
    """

    def __init__(
        self,
        store: EventStore,
        manager: AsyncManager,
        count: Callable[[str, int], None] = lambda tenant, events: None,
        max_tenants: int = MAX_TENANTS,
    ) -> None:
        self._store = store
        self._count = count
        manager.count_with(partial(count, manager.tenant))
        self._max_tenants = max_tenants
        self.own = TenantContext(store, manager)
        self._others: OrderedDict[str, TenantContext] = OrderedDict()
        self._written: dict[str, int] = {}

    def __len__(self) -> int:
        return 1 + len(self._others)

    async def of(self, tenant: str) -> TenantContext:
        """Return the context of a tenant."""
        if tenant == self.own.tenant:
            return self.own
        tenant_context = self._others.get(tenant)
        if tenant_context is None:
            tenant_context = self._others[tenant] = self._open(tenant)
            with tenant_context.in_use():
                await self._close_idle()
        else:
            self._others.move_to_end(tenant)
        return tenant_context

    async def close(self) -> None:
        """Close all contexts."""
        await self.own.change_notifier.close()
        while self._others:
            _, tenant_context = self._others.popitem()
            await tenant_context.close()

    def _open(self, tenant: str) -> TenantContext:
        agent = self.own.manager.agent
        answer = None if agent is None else TenantIsolatedAgent(agent)
        manager = AsyncManager(self._store, tenant=tenant, answer=answer, runs_worker=False, fold_bytes=FOLD_BYTES)
        manager.count_with(partial(self._count, tenant))
        tenant_context = TenantContext(self._store, manager)
        tenant_context.manager.written.note_position(self._written.pop(tenant, 0))
        return tenant_context

    async def _close_idle(self) -> None:
        for tenant, tenant_context in list(self._others.items()):
            if len(self) <= self._max_tenants:
                return
            if tenant_context.is_idle and self._others.get(tenant) is tenant_context:
                del self._others[tenant]
                self._written[tenant] = tenant_context.manager.written.position  # later reads still include it
                await tenant_context.close()
