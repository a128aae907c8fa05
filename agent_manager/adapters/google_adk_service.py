"""The base of the services for google-adk: an open store, or one of their own that is opened when it is first used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from agent_manager.adapters.store_access import StoreAccess
from eventstore import (
    AppendResult,
    Caller,
    EventStore,
    ExpectedVersion,
    NewEvent,
    Settings,
    SyncEventStore,
    conversation_uuid,
)
from eventstore.errors import SettingsError

SCHEME = "eventstore"
"""The scheme of the URIs of both services."""

T = TypeVar("T")


def settings_of_uri(uri: str) -> Settings:
    """Return the settings of a store that a URI names."""
    parts = urlsplit(uri)
    parameters = dict(parse_qsl(parts.query))
    values = {"tenant": parameters.pop("tenant")} if "tenant" in parameters else {}
    if parts.scheme != SCHEME or (parts.path.strip("/") and not parts.netloc):
        raise SettingsError(f"the URI of google-adk's services: give {SCHEME}: or {SCHEME}://LOGIN@HOST:PORT/DATABASE")
    if parts.netloc:
        values["database_url"] = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(parameters)))
    return Settings(**values)


class ServiceAccess(StoreAccess):
    """The store of a service, which is opened, and made ready for the service, when it is first used.

    A store of the service's own runs in a thread of its own, so that any event loop can use it.

    Args:
        store: an open store, or the settings of a store of its own.
        prepare: creates in the open store what the service needs.
    """

    def __init__(
        self,
        store: EventStore | SyncEventStore | Settings | None,
        prepare: Callable[[EventStore], Awaitable[None]] | None,
    ) -> None:
        self._own: SyncEventStore | None = None
        if store is None or isinstance(store, Settings):
            store = self._own = SyncEventStore(store)
        super().__init__(store)
        self._prepare = prepare
        self._is_ready = False
        self._preparing = asyncio.Lock()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop of the store, once that is ready."""
        return await super().run(self._when_ready(coroutine))

    async def _when_ready(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            async with self._preparing:
                if not self._is_ready:
                    if self._own is not None:
                        await self.store.open()
                    if self._prepare is not None:
                        await self._prepare(self.store)
                    self._is_ready = True
        except BaseException:
            coroutine.close()
            raise
        return await coroutine

    async def close(self) -> None:
        """Close the service's own store; a store that was given stays open."""
        if self._own is not None:
            await asyncio.to_thread(self._own.close)


class Service:
    """A service on a store: one that the caller has opened, or one of its own."""

    def __init__(
        self,
        store: EventStore | SyncEventStore | Settings | None = None,
        *,
        owned_by_user: bool = False,
        prepare: Callable[[EventStore], Awaitable[None]] | None = None,
    ) -> None:
        self._access = ServiceAccess(store, prepare)
        self._store = self._access.store
        self._owned_by_user = owned_by_user

    async def __aenter__(self) -> Self:
        await self._access.run(asyncio.sleep(0))  # opens the store
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the service's own store; a store that was given stays open."""
        await self._access.close()

    def _caller(self, user_id: str | None = None) -> Caller:
        return self._store.caller(user=user_id if self._owned_by_user else None)

    async def _append(
        self, user_id: str, name: str, events: Sequence[NewEvent], expected: ExpectedVersion
    ) -> AppendResult:
        """Append to the conversation with a name."""
        caller = self._caller(user_id)
        return await self._access.append(caller, conversation_uuid(caller.tenant, name), events, expected)
