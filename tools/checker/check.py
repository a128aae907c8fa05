"""A check: create a schema, let processes write and read under faults, and compare at the end."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from eventstore import Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, InputError, PermissionDenied, translated
from tools.checker.adapter import Ability, Store, load_class
from tools.checker.faults import FaultInjector
from tools.checker.journal import Journal
from tools.checker.processes import ProcessGroup
from tools.checker.proxy import Proxy
from tools.checker.report import Findings, Kind, Line, Report
from tools.checker.server import CheckedServer, server_of, url_with_name
from tools.checker.settings import CheckSettings, Fault
from tools.checker.verification import Records, appends_in_flight, compare

_PROGRESS_SECONDS = 0.2
_LOG_EVENTS = 2000


@dataclass(frozen=True)
class Progress:
    """The progress of a check.

    Attributes:
        step: the current step in a few words.
        seconds: how much of :attr:`CheckSettings.seconds` has passed.
    """

    step: str
    seconds: float
    appends: int = 0
    deliveries: int = 0
    faults: int = 0


class Check:
    """A check of a store, or of another reader, under faults.

    Args:
        settings: settings of the server; if left out, those of the environment and ``.env``. If no server is
            configured, the check starts an embedded one of its own, on data of its own.
        check: settings of the check.
        progress: called several times a second.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        check: CheckSettings | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._settings = settings or Settings()
        self._check = check or CheckSettings()
        self._progress = progress
        self._run = f"eventstore_check_{secrets.token_hex(4)}"
        self._not_possible: list[str] = []

    async def run(self) -> Report:
        """Run the check. Journals and schema are removed at the end, unless they are to be kept.

        Raises:
            InputError: the store or reader does not exist, or a requested fault is not possible.
            PermissionDenied: the login may not create a schema.
            ServerError: there is no server, or it did not recover.
        """
        for role, name in (("the store", self._check.store), ("the reader", self._check.reader)):
            load_class(role, name)
        with _journal_folder(self._check) as folder:
            server = server_of(self._settings, self._run, folder, self._check.restart_command)
            try:
                self._report_step("starting", 0)
                await server.open()
                return await self._run_on(server, folder)
            finally:
                await server.close(keep=self._check.keep)

    async def _run_on(self, server: CheckedServer, folder: Path) -> Report:
        faults = self._possible_faults(server)
        url = url_with_name(server.url, server.application_name("checker"))
        store: Store = load_class("the store", self._check.store)(url, self._run)
        if Ability.TRANSACTION in store.abilities and not server.allows_prepared:
            self._not_possible.append("prepared transactions: the server has max_prepared_transactions = 0")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._schema(server))
            await store.create()
            proxy = Proxy(server.host, server.port)
            await proxy.open()
            stack.push_async_callback(proxy.close)
            processes = ProcessGroup(server, proxy, store, self._check, self._run, folder)
            stack.push_async_callback(processes.close)
            injected = await self._inject_faults(server, proxy, processes, faults, folder)
            self._report_step("waiting for the writers")
            await processes.end_writers()
            self._report_step("waiting for the readers")
            await processes.end_readers()
            await proxy.close()
            self._report_step("comparing")
            findings = await self._compare(store, folder)
        for process in processes.processes:
            for crash in process.crashes:
                findings.add(Kind.CRASH, crash, [])
            for name, (error, *frames) in process.unhandled:
                findings.add(Kind.UNHANDLED, f"{name}: {error}", [Line(None, name, frame) for frame in frames])
        for journal in processes.hung:
            findings.add(Kind.HUNG, f"in {journal.name}", appends_in_flight(journal))
        check = self._check
        return Report(
            server=server.title,
            version=server.version,
            schema=self._run,
            journals=str(folder) if check.keep or check.folder is not None else None,
            check=check,
            findings=findings,
            faults=injected,
            not_possible=tuple(self._not_possible),
            remarks=tuple(remark for process in processes.processes for remark in process.remarks),
        )

    async def _inject_faults(
        self, server: CheckedServer, proxy: Proxy, processes: ProcessGroup, faults: frozenset[Fault], folder: Path
    ) -> Mapping[Fault, int]:
        """Let all processes work under faults for the duration of the check; return the number of faults by kind."""
        loop = asyncio.get_running_loop()
        journal = Journal(folder / "faults.journal")
        rng = random.Random(f"{self._check.seed}/faults")
        injector = FaultInjector(server, self._run, proxy, processes.processes, journal, rng)
        await processes.start()
        begin = loop.time()

        async def report_periodically() -> None:
            while True:
                counts = (processes.count("appends"), processes.count("deliveries"), injector.counts.total())
                self._report_step("writing and reading", loop.time() - begin, *counts)
                await asyncio.sleep(_PROGRESS_SECONDS)

        background = [
            asyncio.create_task(report_periodically()),
            asyncio.create_task(processes.finish_abandoned_transactions()),
        ]
        try:
            await injector.run(faults, self._check.seconds)
            await asyncio.sleep(max(0.0, self._check.seconds - (loop.time() - begin)))
        finally:
            await cancel_and_wait(background)
            journal.close()
        return dict(injector.counts)

    async def _compare(self, store: Store, folder: Path) -> Findings:
        with tempfile.TemporaryDirectory(prefix="eventstore-check-", dir=folder) as scratch:
            records = Records(Path(scratch) / "records")
            try:
                await store.open()
                try:
                    await _load_log(store, records)
                finally:
                    await store.close()
                return await asyncio.to_thread(compare, records, folder, self._report_step)
            finally:
                records.close()

    @asynccontextmanager
    async def _schema(self, server: CheckedServer) -> AsyncIterator[None]:
        """Create a schema of the check's own, so that it touches only a log made for it."""
        name = sql.Identifier(self._run)
        try:
            with translated():
                async with await server.connect("checker") as connection:
                    await connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
                    await connection.execute(sql.SQL("SET search_path = {}").format(name))
                    await connection.execute(query("tools.checker", "create"))
        except PermissionDenied:
            raise PermissionDenied(
                f"the login may not create a schema in {server.title}: grant it CREATE on the database, "
                "or name a database of its own"
            ) from None
        try:
            yield
        except EventStoreError:
            # This error is the one to report, even if the server is gone for good and keeps the schema.
            with suppress(EventStoreError):
                await self._drop_schema(server, waits=False)
            raise
        except BaseException:
            await self._drop_schema(server, waits=True)
            raise
        await self._drop_schema(server, waits=True)

    async def _drop_schema(self, server: CheckedServer, *, waits: bool) -> None:
        if self._check.keep:
            return
        if waits:
            await server.until_it_answers()
        with translated():
            async with await server.connect("checker") as connection:
                # The migrations of a store may have created further schemas, whose names begin with this one's.
                cursor = await connection.execute(query("tools.checker", "schemas"), {"name": self._run})
                names = sql.SQL(", ").join(sql.Identifier(name) for (name,) in await cursor.fetchall())
                await connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(names))

    def _possible_faults(self, server: CheckedServer) -> frozenset[Fault]:
        """Return the faults to inject.

        Raises:
            InputError: a requested fault is not possible.
        """
        requested = self._check.faults
        if not server.can_be_killed:
            reason = "kill-server: a named server is killed only by a command that you give (--restart-command)"
            if requested is not None and Fault.KILL_SERVER in requested:
                raise InputError(reason)
            self._not_possible.append(reason)
            return frozenset(Fault) - {Fault.KILL_SERVER} if requested is None else requested
        return frozenset(Fault) if requested is None else requested

    def _report_step(self, step: str, seconds: float | None = None, *counts: int) -> None:
        self._progress(Progress(step, self._check.seconds if seconds is None else seconds, *counts))


@contextmanager
def _journal_folder(check: CheckSettings) -> Iterator[Path]:
    """Yield the folder of the journals; a temporary one is removed at the end, unless it is to be kept."""
    if check.folder is not None:
        check.folder.mkdir(parents=True, exist_ok=True)
        yield check.folder.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="eventstore-check-"))
    # Root's embedded server runs as another account, which must be able to pass through.
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        if not check.keep:
            shutil.rmtree(folder, ignore_errors=True)


async def _load_log(store: Store, records: Records) -> None:
    events = []
    async for event in store.log():
        events.append(event)
        if len(events) >= _LOG_EVENTS:
            records.add_log(events)
            events.clear()
    records.add_log(events)
