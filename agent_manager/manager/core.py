"""The manager on PostgreSQL, for the coroutines of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from typing import Self

from agent_manager.agents.answering import Answer
from agent_manager.manager.folds import MAX_BYTES, SeenFolds, Sees
from agent_manager.manager.log import ActingLog, ServerLog
from agent_manager.manager.manager import Manager
from agent_manager.manager.registry import Registry
from agent_manager.manager.writing import Writer
from agent_manager.manager.written import Written
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
        fold_bytes: of contents that it keeps folded, about.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        tenant: str | None = None,
        answer: Answer | None = None,
        runs_worker: bool = True,
        fold_bytes: int = MAX_BYTES,
    ) -> None:
        self._server = ServerLog(store, tenant)
        super().__init__(self._server, answer, fold_bytes)
        self.store = store
        self._runs_worker = runs_worker
        self._stack = AsyncExitStack()

    def acting_for(
        self, user: str | None, actor: str, sees: Sees, count: Callable[[int], None] = lambda events: None
    ) -> Manager:
        """The same manager, as a user works with it.

        Of the tenant's conversations it has those that the user sees. What is begun is the user's own, and nothing is
        written where the user may not write: that raises Forbidden. Answers are not for it to give.

        Args:
            user: None is the whole tenant.
            actor: who causes what is written; empty leaves it to the manager to say.
            sees: says which conversations the user may see; not asked for the whole tenant.
            count: called with the number of events of each append.
        """
        if user is None and not actor:
            return self
        same = copy(self)
        same._log = log = ActingLog(self._server, user, actor, count)
        same._folds = folds = self._folds if user is None else SeenFolds(self._folds, sees)
        same._writer = Writer(log, folds)
        same._registry = Registry(log, self._folds)
        return same

    def count_with(self, count: Callable[[int], None]) -> None:
        """Have a function called with the number of events of each append, those of answers included."""
        self._server.count = count

    @property
    def written(self) -> Written:
        """What it has appended."""
        return self._server.written

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(running_worker(self.store, runs_worker=self._runs_worker))
        return await super().__aenter__()

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
