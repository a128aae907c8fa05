"""Faults, injected at random times while processes write and read."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import psycopg
from psycopg import sql

from eventstore.check.journal import Journal
from eventstore.check.processes import Process
from eventstore.check.proxy import Proxy
from eventstore.check.server import CheckedServer
from eventstore.check.settings import Fault
from eventstore.database.queries import query
from eventstore.ending import end
from eventstore.errors import ServerUnreachable

_TERMINATE = query("eventstore.check", "terminate_one")
_LOCK = query("eventstore.check", "stranger_locks")

_SECONDS_BETWEEN = {
    Fault.KILL_WRITER: 4.0,
    Fault.KILL_READER: 4.0,
    Fault.TERMINATE: 1.0,
    Fault.CUT: 1.5,
    Fault.HALF_OPEN: 4.0,
    Fault.FOREIGN: 1.0,
    Fault.KILL_SERVER: 10.0,
}
"""On average."""
_DEAF_SECONDS = (0.2, 3.0)
_FOREIGN_SECONDS = (1.0, 8.0)


class Faults:
    """Injects faults until cancelled, and counts them."""

    def __init__(
        self,
        server: CheckedServer,
        schema: str,
        proxy: Proxy,
        processes: Sequence[Process],
        journal: Journal,
        chance: random.Random,
    ) -> None:
        self._server = server
        self._schema = schema
        self._proxy = proxy
        self._processes = processes
        self._journal = journal
        self._chance = chance
        self._deadline = 0.0
        self.counts: Counter[Fault] = Counter()
        self._ways: dict[Fault, Callable[[], Awaitable[None]]] = {
            Fault.KILL_WRITER: lambda: self._kill("writer"),
            Fault.KILL_READER: lambda: self._kill("reader"),
            Fault.TERMINATE: self._terminate,
            Fault.CUT: self._cut,
            Fault.HALF_OPEN: self._half_open,
            Fault.FOREIGN: self._foreign,
            Fault.KILL_SERVER: self._kill_server,
        }

    async def run(self, faults: frozenset[Fault], seconds: float) -> None:
        """Injects each kind again and again for so long, each at least once where there is something to hit."""
        self._deadline = asyncio.get_running_loop().time() + seconds
        tasks = [
            asyncio.create_task(self._again_and_again(fault, min(_SECONDS_BETWEEN[fault], seconds / 2)))
            for fault in sorted(faults)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            await end(tasks)

    async def _again_and_again(self, fault: Fault, mean: float) -> None:
        wait = self._chance.uniform(0.3, 0.8) * mean
        while wait < self._left():
            await asyncio.sleep(wait)
            with suppress(psycopg.Error, ServerUnreachable):
                await self._ways[fault]()
            wait = self._chance.expovariate(1 / mean)

    def _left(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()

    def _did(self, fault: Fault, what: str) -> None:
        self.counts[fault] += 1
        self._journal.note(k=fault.value, what=what)

    async def _kill(self, role: str) -> None:
        victims = [process for process in self._processes if process.role == role and process.may_be_killed]
        if victims:
            victim = self._chance.choice(victims)
            self._did(Fault.KILL_WRITER if role == "writer" else Fault.KILL_READER, f"{victim.name} is killed")
            victim.kill()

    async def _terminate(self) -> None:
        names = [self._server.application_name(role) for role in ("writer", "reader")]
        async with await self._server.connect("checker") as connection:
            cursor = await connection.execute(_TERMINATE, {"names": names, "busy": self._chance.random() < 0.7})
            if (row := await cursor.fetchone()) is not None:
                self._did(Fault.TERMINATE, f"the session of process {row[0]} is terminated")

    async def _cut(self) -> None:
        if self._proxy.cut(self._chance):
            self._did(Fault.CUT, "a connection is cut")

    async def _half_open(self) -> None:
        link = self._proxy.deafen(self._chance)
        if link is not None:
            self._did(Fault.HALF_OPEN, "a connection is half open")
            try:
                await asyncio.sleep(min(self._chance.uniform(*_DEAF_SECONDS), max(0.0, self._left())))
            finally:
                link.cut()

    async def _foreign(self) -> None:
        async with await self._server.connect("stranger") as connection:
            await connection.execute("BEGIN")
            table = sql.Identifier(self._schema, "check_strangers")
            await connection.execute(sql.SQL("INSERT INTO {} VALUES ('left open')").format(table))
            numbers = [0, 1, self._chance.randint(2, 1000), self._chance.getrandbits(32)]
            await connection.execute(_LOCK, {"schema": self._schema, "numbers": numbers})
            self._did(Fault.FOREIGN, "a foreign transaction is open")
            await asyncio.sleep(min(self._chance.uniform(*_FOREIGN_SECONDS), max(0.0, self._left())))
            await connection.execute(self._chance.choice(("ROLLBACK", "COMMIT")))

    async def _kill_server(self) -> None:
        self._did(Fault.KILL_SERVER, "the server is killed")
        await self._server.kill()
