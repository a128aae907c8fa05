"""The processes of a check, as the checker sees them: started, killed, restarted, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from eventstore.concurrency import cancel_and_wait
from eventstore.database.queries import query
from eventstore.errors import ServerError, ServerUnreachable
from tools.checker.adapter import CheckEvent, OutcomeUnknown, Store, Write, content_of, load_class
from tools.checker.child import READER_KINDS
from tools.checker.journal import Journal
from tools.checker.proxy import Proxy
from tools.checker.server import CheckedServer, url_via_proxy, url_with_name
from tools.checker.settings import CheckSettings, ProcessTask
from tools.checker.workload import JournalledAppends, Outcome

TENANTS = ["check-1", "check-2", "check-3"]
_HOT_CONVERSATIONS = 4
_RESTART_SECONDS = 0.2
_POLL_SECONDS = 0.1
_SECONDS_BETWEEN_PHASES = 2.0
"""Age at which a prepared transaction counts as abandoned."""
_MAX_CRASHES = 5
_MAX_REMARKS = 5
_MAX_FRAMES = 4


class ChildProcess:
    """A process through all its incarnations. It is restarted whenever it ends, until its task is done.

    Attributes:
        crashes: the last line of standard error of each incarnation that ended by itself before its task was done.
        unhandled: errors that nothing handled and that ended no process: name, and exception and innermost frames.
        remarks: other output on standard error.
    """

    def __init__(self, task: ProcessTask) -> None:
        self._task = task
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = False
        self._closed = False
        self._killed = False
        self._first_start = 0.0
        self._last_start = 0.0
        self._before: dict[str, int] = {}
        self._now: dict[str, Any] = {}
        self.crashes: list[str] = []
        self.unhandled: list[tuple[str, list[str]]] = []
        self.remarks: list[str] = []

    @property
    def name(self) -> str:
        """The name of the process."""
        return self._task.name

    @property
    def role(self) -> str:
        """``writer`` or ``reader``."""
        return self._task.role

    @property
    def journal(self) -> Path:
        """The journal of the present incarnation."""
        return self._task.journal

    @property
    def is_done(self) -> bool:
        """True if the process has ended and is not started again."""
        return self._keeping is not None and self._keeping.done()

    @property
    def may_be_killed(self) -> bool:
        """True if the process works. One that reads from the start needs ever longer, and is killed ever later."""
        process = self._process
        if process is None or process.returncode is not None or not self._now or self._killed:
            return False
        now = asyncio.get_running_loop().time()
        return self._task.kind != "start" or now - self._last_start > self._last_start - self._first_start

    def count(self, what: str) -> int:
        """Return the number of appends or deliveries in all incarnations."""
        return self._before.get(what, 0) + int(self._now.get(what, 0))

    def start(self) -> None:
        """Start the process, and keep it running."""
        self._first_start = asyncio.get_running_loop().time()
        self._keeping = asyncio.create_task(self._keep())

    def kill(self) -> None:
        """Send SIGKILL."""
        self._killed = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def tell_to_stop(self) -> None:
        """Tell the process to finish its current work and end."""
        self._stopping = True
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(b"stop\n")

    async def wait(self, seconds: float) -> bool:
        """Wait until the process has ended for good; return whether it has."""
        if self._keeping is None:
            return True
        await asyncio.wait([self._keeping], timeout=seconds)
        return self._keeping.done()

    async def close(self) -> None:
        """Kill the process for good."""
        self._stopping = self._closed = True
        self.kill()
        if self._keeping is not None and not await self.wait(10):
            await cancel_and_wait([self._keeping])
        if self._keeping is not None and not self._keeping.cancelled():
            self._keeping.result()

    async def _keep(self) -> None:
        while not self._stopping and len(self.crashes) < _MAX_CRASHES:
            if await self._run_incarnation():
                return
            for what in ("appends", "deliveries"):
                self._before[what] = self.count(what)
            highest = max(self._task.highest, int(self._now.get("position", 0)))
            self._now = {}
            self._task = replace(self._task, incarnation=self._task.incarnation + 1, highest=highest)
            await asyncio.sleep(_RESTART_SECONDS)

    async def _run_incarnation(self) -> bool:
        """Run one incarnation; return whether it completed the task."""
        self._killed = False
        self._last_start = asyncio.get_running_loop().time()
        stderr_file = self._task.journal.with_suffix(".stderr")
        with stderr_file.open("wb") as stderr:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "tools.checker.child",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr,
                # A session of its own, so that Ctrl-C reaches only the checker, which stops its processes.
                start_new_session=True,
                # The child imports what the checker imports, the module of an adapter included.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        if self._closed:  # closed while it was being started
            self.kill()
        with suppress(OSError):
            process.stdin.write(json.dumps(asdict(self._task)).encode() + b"\n")
            if self._stopping:
                process.stdin.write(b"stop\n")
        async for line in process.stdout:
            if line.endswith(b"\n"):
                self._now = json.loads(line)
        code = await process.wait()
        self._read_stderr(stderr_file, code)
        return code == 0

    def _read_stderr(self, file: Path, code: int) -> None:
        """Classify what the process wrote on standard error; remove an empty file."""
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if code and not self._killed:
            self.crashes.append(f"{self.name} ended with {code}: {' '.join(lines[-1:])}")
        elif (begin := next((n for n, line in enumerate(lines) if line.startswith("Traceback")), None)) is not None:
            self.unhandled.append((self.name, _exception_and_frames(lines[begin + 1 :])))
        elif lines and len(self.remarks) < _MAX_REMARKS:
            self.remarks.append(f"{self.name}: {' '.join(dict.fromkeys(lines))}")
        if not lines:
            file.unlink()


def _exception_and_frames(traceback: list[str]) -> list[str]:
    """Return the exception of a traceback, and its innermost frames."""
    end_ = next((n for n, line in enumerate(traceback) if not line.startswith(" ")), len(traceback))
    frames = [line.strip() for line in traceback[:end_] if line.startswith("  File ")]
    return [*traceback[end_ : end_ + 1], *frames[::-1][:_MAX_FRAMES]]


class ProcessGroup:
    """All processes of a check that write and read, and what they leave behind.

    Attributes:
        processes: the processes.
        hung: the journals of writers that did not end when they were stopped.
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
        self._rng = random.Random(f"{check.seed}/crew")
        self._hot = [self._random_id() for _ in range(_HOT_CONVERSATIONS)]
        self._last = self._random_id()
        writers = [self._writer(number) for number in range(1, check.writers + 1)]
        readers = [self._reader(number) for number in range(1, check.readers + 1)]
        self.processes = [ChildProcess(task) for task in (*writers, *readers)]
        self.hung: list[Path] = []

    def count(self, what: str) -> int:
        """Return the number of appends or deliveries of all processes."""
        return sum(process.count(what) for process in self.processes)

    async def start(self) -> None:
        """Start the processes, and return when all of them work."""
        for process in self.processes:
            process.start()

        async def all_work() -> bool:
            return all(process.may_be_killed or process.crashes for process in self.processes)

        await _until(all_work)

    async def end_writers(self) -> None:
        """Stop the writers, kill those that hang, and leave none of their sessions or prepared transactions."""
        writers = [process for process in self.processes if process.role == "writer"]
        # Writers may wait for transactions that others prepared and abandoned.
        finishing = asyncio.create_task(self.finish_abandoned_transactions())
        try:
            for process in writers:
                process.tell_to_stop()
            ended = await asyncio.gather(*(process.wait(self._check.patience) for process in writers))
            self.hung = [process.journal for process, is_done in zip(writers, ended, strict=True) if not is_done]
        finally:
            await cancel_and_wait([finishing])
        for process in writers:
            await process.close()
        await self._server.until_it_answers()
        async with await self._server.connect("checker") as connection:
            name = {"name": self._server.application_name("writer")}

            async def no_session() -> bool:
                cursor = await connection.execute(query("tools.checker", "terminate_all"), name)
                return await cursor.fetchone() is None

            await _until(no_session)

        async def none_prepared() -> bool:
            return await self._finish_prepared(0.0) == 0

        await _until(none_prepared)

    async def end_readers(self) -> None:
        """Append the event that ends the check, and wait as long as readers make progress towards it."""
        await self._append_last_event()
        readers = [process for process in self.processes if process.role == "reader"]
        loop = asyncio.get_running_loop()
        deliveries, deadline = -1, loop.time() + self._check.patience
        while not all(process.is_done for process in readers) and loop.time() < deadline:
            if deliveries != (deliveries := self.count("deliveries")):
                deadline = loop.time() + self._check.patience
            await asyncio.sleep(_POLL_SECONDS)
        await self.close()

    async def close(self) -> None:
        """Kill all processes."""
        for process in self.processes:
            await process.close()

    async def finish_abandoned_transactions(self) -> None:
        """Finish abandoned prepared transactions repeatedly, as an operator does."""
        while True:
            await asyncio.sleep(_SECONDS_BETWEEN_PHASES)
            with suppress(psycopg.Error, ServerUnreachable):
                await self._finish_prepared(_SECONDS_BETWEEN_PHASES)

    async def _finish_prepared(self, seconds: float) -> int:
        """Commit or roll back prepared transactions older than this; return how many were found."""
        async with await self._server.connect("checker") as connection:
            parameters = {"prefix": f"{self._schema}_", "seconds": seconds}
            found = await (await connection.execute(query("tools.checker", "prepared"), parameters)).fetchall()
            for name, owner in found:
                command = self._rng.choice(("COMMIT", "ROLLBACK"))
                with suppress(psycopg.errors.UndefinedObject):  # its writer was faster
                    await connection.execute(sql.SQL("SET ROLE {}").format(sql.SQL(owner)))
                    await connection.execute(sql.SQL(f"{command} PREPARED {{}}").format(name))
            return len(found)

    async def _append_last_event(self) -> None:
        journal = Journal(self._folder / "checker.0001.journal")
        appends = JournalledAppends(journal, self._store)
        write = Write(TENANTS[-1], self._random_id(), (CheckEvent(self._last, content_of(self._last)),), "ANY")
        deadline = asyncio.get_running_loop().time() + self._check.patience
        try:
            await self._open_store(deadline)
            number = appends.announce("the last of the check", [write])
            while (await appends.append(number, [write]))[0] is not Outcome.ACKNOWLEDGED:
                if asyncio.get_running_loop().time() > deadline:
                    raise ServerError(
                        "the event that ends the check cannot be appended: see the journal of the checker"
                    )
                await asyncio.sleep(_POLL_SECONDS)
                appends.announce_repeat(number)
        finally:
            await self._store.close()
            journal.close()

    async def _open_store(self, deadline: float) -> None:
        while True:
            try:
                await self._store.open()
            except OutcomeUnknown:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return

    def _writer(self, number: int) -> ProcessTask:
        prepared = f"{self._schema}_" if self._server.allows_prepared else ""
        return self._task("writer", f"writer-{number}", number, self._check.store, prepared=prepared)

    def _reader(self, number: int) -> ProcessTask:
        kind = READER_KINDS[(number - 1) % len(READER_KINDS)]
        if kind == "table" and not hasattr(load_class("the reader", self._check.reader), "batches"):
            kind = "file"
        return self._task("reader", f"reader-{number}-{kind}", number, self._check.reader, kind=kind)

    def _task(self, role: str, name: str, number: int, adapter: str, kind: str = "", prepared: str = "") -> ProcessTask:
        url = url_with_name(self._server.url, self._server.application_name(role))
        return ProcessTask(
            role=role,
            name=name,
            incarnation=1,
            # Every other process connects through the proxy, which cuts its connections.
            url=url_via_proxy(url, self._proxy, self._server.host) if number % 2 == 0 else url,
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

    def _random_id(self) -> UUID:
        return UUID(int=self._rng.getrandbits(128), version=4)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await condition():
            return
        await asyncio.sleep(_POLL_SECONDS)
