"""Rebuilding read tables in a staging schema, and swapping them in.

New tables are filled beside the live ones, to which workers apply the log meanwhile. Several connections fill them,
each its partitions of the conversations, while the tables have no indexes. Then the tables get their indexes, are
caught up with the log and compared with the live ones, and one short transaction swaps the two. The state of a rebuild
is in the database (the checkpoints of the stage ``next``, the indexes that exist), so the next rebuild resumes one that
was killed at any instant, unless the projection has changed since.

No reader sees an empty or partly filled table. Before the swap only the live tables are read. A transaction that is
older than the last row of the fill would see too few rows in the new tables; the swap waits for such transactions to
end. The rows and the checkpoints of both stages change places in the transaction of the swap, under the locks of the
live checkpoints, so no worker applies a batch to the wrong tables.

Functions of the database (``db/schema/rebuild``) do what needs the catalogs, so that whatever users have added to a
table (indexes, triggers, policies, grants) exists afterwards as well. The login itself calls them, and must own the
tables or be a member of their owner.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Self

from psycopg import errors

from eventstore import EventStore
from eventstore.administration import record_act
from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, RebuildError, translated
from eventstore.read import horizon
from projections.apply import Applier
from projections.custom_projections import create_missing_tables
from projections.failure_isolation import loggable
from projections.load_throttle import LoadThrottle
from projections.pausing import read_paused
from projections.projection import ALL_PARTITIONS, PARTITIONS, PROJECTIONS, Projection, Stage
from projections.read_your_writes import applied_position
from projections.table_differences import TableDifference, compare_stages

JOBS = 2
"""Connections that fill the new tables, by default."""
BUSY_EVENTS_PER_SECOND, BUSY_FILL_SHARE = 100, 0.15
"""The write load from which on the fill is throttled, and the part of the time that it works then."""


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """The progress of a rebuild.

    Attributes:
        doing: the present step, in a few words.
        position: the position up to which the new tables are filled.
        goal: the end of the log when the rebuild began.
    """

    projection: str
    doing: str
    position: int
    goal: int


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The outcome of a rebuild.

    Attributes:
        definition_changed: whether the projection had changed since the tables were made.
        differences: between the old and the new tables, by conversation; the first hundred.
        seconds: from the beginning to the swap.
    """

    projection: str
    position: int
    definition_changed: bool
    differences: list[TableDifference] = field(default_factory=list)
    seconds: float = 0.0


async def rebuild(
    store: EventStore,
    projections: Sequence[Projection] = PROJECTIONS,
    *,
    jobs: int = JOBS,
    accept_differences: bool = False,
    on_progress: Callable[[RebuildProgress], None] = lambda _: None,
) -> list[Rebuilt]:
    """Rebuild the read tables of projections, one projection after the other.

    Args:
        jobs: connections that fill the new tables.
        accept_differences: swap even if the definition is unchanged but the rows differ.
        on_progress: called with the progress.

    Raises:
        RebuildError: a rebuild is not possible; or the projection is the same as before and its rows are not.
    """
    jobs = max(1, min(jobs, PARTITIONS))
    return [await _Rebuild(store, each, accept_differences, on_progress).run(jobs) for each in projections]


