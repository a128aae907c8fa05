"""The synchronous event store, and the thread with the event loop that runs it.

The connection pools belong to that loop and are used from no other, so callers may come from any thread, even from one
that runs an event loop itself.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from eventstore.concurrency import cancel_and_wait
from eventstore.database.fork_safety import abandon_in_child
from eventstore.errors import InputError, StoreClosed
from eventstore.settings import Settings
from eventstore.store import EventStore

P = ParamSpec("P")
T = TypeVar("T")

_READ_AHEAD_EVENTS = 100


def synchronous(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """Return a method that runs a method of its object's ``asynchronous`` counterpart to its end, by its ``portal``."""

    @wraps(method)
    def call(instance: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = instance.portal.call(method(instance.asynchronous, *args, **kwargs))
        return result

    return call


def _synchronous_iterator(
    method: Callable[Concatenate[EventStore, P], AsyncIterator[T]],
) -> Callable[Concatenate[SyncEventStore, P], Iterator[T]]:
    """Return a method that iterates over the items of a method of the asynchronous store."""

    @wraps(method)
    def call(store: SyncEventStore, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return store.portal.iterate(method(store.asynchronous, *args, **kwargs))

    signature = inspect.signature(method)
    returns = signature.return_annotation.replace("AsyncIterator", "Iterator")
    call.__signature__ = signature.replace(return_annotation=returns)  # type: ignore[attr-defined]  # which documentation shows
    return call


class SyncEventStore:
    """The log of one database, for any thread. Its methods are those of :class:`EventStore`.

    Open it as a context manager::

        with SyncEventStore() as store:
            store.append(conversation_id, [MessageAdded(role="user", content="hello")])
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.asynchronous = EventStore(settings)
        self.portal = Portal()

    def __enter__(self) -> Self:
        if self.portal.is_closed:  # the store was closed, or was opened by the parent of this process
            self.portal = Portal()
        try:
            self.portal.call(self.asynchronous.open())
        except BaseException:
            self.portal.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, leave the embedded server and stop the event loop."""
        if self.portal.is_closed:
            return
        try:
            self.portal.call(self.asynchronous.close())
        finally:
            self.portal.close()

    append = synchronous(EventStore.append)
    append_all = synchronous(EventStore.append_all)
    fork = synchronous(EventStore.fork)
    erase = synchronous(EventStore.erase)
    erase_user = _synchronous_iterator(EventStore.erase_user)
    read = _synchronous_iterator(EventStore.read)
    read_log = _synchronous_iterator(EventStore.read_log)
    subscribe = _synchronous_iterator(EventStore.subscribe)
    replay = _synchronous_iterator(EventStore.replay)


class Portal:
    """An event loop that runs in a separate thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="eventstore-loop", daemon=True)
        self._closing = threading.Lock()
        self._closed = self._is_forked = False
        self._thread.start()
        abandon_in_child(self)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return its result. If it is interrupted (Ctrl-C), cancel the coroutine.

        Raises:
            StoreClosed: the portal is closed, or was closed meanwhile.
            InputError: the caller runs in the loop itself.
        """
        future = self._submit(coroutine)
        try:
            if threading.current_thread() is self._thread:
                raise InputError(
                    "this call comes from the store's own loop and would block it: use the asynchronous store"
                )
            return future.result()
        except CancelledError:
            raise StoreClosed from None  # only close() cancels coroutines of this loop
        except BaseException:
            future.cancel()
            raise

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return its result, for a caller in another event loop.

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
        """Iterate over an asynchronous iterator, and close it when the iteration ends."""
        queue: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue(_READ_AHEAD_EVENTS)

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
        """True if the portal was closed, or belongs to the parent of this process."""
        return self._closed

    def abandon(self) -> None:
        """Close the portal in a forked child process, in which its thread does not exist. Called automatically."""
        self._closed = self._is_forked = True
        self._closing = threading.Lock()  # a thread of the parent may have held the old one

    def close(self) -> None:
        """Stop the loop and its thread. Calls that are still running raise :class:`StoreClosed`."""

        async def cancel_all() -> None:
            await cancel_and_wait(task for task in asyncio.all_tasks() if task is not asyncio.current_task())
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
