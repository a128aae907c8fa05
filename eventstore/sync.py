"""The synchronous event store, and the thread with an event loop that it uses.

The pools belong to that loop and are touched from no other, so callers may come from any thread, also from one that
runs an event loop of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import aclosing
from datetime import datetime
from typing import Any, Self, TypeVar, cast
from uuid import UUID

from eventstore.append import Append
from eventstore.concurrency import cancel_and_wait
from eventstore.database.forking import abandon_in_child
from eventstore.database.settings import Settings
from eventstore.errors import InputError, StoreClosed
from eventstore.events import ANY, AppendResult, Event, ExpectedVersion, NewEvent
from eventstore.store import EventStore
from eventstore.vocabulary import EventData

# One private event loop in a thread, through which synchronous code reaches the asynchronous store

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


# The event store for synchronous code; every method does what its namesake in :class:`EventStore` does


class SyncEventStore:
    """The log of one database, for any thread.

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
        """Closes all connections, leaves the embedded server and ends the private loop."""
        if self.portal.is_closed:
            return
        try:
            self.portal.call(self.asynchronous.close())
        finally:
            self.portal.close()

    def append(
        self,
        conversation_id: UUID | str,
        events: Sequence[EventData | NewEvent],
        *,
        expected: ExpectedVersion = ANY,
        actor: str = "",
        tenant: str | None = None,
        user: str | None = None,
    ) -> AppendResult:
        """See :meth:`EventStore.append`."""
        return self.portal.call(
            self.asynchronous.append(conversation_id, events, expected=expected, actor=actor, tenant=tenant, user=user)
        )

    def append_all(
        self, appends: Iterable[Append], *, actor: str = "", tenant: str | None = None, user: str | None = None
    ) -> AppendResult:
        """See :meth:`EventStore.append_all`."""
        return self.portal.call(self.asynchronous.append_all(appends, actor=actor, tenant=tenant, user=user))

    def read(
        self,
        conversation_id: UUID | str,
        *,
        after: int = 0,
        until_version: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
        types: Sequence[str] | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        tenant: str | None = None,
        user: str | None = None,
    ) -> Iterator[Event]:
        """See :meth:`EventStore.read`."""
        return self.portal.iterate(
            self.asynchronous.read(
                conversation_id,
                after=after,
                until_version=until_version,
                backwards=backwards,
                limit=limit,
                types=types,
                actor=actor,
                since=since,
                until=until,
                tenant=tenant,
                user=user,
            )
        )

    def read_log(
        self,
        *,
        after: int = 0,
        until_position: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
        types: Sequence[str] | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        tenant: str | None = None,
        user: str | None = None,
        all_tenants: bool = False,
    ) -> Iterator[Event]:
        """See :meth:`EventStore.read_log`."""
        return self.portal.iterate(
            self.asynchronous.read_log(
                after=after,
                until_position=until_position,
                backwards=backwards,
                limit=limit,
                types=types,
                actor=actor,
                since=since,
                until=until,
                tenant=tenant,
                user=user,
                all_tenants=all_tenants,
            )
        )

    def subscribe(
        self,
        *,
        after: int = 0,
        types: Sequence[str] | None = None,
        actor: str | None = None,
        tenant: str | None = None,
        user: str | None = None,
        all_tenants: bool = False,
    ) -> Iterator[Event]:
        """See :meth:`EventStore.subscribe`."""
        return self.portal.iterate(
            self.asynchronous.subscribe(
                after=after, types=types, actor=actor, tenant=tenant, user=user, all_tenants=all_tenants
            )
        )
