"""Subscriptions: stored events first, then new ones as they are appended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from operator import attrgetter

from eventstore.database.connection import RECONNECT_SECONDS
from eventstore.database.pools import ScopedPool
from eventstore.errors import ConnectionLost, ServerUnreachable
from eventstore.events import Event
from eventstore.notifier import EventBatch
from eventstore.read import Filter, horizon, in_batches, last_event, read_log


async def follow_log(
    log: ScopedPool,
    wait: Callable[[int], Awaitable[EventBatch | None]],
    ensure_running: Callable[[], Awaitable[None]],
    position: int,
    event_filter: Filter,
    held_bytes: int | None = None,
) -> AsyncGenerator[Event, None]:
    """Iterate over the events after a position, without end.

    Args:
        log: the log in the scope of the subscriber.
        wait: waits until there may be events after a position, and returns them if it can.
        ensure_running: restarts the server, if it is the embedded one and has died.
        held_bytes: approximate size of the events that are read ahead; None reads pages ahead.
    """

    def read(first: int, final: int) -> AsyncIterator[Event]:
        if held_bytes is None:
            return read_log(log, first, final, event_filter, limit=None)
        return in_batches(
            lambda after, limit: read_log(log, after + 1, final, event_filter, limit=limit),
            first - 1,
            attrgetter("position"),
            held_bytes,
        )

    batch: EventBatch | None = None
    while True:
        try:
            if batch is None or not batch.is_complete:
                final = max(await horizon(log), batch.position if batch is not None else 0)
                async for event in read(position + 1, final):
                    yield event
                    position = event.position
                if not event_filter.is_empty and final > position:
                    # Only up to an event that exists: after a crash the sequence may fall back behind the horizon.
                    position = max(position, await last_event(log, final))
        except (ConnectionLost, ServerUnreachable):
            await ensure_running()
            await asyncio.sleep(RECONNECT_SECONDS)
            continue
        batch = await wait(position)
        if batch is None:
            continue
        for event in batch.events:
            if event.position > position:
                if event_filter.matches(event):
                    yield event
                position = event.position
        if batch.scope is not None:
            position = max(position, batch.position)
