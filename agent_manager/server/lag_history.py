"""The recent lags of the projections, sampled by the server for all who look at them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from eventstore import EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.database.queries import query
from eventstore.errors import EventStoreError
from projections import load_projections
from projections.status import Lag, read_lags, read_log_state

SAMPLE_SECONDS = 10.0
"""The time from one sample to the next. A sample is three short queries, whatever the size of the log."""
SAMPLES = 360
"""The samples that are kept: those of the last hour."""
FRESH_SECONDS = 2.0
"""The age up to which a sample is shown as the present state, however many look at it."""
_PROGRESS = query("agent_manager.server", "progress")


@dataclass(frozen=True)
class Progress:
    """The progress of the live tables of a projection, over all partitions.

    Attributes:
        position: the lowest that a partition has applied.
        updated_at: of the last batch.
        batch_events, batch_seconds: of the last batch; None before the first one.
        definition_hash: of the definition that made the tables.
        has_previous: whether tables that a rebuild has replaced are kept.
    """

    position: int
    updated_at: datetime
    batch_events: int | None
    batch_seconds: float | None
    definition_hash: str
    has_previous: bool


@dataclass(frozen=True)
class Sample:
    """The state of the log and of the projections at an instant.

    Attributes:
        at: when, by the monotonic clock.
    """

    at: float
    last_position: int
    horizon_distance: int
    lags: tuple[Lag, ...]
    progress: dict[str, Progress]


class LagHistory:
    """Samples of the last hour, taken in the background from :meth:`start` on."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._names = [projection.name for projection in load_projections(store.settings.projections)]
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._now: Sample | None = None
        self._reading = asyncio.Lock()
        self._sampling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to take samples."""
        self._sampling = asyncio.create_task(self._sample())

    async def close(self) -> None:
        """Stop."""
        if self._sampling is not None:
            await cancel_and_wait([self._sampling])

    async def _sample(self) -> None:
        while True:
            with suppress(EventStoreError):  # a server that is away has no lag to show
                self._samples.append(await self.read())
            await asyncio.sleep(SAMPLE_SECONDS)

    async def samples(self) -> list[Sample]:
        """Return the samples, the present state last."""
        async with self._reading:
            if self._now is None or monotonic() - self._now.at > FRESH_SECONDS:
                await self.read()
        assert self._now is not None
        return [*(sample for sample in self._samples if sample.at < self._now.at), self._now]

    async def read(self) -> Sample:
        """Return the state at this moment."""
        state = await read_log_state(self._store)
        lags = await read_lags(self._store, self._names)
        rows = await self._store.connections.projector.fetch(_PROGRESS)
        progress = {name: Progress(*row) for name, *row in rows}
        self._now = Sample(monotonic(), state.last_position, state.horizon_distance, tuple(lags), progress)
        return self._now
