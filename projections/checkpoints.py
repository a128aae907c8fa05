"""How far the projections are, and waiting until they are far enough."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.errors import NotCaughtUp
from projections.projection import PARTITIONS, PROJECTIONS, Projection

_POSITION = query("projections", "position")
LAGGING = query("projections", "lagging")
_LOOK_SECONDS = 0.01

Written = Mapping[UUID | None, int]
"""Positions by the conversation that they were written to; None stands for any conversation."""


async def applied_position(
    store: EventStore,
    projections: Sequence[Projection] = PROJECTIONS,
    partitions: Sequence[int] = tuple(range(PARTITIONS)),
) -> int:
    """The position that all of the projections have applied, for some partitions of the conversations or for all."""
    names = [projection.name for projection in projections]
    return int(
        (await store.connections.reader.fetch(_POSITION, {"projections": names, "partitions": list(partitions)}))[0][0]
    )


async def wait_for(
    store: EventStore, position: int, *, projections: Sequence[Projection] = PROJECTIONS, timeout: float = 10.0
) -> None:
    """Returns once the projections have applied a position, such as that of an append.

    Args:
        timeout: in seconds.

    Raises:
        NotCaughtUp: they have not within the time.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while (applied := await applied_position(store, projections)) < position:
        if asyncio.get_running_loop().time() > deadline:
            raise NotCaughtUp(
                f"the read tables have applied position {applied}, not yet {position}, after {timeout} seconds: "
                "is a worker running? eventstore up or eventstore project starts one"
            )
        await asyncio.sleep(_LOOK_SECONDS)


async def lagging(store: EventStore, projections: Sequence[Projection], written: Written) -> dict[int, int]:
    """Return the partitions whose conversations have positions that a projection has not applied, and the highest of
    these.

    What was written to the conversations of other partitions is not waited for: each partition has a checkpoint of its
    own.
    """
    given = {
        "projections": [projection.name for projection in projections],
        "conversations": list(written),
        "positions": list(written.values()),
    }
    return dict(await store.connections.reader.fetch(LAGGING, given))


async def wait_for_written(
    store: EventStore, projections: Sequence[Projection], written: Written, *, timeout: float
) -> None:
    """Return once the projections have applied what was written to these conversations.

    Raises:
        NotCaughtUp: they have not within ``timeout`` seconds.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while missing := await lagging(store, projections, written):
        if asyncio.get_running_loop().time() > deadline:
            raise NotCaughtUp(
                f"the read tables have not applied position {max(missing.values())} after {timeout} seconds: "
                "is a worker running? eventstore up or eventstore project starts one"
            )
        await asyncio.sleep(_LOOK_SECONDS)
