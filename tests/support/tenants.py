"""Many tenants of one open store, so that each test has its own log in a shared database."""

from __future__ import annotations

from eventstore import EventStore
from eventstore.store_connections import StoreConnections


class TenantStore(EventStore):
    """An open store for another tenant, over the connections of an open store, which stays open."""

    def __init__(self, opened: EventStore, tenant: str) -> None:
        super().__init__(opened.settings.model_copy(update={"tenant": tenant}))
        self._opened = opened
        self.server = opened.server

    @property
    def connections(self) -> StoreConnections:
        """The connections of the opened store."""
        return self._opened.connections

    async def open(self) -> None:
        """Do nothing: the connections are open."""

    async def close(self) -> None:
        """Do nothing: the opened store closes its connections."""