@dataclass
class _Rebuild:
    store: EventStore
    projection: Projection
    accept_differences: bool
    on_progress: Callable[[RebuildProgress], None]
    goal: int = 0
    position: int = 0

    async def run(self, jobs: int) -> Rebuilt:
        """Fill, compare and swap."""
        began = monotonic()
        projection = self.projection
        if projection.name in await read_paused(self.store):
            # The new tables are compared with the live ones at the same position, which paused ones do not reach.
            raise RebuildError(
                f"projection {projection.name} is paused: eventstore resume {projection.name}, then rebuild it"
            )
        await create_missing_tables(self.store, [projection])
        async with AsyncExitStack() as stack:
            appliers = [
                await stack.enter_async_context(await Applier.open(self.store, projection.largest_batch))
                for _ in range(jobs)
            ]
            applier = appliers[0]
            await applier.register(projection)
            staging = await stack.enter_async_context(StagingTables.open(self.store, projection))
            hashes = await staging.definition_hashes()
            if hashes.get("next") != projection.definition_hash:
                await staging.create()
            definition_changed = hashes.get("live") != projection.definition_hash
            await self.fill(appliers)
            self.report("indexes")
            await staging.add_indexes(lambda name: self.report(f"index {name}"))
            catch_up = partial(applier.apply_all, projection, stage="next")
            await catch_up()
            await staging.wait_for_older_snapshots(catch_up, self.report)
            self.report("comparing")
            differences = await compare_stages(self.store, projection, applier, staging.connection)
            if differences and not definition_changed and not self.accept_differences:
                raise RebuildError(_differences_message(projection, differences))
            self.report("swapping")
            await staging.swap("next", partial(applier.apply_up_to, projection, "next"))
        position = await applied_position(self.store, [projection], on_primary=True)
        return Rebuilt(projection.name, position, definition_changed, differences, monotonic() - began)

    async def fill(self, appliers: Sequence[Applier]) -> None:
        """Apply the log up to its present end over all connections at once, throttled under write load."""
        self.goal = await horizon(self.store.connections.projector)
        self.report("filling")
        positions = [0] * len(appliers)

        async def fill_partitions(number: int, applier: Applier) -> None:
            with translated():
                # Without statistics and indexes a nested loop would read the whole table for each row.
                await applier.connection.execute("SET enable_nestloop = off")
            throttle = LoadThrottle(self.store, self.goal, BUSY_EVENTS_PER_SECOND, BUSY_FILL_SHARE)
            partitions = ALL_PARTITIONS[number :: len(appliers)]
            began = monotonic()
            while applied := await applier.apply_batch(
                self.projection, stage="next", partitions=partitions, until=self.goal, size=throttle.batch_size
            ):
                positions[number] = applied.position
                self.position = min(positions)
                self.report("filling")
                await throttle.pause(monotonic() - began)
                began = monotonic()
            with translated():
                await applier.connection.execute("RESET enable_nestloop")

        tasks = [asyncio.create_task(fill_partitions(*numbered)) for numbered in enumerate(appliers)]
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(tasks)

    def report(self, doing: str) -> None:
        self.on_progress(RebuildProgress(self.projection.name, doing, self.position, self.goal))


def _differences_message(projection: Projection, differences: Sequence[TableDifference]) -> str:
    more = f" and {len(differences) - 1:,} more" if len(differences) > 1 else ""
    return (
        f"the new tables of {projection.name} differ from the live ones though the projection is the same: "
        f"{differences[0]}{more}; eventstore verify {projection.name} names the rows; nothing was swapped; to do so "
        f"anyway: eventstore rebuild {projection.name} --accept-differences"
    )


async def undo_rebuild(store: EventStore, projections: Sequence[Projection] = PROJECTIONS) -> None:
    """Restore the tables that the last rebuild has replaced, caught up by the definition that made them.

    Raises:
        RebuildError: there are none, or the definition that they were made by is not known any more.
    """
    for projection in projections:
        async with await Applier.open(store) as applier, StagingTables.open(store, projection) as staging:
            if "previous" not in await staging.definition_hashes():
                raise RebuildError(f"projection {projection.name} has no previous tables: nothing was rebuilt")
            made_by = await applier.register(projection, "previous")
            if made_by is None:
                raise RebuildError(
                    f"the previous tables of {projection.name} were made by Python code that this version does not have"
                )
            catch_up = partial(applier.apply_all, made_by, stage="previous")
            await catch_up()
            await staging.wait_for_older_snapshots(catch_up, lambda _: None)
            await staging.swap("previous", partial(applier.apply_up_to, made_by, "previous"))


