"""The server that reads go to (``EVENTSTORE_READ_URL``): a hot standby of the store's server.

The read tables, their checkpoints and the memberships of users are replayed there transaction by transaction. So a read
finds a state that the primary has had, and a later read a later state, as long as all connections of a pool lead to one
standby. Another standby may be behind it, and so may the same one after a crash: it accepts connections before it has
replayed all that it showed before. So each connection is admitted to the pool by :meth:`Standby.admit`:

- It must lead to a copy of the store's database, with a login that row-level security applies to.
- If it leads to another server than the connections before it, the new server must first replay what the primary has
  written up to now, which is no less than any standby has shown. From then on only its connections are used.
"""

from __future__ import annotations

import asyncio
import logging
import re
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakSet

import psycopg

from eventstore.database.connection import READER, Connection, check_login, connect
from eventstore.database.pooler_check import check_pooler
from eventstore.database.queries import query
from eventstore.errors import (
    ConnectionLost,
    EventStoreError,
    LoginRefused,
    ServerUnreachable,
    SettingsError,
    UnsuitableServer,
    translate,
)
from eventstore.settings import Settings

if TYPE_CHECKING:
    from eventstore.database.pools import Pool

_IDENTITY = query("eventstore.database", "identity")
_WAL_POSITION = query("eventstore.database", "wal_position")
_HAS_REPLAYED = query("eventstore.database", "has_replayed")
_MAY_SET_TENANT = query("eventstore.database", "may_set_tenant")
_SETTINGS = re.compile(r"DATABASE_URL( or POSTGRES_\w+(, POSTGRES_\w+)*)?")
"""The names of the settings that the error of a refused connection mentions."""
_POLL_SECONDS = 0.05
_log = logging.getLogger(__name__)


class Standby:
    """The standby of a store, as one pool of connections uses it.

    Args:
        primary: connections to the store's own server.
    """

    def __init__(self, url: str, settings: Settings, primary: Pool) -> None:
        self.url = url
        self._settings = settings
        self._primary = primary
        self._database: tuple[object, ...] | None = None
        self._started_at: object = None
        self._admitted: WeakSet[Connection] = WeakSet()
        self._admitting = asyncio.Lock()
        self._refusal: EventStoreError | None = None

    async def admit(self, connection: Connection) -> None:
        """Admit a new connection to the pool.

        Raises:
            SettingsError: it leads to another database than the store's.
            UnsuitableServer: row-level security does not apply to its login, or gives it no tenant; or the pooler
                before it cannot be used.
            ServerUnreachable: the server is behind what was read from another one, and does not catch up in time.
        """
        async with self._admitting:
            try:
                await self._admit(connection)
                self._refusal = None
            except psycopg.Error as error:
                raise translate(error) from error
            except EventStoreError as error:
                self._refusal = error
                raise

    async def _admit(self, connection: Connection) -> None:
        if self._database is None:
            [(*database, _)] = await self._primary.fetch(_IDENTITY)
            self._database = tuple(database)
        row = await (await connection.execute(_IDENTITY)).fetchone()
        assert row is not None
        *found, started_at = row
        if tuple(found) != self._database:
            raise SettingsError(
                "EVENTSTORE_READ_URL: leads to another database than the store's: name the same database of a standby "
                "that PostgreSQL's streaming replication maintains"
            )
        if started_at != self._started_at:
            await self._check_login(connection)
            if not connection.liveness.is_backend_known:
                async with await connect(self.url, self._settings, READER) as other:
                    await check_pooler(connection, other, self._settings.db_schema)
            if self._started_at is not None:
                await self._await_replay(connection)
            self._started_at = started_at
            self._admitted = WeakSet()
        self._admitted.add(connection)

    async def _check_login(self, connection: Connection) -> None:
        await check_login(connection, self._settings)
        if (await (await connection.execute(_MAY_SET_TENANT)).fetchone()) != (True,):
            login = connection.info.user
            raise UnsuitableServer(
                f"EVENTSTORE_READ_URL: the login {login} cannot choose the tenant that it reads for: "
                f"GRANT eventstore_app TO {login} on the primary, and do not bind the login to a tenant"
            )

    async def _await_replay(self, connection: Connection) -> None:
        """Wait until the server of a connection has replayed what the primary has written up to now."""
        [(position,)] = await self._primary.fetch(_WAL_POSITION)
        deadline = monotonic() + self._settings.connect_timeout
        while (await (await connection.execute(_HAS_REPLAYED, {"position": position})).fetchone()) != (True,):
            self._refusal = ServerUnreachable(
                "this server is behind the one that was read from before: wait until it has replayed the rest"
            )
            if monotonic() > deadline:
                raise self._refusal
            await asyncio.sleep(_POLL_SECONDS)

    def has_admitted(self, connection: Connection) -> bool:
        """Return whether a connection was admitted, and none to another server after it."""
        return connection in self._admitted

    async def try_connection(self) -> None:
        """Connect once, to report a setting that cannot be right; a standby that is away may come back.

        Raises:
            SettingsError, UnsuitableServer: see :meth:`admit`.
            LoginRefused: the login or its password is wrong, or there is no such database.
        """
        try:
            async with await connect(self.url, self._settings, READER) as connection:
                await self.admit(connection)
        except LoginRefused as error:
            raise self.explain(error) from error
        except (ServerUnreachable, ConnectionLost) as error:
            self._refusal = error
            _log.warning("%s", self.explain(error), extra={"event": "standby_unusable"})

    def explain(self, error: EventStoreError) -> EventStoreError:
        """Return an error of a read, with the setting that names the server."""
        if not isinstance(error, ConnectionLost | ServerUnreachable):
            return error
        reason = self._refusal or error  # the pool only reports that it has no connection
        if not isinstance(reason, ConnectionLost | ServerUnreachable):
            return reason
        text = _SETTINGS.sub("EVENTSTORE_READ_URL", str(reason))
        return type(reason)(
            f"the standby cannot be read: {text}; appends go on: to read from the primary meanwhile, let "
            "EVENTSTORE_READ_URL name the primary after the standby, with target_session_attrs=prefer-standby"
        )
