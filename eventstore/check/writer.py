"""A process of writers: several coroutines on one store."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import UUID

from eventstore.check.adapter import Store, Unknown
from eventstore.check.journal import Journal
from eventstore.check.operations import Operations
from eventstore.check.task import Task
from eventstore.check.workload import Workload

_COROUTINES = 8
_SECONDS_TO_RECONNECT = 0.2


class WriterProcess:
    """Several coroutines that append."""

    def __init__(self, task: Task, store: Store, journal: Journal) -> None:
        self._store = store
        self._operations = Operations(journal, store)
        hot = [UUID(text) for text in task.hot]
        self._workloads = [
            Workload(
                random.Random(f"{task.seed}/{task.incarnation}/{number}"),
                store,
                self._operations,
                task.tenants,
                hot,
                task.prepared or None,
            )
            for number in range(_COROUTINES)
        ]

    def progress(self) -> dict[str, Any]:
        """For the checker."""
        return {"appends": self._operations.tried}

    async def run(self, stop: asyncio.Event) -> None:
        """Appends until told to stop."""
        if await opened(self._store, stop):
            try:
                async with asyncio.TaskGroup() as group:
                    for workload in self._workloads:
                        group.create_task(workload.run(stop))
            finally:
                await self._store.close()


async def opened(adapter: Any, stop: asyncio.Event) -> bool:
    """Opens a store or a reader as soon as the server is there; False if it was told to stop before."""
    while not stop.is_set():
        try:
            await adapter.open()
        except Unknown:
            await asyncio.sleep(_SECONDS_TO_RECONNECT)
        else:
            return True
    return False
