"""A process of the check: a process of writers, or a reader of one kind.

``python -m tools.checker.child`` reads a :class:`~tools.checker.settings.ProcessTask` as JSON from the first line of
standard input. A second line tells it to stop; the end of input means that the checker is gone. It reports its progress
as lines of JSON on standard output.

The kinds of readers:

========  ============================================================================================
start     from the first event, at each start
recent    from a random position near the end, at each start; follows from there
file      from a checkpoint in a file, which is the position of the last event read
tenant    the same for the events of one tenant
table     from a checkpoint in a table of the same database, which is the position of the last batch
========  ============================================================================================
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg import sql

from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import TCP_TIMEOUTS
from eventstore.database.queries import query
from tools.checker.adapter import OutcomeUnknown, Reader, ReadEvent, Store, load_class
from tools.checker.journal import Journal
from tools.checker.settings import ProcessTask
from tools.checker.workload import JournalledAppends, Workload

READER_KINDS = ("file", "start", "table", "tenant", "recent")
KINDS_WITH_CHECKPOINT = frozenset({"file", "table", "tenant"})

_WRITER_COROUTINES = 8
_RETRY_SECONDS = 0.2
_FLUSH_SECONDS = 0.1
_REPORT_SECONDS = 0.25
_RECENT_POSITIONS = 300
_CONNECT_SECONDS = 2


class _Worker(Protocol):
    def progress(self) -> dict[str, Any]: ...

    async def run(self, stop: asyncio.Event) -> None: ...


class WriterProcess:
    """Several coroutines that append through one store."""

    def __init__(self, task: ProcessTask, store: Store, journal: Journal) -> None:
        self._store = store
        self._appends = JournalledAppends(journal, store)
        self._workloads = [
            Workload(
                random.Random(f"{task.seed}/{task.incarnation}/{number}"),
                store,
                self._appends,
                task.tenants,
                [UUID(text) for text in task.hot],
                task.prepared or None,
            )
            for number in range(_WRITER_COROUTINES)
        ]

    def progress(self) -> dict[str, Any]:
        """Return the progress for the checker."""
        return {"appends": self._appends.tried}

    async def run(self, stop: asyncio.Event) -> None:
        """Append until the event is set."""
        if await _opened(self._store, stop):
            try:
                async with asyncio.TaskGroup() as group:
                    for workload in self._workloads:
                        group.create_task(workload.run(stop))
            finally:
                await self._store.close()


class ReaderProcess:
    """A reader that records every event it receives, until the event that ends the check."""

    def __init__(self, task: ProcessTask, reader: Reader, journal: Journal) -> None:
        self._reader = reader
        self._journal = journal
        self._kind = task.kind
        self._rng = random.Random(f"{task.seed}/{task.incarnation}")
        self._file = task.checkpoint
        self._table = _TableCheckpoint(task.name, task.url, task.schema)
        self._last = UUID(task.last)
        self._tenant = task.tenants[-1] if task.kind == "tenant" else None
        self._deliveries = 0
        self._ended = False
        self._position = task.highest

    def progress(self) -> dict[str, Any]:
        """Return the progress for the checker."""
        return {"deliveries": self._deliveries, "position": self._position, "ended": self._ended}

    async def run(self, stop: asyncio.Event) -> None:
        """Read to the end, or until the event is set."""
        if not await _opened(self._reader, stop):
            return
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._flush_periodically())]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((*tasks, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait((*tasks, stopped))
            self._journal.flush()
            await self._table.close()
            await self._reader.close()
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _read(self) -> None:
        self._journal.buffer(f"kind {self._kind} {self._tenant or ''}".rstrip())
        if self._kind == "recent":
            self._position = max(0, self._position - int(self._rng.expovariate(1 / _RECENT_POSITIONS)))
        else:
            has_checkpoint = self._kind in KINDS_WITH_CHECKPOINT and self._file.exists()
            self._position = int(self._file.read_text()) if has_checkpoint else 0
        while not self._ended:
            try:
                await (self._read_batches() if self._kind == "table" else self._read_events())
            except (OutcomeUnknown, psycopg.Error):
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception as error:
                self._journal.buffer(f"error {type(error).__name__}: {' '.join(str(error).split())[:500]}")
                await asyncio.sleep(_RETRY_SECONDS)
        self._journal.buffer("end")

    async def _read_events(self) -> None:
        self._journal.buffer(f"start {self._position}")
        async with aclosing(self._reader.subscribe(self._position, self._tenant)) as events:
            async for event in events:
                self._record(event)
                if self._ended:
                    return
        raise RuntimeError("the subscription ended by itself")

    async def _read_batches(self) -> None:
        self._position = await self._table.load()
        self._journal.buffer(f"start {self._position}")
        async with aclosing(self._reader.batches(self._position)) as batches:
            async for events, up_to in batches:
                for event in events:
                    self._record(event)
                self._journal.flush()  # deliveries are recorded before the checkpoint moves past them
                await self._table.save(up_to)
                self._journal.buffer(f"check {up_to}")
                if self._ended:
                    return
        raise RuntimeError("the batches ended by themselves")

    def _record(self, event: ReadEvent) -> None:
        self._deliveries += 1
        self._position = event.position
        self._journal.buffer(
            f"+ {event.position} {event.tenant} {event.conversation.hex} {event.version} {event.id.hex} "
            f"{event.intact:d}"
        )
        self._ended = self._ended or event.id == self._last

    async def _flush_periodically(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self._journal.flush()
            if self._kind in ("file", "tenant"):
                self._save_checkpoint(self._position)

    def _save_checkpoint(self, position: int) -> None:
        """Replace the file atomically, so that a kill leaves the old checkpoint or the new one."""
        new = self._file.with_suffix(".new")
        new.write_text(str(position))
        os.replace(new, self._file)
        self._journal.buffer(f"check {position}")
        self._journal.flush()


class _TableCheckpoint:
    """A reader's checkpoint: a row in a table of the database that it reads from, on a connection of its own."""

    def __init__(self, reader: str, url: str, schema: str) -> None:
        self._reader = reader
        self._url = url
        self._schema = schema
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def load(self) -> int:
        """Reconnect, and return the position that was saved last, or 0.

        Raises:
            psycopg.Error: the server is unreachable.
        """
        await self.close()
        self._connection = await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, connect_timeout=_CONNECT_SECONDS, **TCP_TIMEOUTS
        )
        await self._connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(self._schema)))
        cursor = await self._connection.execute(query("tools.checker", "load_checkpoint"), {"reader": self._reader})
        row = await cursor.fetchone()
        return 0 if row is None else int(row[0])

    async def save(self, position: int) -> None:
        """Save a position; it is stored when this returns, and may be stored if this raises.

        Raises:
            psycopg.Error: the connection broke.
        """
        assert self._connection is not None  # load was called before
        values = {"reader": self._reader, "position": position}
        await self._connection.execute(query("tools.checker", "save_checkpoint"), values)

    async def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


