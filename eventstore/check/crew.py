"""Everybody who works in a check: the processes that write and read, and what they leave behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import sql

from eventstore.check.adapter import Given, Store, Unknown, Write, content_of, load
from eventstore.check.address import named, through
from eventstore.check.journal import Journal
from eventstore.check.operations import Fate, Operations
from eventstore.check.processes import Process
from eventstore.check.proxy import Proxy
from eventstore.check.reader import KINDS
from eventstore.check.server import CheckedServer
from eventstore.check.settings import CheckSettings
from eventstore.check.task import Task
from eventstore.database.queries import query
from eventstore.ending import end
from eventstore.errors import ServerError, ServerUnreachable

TENANTS = ["check-1", "check-2", "check-3"]
_HOT = 4
_SECONDS_BETWEEN_PHASES = 2.0
_POLL_SECONDS = 0.1

_TERMINATE = query("eventstore.check", "terminate_all")
_PREPARED = query("eventstore.check", "prepared")


class Crew:
    """The processes of a check.

    Attributes:
        processes: that write and read.
        hung: the journals of writers that did not end when they were told to.
    """

    def __init__(
        self, server: CheckedServer, proxy: Proxy, store: Store, check: CheckSettings, run: str, folder: Path
    ) -> None:
        self._server = server
        self._proxy = proxy
        self._store = store
        self._check = check
        self._schema = run
        self._folder = folder
        self._chance = random.Random(f"{check.seed}/crew")
        self._hot = [self._id() for _ in range(_HOT)]
        self._last = self._id()
        writers = [self._writer(number) for number in range(1, check.writers + 1)]
        readers = [self._reader(number) for number in range(1, check.readers + 1)]
        self.processes = [Process(task) for task in (*writers, *readers)]
        self.hung: list[Path] = []

    @property
    def crashes(self) -> list[str]:
        """What processes said that ended by themselves."""
        return [said for process in self.processes for said in process.crashes]

    @property
    def unhandled(self) -> list[tuple[str, list[str]]]:
        """Errors of processes that nobody handled, see :class:`Process`."""
        return [said for process in self.processes for said in process.unhandled]

    @property
    def remarks(self) -> list[str]:
        """What processes wrote on standard error."""
        return [said for process in self.processes for said in process.remarks]

    def count(self, what: str) -> int:
        """How many of something all have done."""
        return sum(process.count(what) for process in self.processes)

    async def start(self) -> None:
        """Starts them, and returns when all of them work."""
        for process in self.processes:
            process.start()

        async def everybody_works() -> bool:
            return all(process.may_be_killed or process.crashes for process in self.processes)

        await _until(everybody_works)

    async def end_writers(self) -> None:
        """Lets writers end what they are about; those that hang are killed, and nothing of theirs stays on the way."""
        writers = [process for process in self.processes if process.role == "writer"]
        # They may wait for what others of them prepared and left.
        finishing = asyncio.create_task(self.finish_prepared_now_and_then())
        try:
            for process in writers:
                process.tell_to_stop()
            ended = await asyncio.gather(*(process.wait(self._check.patience) for process in writers))
            self.hung = [process.journal for process, is_done in zip(writers, ended, strict=True) if not is_done]
        finally:
            await end([finishing])
        for process in writers:
            await process.close()
        await self._server.until_it_answers()
        async with await self._server.connect("checker") as connection:
            name = {"name": self._server.application_name("writer")}

            async def all_gone() -> bool:
                return await (await connection.execute(_TERMINATE, name)).fetchone() is None

            await _until(all_gone)

        async def none_prepared() -> bool:
            return await self._finish_prepared(0.0) == 0

        await _until(none_prepared)

    async def end_readers(self) -> None:
        """Appends the event that ends the check, and waits as long as readers come nearer to it."""
        await self._append_the_last()
        readers = [process for process in self.processes if process.role == "reader"]
        loop = asyncio.get_running_loop()
        seen, deadline = -1, loop.time() + self._check.patience
        while not all(process.is_done for process in readers) and loop.time() < deadline:
            if seen != (seen := self.count("deliveries")):
                deadline = loop.time() + self._check.patience
            await asyncio.sleep(_POLL_SECONDS)
        await self.close()

    async def close(self) -> None:
        """Ends all processes."""
        for process in self.processes:
            await process.close()

    async def finish_prepared_now_and_then(self) -> None:
        """As an operator does who finds transactions that somebody prepared and left."""
        while True:
            await asyncio.sleep(_SECONDS_BETWEEN_PHASES)
            with suppress(psycopg.Error, ServerUnreachable):
                await self._finish_prepared(_SECONDS_BETWEEN_PHASES)

    async def _finish_prepared(self, seconds: float) -> int:
        """Ends prepared transactions that are older, in one way or the other; how many were found."""
        async with await self._server.connect("checker") as connection:
            parameters = {"prefix": f"{self._schema}_", "seconds": seconds}
            found = await (await connection.execute(_PREPARED, parameters)).fetchall()
            for name, owner in found:
                word = self._chance.choice(("COMMIT", "ROLLBACK"))
                with suppress(psycopg.errors.UndefinedObject):  # its writer was faster
                    await connection.execute(sql.SQL("SET ROLE {}").format(sql.SQL(owner)))
                    await connection.execute(sql.SQL(f"{word} PREPARED {{}}").format(name))
            return len(found)

    async def _append_the_last(self) -> None:
        journal = Journal(self._folder / "checker.0001.journal")
        operations = Operations(journal, self._store)
        given = Given(self._last, content_of(self._last))
        write = Write(TENANTS[-1], self._id(), (given,), "ANY")
        deadline = asyncio.get_running_loop().time() + self._check.patience
        try:
            await self._open_store(deadline)
            number = operations.announce("the last of the check", [write])
            while (await operations.append(number, [write]))[0] is not Fate.ACKNOWLEDGED:
                if asyncio.get_running_loop().time() > deadline:
                    raise ServerError(
                        "the event that ends the check cannot be appended: see the journal of the checker"
                    )
                await asyncio.sleep(_POLL_SECONDS)
                operations.again(number)
        finally:
            await self._store.close()
            journal.close()

    async def _open_store(self, deadline: float) -> None:
        while True:
            try:
                await self._store.open()
            except Unknown:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return

    def _writer(self, number: int) -> Task:
        prepared = f"{self._schema}_" if self._server.allows_prepared else ""
        return self._task("writer", f"writer-{number}", number, self._check.store, prepared=prepared)

    def _reader(self, number: int) -> Task:
        kind = KINDS[(number - 1) % len(KINDS)]
        if kind == "table" and not hasattr(load("the reader", self._check.reader), "batches"):
            kind = "file"
        return self._task("reader", f"reader-{number}-{kind}", number, self._check.reader, kind=kind)

    def _task(self, role: str, name: str, number: int, adapter: str, kind: str = "", prepared: str = "") -> Task:
        url = named(self._server.url, self._server.application_name(role))
        return Task(
            role=role,
            name=name,
            incarnation=1,
            # Every other one goes by the proxy, where its connections are cut.
            url=through(url, self._proxy, self._server.host) if number % 2 == 0 else url,
            schema=self._schema,
            adapter=adapter,
            folder=str(self._folder),
            seed=f"{self._check.seed}/{name}",
            tenants=TENANTS,
            hot=[conversation.hex for conversation in self._hot],
            last=self._last.hex,
            kind=kind,
            prepared=prepared,
        )

    def _id(self) -> UUID:
        return UUID(int=self._chance.getrandbits(128), version=4)


async def _until(look: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await look():
            return
        await asyncio.sleep(_POLL_SECONDS)
