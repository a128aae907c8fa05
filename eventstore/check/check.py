"""The check: prepares a schema, lets processes write and read while faults happen, and compares in the end."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from eventstore.check.adapter import Ability, Store, load
from eventstore.check.address import named
from eventstore.check.crew import Crew
from eventstore.check.faults import Faults
from eventstore.check.journal import Journal
from eventstore.check.proxy import Proxy
from eventstore.check.report import Report
from eventstore.check.server import CheckedServer, server_of
from eventstore.check.settings import CheckSettings, Fault
from eventstore.check.verify import Findings, Kind, Line, Records, compare, unsettled
from eventstore.database.queries import query
from eventstore.database.settings import Settings
from eventstore.database.translate import translated
from eventstore.ending import end
from eventstore.errors import EventStoreError, InputError, PermissionDenied

_TELL_SECONDS = 0.2
_LOG_EVENTS = 2000


@dataclass(frozen=True)
class Progress:
    """How far a check is.

    Attributes:
        doing: what, in a few words.
        seconds: of :attr:`CheckSettings.seconds` that have passed.
    """

    doing: str
    seconds: float
    appends: int = 0
    deliveries: int = 0
    faults: int = 0


class Check:
    """One check.

    Args:
        settings: which server; from the environment and ``.env`` if left out. With none named, the check starts an
            embedded server of its own, on data of its own.
        check: how to check.
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
        """Checks. The journals and the schema are removed in the end, unless they are to be kept.

        Raises:
            InputError: there is no such store or reader, or a fault is asked for that is not possible.
            PermissionDenied: the login may not create a schema.
            ServerError: there is no server, or it did not come back.
        """
        for what, name in (("the store", self._check.store), ("the reader", self._check.reader)):
            load(what, name)
        with _folder(self._check) as folder:
            server = server_of(self._settings, self._run, folder, self._check.restart_command)
            try:
                self._tell("starting", 0)
                await server.open()
                return await self._on(server, folder)
            finally:
                await server.close(keep=self._check.keep)

    async def _on(self, server: CheckedServer, folder: Path) -> Report:
        faults = self._possible(server)
        url = named(server.url, server.application_name("checker"))
        store: Store = load("the store", self._check.store)(url, self._run)
        if Ability.TRANSACTION in store.abilities and not server.allows_prepared:
            self._not_possible.append("prepared transactions: the server has max_prepared_transactions = 0")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._schema(server))
            await store.create()
            proxy = Proxy(server.host, server.port)
            await proxy.open()
            stack.push_async_callback(proxy.close)
            crew = Crew(server, proxy, store, self._check, self._run, folder)
            stack.push_async_callback(crew.close)
            counts = await self._disturb(server, proxy, crew, faults, folder)
            self._tell("waiting for the writers", self._check.seconds)
            await crew.end_writers()
            self._tell("waiting for the readers", self._check.seconds)
            await crew.end_readers()
            await proxy.close()
            self._tell("comparing", self._check.seconds)
            findings = await self._compare(store, folder)
        for said in crew.crashes:
            if findings.wants(Kind.CRASH):
                findings.keep(Kind.CRASH, said, [])
        for name, (error, *places) in crew.unhandled:
            if findings.wants(Kind.UNHANDLED):
                findings.keep(Kind.UNHANDLED, f"{name}: {error}", [Line(None, name, place) for place in places])
        for journal in crew.hung:
            if findings.wants(Kind.HUNG):
                findings.keep(Kind.HUNG, f"in {journal.name}", unsettled(journal))
        return self._report(server, folder, findings, dict(counts), crew.remarks)

    async def _disturb(
        self, server: CheckedServer, proxy: Proxy, crew: Crew, faults: frozenset[Fault], folder: Path
    ) -> Counter[Fault]:
        """Lets everybody work for the time of the check, under faults."""
        loop = asyncio.get_running_loop()
        journal = Journal(folder / "faults.journal")
        chance = random.Random(f"{self._check.seed}/faults")
        injected = Faults(server, self._run, proxy, crew.processes, journal, chance)
        await crew.start()
        begun = loop.time()

        async def tell() -> None:
            while True:
                done = sum(injected.counts.values())
                counts = (crew.count("appends"), crew.count("deliveries"), done)
                self._tell("writing and reading", loop.time() - begun, *counts)
                await asyncio.sleep(_TELL_SECONDS)

        beside = [asyncio.create_task(tell()), asyncio.create_task(crew.finish_prepared_now_and_then())]
        try:
            await injected.run(faults, self._check.seconds)
            await asyncio.sleep(max(0.0, self._check.seconds - (loop.time() - begun)))
        finally:
            await end(beside)
            journal.close()
        return injected.counts

    async def _compare(self, store: Store, folder: Path) -> Findings:
        with tempfile.TemporaryDirectory(prefix="eventstore-check-", dir=folder) as beside:
            records = Records(Path(beside) / "records")
            try:
                await store.open()
                try:
                    await _load_log(store, records)
                finally:
                    await store.close()
                return await asyncio.to_thread(
                    compare, records, folder, lambda doing: self._tell(doing, self._check.seconds)
                )
            finally:
                records.close()

    @asynccontextmanager
    async def _schema(self, server: CheckedServer) -> AsyncIterator[None]:
        """A schema of the check's own, so that no log is touched but one made for it."""
        name = sql.Identifier(self._run)
        try:
            with translated():
                async with await server.connect("checker") as connection:
                    await connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
                    await connection.execute(sql.SQL("SET search_path = {}").format(name))
                    await connection.execute(query("eventstore.check", "create"))
        except PermissionDenied:
            raise PermissionDenied(
                f"the login may not create a schema in {server.title}: grant it CREATE on the database, "
                "or name a database of its own"
            ) from None
        try:
            yield
        except EventStoreError:
            # That is what has to be told, also where the server is away for good and the schema stays in it.
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
                # With those that the migrations of a store may have made beside it, of its name and a further word.
                cursor = await connection.execute(query("eventstore.check", "schemas"), {"name": self._run})
                names = sql.SQL(", ").join(sql.Identifier(name) for (name,) in await cursor.fetchall())
                await connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(names))

    def _possible(self, server: CheckedServer) -> frozenset[Fault]:
        """The faults to inject.

        Raises:
            InputError: one was asked for that is not possible.
        """
        why = "kill-server: a named server is killed only by a command that you give (--restart-command)"
        asked = self._check.faults
        if not server.can_be_killed:
            if asked is not None and Fault.KILL_SERVER in asked:
                raise InputError(why)
            self._not_possible.append(why)
            return frozenset(Fault) - {Fault.KILL_SERVER} if asked is None else asked
        return frozenset(Fault) if asked is None else asked

    def _report(
        self, server: CheckedServer, folder: Path, findings: Findings, counts: dict[Fault, int], remarks: list[str]
    ) -> Report:
        check = self._check
        return Report(
            server=server.title,
            version=server.version,
            schema=self._run,
            is_kept=check.keep,
            journals=str(folder) if check.keep or check.folder is not None else None,
            store=check.store,
            reader=check.reader,
            seconds=check.seconds,
            seed=check.seed,
            appends=findings.appends,
            events=findings.events,
            conversations=findings.conversations,
            reading=findings.reading,
            faults=counts,
            not_possible=tuple(self._not_possible),
            remarks=tuple(remarks),
            violations=findings.counts,
            shortest=tuple(findings.shortest()),
        )

    def _tell(self, doing: str, seconds: float, *counts: int) -> None:
        self._progress(Progress(doing, seconds, *counts))


@contextmanager
def _folder(check: CheckSettings) -> Iterator[Path]:
    """The folder of the journals; a temporary one is removed in the end, unless it is to be kept."""
    if check.folder is not None:
        check.folder.mkdir(parents=True, exist_ok=True)
        yield check.folder.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="eventstore-check-"))
    # The embedded server of root runs as another account, which must pass through.
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        if not check.keep:
            shutil.rmtree(folder, ignore_errors=True)


async def _load_log(store: Store, records: Records) -> None:
    some = []
    async for event in store.log():
        some.append(event)
        if len(some) >= _LOG_EVENTS:
            records.add_log(some)
            some.clear()
    records.add_log(some)
