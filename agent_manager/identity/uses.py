"""When keys were last used: noted at most once a minute for each, and off the path of whoever uses them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cachetools import TTLCache

from eventstore.errors import EventStoreError

_log = logging.getLogger(__name__)

# A second more than the server's minute, so that what is due here is due there.
_SECONDS = 61.0
_KEYS = 10_000


class Uses:
    """Collects the ids of keys that were used, and writes them down in a task of its own.

    Args:
        write: notes that these keys were used just now.
    """

    def __init__(self, write: Callable[[list[str]], Awaitable[None]]) -> None:
        self._write = write
        self._noted: TTLCache[str, None] = TTLCache(_KEYS, _SECONDS)
        self._due: set[str] = set()
        self._writing: asyncio.Task[None] | None = None

    def note(self, key: str) -> None:
        """The key was used just now."""
        if key in self._noted:
            return
        self._noted[key] = None
        self._due.add(key)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Waits until all is written."""
        if self._writing is not None:
            await self._writing

    async def _write_all(self) -> None:
        try:
            while self._due:
                due, self._due = sorted(self._due), set()
                try:
                    await self._write(due)
                except EventStoreError as error:  # those keys say so again in a minute
                    _log.warning("the last use of %d key(s) could not be noted: %s", len(due), error)
        finally:
            self._writing = None
