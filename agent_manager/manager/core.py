"""The manager on PostgreSQL, for the coroutines of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from agent_manager.agents.answering import Answer
from agent_manager.manager.log import ServerLog
from agent_manager.manager.manager import Manager
from eventstore import EventStore
from eventstore.ending import end
from projections import Worker, load


class AsyncManager(Manager):
    """Conversations in PostgreSQL.

    Args:
        store: open.
        tenant: the store's own if left out.
        answer: what answers messages; None says nothing.
        runs_worker: whether to keep the read tables up meanwhile; ``eventstore up`` does so already.
    """

    def __init__(
        self, store: EventStore, *, tenant: str | None = None, answer: Answer | None = None, runs_worker: bool = True
    ) -> None:
        self._server = ServerLog(store, tenant)
        super().__init__(self._server, answer)
        self.store = store
        self._runs_worker = runs_worker
        self._stack = AsyncExitStack()

    @property
    def written(self) -> int:
        """The highest position that it has appended."""
        return self._server.written

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(running_worker(self.store, runs_worker=self._runs_worker))
        return self

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        await self._stack.aclose()


@asynccontextmanager
async def running_worker(store: EventStore, *, runs_worker: bool) -> AsyncIterator[None]:
    """Keeps the read tables up meanwhile, if it is to."""
    if not runs_worker:
        yield
        return
    worker = asyncio.create_task(Worker(store, load(store.settings.projections)).run())
    try:
        yield
    finally:
        await end((worker,))