# Rebuilding, beside a running worker, the tables that another version of their projection has made

RETRY_MIN_SECONDS, RETRY_MAX_SECONDS = 0.5, 30.0
"""Pauses until the next attempt, doubled each time."""

_OUTDATED = query("projections", "outdated")
_log = logging.getLogger(__name__)


async def rebuild_outdated(store: EventStore, projections: Sequence[Projection]) -> None:
    """Rebuild the tables that another version of their projection has made, until none is left.

    An error is logged, and the rebuild tried again: another worker may be rebuilding them.
    """
    given = {
        "projections": [projection.name for projection in projections],
        "definition_hashes": [projection.definition_hash for projection in projections],
    }
    pause, logged = RETRY_MIN_SECONDS, ""
    while True:
        try:
            outdated = {name for (name,) in await store.connections.projector.fetch(_OUTDATED, given)}
            for projection in projections:
                if projection.name in outdated:
                    fields = {"projection": projection.name}
                    text = "projection %s has changed: its tables are rebuilt"
                    _log.warning(text, projection.name, extra={"event": "rebuild_started"} | fields)
                    await rebuild(store, [projection])
                    _log.info("projection %s is rebuilt", projection.name, extra={"event": "rebuild_done"} | fields)
            return
        except EventStoreError as error:
            if str(error) != logged:
                logged = str(error)
                _log.warning("rebuilding: %s", loggable(error), extra={"event": "rebuild_failed"})
        await asyncio.sleep(pause)
        pause = min(pause * 2, RETRY_MAX_SECONDS)


# The tables of the stages: created beside the live ones, completed, swapped, dropped

LOCK_MILLISECONDS = 50
"""The time that a swap waits for its locks, while new readers queue behind it, until it gives up and tries again."""
_FIRST_PAUSE, _MAX_PAUSE = 0.05, 2.0

_OBSTACLES = query("projections", "obstacles")
_LOCK_REBUILD = query("projections", "lock_rebuild")
_CREATE_NEXT = query("projections", "create_next")
_MISSING = query("projections", "missing")
_DROP_STAGE = query("projections", "drop_stage")
_STAGES = query("projections", "stages")
_STAGE_PATH = query("projections", "stage_path")
_LOCK_LIVE = query("projections", "lock_live")
_SWAP = query("projections", "swap")
_BEHIND = query("projections", "behind")
_MARK_TRANSACTIONS = query("projections", "mark_transactions")
_OLDER_TRANSACTIONS = query("projections", "older_transactions")


