"""Rebuilding read tables in a staging schema, and swapping them in.

What is done stands in functions of the database (migration ``shadow_tables``); this is how they are called: by the
login itself, who must own the tables.

Shadow tables are filled beside the live ones, which workers keep up with the log meanwhile; several connections fill
them, each its partitions of the conversations, while they have no indexes; then they get the indexes, are followed, and
compared with the live ones; and one short transaction swaps the two. What is done stands in the database (the
checkpoints of the stage ``next``, the indexes that are there), so a rebuild that is killed at any instant is resumed by
the next one, unless the projection has changed since.

Nobody reads an empty or half table. Before the swap only the live tables are read. A transaction that is older than
the last row of the fill could find the new tables emptier than they are; the swap waits for those to end. And the rows
and the checkpoints of both stages change hands in the transaction of the swap, under the locks of the live
checkpoints, so no worker applies a batch to the wrong tables.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from psycopg import errors

from eventstore import EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import RebuildError, translated
from eventstore.read import horizon
from projections.apply import ALL_PARTITIONS, Applier, Stage
from projections.checkpoints import applied_position
from projections.compare import Difference, compare_stages
from projections.custom_projections import prepare
from projections.projection import PROJECTIONS, Projection
from projections.throttle import Throttle

# The tables of a stage: made beside the live ones, given what those have, swapped with them, dropped

LOCK_MS = 50
"""How long a swap waits for its locks, with new readers behind it, until it gives way and tries again."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0

_OBSTACLES = query("projections", "obstacles")
_LOCK_REBUILD = query("projections", "lock_rebuild")
_MAKE_NEXT = query("projections", "make_next")
_MISSING = query("projections", "missing")
_DROP = query("projections", "drop_stage")
_STAGES = query("projections", "stages")
_STAGE_PATH = query("projections", "stage_path")
_LOCK_LIVE = query("projections", "lock_live")
_SWAP = query("projections", "swap")
_BEHIND = query("projections", "behind")
_MARK = query("projections", "mark_transactions")
_OLDER = query("projections", "older_transactions")


class _NotYet(Exception):
    """The tables are not up with the live ones at this moment."""


