"""Subscriptions: stored events first, then new ones as they are appended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from operator import attrgetter

from eventstore.database.pools import View
from eventstore.errors import ConnectionLost, ServerUnreachable
from eventstore.events import Event
from eventstore.notifier import EventBatch
from eventstore.read import Filter, horizon, in_batches, last_event, read_log

RETRY_SECONDS = 0.5
"""Between attempts to reach a server that is away."""


async def follow(
    log: View,
    wait: Callable[[int], Awaitable[EventBatch | None]],
    revive: Callable[[], Awaitable[None]],
    tenant: str | None,
    position: int,
    which: Filter,
    held_bytes: int | None = None,
) -> AsyncGenerator[Event, None]:
    """Events beyond a position, for good.

    Args:
        log: as the one who follows it sees it.
        wait: returns when there may be events beyond a position, and brings them along where it can.
        revive: starts a server that is away, where that is ours to do.
        tenant: whose events; None is everybody's.
        held_bytes: of events that were read and not taken yet, about; None reads pages ahead.
    """

    def read(first: int, final: int) -> AsyncIterator[Event]:
        if held_bytes is None:
            return read_log(log, tenant, first, final, which, limit=None)
        return in_batches(
            lambda after, limit: read_log(log, tenant, after + 1, final, which, limit=limit),
            first - 1,
            attrgetter("position"),
            held_bytes,
        )

    filtered = not which.is_empty or tenant is not None
    news: EventBatch | None = None
    while True:
        try:
            if news is None or not news.are_all:
                final = max(await horizon(log), news.position if news is not None else 0)
                async for event in read(position + 1, final):
                    yield event
                    position = event.position
                if filtered and final > position:
                    # Only as far as an event that exists: after a crash the sequence may fall back behind the horizon.
                    position = max(position, await last_event(log, final))
        except (ConnectionLost, ServerUnreachable):
            await revive()
            await asyncio.sleep(RETRY_SECONDS)
            continue
        news = await wait(position)
        if news is None:
            continue
        for event in news.events:
            if event.position > position:
                if _is_wanted(event, tenant, which):
                    yield event
                position = event.position
        if news.scope is not None:
            position = max(position, news.position)


def _is_wanted(event: Event, tenant: str | None, which: Filter) -> bool:
    """What the read queries ask of an event, of one that is here already."""
    return (
        tenant in (None, event.tenant_id)
        and (which.types is None or event.event_type in which.types)
        and which.actor in (None, event.actor)
    )