async def _opened(adapter: Store | Reader, stop: asyncio.Event) -> bool:
    """Open a store or a reader as soon as the server is reachable; return False if it is stopped before."""
    while not stop.is_set():
        try:
            await adapter.open()
        except OutcomeUnknown:
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return True
    return False


async def _run(task: ProcessTask, stop: asyncio.Event, report: Callable[[dict[str, Any]], None]) -> None:
    """Work on a task until it is done or the event is set, and report the progress."""
    journal = Journal(task.journal)
    adapter = load_class("the adapter", task.adapter)(task.url, task.schema)
    worker: _Worker = (WriterProcess if task.role == "writer" else ReaderProcess)(task, adapter, journal)

    async def report_periodically() -> None:
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            report(worker.progress())

    reporting = asyncio.create_task(report_periodically())
    try:
        await worker.run(stop)
    finally:
        await cancel_and_wait([reporting])
        journal.close()
        with suppress(OSError):
            report(worker.progress())


async def _main() -> None:
    lines = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    task = ProcessTask(**json.loads(await lines.readline()))
    stop = asyncio.Event()
    running = asyncio.create_task(_run(task, stop, _print))
    second_line = asyncio.create_task(lines.readline())
    await asyncio.wait((running, second_line), return_when=asyncio.FIRST_COMPLETED)
    if second_line.done() and not await second_line:
        await cancel_and_wait([running])  # the checker was killed
        return
    stop.set()
    await running
    await cancel_and_wait([second_line])


def _print(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # lost connections are expected under faults
    asyncio.run(_main())