class StagingTables:
    """The stages of one projection's tables, over one connection under the role of the login."""

    def __init__(self, connection: Connection, projection: Projection) -> None:
        self.connection = connection
        self._projection = projection
        self._names = {"projection": projection.name, "tables": list(projection.tables)}

    @classmethod
    @asynccontextmanager
    async def open(cls, store: EventStore, projection: Projection) -> AsyncIterator[Self]:
        """Connect, and lock the stages of the projection against other rebuilds, until the end of the block.

        Raises:
            RebuildError: another process holds the lock, or something prevents a swap.
        """
        async with await store.connect(role=None) as connection:
            staging = cls(connection, projection)
            with translated():
                await connection.execute("SET client_min_messages = warning")
                [(is_locked,)] = await (await connection.execute(_LOCK_REBUILD, staging._names)).fetchall()
                if not is_locked:
                    raise RebuildError(
                        f"projection {projection.name} is being rebuilt or restored by another process: wait for it"
                    )
                obstacles = await (await connection.execute(_OBSTACLES, staging._names)).fetchall()
            if obstacles:
                reasons = "; ".join(obstacle for (obstacle,) in obstacles)
                raise RebuildError(f"projection {projection.name} cannot be rebuilt: {reasons}")
            yield staging

    async def definition_hashes(self) -> dict[str, str]:
        """Return the hash of the definition that the tables of each stage are made by."""
        with translated():
            return dict(await (await self.connection.execute(_STAGES, self._names)).fetchall())

    async def create(self) -> None:
        """Create the tables of the stage ``next``, empty, in place of those of an unfinished rebuild."""
        definition = {"definition_hash": self._projection.definition_hash, "text": self._projection.text}
        with translated():
            async with self.connection.transaction():
                await self.connection.execute(_DROP_STAGE, self._names | {"stage": "next"})
                await self.connection.execute(_CREATE_NEXT, self._names | definition)
                if self._projection.needs_keys:
                    await self._add_missing(lambda _: None, only_keys=True)
                await self._record("rebuild_started")

    async def add_indexes(self, on_progress: Callable[[str], None]) -> None:
        """Add the indexes, keys, triggers and policies of the live tables that the next ones lack yet."""
        with translated():
            await self.connection.execute("SET maintenance_work_mem = '256MB'")
            await self._add_missing(on_progress)
            for table in self._projection.tables:
                await self._execute_in_next(f'ANALYZE "{table}"')

    async def _add_missing(self, on_progress: Callable[[str], None], *, only_keys: bool = False) -> None:
        missing = await (await self.connection.execute(_MISSING, self._names)).fetchall()
        for name, statement, is_key in missing:
            if is_key or not only_keys:
                on_progress(name)
                await self._execute_in_next(statement)

    async def _execute_in_next(self, statement: str) -> None:
        async with self.connection.transaction():
            await self.connection.execute(_STAGE_PATH, {"stage": "next"})
            await self.connection.execute(statement.encode())

    async def wait_for_older_snapshots(
        self, catch_up: Callable[[], Awaitable[None]], on_progress: Callable[[str], None]
    ) -> None:
        """Return when every transaction has ended whose snapshot is older than rows of the new tables.

        Args:
            catch_up: applies the log to the tables; called repeatedly meanwhile.
        """
        with translated():
            [(mark, running)] = await (await self.connection.execute(_MARK_TRANSACTIONS)).fetchall()
            marked = {"mark": mark, "running": running}
            pause = _FIRST_PAUSE
            while older := await (await self.connection.execute(_OLDER_TRANSACTIONS, marked)).fetchall():
                on_progress(f"waiting for the transaction of process {older[0][0]}")
                await catch_up()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _MAX_PAUSE)

    async def swap(self, stage: Stage, apply_up_to: Callable[[Mapping[int, int]], Awaitable[None]]) -> None:
        """Replace the live tables by those of a stage.

        Args:
            apply_up_to: brings the stage up to the positions of the live tables, by partition; called while no worker
                can move these, so that no reader sees an older state after a newer one.
        """
        names = self._names | {"stage": stage}
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self.connection.transaction():
                    # Workers wait from here on, readers do not.
                    await self.connection.execute("SET LOCAL lock_timeout = '30s'")
                    live: dict[int, int] = dict(await (await self.connection.execute(_LOCK_LIVE, names)).fetchall())
                    await apply_up_to(live)
                    if await (await self.connection.execute(_BEHIND, names)).fetchall():
                        raise _StageIsBehind
                    if stage == "next":
                        await self.connection.execute(_DROP_STAGE, self._names | {"stage": "previous"})
                    await self.connection.execute(f"SET LOCAL lock_timeout = '{LOCK_MILLISECONDS}ms'".encode())
                    await self.connection.execute(_SWAP, names)
                    await self._record("rebuild_finished" if stage == "next" else "rebuild_undone")
                return
            except (errors.LockNotAvailable, _StageIsBehind):
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # so that two swaps do not stay synchronous
                pause = min(pause * 2, _MAX_PAUSE)

    async def _record(self, act: str) -> None:
        await record_act(self.connection, None, act, {"projection": self._projection.name})


class _StageIsBehind(Exception):
    """A stage is behind the live tables for now: the horizon may go back."""
