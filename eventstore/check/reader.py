"""A process that reads, in one of several ways, and tells its journal every event that it was given.

========  ============================================================================================
start     from the first event, at each start
recent    from some position near the end, at each start; follows from there
file      from a checkpoint in a file; it goes as far as the last event seen
tenant    the same for the events of one tenant
table     from a checkpoint in a table of the same database, which goes as far as the reader says
========  ============================================================================================
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import aclosing
from typing import Any
from uuid import UUID

import psycopg

from eventstore.check.adapter import Reader, Seen, Unknown
from eventstore.check.checkpoints import TableCheckpoint
from eventstore.check.journal import Journal
from eventstore.check.task import Task
from eventstore.check.writer import opened
from eventstore.ending import end

KINDS = ("file", "start", "table", "tenant", "recent")
WITH_CHECKPOINT = frozenset({"file", "table", "tenant"})

_FLUSH_SECONDS = 0.1
_SECONDS_TO_RETRY = 0.2
_RECENT = 300


class ReaderProcess:
    """Reads until the event that ends the check has come."""

    def __init__(self, task: Task, reader: Reader, journal: Journal) -> None:
        self._reader = reader
        self._journal = journal
        self._kind = task.kind
        self._chance = random.Random(f"{task.seed}/{task.incarnation}")
        self._file = task.checkpoint
        self._table = TableCheckpoint(task.name, task.url, task.schema)
        self._last = UUID(task.last)
        self._tenant = task.tenants[-1] if task.kind == "tenant" else None
        self._deliveries = 0
        self._ended = False
        self.position = task.highest
        """Of the last event seen."""

    def progress(self) -> dict[str, Any]:
        """For the checker."""
        return {"deliveries": self._deliveries, "position": self.position, "ended": self._ended}

    async def run(self, stop: asyncio.Event) -> None:
        """Reads to the end, or until told to stop."""
        if not await opened(self._reader, stop):
            return
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._flush_now_and_then())]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((*tasks, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end((*tasks, stopped))
            self._journal.flush()
            await self._table.close()
            await self._reader.close()
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _read(self) -> None:
        self._journal.keep(f"kind {self._kind} {self._tenant or ''}".rstrip())
        self.position = self._beginning()
        while not self._ended:
            try:
                if self._kind == "table":
                    await self._read_batches()
                else:
                    await self._read_events()
            except (Unknown, psycopg.Error):
                await asyncio.sleep(_SECONDS_TO_RETRY)
            except Exception as error:
                self._journal.keep(f"error {type(error).__name__}: {' '.join(str(error).split())[:500]}")
                await asyncio.sleep(_SECONDS_TO_RETRY)
        self._journal.keep("end")

    def _beginning(self) -> int:
        if self._kind == "recent":
            return max(0, self.position - int(self._chance.expovariate(1 / _RECENT)))
        if self._kind in WITH_CHECKPOINT and self._file.exists():
            return int(self._file.read_text())
        return 0

    async def _read_events(self) -> None:
        self._journal.keep(f"start {self.position}")
        async with aclosing(self._reader.subscribe(self.position, self._tenant)) as events:
            async for event in events:
                self._deliver(event)
                if self._ended:
                    return
        raise RuntimeError("the subscription ended by itself")

    async def _read_batches(self) -> None:
        self.position = await self._table.load()
        self._journal.keep(f"start {self.position}")
        async with aclosing(self._reader.batches(self.position)) as batches:
            async for events, up_to in batches:
                for event in events:
                    self._deliver(event)
                self._journal.flush()  # what was seen is told before the checkpoint goes there
                await self._table.save(up_to)
                self._journal.keep(f"check {up_to}")
                if self._ended:
                    return
        raise RuntimeError("the batches ended by themselves")

    def _deliver(self, event: Seen) -> None:
        self._deliveries += 1
        self.position = event.position
        self._journal.keep(
            f"+ {event.position} {event.tenant} {event.conversation.hex} {event.version} {event.id.hex} "
            f"{event.intact:d}"
        )
        self._ended = self._ended or event.id == self._last

    async def _flush_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self._journal.flush()
            if self._kind in ("file", "tenant"):
                self._save(self.position)

    def _save(self, position: int) -> None:
        """Whole or not at all, whenever this process is killed."""
        beside = self._file.with_suffix(".new")
        beside.write_text(str(position))
        os.replace(beside, self._file)
        self._journal.keep(f"check {position}")
        self._journal.flush()
