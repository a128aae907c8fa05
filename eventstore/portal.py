"""One private event loop in a thread, through which synchronous code reaches the asynchronous store.

The pools belong to that loop and are touched from no other, so callers may come from any thread, also from one that
runs an event loop of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from typing import Any, TypeVar, cast

from eventstore.database.forking import abandon_in_child
from eventstore.ending import end
from eventstore.errors import InputError, StoreClosed

T = TypeVar("T")

_READ_AHEAD = 100  # events that wait for a synchronous reader


class Portal:
    """A running event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="eventstore-loop", daemon=True)
        self._closing = threading.Lock()
        self._closed = self._is_forked = False
        self._thread.start()
        abandon_in_child(self)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine to its end and returns what it returns, or raises what it raises.

        Interrupted (Ctrl-C), it cancels the coroutine.

        Raises:
            StoreClosed: the portal is closed, or was closed meanwhile.
        """
        future = self._submit(coroutine)
        try:
            if threading.current_thread() is self._thread:
                raise InputError("this was called from the store's own loop, which it would wait for: await instead")
            return future.result()
        except CancelledError:
            raise StoreClosed from None  # nobody but close() cancels what runs here
        except BaseException:
            future.cancel()
            raise

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The same for a coroutine of another loop, in whichever thread.

        Raises:
            StoreClosed: the portal is closed, or was closed meanwhile.
        """
        future = self._submit(coroutine)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise StoreClosed from None

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        with self._closing:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        coroutine.close()
        raise StoreClosed(is_forked=self._is_forked)

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """The items of an asynchronous iterator; closes it when the loop over them is left."""
        queue: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue(_READ_AHEAD)

        async def fill() -> None:
            try:
                async with aclosing(cast(Any, source)) as items:
                    async for item in items:
                        await queue.put((True, item))
                await queue.put((False, None))
            except Exception as error:
                await queue.put((False, error))

        async def drain() -> list[tuple[bool, Any]]:
            entries = [await queue.get()]
            while not queue.empty():
                entries.append(queue.get_nowait())
            return entries

        filling = self._submit(fill())
        try:
            while True:
                for more, item in self.call(drain()):
                    if more:
                        yield item
                    elif item is None:
                        return
                    else:
                        raise item
        finally:
            filling.cancel()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or belongs to the parent of this process."""
        return self._closed

    def abandon(self) -> None:
        """Be closed in a forked process, in which the thread of the loop does not exist; called by itself."""
        self._closed = self._is_forked = True
        self._closing = threading.Lock()  # another thread of the parent may have held it

    def close(self) -> None:
        """Stops the loop and its thread. Whoever still uses it gets :class:`StoreClosed`."""

        async def cancel_all() -> None:
            await end(task for task in asyncio.all_tasks() if task is not asyncio.current_task())
            await asyncio.get_running_loop().shutdown_asyncgens()

        with self._closing:
            if self._closed:
                return
            self._closed = True
            ending = asyncio.run_coroutine_threadsafe(cancel_all(), self._loop)
        ending.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
