"""Rebuilding read tables without taking them away.

Shadow tables are filled beside the live ones, which workers keep up with the log meanwhile; several connections fill
them, each its shares of the conversations, while they have no indexes; then they get the indexes, are followed, and
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

from eventstore import EventStore
from eventstore.database.translate import translated
from eventstore.ending import end
from eventstore.errors import RebuildError
from eventstore.read import horizon
from projections.apply import ALL_SHARES, Applier
from projections.checkpoints import applied_position
from projections.compare import Difference, compare_stages
from projections.giving_way import GivingWay
from projections.own import prepare
from projections.projection import PROJECTIONS, Projection
from projections.shadows import Shadows

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


Tell = Callable[[RebuildProgress], None]


class Rebuild:
    """One rebuild of one projection."""

    def __init__(
        self,
        store: EventStore,
        projection: Projection,
        *,
        jobs: int = JOBS,
        accept_differences: bool = False,
        tell: Tell = lambda _: None,
    ) -> None:
        """A rebuild that has not begun.

        Args:
            jobs: connections that fill.
            accept_differences: swap also where the projection is the same and its rows are not.
            tell: called with the progress.
        """
        self._store = store
        self._projection = projection
        self._jobs = max(1, min(jobs, len(ALL_SHARES)))
        self._accept = accept_differences
        self._tell = tell
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
            shadows = await Shadows.open(self._store, projection)
            try:
                sources = await shadows.sources()
                if sources.get("next") != projection.source:
                    await shadows.make_next()
                is_new = sources.get("live") != projection.source
                await self._fill()
                self._say("indexes")
                await shadows.complete_next(lambda what: self._say(f"index {what}"))
                await self._follow()
                await shadows.outlive_older(self._follow, self._say)
                self._say("comparing")
                differences = await compare_stages(self._store, projection, self._appliers[0], shadows.connection)
                if differences and not is_new and not self._accept:
                    raise RebuildError(_different(projection, differences))
                self._say("swapping")
                await shadows.swap("next", self._follow)
            finally:
                await shadows.close()
        finally:
            for applier in self._appliers:
                await applier.close()
        position = await applied_position(self._store, [projection])
        return Rebuilt(projection.name, position, is_new, differences, monotonic() - began)

    async def _fill(self) -> None:
        self._goal = await horizon(self._store.parts.projector)
        self._say("filling")
        parts = [list(ALL_SHARES[number :: self._jobs]) for number in range(self._jobs)]
        positions = [0] * self._jobs

        async def fill(number: int) -> None:
            applier = self._appliers[number]
            with translated():
                # Without statistics and indexes a nested loop would read the whole table for each row.
                await applier.connection.execute("SET enable_nestloop = off")
            way = GivingWay(self._store, self._goal)
            while applied := await applier.apply(
                self._projection, stage="next", shares=parts[number], until=self._goal, size=way.size
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
            await end(tasks)

    async def _follow(self) -> None:
        await self._appliers[0].catch_up([self._projection], stage="next")

    def _say(self, doing: str) -> None:
        self._tell(RebuildProgress(self._projection.name, doing, self._position, self._goal))


async def rebuild(
    store: EventStore,
    projections: Sequence[Projection] = PROJECTIONS,
    *,
    jobs: int = JOBS,
    accept_differences: bool = False,
    tell: Tell = lambda _: None,
) -> list[Rebuilt]:
    """Rebuilds the read tables of projections, one after the other. See :class:`Rebuild`."""
    return [
        await Rebuild(store, projection, jobs=jobs, accept_differences=accept_differences, tell=tell).run()
        for projection in projections
    ]


async def undo(store: EventStore, projections: Sequence[Projection] = PROJECTIONS) -> None:
    """Takes the previous tables back, after they were caught up by the text that made them.

    Raises:
        RebuildError: there are none, or what made them is not known any more.
    """
    for projection in projections:
        applier = await Applier.open(store)
        shadows = await Shadows.open(store, projection)
        try:
            if "previous" not in await shadows.sources():
                raise RebuildError(f"projection {projection.name} has no previous tables: nothing was rebuilt")
            made_by = await applier.register(projection, "previous")
            if made_by is None:
                raise RebuildError(
                    f"the previous tables of {projection.name} were made by Python code that this version does not have"
                )
            follow = partial(applier.catch_up, [made_by], stage="previous")
            await follow()
            await shadows.outlive_older(follow, lambda _: None)
            await shadows.swap("previous", follow)
        finally:
            await shadows.close()
            await applier.close()


def _different(projection: Projection, differences: Sequence[Difference]) -> str:
    first = differences[0]
    more = f" and {len(differences) - 1:,} more" if len(differences) > 1 else ""
    return (
        f"the new tables of {projection.name} differ from the live ones though the projection is the same: "
        f"{first}{more}; eventstore verify {projection.name} names the rows; nothing was swapped; to do so anyway: "
        f"eventstore rebuild {projection.name} --accept-differences"
    )
