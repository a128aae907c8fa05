"""Readiness: whether a process can do its work now, for load balancers and orchestrators.

A process is not ready while the schema does not fit its code, the connections of a pool are all in use, the database
does not answer, or the read tables are further behind the log than ``EVENTSTORE_READY_LAG_SECONDS``.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from psycopg_pool import PoolTimeout
from starlette.responses import Response

from agent_manager.server.problems import problem
from agent_manager.server.read_your_writes import READ_TABLES
from agent_manager.settings import server_settings
from eventstore import EventStore
from eventstore.database.pools import Pool
from eventstore.errors import EventStoreError, SchemaError, StoreClosed, translated
from eventstore.schema_check import check_schema
from projections.status import read_lags

POOL_SECONDS = 1.0
"""The time without a free connection from which on a pool is exhausted."""
CHECK_SECONDS = 2.0
"""The time in which the database must answer."""
SHARED_SECONDS = 1.0
"""The time for which the result of a check is used again: no token is needed to ask, and a check is a few queries."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NotReady:
    """The reason why a process is not ready.

    Attributes:
        title: identifies the reason for programs.
        detail: may be shown to anybody.
        cause: for those who operate the server.
    """

    title: str
    detail: str
    cause: str = ""

    def response(self, *, shows_cause: bool) -> Response:
        """Return the response to a probe."""
        text = f"{self.detail}: {self.cause}" if shows_cause and self.cause else self.detail
        return problem(503, text, self.title, {"Retry-After": "1"})


class Readiness:
    """Checks whether the process that uses a store is ready."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._limit = server_settings(store.settings).ready_lag_seconds
        self._checking: asyncio.Task[NotReady | None] | None = None
        self._valid_until = 0.0
        self._logged: str | None = None

    async def check(self) -> NotReady | None:
        """Return why the process is not ready; None if it is. Concurrent and frequent callers share one check."""
        loop = asyncio.get_running_loop()
        if self._checking is None or (self._checking.done() and self._valid_until <= loop.time()):
            self._checking = asyncio.create_task(self._check())
        return await asyncio.shield(self._checking)

    async def _check(self) -> NotReady | None:
        found = await self._find_reason()
        self._valid_until = asyncio.get_running_loop().time() + SHARED_SECONDS
        title = None if found is None else found.title
        if title != self._logged:
            self._logged = title
            if found is None:
                _log.info("ready again", extra={"event": "ready"})
            else:
                _log.warning("not ready: %s: %s", found.detail, found.cause, extra={"event": "not_ready"})
        return found

    async def _find_reason(self) -> NotReady | None:
        try:
            pools = self._store.connections.pools
            for exhausted in filter(None, await asyncio.gather(*map(_is_exhausted, pools.values()))):
                name = next(name for name, pool in pools.items() if pool is exhausted)
                most = exhausted.queue.size
                return NotReady(
                    "PoolExhausted", f"all {most} connections of the pool {name} are in use",
                    "end long statements, or raise EVENTSTORE_POOL_SIZE",
                )  # fmt: skip
            async with asyncio.timeout(CHECK_SECONDS):
                with translated():
                    async with self._store.connections.service.connection() as connection:
                        await check_schema(connection, self._store.settings)
                lags = await read_lags(self._store, READ_TABLES)
        except StoreClosed as error:
            return NotReady("StoreClosed", "the server is starting or about to stop", str(error))
        except SchemaError as error:
            return NotReady(type(error).__name__, "the database's schema does not fit this server", str(error))
        except (EventStoreError, TimeoutError) as error:
            return NotReady("ServerUnreachable", "the database does not answer", str(error) or "within the time")
        if (most_behind := max(lags, key=lambda lag: lag.seconds)).seconds > self._limit:
            return NotReady(
                "NotCaughtUp",
                f"the read tables are more than {self._limit:g} seconds behind the log",
                f"those of {most_behind.projection} {most_behind.seconds:.0f} s (EVENTSTORE_READY_LAG_SECONDS): check "
                "that a worker runs, with eventstore status",
            )
        return None


async def _is_exhausted(pool: Pool) -> Pool | None:
    try:
        async with pool.queue.permit(None, POOL_SECONDS):
            return None
    except PoolTimeout:
        return pool
