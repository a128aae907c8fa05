"""Faults, injected at random times while processes write and read."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import psycopg
from psycopg import sql

from eventstore.concurrency import cancel_and_wait
from eventstore.database.queries import query
from eventstore.errors import ServerUnreachable
from tools.checker.journal import Journal
from tools.checker.processes import ChildProcess
from tools.checker.proxy import Proxy
from tools.checker.server import CheckedServer
from tools.checker.settings import Fault

_SECONDS_BETWEEN = {
    Fault.KILL_WRITER: 4.0,
    Fault.KILL_READER: 4.0,
    Fault.TERMINATE: 1.0,
    Fault.CUT: 1.5,
    Fault.HALF_OPEN: 4.0,
    Fault.FOREIGN: 1.0,
    Fault.KILL_SERVER: 10.0,
}
"""Mean seconds between two faults of a kind."""
_HALF_OPEN_SECONDS = (0.2, 3.0)
_FOREIGN_SECONDS = (1.0, 8.0)


class FaultInjector:
    """Injects faults for a time, and counts them."""

    def __init__(
        self,
        server: CheckedServer,
        schema: str,
        proxy: Proxy,
        processes: Sequence[ChildProcess],
        journal: Journal,
        rng: random.Random,
    ) -> None:
        self._server = server
        self._schema = schema
        self._proxy = proxy
        self._processes = processes
        self._journal = journal
        self._rng = rng
        self._deadline = 0.0
        self.counts: Counter[Fault] = Counter()
        self._actions: dict[Fault, Callable[[], Awaitable[None]]] = {
            Fault.KILL_WRITER: lambda: self._kill("writer"),
            Fault.KILL_READER: lambda: self._kill("reader"),
            Fault.TERMINATE: self._terminate,
            Fault.CUT: self._cut,
            Fault.HALF_OPEN: self._half_open,
            Fault.FOREIGN: self._foreign,
            Fault.KILL_SERVER: self._kill_server,
        }

    async def run(self, faults: frozenset[Fault], seconds: float) -> None:
        """Inject each kind repeatedly for a time, at least once if there is something to hit."""
        self._deadline = asyncio.get_running_loop().time() + seconds
        tasks = [
            asyncio.create_task(self._inject_repeatedly(fault, min(_SECONDS_BETWEEN[fault], seconds / 2)))
            for fault in sorted(faults)
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(tasks)

    async def _inject_repeatedly(self, fault: Fault, mean: float) -> None:
        wait = self._rng.uniform(0.3, 0.8) * mean
        while wait < self._left():
            await asyncio.sleep(wait)
            with suppress(psycopg.Error, ServerUnreachable):
                await self._actions[fault]()
            wait = self._rng.expovariate(1 / mean)

    def _left(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()

    def _record(self, fault: Fault, what: str) -> None:
        self.counts[fault] += 1
        self._journal.write(k=fault.value, what=what)

    async def _kill(self, role: str) -> None:
        candidates = [process for process in self._processes if process.role == role and process.may_be_killed]
        if candidates:
            process = self._rng.choice(candidates)
            self._record(Fault.KILL_WRITER if role == "writer" else Fault.KILL_READER, f"{process.name} is killed")
            process.kill()

    async def _terminate(self) -> None:
        parameters = {
            "names": [self._server.application_name(role) for role in ("writer", "reader")],
            "busy": self._rng.random() < 0.7,
        }
        async with await self._server.connect("checker") as connection:
            cursor = await connection.execute(query("tools.checker", "terminate_one"), parameters)
            if (row := await cursor.fetchone()) is not None:
                self._record(Fault.TERMINATE, f"the session of process {row[0]} is terminated")

    async def _cut(self) -> None:
        if self._proxy.cut(self._rng):
            self._record(Fault.CUT, "a connection is cut")

    async def _half_open(self) -> None:
        link = self._proxy.drop_replies(self._rng)
        if link is not None:
            self._record(Fault.HALF_OPEN, "a connection is half open")
            try:
                await asyncio.sleep(min(self._rng.uniform(*_HALF_OPEN_SECONDS), max(0.0, self._left())))
            finally:
                link.cut()

    async def _foreign(self) -> None:
        async with await self._server.connect("stranger") as connection:
            await connection.execute("BEGIN")
            table = sql.Identifier(self._schema, "check_foreign")
            await connection.execute(sql.SQL("INSERT INTO {} VALUES ('left open')").format(table))
            numbers = [0, 1, self._rng.randint(2, 1000), self._rng.getrandbits(32)]
            parameters = {"schema": self._schema, "numbers": numbers}
            await connection.execute(query("tools.checker", "foreign_locks"), parameters)
            self._record(Fault.FOREIGN, "a foreign transaction is open")
            await asyncio.sleep(min(self._rng.uniform(*_FOREIGN_SECONDS), max(0.0, self._left())))
            await connection.execute(self._rng.choice(("ROLLBACK", "COMMIT")))

    async def _kill_server(self) -> None:
        self._record(Fault.KILL_SERVER, "the server is killed")
        await self._server.kill()
