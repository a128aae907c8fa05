"""The connections of a store, each part of it under the role that has just the rights that it needs.

The wall stands in the server: a role that reads sees what belongs to the caller of its transaction. The projector's
role sees all; its connections are made only when somebody asks for everybody's events.
"""

from __future__ import annotations

from eventstore.caller import EVERYBODY, Whose
from eventstore.database.connection import APP, AUDITOR, PROJECTOR, READER
from eventstore.database.pool import Pool, View
from eventstore.database.server import Server
from eventstore.database.settings import Settings

_OF_LOG, _OF_PROJECTOR, _OF_SERVICE = 4, 2, 2
"""Connections at most; the read tables have those that the settings allow."""


class Parts:
    """The pools of one store.

    Attributes:
        service: sees nothing of the log or the read tables.
        reader: for the read tables.
        auditor: for the log.
        projector: for everything of everybody.
    """

    def __init__(self, server: Server, settings: Settings) -> None:
        size = settings.pool_size

        def pool(role: str, size: int, kept: int) -> Pool:
            return Pool(server.url, settings, role, size, server.why, kept=kept)

        self.service = pool(APP, min(size, _OF_SERVICE), 0)
        self.reader = pool(READER, size, 1)
        self.auditor = pool(AUDITOR, min(size, _OF_LOG), 0)
        self.projector = pool(PROJECTOR, min(size, _OF_PROJECTOR), 0)

    async def open(self) -> None:
        """Starts to connect; returns at once."""
        for pool in (self.service, self.reader, self.auditor, self.projector):
            await pool.open()

    async def close(self) -> None:
        """Closes all connections."""
        for pool in (self.service, self.reader, self.auditor, self.projector):
            await pool.close()

    def tables(self, whose: Whose) -> View:
        """The read tables, as somebody sees them."""
        return self._view(self.reader, whose)

    def log(self, whose: Whose) -> View:
        """The log, as somebody sees it."""
        return self._view(self.auditor, whose)

    def _view(self, pool: Pool, whose: Whose) -> View:
        return View(self.projector, None) if whose is EVERYBODY else View(pool, whose)
