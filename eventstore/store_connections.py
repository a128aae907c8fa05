"""The connections of an open store, by the role that each purpose needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from psycopg_pool import PoolTimeout

from eventstore.batching import AppendBatcher
from eventstore.database.connection import APP, AUDITOR, PROJECTOR, READER, WRITER, Connection, connect
from eventstore.database.pools import FairQueue, Pool
from eventstore.database.server import Server
from eventstore.database.standby import Standby
from eventstore.errors import translate
from eventstore.listener import Listener, open_listener
from eventstore.metrics import StoreMetrics
from eventstore.notifier import Notifier
from eventstore.settings import Settings

_SERVICE_CONNECTIONS, _LOG_CONNECTIONS, _PROJECTOR_CONNECTIONS = 2, 4, 2
"""At most; the pool of the read tables has the size that the settings allow."""


class StoreConnections:
    """The connections of an open store, under the role that each purpose needs.

    Row-level security restricts the roles that read to the caller of the transaction. Only the projector's role reads
    the rows of all tenants; its connections are opened when :data:`ALL_TENANTS` is first used.

    Attributes:
        loop: the event loop in which they were opened; no other may use them.
        append_batcher: sends appends.
        notifier: waits for events.
        service: sees neither the log nor the read tables.
        reader: reads the read tables, on the standby if the settings name one.
        primary_reader: reads the read tables on the primary; the same as ``reader`` if there is no standby.
        standby: the standby; None if the settings name none.
        auditor: reads the log.
        separate_queue: the queue of :meth:`separate`.
        projector: reads the log and the read tables of all tenants.
        pools: these pools, by name.
    """

    def __init__(self, server: Server, settings: Settings, metrics: StoreMetrics) -> None:
        self._server, self._settings, self._metrics = server, settings, metrics
        self.loop = asyncio.get_running_loop()
        size = settings.pool_size

        def pool(role: str, size: int, kept: int) -> Pool:
            return Pool(server.url, settings, role, size, server.likely_cause, kept=kept)

        self.service = pool(APP, min(size, _SERVICE_CONNECTIONS), 0)
        read_url = settings.reading_url()
        if read_url is None:
            self.standby = None
            self.primary_reader = self.reader = pool(READER, size, 1)
        else:
            self.primary_reader = pool(READER, min(size, _LOG_CONNECTIONS), 0)
            self.standby = Standby(read_url, settings, self.primary_reader)
            self.reader = Pool(read_url, settings, READER, size, self.standby.explain, standby=self.standby)
        self.auditor = pool(AUDITOR, min(size, _LOG_CONNECTIONS), 0)
        self.projector = pool(PROJECTOR, min(size, _PROJECTOR_CONNECTIONS), 0)
        self.separate_queue = FairQueue(size)
        self.pools = {
            "service": self.service,
            "reader": self.reader,
            "auditor": self.auditor,
            "projector": self.projector,
        }
        if self.standby is not None:
            self.pools["primary_reader"] = self.primary_reader
        self.append_batcher = AppendBatcher(
            lambda: connect(server.url, settings, WRITER),
            lambda: connect(server.url, settings, None),
            server.likely_cause,
            connect_seconds=settings.connect_timeout,
            append_seconds=settings.append_seconds,
            metrics=metrics,
            slow_seconds=settings.slow_statement_seconds,
        )
        self.notifier = Notifier(self.open_listener)

    async def open(self) -> None:
        """Begin to connect. Return at once, unless there is a standby, which is tried."""
        for pool in self.pools.values():
            await pool.open()
        if self.standby is not None:
            await self.standby.try_connection()

    async def close(self) -> None:
        """Wait for the appends that are in flight, and close all connections."""
        await self.notifier.close()
        await self.append_batcher.close()
        for pool in self.pools.values():
            await pool.close()

    @asynccontextmanager
    async def separate(self, role: str, tenant: str | None) -> AsyncIterator[Connection]:
        """Open a separate connection until the end of the block, as soon as it is the tenant's turn.

        A tenant gets no more of them at a time than of the connections that read the read tables. None is not limited.

        Raises:
            ServerUnreachable: none became free in time.
        """
        try:
            async with (
                self.separate_queue.permit(tenant, self._settings.connect_timeout),
                await connect(self._server.url, self._settings, role) as connection,
            ):
                yield connection
        except PoolTimeout as error:
            raise translate(error) from None

    async def open_listener(self, on_notified: Callable[[], None]) -> Listener:
        """Open a connection that listens; see :func:`~eventstore.listener.open_listener`."""
        url, settings = self._settings.listening_url() or self._server.url, self._settings
        return await open_listener(
            lambda: connect(url, settings, AUDITOR), self.auditor, on_notified, settings.connect_timeout, self._metrics
        )
