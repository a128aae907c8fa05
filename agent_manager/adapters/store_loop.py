"""The event loop of a store, for contracts that have synchronous and asynchronous methods."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from eventstore import EventStore, SyncEventStore
from eventstore.errors import InputError

T = TypeVar("T")


class WouldBlock(InputError, asyncio.InvalidStateError):
    """A synchronous call would block the event loop that has to serve it."""


class StoreLoop:
    """Runs coroutines in the event loop of an open store, for callers of any thread and of any loop.

    Attributes:
        store: the asynchronous store, which only that loop uses.
    """

    def __init__(self, store: EventStore | SyncEventStore) -> None:
        self._synchronous = store if isinstance(store, SyncEventStore) else None
        self.store = store.asynchronous if isinstance(store, SyncEventStore) else store
        self._loop: asyncio.AbstractEventLoop | None = None
        if self._synchronous is None:
            with suppress(RuntimeError):
                self._loop = asyncio.get_running_loop()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine to a caller in another thread.

        Raises:
            WouldBlock: the caller runs in the loop itself, or the store's loop is not known yet.
        """
        if self._synchronous is not None:
            return self._synchronous.portal.call(coroutine)
        loop = self._loop
        with suppress(RuntimeError):
            if asyncio.get_running_loop() is loop:
                loop = None
        if loop is None:
            coroutine.close()
            raise WouldBlock(
                "this call would block the event loop of its store: await the asynchronous method, such as ainvoke, "
                "call it from another thread, or use a SyncEventStore"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine to a caller in any event loop."""
        if self._synchronous is not None:
            return await self._synchronous.portal.run(coroutine)
        current = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = current
        if self._loop is current:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))