class StagingTables:
    """The stages of one projection, over one connection of the login's."""

    def __init__(self, connection: Connection, projection: Projection) -> None:
        self.connection = connection
        self._projection = projection
        self._names = {"projection": projection.name, "tables": list(projection.tables)}

    @classmethod
    async def open(cls, store: EventStore, projection: Projection) -> StagingTables:
        """Connects, and makes sure that nobody else works on the stages of the projection. Close it when done.

        Raises:
            RebuildError: somebody else does; or something stands in the way of a swap.
        """
        connection = await store.connect(role=None)
        try:
            staging = cls(connection, projection)
            with translated():
                await connection.execute("SET client_min_messages = warning")
                row = await (await connection.execute(_LOCK_REBUILD, staging._names)).fetchone()
                if not row or not row[0]:
                    raise RebuildError(
                        f"projection {projection.name} is being rebuilt or taken back by another process: wait"
                    )
                found = await (await connection.execute(_OBSTACLES, staging._names)).fetchall()
            if found:
                raise RebuildError(f"projection {projection.name} cannot be rebuilt: {'; '.join(o for (o,) in found)}")
        except BaseException:
            await connection.close()
            raise
        return staging

    async def close(self) -> None:
        """Closes the connection."""
        await self.connection.close()

    async def sources(self) -> dict[str, str]:
        """What the tables of each stage that there is are made by."""
        with translated():
            rows = await (await self.connection.execute(_STAGES, self._names)).fetchall()
        return dict(rows)

    async def make_next(self) -> None:
        """Makes empty tables in the place of those that an earlier rebuild left unfinished."""
        parameters = self._names | {"source": self._projection.source, "text": self._projection.text}
        with translated():
            async with self.connection.transaction():
                await self.connection.execute(_DROP, self._names | {"stage": "next"})
                await self.connection.execute(_MAKE_NEXT, parameters)
                if self._projection.needs_keys:
                    await self._add_missing(lambda _: None, only_keys=True)

    async def complete_next(self, on_progress: Callable[[str], None]) -> None:
        """Gives the next tables the indexes, keys, triggers and policies that the live ones have and they lack yet."""
        with translated():
            await self.connection.execute("SET maintenance_work_mem = '256MB'")
            await self._add_missing(on_progress)
            for table in self._projection.tables:
                async with self.connection.transaction():
                    await self.connection.execute(_STAGE_PATH, {"stage": "next"})
                    await self.connection.execute(f'ANALYZE "{table}"'.encode())

    async def _add_missing(self, on_progress: Callable[[str], None], *, only_keys: bool = False) -> None:
        missing = await (await self.connection.execute(_MISSING, self._names)).fetchall()
        for what, statement, is_key in missing:
            if only_keys and not is_key:
                continue
            on_progress(what)
            async with self.connection.transaction():
                await self.connection.execute(_STAGE_PATH, {"stage": "next"})
                await self.connection.execute(statement.encode())

    async def wait_for_older_snapshots(
        self, work: Callable[[], Awaitable[None]], on_progress: Callable[[str], None]
    ) -> None:
        """Returns when every transaction has ended whose snapshot does not show the new tables full.

        Args:
            work: what to do again and again meanwhile.
        """
        with translated():
            mark = await (await self.connection.execute(_MARK)).fetchone()
            assert mark is not None
            pause = _FIRST_PAUSE
            while True:
                older = await (await self.connection.execute(_OLDER, {"mark": mark[0], "running": mark[1]})).fetchall()
                if not older:
                    return
                on_progress(f"waiting for the transaction of process {older[0][0]}")
                await work()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def swap(self, stage: Stage, catch_up: Callable[[], Awaitable[None]]) -> None:
        """Puts the tables of a stage in the place of the live ones.

        Args:
            catch_up: brings the stage up with the log; called while nobody follows the live tables, so that no reader
                sees them go back.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self.connection.transaction():
                    # Workers stop here; readers do not feel it.
                    await self.connection.execute("SET LOCAL lock_timeout = '30s'")
                    await self.connection.execute(_LOCK_LIVE, self._names)
                    await catch_up()
                    if await (await self.connection.execute(_BEHIND, self._names | {"stage": stage})).fetchall():
                        raise _NotYet  # the horizon is not monotone
                    if stage == "next":
                        await self.connection.execute(_DROP, self._names | {"stage": "previous"})
                    await self.connection.execute(f"SET LOCAL lock_timeout = '{LOCK_MS}ms'".encode())
                    await self.connection.execute(_SWAP, self._names | {"stage": stage})
                return
            except (errors.LockNotAvailable, _NotYet):
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # two must not keep step
                pause = min(pause * 2, _LONGEST_PAUSE)


# Rebuilding read tables without taking them away

JOBS = 2
"""Connections that fill the shadow tables."""


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """How far a rebuild is.

    Attributes:
        doing: in a few words.
        position: up to which the shadow tables are filled.
        goal: the end of the log when the rebuild began.
    """

    projection: str
    doing: str
    position: int
    goal: int


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Attributes:
        is_new: whether the projection had changed since the tables were made.
        differences: between the old tables and the new ones, by conversation; the first hundred.
        seconds: from the beginning to the swap.
    """

    projection: str
    position: int
    is_new: bool
    differences: list[Difference] = field(default_factory=list)
    seconds: float = 0.0


OnProgress = Callable[[RebuildProgress], None]


