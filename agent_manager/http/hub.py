"""One subscription for all streams of single conversations: it tells a stream that its conversation has changed.

A stream reads its conversation itself, by version, so that nothing is queued for a client that is slow. It registers
here before it reads: an event that the read does not see is committed later, and the subscription, which stood at or
before the end of the log when the stream registered, comes to it then.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from agent_manager.http.looking import end_of_log
from eventstore import EventStore
from eventstore.ending import end


class Hub:
    """Watches the log of one tenant while anybody is registered."""

    def __init__(self, store: EventStore, tenant: str) -> None:
        self._store = store
        self._tenant = tenant
        self._waiting: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._watching: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Begins to watch, unless it does so already."""
        async with self._opening:
            if self._watching is None or self._watching.done():
                position = await end_of_log(self._store)
                self._watching = asyncio.create_task(self._watch(position))

    @contextmanager
    def changes(self, conversation_id: UUID) -> Iterator[asyncio.Event]:
        """Is set whenever the conversation has changed, until the end of the block."""
        changed = asyncio.Event()
        self._waiting[conversation_id].add(changed)
        try:
            yield changed
        finally:
            waiting = self._waiting[conversation_id]
            waiting.discard(changed)
            if not waiting:
                del self._waiting[conversation_id]

    async def close(self) -> None:
        """Watches no longer."""
        if self._watching is not None:
            await end([self._watching])
            self._watching = None

    async def _watch(self, position: int) -> None:
        try:
            async for event in self._store.subscribe(after=position, tenant=self._tenant):
                for changed in self._waiting.get(event.conversation_id, ()):
                    changed.set()
        finally:
            # Should it fail, those who wait look for themselves, and meet the error or open it anew.
            for changes in self._waiting.values():
                for changed in changes:
                    changed.set()
