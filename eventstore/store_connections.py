"""The connections of a store: each of its parts has those of the role that it needs.

The wall stands in the server: a role that reads sees what belongs to the caller of its transaction. The projector's
role sees all; its connections are made only when somebody asks for everybody's events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eventstore.batching import Committer, ConversationKey, lock_holders
from eventstore.database.connection import APP, AUDITOR, PROJECTOR, READER, WRITER, connect, connect_as
from eventstore.database.pools import Pool, View
from eventstore.database.server import Server
from eventstore.database.settings import Settings
from eventstore.errors import LockHolder
from eventstore.notifier import Listener, Notifier, open_listener
from eventstore.scope import ALL_TENANTS, Scope

_OF_LOG, _OF_PROJECTOR, _OF_SERVICE = 4, 2, 2
"""Connections at most; the read tables have those that the settings allow."""


class StoreConnections:
    """The parts of one store, while it is open.

    Attributes:
        committer: appends.
        notifier: wakes who waits for events.
        service: sees nothing of the log or the read tables.
        reader: for the read tables.
        auditor: for the log.
        projector: for everything of everybody.
    """

    def __init__(self, server: Server, settings: Settings) -> None:
        self._server, self._settings = server, settings
        size = settings.pool_size

        def pool(role: str, size: int, kept: int) -> Pool:
            return Pool(server.url, settings, role, size, server.why, kept=kept)

        self.service = pool(APP, min(size, _OF_SERVICE), 0)
        self.reader = pool(READER, size, 1)
        self.auditor = pool(AUDITOR, min(size, _OF_LOG), 0)
        self.projector = pool(PROJECTOR, min(size, _OF_PROJECTOR), 0)

        self.committer = Committer(
            lambda: connect_as(server.url, settings, WRITER),
            self._lock_holders,
            server.why,
            connect_seconds=settings.connect_timeout,
            append_seconds=settings.append_seconds,
        )
        self.notifier = Notifier(self.open_listener)

    async def open(self) -> None:
        """Starts to connect; returns at once."""
        for pool in (self.service, self.reader, self.auditor, self.projector):
            await pool.open()

    async def _lock_holders(self, conversations: Sequence[ConversationKey]) -> dict[ConversationKey, list[LockHolder]]:
        async with await connect(self._server.url, self._settings, None) as connection:
            return await lock_holders(connection, conversations)

    async def open_listener(self, on_notified: Callable[[], None]) -> Listener:
        """Opens a connection that listens; see :func:`~eventstore.notifier.open_listener`."""
        url, settings = self._settings.listening_url() or self._server.url, self._settings
        return await open_listener(
            lambda: connect(url, settings, AUDITOR), self.auditor, on_notified, settings.connect_timeout
        )

    async def close(self) -> None:
        """Sees appends under way home, and closes all connections."""
        await self.notifier.close()
        await self.committer.close()
        for pool in (self.service, self.reader, self.auditor, self.projector):
            await pool.close()

    def tables(self, scope: Scope) -> View:
        """The read tables, as somebody sees them."""
        return self._view(self.reader, scope)

    def log(self, scope: Scope) -> View:
        """The log, as somebody sees it."""
        return self._view(self.auditor, scope)

    def _view(self, pool: Pool, scope: Scope) -> View:
        return View(self.projector, None) if scope is ALL_TENANTS else View(pool, scope)
