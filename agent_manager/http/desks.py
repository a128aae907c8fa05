"""What the server keeps for each tenant: opened when somebody of it asks, let go when it has long been idle."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial

from agent_manager.agents.apart import Apart
from agent_manager.http.hub import Hub
from agent_manager.manager.core import AsyncManager
from agent_manager.manager.written import Written
from eventstore import EventStore

MOST = 200
"""Tenants for whom something is kept; more only while so many are served at the same time."""
RUNNING = 8
"""Requests of a tenant that read, and that append, are carried out so many at a time: as many as its connections."""
LARGE_BYTES = 64 * 1024
"""Requests with larger bodies are carried out one at a time for each tenant."""
FOLD_BYTES = 2 * 1024 * 1024
"""Of contents that the manager of each keeps folded, about; that of the server's own tenant keeps more."""


class Desk:
    """One tenant's.

    Attributes:
        manager: its conversations, agents and answers.
        hub: tells streams that their conversations have changed.
    """

    def __init__(self, store: EventStore, manager: AsyncManager) -> None:
        self.tenant = manager.tenant
        self.manager = manager
        self.hub = Hub(store, manager.tenant)
        self._users = 0
        self._large = asyncio.Lock()
        self._running = {appends: asyncio.Semaphore(RUNNING) for appends in (False, True)}

    @property
    def is_idle(self) -> bool:
        """Whether nobody works with it."""
        return self._users == 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps it until the end of the block."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    @asynccontextmanager
    async def turn_for(self, body_bytes: int, *, appends: bool) -> AsyncIterator[None]:
        """Carry out the block when it is the request's turn among those of the tenant.

        Every step of a request waits for one step of each other request that runs. As few of each tenant run at a time,
        none of another tenant waits for long; those that read wait for workers, and must not hold up those that append.

        A large body takes memory and the event loop's time: ten thousand events are a second of it. One at a time, a
        tenant's requests hold one such body in parsed form, and the others are refused as soon as that has spent the
        tenant's events.
        """
        async with self._large if body_bytes > LARGE_BYTES else nullcontext(), self._running[appends]:
            yield

    @property
    def written(self) -> Written:
        """What was appended for the tenant through this server: its reads hold it."""
        return self.manager.written

    async def close(self) -> None:
        """Ends what is under way."""
        await self.hub.close()
        await self.manager.__aexit__()


class Desks:
    """Those of all tenants that were asked for last.

    Args:
        manager: of the store's own tenant, which stays; whoever gives it closes it.
        count: called with a tenant and the number of events that its manager has appended for answers.
    """

    def __init__(
        self,
        store: EventStore,
        manager: AsyncManager,
        count: Callable[[str, int], None] = lambda tenant, events: None,
        most: int = MOST,
    ) -> None:
        self._store = store
        self._count = count
        manager.count_with(partial(count, manager.tenant))
        self._most = most
        self.own = Desk(store, manager)
        self._others: OrderedDict[str, Desk] = OrderedDict()
        self._written: dict[str, int] = {}

    def __len__(self) -> int:
        """How many there are."""
        return 1 + len(self._others)

    async def of(self, tenant: str) -> Desk:
        """That of a tenant."""
        if tenant == self.own.tenant:
            return self.own
        desk = self._others.get(tenant)
        if desk is None:
            desk = self._others[tenant] = self._opened(tenant)
            with desk.in_use():
                await self._shrink()
        else:
            self._others.move_to_end(tenant)
        return desk

    async def close(self) -> None:
        """Closes all."""
        await self.own.hub.close()
        while self._others:
            _, desk = self._others.popitem()
            await desk.close()

    def _opened(self, tenant: str) -> Desk:
        answer = self.own.manager.agent
        apart = None if answer is None else Apart(answer)
        manager = AsyncManager(self._store, tenant=tenant, answer=apart, runs_worker=False, fold_bytes=FOLD_BYTES)
        manager.count_with(partial(self._count, tenant))
        desk = Desk(self._store, manager)
        desk.written.note_position(self._written.pop(tenant, 0))
        return desk

    async def _shrink(self) -> None:
        for tenant, desk in list(self._others.items()):
            if len(self) <= self._most:
                return
            if desk.is_idle and self._others.get(tenant) is desk:
                del self._others[tenant]
                self._written[tenant] = desk.written.position  # later reads still hold what was written
                await desk.close()
