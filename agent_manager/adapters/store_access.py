"""Access of adapters to an open store: from any thread and event loop, and again if the connection was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from agent_manager.storage import append_persistently
from eventstore import (
    ANY,
    Append,
    AppendResult,
    Caller,
    ConversationCreated,
    ConversationReactivated,
    ConversationRewound,
    Event,
    EventData,
    EventStore,
    ExpectedVersion,
    NewEvent,
    SyncEventStore,
)
from eventstore.append import append_or_begin
from eventstore.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")
AsyncMethod = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]


class WouldBlock(InputError, asyncio.InvalidStateError):
    """A synchronous call would block the event loop that has to serve it."""


class StoreAccess:
    """An open store, for callers of any thread and of any event loop.

    Attributes:
        store: the asynchronous store. Its own event loop alone may use it: :meth:`run`, :meth:`finish` and :meth:`wait`
            run coroutines there.

    Raises:
        InputError: it is not a store.
    """

    def __init__(self, store: EventStore | SyncEventStore) -> None:
        if not isinstance(store, EventStore | SyncEventStore):
            raise InputError(f"store: expected an EventStore or a SyncEventStore, got a {type(store).__name__}")
        self._synchronous = store if isinstance(store, SyncEventStore) else None
        self.store = store.asynchronous if isinstance(store, SyncEventStore) else store

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the store's loop and return its result."""
        if self._synchronous is not None:
            return await self._synchronous.portal.run(coroutine)
        loop = self._loop(coroutine)
        if loop is asyncio.get_running_loop():
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    async def finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the store's loop to its end, even if the caller is cancelled meanwhile.

        The cancellation is raised when the outcome is certain, so that a caller who reads then sees it.
        """
        task = asyncio.ensure_future(self.run(coroutine))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # mark it as retrieved
            raise

    async def iterate(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Yield the items of an asynchronous generator that runs in the store's loop, and close it at the end."""

        async def next_item() -> tuple[T, ...]:
            async for item in items:
                return (item,)
            return ()

        try:
            while item := await self.run(next_item()):
                yield item[0]
        finally:
            with suppress(RuntimeError):  # it still runs: it was cancelled, and is about to end
                await self.run(items.aclose())

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the store's loop and return its result, for a caller in another thread.

        Raises:
            WouldBlock: the caller runs in the loop itself.
        """
        if self._synchronous is not None:
            return self._synchronous.portal.call(coroutine)
        loop = self._loop(coroutine)
        with suppress(RuntimeError):
            if asyncio.get_running_loop() is loop:
                coroutine.close()
                raise WouldBlock(
                    "this call would block the event loop of its store: await the asynchronous method, such as "
                    "ainvoke, call it from another thread, or use a SyncEventStore"
                )
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def _loop(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.AbstractEventLoop:
        try:
            return self.store.connections.loop
        except BaseException:
            coroutine.close()
            raise

    async def append(
        self,
        caller: Caller,
        conversation_id: UUID,
        events: Sequence[NewEvent],
        expected: ExpectedVersion = ANY,
        *,
        begin: NewEvent | None = None,
    ) -> AppendResult:
        """Append to a conversation, again if the connection was lost.

        Args:
            begin: the event that begins the conversation if it is new.
        """

        async def append(events: Sequence[Any], expected: ExpectedVersion) -> AppendResult:
            return await self.append_all(caller, [Append(conversation_id, events, expected)])

        if begin is None:
            return await append(events, expected)
        return await append_or_begin(append, Append(conversation_id, events, expected), begin)

    async def append_all(self, caller: Caller, appends: Sequence[Append]) -> AppendResult:
        """Append to several conversations at once, again if the connection was lost."""
        return await append_persistently(self.store, caller, appends)


def in_store_loop(method: AsyncMethod[P, T]) -> AsyncMethod[P, T]:
    """Return a method of an adapter that runs in the loop of its store; see :meth:`StoreAccess.run`."""

    @wraps(method)
    async def call(adapter: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        access: StoreAccess = adapter._access
        return await access.run(method(adapter, *args, **kwargs))

    return call


def finished_in_store_loop(method: AsyncMethod[P, T]) -> AsyncMethod[P, T]:
    """Return a method of an adapter that runs in the loop of its store to its end; see :meth:`StoreAccess.finish`."""

    @wraps(method)
    async def call(adapter: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        access: StoreAccess = adapter._access
        return await access.finish(method(adapter, *args, **kwargs))

    return call


RESTART: tuple[EventData, ...] = (ConversationReactivated(), ConversationRewound(to_version=0))
"""Lets a deleted conversation begin again: it is reactivated, and what was before stays hidden."""


def restart(actor: str = "") -> list[NewEvent]:
    """Return new events with the contents of :data:`RESTART`."""
    return [NewEvent(data, actor=actor) for data in RESTART]


def shown(events: Iterable[Event]) -> list[Event]:
    """Return the events of a conversation without those that it hides because it went back to an earlier version.

    Events about the conversation itself remain.
    """
    remaining: list[Event] = []
    for event in events:
        if isinstance(event.data, ConversationRewound):
            to_version = event.data.to_version
            remaining = [
                each for each in remaining if each.version <= to_version or each.event_type.startswith("conversation.")
            ]
        remaining.append(event)
    return remaining


def beginning(conversation_id: UUID, given_id: str, metadata: dict[str, Any] | None = None) -> NewEvent:
    """Return the event that begins the conversation that has an id of the framework."""
    given = given_id if given_id != str(conversation_id) else None
    return NewEvent(ConversationCreated(given_id=given, metadata=metadata))
