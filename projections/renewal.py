"""Rebuilding, beside a running worker, read tables that another version of their projection made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.ending import end
from eventstore.errors import EventStoreError
from projections.projection import Projection
from projections.rebuild import Rebuild

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until it is looked again whether something is outdated still."""

log = logging.getLogger(__name__)

_OUTDATED = query("projections", "outdated")


class Renewal:
    """Looks when its worker begins to work; what is outdated it rebuilds, one after the other, until nothing is."""

    def __init__(self, store: EventStore, projections: Sequence[Projection]) -> None:
        self._store = store
        self._projections = projections
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Begins, the first time that it is called."""
        if self._task is None:
            self._task = asyncio.create_task(self._renew(), name="eventstore-renewal")

    async def close(self) -> None:
        """Ends what is under way; it is resumed by the next worker."""
        if self._task is not None:
            await end((self._task,))

    async def _renew(self) -> None:
        pause, said = FIRST_PAUSE, ""
        while True:
            try:
                await self._renew_all()
                return
            except EventStoreError as error:  # perhaps another worker is at it: then it will be done
                if str(error) != said:
                    said = str(error)
                    log.warning("rebuilding: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _renew_all(self) -> None:
        names = [projection.name for projection in self._projections]
        sources = [projection.source for projection in self._projections]
        rows = await self._store.parts.projector.fetch(_OUTDATED, {"projections": names, "sources": sources})
        outdated = {name for (name,) in rows}
        for projection in self._projections:
            if projection.name in outdated:
                log.warning("projection %s has changed: its tables are rebuilt", projection.name)
                await Rebuild(self._store, projection).run()
