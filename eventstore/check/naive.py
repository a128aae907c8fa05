"""A reader that is wrong on purpose: it goes by position alone, without the gate.

It is here so that the checker itself can be checked: ``eventstore check --reader eventstore.check.naive:Naive`` must
find what it misses, and the tests see to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from eventstore.check.adapter import Batch, Seen
from eventstore.check.ours import Opened, seen
from eventstore.check.outcomes import told_apart
from eventstore.database.connection import PROJECTOR
from eventstore.database.queries import query

_BATCH = query("eventstore.check", "batch")
_HIGHEST = 2**63 - 1
_EVENTS = 500
_SECONDS = 0.005


class Naive(Opened):
    """Reads what it finds beyond its position, and takes the highest position found for its next one."""

    async def subscribe(self, after: int, tenant: str | None) -> AsyncGenerator[Seen, None]:
        """By position alone."""
        async for events, _ in self.batches(after):
            for event in events:
                if tenant in (None, event.tenant):
                    yield event

    async def batches(self, after: int) -> AsyncGenerator[Batch, None]:
        """By position alone."""
        with told_apart():
            async with await self.store.connect(PROJECTOR) as connection:
                while True:
                    cursor = await connection.execute(_BATCH, {"after": after, "last": _HIGHEST, "limit": _EVENTS})
                    events = [seen(*row) for row in await cursor.fetchall()]
                    if events:
                        after = events[-1].position
                        yield events, after
                    else:
                        await asyncio.sleep(_SECONDS)
