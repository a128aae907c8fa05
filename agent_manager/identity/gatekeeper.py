"""From a bearer token to who calls: static keys and JWT, remembered for half a second."""

from __future__ import annotations

from typing import Self

from agent_manager.identity.errors import Unauthorized
from agent_manager.identity.identity import Identity
from eventstore import EventStore, Settings


class Gatekeeper:
    """Tells who calls, for the coroutines of one event loop.

    Use it as a context manager within that of the store::

        async with EventStore(settings) as store, Gatekeeper(store, settings) as gatekeeper:
            identity = await gatekeeper.identify(token)
    """

    def __init__(self, store: EventStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connects, and reads the keys that JWT are checked with.

        Raises:
            SettingsError: an ``EVENTSTORE_JWT_…`` setting cannot be used.
        """

    async def close(self) -> None:
        """Notes the last uses that were not noted yet, and closes the connections."""

    async def identify(self, token: str) -> Identity:
        """Who bears the token.

        Raises:
            Unauthorized: nobody does, or not any more.
            ServerError: it cannot be said now, because the server is away.
        """
        raise Unauthorized
