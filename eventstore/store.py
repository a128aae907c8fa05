"""The event store: append, read, subscribe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Self
from uuid import UUID

from eventstore.append import Append
from eventstore.database.connection import APP, WRITER, Connection, check_login, connect
from eventstore.database.forking import abandon_in_child
from eventstore.database.pooler_check import check_pooler
from eventstore.database.pools import Pool, View
from eventstore.database.server import Server
from eventstore.database.settings import Settings
from eventstore.errors import InputError, ServerError, SettingsError, StoreClosed, translated
from eventstore.events import ANY, AppendResult, Event, ExpectedVersion, NewEvent
from eventstore.ids import parse_uuid
from eventstore.json_text import check_text
from eventstore.notifier import LOOK_EVENTS, EventBatch
from eventstore.read import HIGHEST_VERSION, Filter, horizon, read_conversation, read_log
from eventstore.schema_check import check_schema
from eventstore.scope import ALL_TENANTS, Caller, Scope, checked_tenant
from eventstore.store_connections import StoreConnections
from eventstore.subscribe import follow
from eventstore.vocabulary import EventData

_HIGHEST_POSITION = 2**63 - 1


class EventStore:
    """The log of one database, for the coroutines of one event loop.

    Open it as a context manager::

        async with EventStore() as store:
            await store.append(conversation_id, [MessageAdded(role="user", content="hello")])

    Args:
        settings: which server and schema, which limits; from the environment and ``.env`` if left out.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        if not isinstance(settings, Settings | None):
            raise SettingsError(f"expected Settings, got a {type(settings).__name__}")
        self.settings = settings or Settings()
        self.tenant = checked_tenant(self.settings.tenant)
        self.server = Server(self.settings)
        self._parts: StoreConnections | None = None
        self._has_acquired = self._is_forked = False
        self._parts_of_parent: StoreConnections | None = None  # kept, so that nothing of it is finalised here

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connects, and starts or joins the embedded server if none is named.

        Raises:
            ServerUnreachable, UnsuitableServer, EmbeddedServerError: there is no server to use, or a pooler before it
                that cannot be used; or the login is a superuser or has BYPASSRLS, which the settings do not allow.
            SchemaError: its schema does not fit this code.
        """
        self.settings.listening_url()  # an error in it is better met before all others
        await asyncio.to_thread(self.server.acquire)
        self._has_acquired, self._is_forked = True, False
        abandon_in_child(self)
        try:
            async with await self.connect(APP) as connection:
                with translated():
                    await check_login(connection, self.settings)
                if not connection.liveness.is_backend_known:
                    async with await self.connect(APP) as other:
                        with translated():
                            await check_pooler(connection, other, self.settings.db_schema)
                await check_schema(connection, self.settings)
            self._parts = StoreConnections(self.server, self.settings)
            await self._parts.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Closes all connections and leaves the embedded server."""
        if self._parts is not None:
            await self._parts.close()
            self._parts = None
        if self._has_acquired:
            self._has_acquired = False
            await asyncio.to_thread(self.server.release)

    def abandon(self) -> None:
        """Be closed in a process that was forked while the store was open; called by itself. It can be opened again."""
        self._parts_of_parent, self._parts = self._parts, None
        self._has_acquired, self._is_forked = False, True
        self.server = Server(self.settings)

    async def connect(self, role: str | None = WRITER) -> Connection:
        """Opens a connection of its own, in autocommit mode and with the store's schema as search path.

        Args:
            role: the role to take, where the login may: by default that of who appends in a transaction of their own;
                None stays the login. It is taken for the session: behind a pooler in transaction mode, say it again in
                each transaction (``SET LOCAL ROLE``).
        """
        if role is not None:
            check_text(role, "role")
        return await connect(self.server.url, self.settings, role)

    @property
    def parts(self) -> StoreConnections:
        """The connections of the store, by role.

        Raises:
            StoreClosed: the store is not open, or was opened by the parent of this process.
        """
        if self._parts is None:
            raise StoreClosed(is_forked=self._is_forked)
        return self._parts

    @property
    def pool(self) -> Pool:
        """Connections under the service's own role, which sees nothing of the log or the read tables.

        Raises:
            StoreClosed: the store is not open.
        """
        return self.parts.service

    def log(self, scope: Scope) -> View:
        """The log as a caller sees it, or ``ALL_TENANTS``: for queries of one's own."""
        return self.parts.log(scope)

    def tables(self, scope: Scope) -> View:
        """The read tables as a caller sees them, or ``ALL_TENANTS``: for queries of one's own."""
        return self.parts.tables(scope)

    def caller(self, tenant: str | None = None, user: str | None = None) -> Caller:
        """The caller of these names.

        Args:
            tenant: the store's own if left out.
            user: the whole tenant if left out.

        Raises:
            InvalidEvent: one of them is no name.
        """
        return Caller(self.tenant if tenant is None else tenant, user)

    async def append(
        self,
        conversation_id: UUID | str,
        events: Sequence[EventData | NewEvent],
        *,
        expected: ExpectedVersion = ANY,
        actor: str = "",
        tenant: str | None = None,
        user: str | None = None,
    ) -> AppendResult:
        """Appends events to a conversation: all of them, durably, or none.

        Args:
            conversation_id: a UUID; of a text of your own, see :func:`eventstore.conversation_uuid`.
            events: at least one. Repeating an append with the same :class:`NewEvent` objects is harmless.
            expected: the version that the conversation must have, ``NO_STREAM``, ``EXISTS`` or ``ANY``.
            actor: who causes the events that do not say so themselves.
            tenant: the store's own if left out.
            user: for whom it is appended: the owner of a conversation that begins so; to one that there is, they may
                append if it is theirs, or shared with them for writing. None is the whole tenant, which may all.

        Raises:
            Forbidden: the user may not append to the conversation.
            WrongExpectedVersion: somebody else appended meanwhile.
            EventIdConflict: another event is stored under the id of one of these.
            InputError: something in the events cannot be stored.
            ConnectionLost: unknown whether it happened; append the same NewEvent objects again.
        """
        return await self._commit([Append(conversation_id, events, expected)], actor, self.caller(tenant, user))

    async def append_all(
        self, appends: Iterable[Append], *, actor: str = "", tenant: str | None = None, user: str | None = None
    ) -> AppendResult:
        """Append to several conversations at once: everything, durably, or nothing. See :meth:`append`."""
        if not isinstance(appends, Iterable):
            raise InputError(f"appends: expected a list of Append, got a {type(appends).__name__}")
        return await self._commit(list(appends), actor, self.caller(tenant, user))

    def _commit(self, appends: list[Append], actor: str, caller: Caller) -> Awaitable[AppendResult]:
        for append in appends:
            if not isinstance(append, Append):
                raise InputError(f"appends: expected a list of Append, found a {type(append).__name__} in it")
        return self.parts.committer.append(caller, appends, self.settings.max_content_bytes, actor)

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
    ) -> AsyncIterator[Event]:
        """The events of a conversation, in order of version or backwards.

        Args:
            after: only versions above this one.
            until_version: only versions up to this one.
            limit: at most so many events.
            types, actor, since, until: only events like this; the times are those of ``timestamp``.
            user: only what this user may see; None is the whole tenant.
        """
        caller = self.caller(tenant, user)
        return read_conversation(
            self.log(caller),
            caller.tenant,
            parse_uuid(conversation_id, "conversation_id"),
            _not_negative(after, "after") + 1,
            HIGHEST_VERSION if until_version is None else _not_negative(until_version, "until_version"),
            Filter(types, actor, since, until),
            backwards=backwards,
            limit=None if limit is None else _not_negative(limit, "limit"),
        )

    async def read_log(
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
    ) -> AsyncIterator[Event]:
        """The events of a tenant, or of all, in order of position or backwards, up to the horizon at the start.

        Args:
            after: only positions above this one.
            until_position: only positions up to this one.
            user: only what this user may see; None is the whole tenant.
            all_tenants: of everybody, not only of ``tenant``.
        """
        first = _not_negative(after, "after") + 1
        last = None if until_position is None else _not_negative(until_position, "until_position")
        scope = self._scope(tenant, user, all_tenants)
        log = self.log(scope)
        final = await horizon(log)
        events = read_log(
            log,
            None if scope is ALL_TENANTS else scope.tenant,
            first,
            final if last is None else min(final, last),
            Filter(types, actor, since, until),
            backwards=backwards,
            limit=None if limit is None else _not_negative(limit, "limit"),
        )
        async for event in events:
            yield event

    async def subscribe(
        self,
        *,
        after: int = 0,
        types: Sequence[str] | None = None,
        actor: str | None = None,
        tenant: str | None = None,
        user: str | None = None,
        all_tenants: bool = False,
        held_bytes: int | None = None,
    ) -> AsyncIterator[Event]:
        """All events after a position, those to come included: in order, each once, none missing.

        To resume, subscribe again after the position of the last event that was dealt with. The iterator waits for
        the server where it is away, and goes on.

        Args:
            user: only what this user may see, from when they may; None is the whole tenant. What was appended to a
                conversation before it was shared with them is read with :meth:`read`.
            held_bytes: of events that were read and not taken yet, about. None reads some megabytes ahead, which is
                faster; give a number if there are many subscribers, and some may be slow.
        """
        scope = self._scope(tenant, user, all_tenants)
        events = follow(
            self.log(scope),
            lambda seen: self._wait(seen, LOOK_EVENTS, scope),
            self.revive,
            None if scope is ALL_TENANTS else scope.tenant,
            _not_negative(after, "after"),
            Filter(types, actor),
            held_bytes,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def wait(self, seen: int) -> None:
        """Returns when there may be events beyond the position ``seen``; for consumers with a loop of their own."""
        await self._wait(_not_negative(seen, "seen"), 0)

    async def _wait(self, seen: int, limit: int, scope: Scope | None = None) -> EventBatch | None:
        return await self.parts.notifier.wait(seen, limit, scope)

    async def revive(self) -> None:
        """Starts the embedded server again if it died; for consumers that wait for a lost server."""
        with suppress(ServerError):
            await asyncio.to_thread(self.server.revive)

    def _scope(self, tenant: str | None, user: str | None, all_tenants: bool) -> Scope:
        if not all_tenants:
            return self.caller(tenant, user)
        if user is not None:
            raise InputError(f"user: {user!r} is one of a tenant, not of all: leave out one of user and all_tenants")
        return ALL_TENANTS


def _not_negative(value: int, what: str) -> int:
    if not isinstance(value, int) or not 0 <= value <= _HIGHEST_POSITION:
        raise InputError(f"{what}: {value!r:.80} is not a whole number from 0 to {_HIGHEST_POSITION}")
    return value