class Rebuild:
    """One rebuild of one projection."""

    def __init__(
        self,
        store: EventStore,
        projection: Projection,
        *,
        jobs: int = JOBS,
        accept_differences: bool = False,
        on_progress: OnProgress = lambda _: None,
    ) -> None:
        """A rebuild that has not begun.

        Args:
            jobs: connections that fill.
            accept_differences: swap also where the projection is the same and its rows are not.
            on_progress: called with the progress.
        """
        self._store = store
        self._projection = projection
        self._jobs = max(1, min(jobs, len(ALL_PARTITIONS)))
        self._accept = accept_differences
        self._on_progress = on_progress
        self._goal = self._position = 0
        self._appliers: list[Applier] = []

    async def run(self) -> Rebuilt:
        """Fills, compares and swaps.

        Raises:
            RebuildError: something stands in the way; or the projection is the same and its rows are not.
        """
        began = monotonic()
        projection = self._projection
        await prepare(self._store, [projection])
        try:
            for _ in range(self._jobs):
                self._appliers.append(await Applier.open(self._store, projection.largest_batch))
            await self._appliers[0].register(projection)
            staging = await StagingTables.open(self._store, projection)
            try:
                sources = await staging.sources()
                if sources.get("next") != projection.source:
                    await staging.make_next()
                is_new = sources.get("live") != projection.source
                await self._fill()
                self._say("indexes")
                await staging.complete_next(lambda what: self._say(f"index {what}"))
                await self._follow()
                await staging.wait_for_older_snapshots(self._follow, self._say)
                self._say("comparing")
                differences = await compare_stages(self._store, projection, self._appliers[0], staging.connection)
                if differences and not is_new and not self._accept:
                    raise RebuildError(_different(projection, differences))
                self._say("swapping")
                await staging.swap("next", self._follow)
            finally:
                await staging.close()
        finally:
            for applier in self._appliers:
                await applier.close()
        position = await applied_position(self._store, [projection])
        return Rebuilt(projection.name, position, is_new, differences, monotonic() - began)

    async def _fill(self) -> None:
        self._goal = await horizon(self._store.connections.projector)
        self._say("filling")
        parts = [list(ALL_PARTITIONS[number :: self._jobs]) for number in range(self._jobs)]
        positions = [0] * self._jobs

        async def fill(number: int) -> None:
            applier = self._appliers[number]
            with translated():
                # Without statistics and indexes a nested loop would read the whole table for each row.
                await applier.connection.execute("SET enable_nestloop = off")
            way = Throttle(self._store, self._goal)
            while applied := await applier.apply(
                self._projection, stage="next", partitions=parts[number], until=self._goal, size=way.size
            ):
                positions[number] = applied.position
                self._position = min(positions)
                self._say("filling")
                await way.after(applied.seconds)
            with translated():
                await applier.connection.execute("RESET enable_nestloop")

        tasks = [asyncio.create_task(fill(number)) for number in range(self._jobs)]
        try:
            await asyncio.gather(*tasks)
        finally:
            await cancel_and_wait(tasks)

    async def _follow(self) -> None:
        await self._appliers[0].catch_up([self._projection], stage="next")

    def _say(self, doing: str) -> None:
        self._on_progress(RebuildProgress(self._projection.name, doing, self._position, self._goal))


async def rebuild(
    store: EventStore,
    projections: Sequence[Projection] = PROJECTIONS,
    *,
    jobs: int = JOBS,
    accept_differences: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> list[Rebuilt]:
    """Rebuilds the read tables of projections, one after the other. See :class:`Rebuild`."""
    return [
        await Rebuild(
            store, projection, jobs=jobs, accept_differences=accept_differences, on_progress=on_progress
        ).run()
        for projection in projections
    ]


async def undo(store: EventStore, projections: Sequence[Projection] = PROJECTIONS) -> None:
    """Takes the previous tables back, after they were caught up by the text that made them.

    Raises:
        RebuildError: there are none, or what made them is not known any more.
    """
    for projection in projections:
        applier = await Applier.open(store)
        staging = await StagingTables.open(store, projection)
        try:
            if "previous" not in await staging.sources():
                raise RebuildError(f"projection {projection.name} has no previous tables: nothing was rebuilt")
            made_by = await applier.register(projection, "previous")
            if made_by is None:
                raise RebuildError(
                    f"the previous tables of {projection.name} were made by Python code that this version does not have"
                )
            follow = partial(applier.catch_up, [made_by], stage="previous")
            await follow()
            await staging.wait_for_older_snapshots(follow, lambda _: None)
            await staging.swap("previous", follow)
        finally:
            await staging.close()
            await applier.close()


def _different(projection: Projection, differences: Sequence[Difference]) -> str:
    first = differences[0]
    more = f" and {len(differences) - 1:,} more" if len(differences) > 1 else ""
    return (
        f"the new tables of {projection.name} differ from the live ones though the projection is the same: "
        f"{first}{more}; eventstore verify {projection.name} names the rows; nothing was swapped; to do so anyway: "
        f"eventstore rebuild {projection.name} --accept-differences"
    )
