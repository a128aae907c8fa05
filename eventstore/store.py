"""The event store: append, read, subscribe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any, Self
from uuid import UUID, uuid4

from eventstore.append import Append, Beginning, append_or_begin, named_conversation
from eventstore.database.connection import APP, WRITER, Connection, check_login, connect
from eventstore.database.fork_safety import abandon_in_child
from eventstore.database.pooler_check import check_pooler
from eventstore.database.pools import Pool, ScopedPool
from eventstore.database.server import Server
from eventstore.erasure import Erasure, erase, erase_user
from eventstore.errors import InputError, ServerError, SettingsError, StoreClosed, translated
from eventstore.event_types import EventData
from eventstore.events import (
    ANY,
    HIGHEST_POSITION,
    HIGHEST_VERSION,
    NO_STREAM,
    AppendResult,
    Event,
    ExpectedVersion,
    NewEvent,
)
from eventstore.forking import forked_event
from eventstore.ids import parse_uuid
from eventstore.json_text import check_text
from eventstore.metrics import StoreMetrics
from eventstore.notifier import LOOK_EVENTS
from eventstore.pacing import paced
from eventstore.read import Filter, horizon, read_conversation, read_log
from eventstore.schema_check import check_schema
from eventstore.scope import ALL_TENANTS, Caller, DataScope, checked_tenant
from eventstore.settings import Settings
from eventstore.store_connections import StoreConnections
from eventstore.subscribe import follow_log
from eventstore.tracing import append_span


class EventStore:
    """The log of one database, for the coroutines of one event loop.

    Open it as a context manager::

        async with EventStore() as store:
            await store.append(conversation_id, [MessageAdded(role="user", content="hello")])

    Args:
        settings: which server and schema, which limits; from the environment and ``.env`` if left out.

    Attributes:
        metrics: what the store counts of its own work.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        if not isinstance(settings, Settings | None):
            raise SettingsError(f"settings: expected Settings, got a {type(settings).__name__}")
        self.settings = settings or Settings()
        self.tenant = checked_tenant(self.settings.tenant)
        self.server = Server(self.settings)
        self.metrics = StoreMetrics()
        self._connections: StoreConnections | None = None
        self._has_acquired = self._is_forked = False
        # In a forked child, a reference to those of the parent, so that they are not finalised there.
        self._connections_of_parent: StoreConnections | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect; start or join the embedded server if no server is configured.

        Raises:
            ServerUnreachable, UnsuitableServer, EmbeddedServerError: the server or a pooler in front of it cannot be
                used; or the login is a superuser or has BYPASSRLS, and the settings do not allow it.
            SchemaError: the schema does not fit this code.
        """
        self.settings.listening_url()  # raise errors in these settings before connecting
        self.settings.reading_url()
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
            self._connections = StoreConnections(self.server, self.settings, self.metrics)
            await self._connections.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections and leave the embedded server."""
        if self._connections is not None:
            await self._connections.close()
            self._connections = None
        if self._has_acquired:
            self._has_acquired = False
            await asyncio.to_thread(self.server.release)

    def abandon(self) -> None:
        """Close the store in a forked child process, in which it can be opened again. Called automatically."""
        self._connections_of_parent, self._connections = self._connections, None
        self._has_acquired, self._is_forked = False, True
        self.server = Server(self.settings)

    async def connect(self, role: str | None = WRITER) -> Connection:
        """Open a separate connection in autocommit mode, with the store's schema as search path.

        Args:
            role: the role that the session takes, if the login may; by default the one that appends. None keeps the
                login. Behind a pooler in transaction mode, set it again in each transaction (``SET LOCAL ROLE``).
        """
        if role is not None:
            check_text(role, "role")
        return await connect(self.server.url, self.settings, role)

    @property
    def connections(self) -> StoreConnections:
        """The connections of the store, by role.

        Raises:
            StoreClosed: the store is not open, or was opened by the parent of this process.
        """
        if self._connections is None:
            raise StoreClosed(is_forked=self._is_forked)
        return self._connections

    @property
    def pool(self) -> Pool:
        """Connections under the service's own role, which sees nothing of the log or the read tables.

        Raises:
            StoreClosed: the store is not open.
        """
        return self.connections.service

    def log(self, scope: DataScope) -> ScopedPool:
        """Return a pool that queries the log, restricted to a scope by row-level security."""
        connections = self.connections
        return (
            ScopedPool(connections.projector, None) if scope is ALL_TENANTS else ScopedPool(connections.auditor, scope)
        )

    def tables(self, scope: DataScope, *, on_primary: bool = False) -> ScopedPool:
        """Return a pool that queries the read tables, restricted to a scope by row-level security.

        Args:
            on_primary: whether they are read from the primary even if ``EVENTSTORE_READ_URL`` names a standby. The
                tables of all tenants always are.
        """
        connections = self.connections
        if scope is ALL_TENANTS:
            return ScopedPool(connections.projector, None)
        return ScopedPool(connections.primary_reader if on_primary else connections.reader, scope)

    def caller(self, tenant: str | None = None, user: str | None = None) -> Caller:
        """Return a caller, for :meth:`log` and :meth:`tables`.

        Args:
            tenant: the store's own if left out.
            user: the whole tenant if left out.

        Raises:
            InvalidEvent: one of them is empty, too long or cannot be stored.
        """
        return Caller(self.tenant if tenant is None else tenant, user)

    async def append(
        self,
        conversation_id: UUID | str,
        events: Sequence[EventData | NewEvent],
        *,
        expected: ExpectedVersion = ANY,
        begin: Beginning | None = None,
        actor: str = "",
        tenant: str | None = None,
        user: str | None = None,
    ) -> AppendResult:
        """Append events to a conversation: all of them, durably, or none.

        Begin a conversation with its name and its client's id, unless it exists already, and append to it::

            hello = MessageAdded(role="user", content="hello")
            await store.append("trip 7", [hello], begin=ConversationCreated(name="Trip"))

        Args:
            conversation_id: a UUID; for any other text see :func:`eventstore.conversation_uuid`.
            events: at least one. Repeating an append with the same :class:`NewEvent` objects is harmless.
            expected: the version that the conversation must have, ``NO_STREAM``, ``EXISTS`` or ``ANY``.
            begin: the first event of the conversation, stored before ``events`` if it is new, and ignored if it exists.
                ``conversation_id`` may then be any text, which becomes its ``given_id``.
            actor: the actor of all events that are not a :class:`NewEvent`.
            tenant: the store's own if left out.
            user: the user on whose behalf it is made. They own a conversation that begins with it; they may append to
                an existing one if they own it, or it is shared with them for writing. None means the whole tenant,
                which may append to all its conversations.

        Raises:
            Forbidden: the user may not append to the conversation.
            WrongExpectedVersion: the conversation is at another version.
            EventIdConflict: another event is stored under the id of one of these.
            ConversationIsDeleted: the conversation is deleted.
            InputError: something in the events cannot be stored.
            ConnectionLost: the outcome is unknown; append the same NewEvent objects again.
            ConversationLocked: another transaction held the conversation until the deadline; nothing was stored.
            ServerUnreachable, StoreClosed: nothing was sent.
        """
        with self.metrics.appending():
            caller = self.caller(tenant, user)
            if begin is None:
                return await self._append([Append(conversation_id, events, expected)], actor, caller)
            target, begin = named_conversation(caller.tenant, conversation_id, begin)

            async def append(events: Sequence[EventData | NewEvent], expected: ExpectedVersion) -> AppendResult:
                return await self._append([Append(target, events, expected)], actor, caller)

            return await append_or_begin(append, Append(target, events, expected), begin)

    async def append_all(
        self, appends: Iterable[Append], *, actor: str = "", tenant: str | None = None, user: str | None = None
    ) -> AppendResult:
        """Append to several conversations at once: everything, durably, or nothing. See :meth:`append`."""
        with self.metrics.appending():
            if not isinstance(appends, Iterable):
                raise InputError(f"appends: expected a list of Append, got a {type(appends).__name__}")
            appends = list(appends)
            for append in appends:
                if not isinstance(append, Append):
                    raise InputError(f"appends: expected a list of Append, found a {type(append).__name__} in it")
            return await self._append(appends, actor, self.caller(tenant, user))

    async def fork(
        self,
        source: UUID | str,
        version: int | None = None,
        *,
        events: Sequence[EventData | NewEvent] = (),
        conversation_id: UUID | None = None,
        name: str | None = None,
        metadata: dict[str, Any] | None = None,
        actor: str = "",
        tenant: str | None = None,
        user: str | None = None,
    ) -> AppendResult:
        """Begin a conversation that continues another one from a version on, and append events to it.

        Nothing is copied: reads of the fork begin with what the source held at that version. Edit a message as a fork
        with another one in its place::

            edited = MessageAdded(role="user", content="with other words")
            await store.fork(message.conversation_id, message.version - 1, events=[edited])

        Args:
            source: the conversation to continue; the user must be allowed to read it.
            version: the last version of the source that the fork shares; by default the latest.
            events: the events of the fork that follow.
            conversation_id: of the fork; a new one by default.
            name, metadata: of the fork; it has none of the source's.
            actor, tenant, user: see :meth:`append`. The user owns the fork.

        Returns:
            The result of the append: its first entry is that of the event that begins the fork.

        Raises:
            NotFound: the source does not exist, is not visible to the user, or has not reached the version.
            ConversationIsDeleted: the source is deleted.
            WrongExpectedVersion: the conversation exists already.
            InputError: the version is not a number, or something in the events cannot be stored.
        """
        caller = self.caller(tenant, user)
        source = parse_uuid(source, "source")
        forked = await forked_event(self.log(caller), caller.tenant, source, version, name=name, metadata=metadata)
        target = uuid4() if conversation_id is None else conversation_id
        return await self.append(target, [forked, *events], expected=NO_STREAM, actor=actor, tenant=tenant, user=user)

    async def erase(
        self,
        conversation_id: UUID | str,
        event_ids: Sequence[UUID | str] | None = None,
        *,
        expected: int | None = None,
        reason: str = "",
        actor: str = "",
        tenant: str | None = None,
        user: str | None = None,
        dry_run: bool = False,
    ) -> Erasure:
        """Erase a conversation up to now, or single events of it, irrevocably; see ``docs/guides/erasure.md``.

        What the events held is gone from the log and from all tables that are made of it. The events keep their places
        and their digests, so proofs of the sealed log hold; a receipt, which is an event of the conversation, says who
        erased, when and why. Erasing what is erased already changes nothing.

        Args:
            event_ids: the events; by default all of the conversation.
            expected: the version that the conversation must have; None for any.
            reason: kept in the receipt, which is never erased, so do not name people in it.
            actor: the actor of the receipt.
            user: erases only conversations that this user owns, and their own events in others; None means the whole
                tenant.
            dry_run: return what would be erased, and change nothing.

        Raises:
            NotFound: the conversation does not exist, or has no such event.
            Forbidden: the user may not erase it.
            OnLegalHold: a legal hold forbids it.
            WrongExpectedVersion: the conversation is at another version.
            PermissionDenied: the login may not take the role ``eventstore_eraser``.
            ConversationLocked: another transaction held the conversation until the deadline.
        """
        caller = self.caller(tenant, user)
        return await erase(
            self,
            caller,
            conversation_id,
            event_ids,
            expected=expected,
            reason=reason,
            actor=actor,
            dry_run=dry_run,
        )

    def erase_user(
        self,
        name: str,
        *,
        reason: str = "",
        actor: str = "",
        tenant: str | None = None,
        user: str | None = None,
        dry_run: bool = False,
    ) -> AsyncIterator[Erasure]:
        """Erase a user: their conversations, their events in those of others, their name, and their keys.

        Each conversation is erased in a transaction of its own, and is one item of the iterator. If it is interrupted,
        what was erased stays erased; repeat the call for the rest.

        Args:
            user: a user may erase only themselves; None means the whole tenant.
            reason, actor, dry_run: see :meth:`erase`. Receipts never name the erased user.

        Raises:
            OnLegalHold: a legal hold forbids part of it; nothing was erased.
            PermissionDenied: the user is another one, or the login may not take the role ``eventstore_eraser``.
        """
        return erase_user(self, self.caller(tenant, user), name, reason=reason, actor=actor, dry_run=dry_run)

    async def _append(self, appends: Sequence[Append], actor: str, caller: Caller) -> AppendResult:
        batcher, limit = self.connections.append_batcher, self.settings.max_content_bytes
        with append_span(appends):
            return await batcher.append(caller, appends, limit, actor)

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
        correlation_id: str | None = None,
        tenant: str | None = None,
        user: str | None = None,
    ) -> AsyncIterator[Event]:
        """Read the events of a conversation, in order of version or backwards.

        Args:
            after: only versions above this one.
            until_version: only versions up to this one.
            limit: number of events at most.
            types, actor, correlation_id: only events of these types, of this actor, or with this correlation id.
            since, until: only events with a ``timestamp`` in this half-open range.
            user: only events that this user may see; None means the whole tenant.
        """
        caller = self.caller(tenant, user)
        return read_conversation(
            self.log(caller),
            parse_uuid(conversation_id, "conversation_id"),
            _not_negative(after, "after") + 1,
            HIGHEST_VERSION if until_version is None else _not_negative(until_version, "until_version"),
            Filter(types, actor, since, until, caller.tenant, correlation_id),
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
        correlation_id: str | None = None,
        tenant: str | None = None,
        user: str | None = None,
        all_tenants: bool = False,
    ) -> AsyncIterator[Event]:
        """Read the events of a tenant, or of all, in order of position or backwards, up to the current horizon.

        Args:
            after: only positions above this one.
            until_position: only positions up to this one.
            limit, types, actor, since, until, correlation_id: see :meth:`read`.
            user: only events that this user may see; None means the whole tenant.
            all_tenants: the events of all tenants.
        """
        first = _not_negative(after, "after") + 1
        last = None if until_position is None else _not_negative(until_position, "until_position")
        scope = self._scope(tenant, user, all_tenants)
        log = self.log(scope)
        final = await horizon(log)
        events = read_log(
            log,
            first,
            final if last is None else min(final, last),
            Filter(types, actor, since, until, None if scope is ALL_TENANTS else scope.tenant, correlation_id),
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
        """Follow the log: all events after a position and all future ones, in order, each once, none missing.

        To resume, subscribe again after the position of the last event that was processed. If the server is away, the
        iterator waits for it and continues.

        Args:
            types, actor: only events of these types, or of this actor.
            user: only events that this user may see when they are read; None means the whole tenant. Events that were
                appended to a conversation before it was shared with the user are read with :meth:`read`.
            all_tenants: the events of all tenants.
            held_bytes: approximate size of the events that are read ahead. None reads some megabytes ahead, which is
                faster; limit it if there are many subscribers and some may be slow.
        """
        scope = self._scope(tenant, user, all_tenants)
        events = follow_log(
            self.log(scope),
            lambda seen: self.connections.notifier.wait(seen, LOOK_EVENTS, scope),
            self.ensure_running,
            _not_negative(after, "after"),
            Filter(types, actor, tenant=None if scope is ALL_TENANTS else scope.tenant),
            held_bytes,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def replay(
        self,
        /,
        conversation_id: UUID | str | None = None,
        *,
        speed: float = 1.0,
        longest_pause: float | None = None,
        **filters: Any,
    ) -> AsyncIterator[Event]:
        """Read events at the pace at which they were appended, or faster or slower.

        Args:
            conversation_id: its events, in order of version; None replays those of the log, in order of position.
            speed: 1 is the original pace, 10 is ten times as fast, and ``math.inf`` does not wait.
            longest_pause: seconds to wait between two events at most.
            filters: of :meth:`read` or :meth:`read_log`.

        Raises:
            InputError: the speed is not above 0, or the pause is negative.
        """
        events = self.read_log(**filters) if conversation_id is None else self.read(conversation_id, **filters)
        async for event in paced(events, speed, longest_pause):
            yield event

    async def wait(self, seen: int) -> None:
        """Wait until there may be events after the position ``seen``; for consumers that read by themselves."""
        await self.connections.notifier.wait(_not_negative(seen, "seen"), limit=0)

    async def ensure_running(self) -> None:
        """Restart the embedded server if it died; for consumers that wait for a lost server."""
        with suppress(ServerError):
            await asyncio.to_thread(self.server.ensure_running)

    def _scope(self, tenant: str | None, user: str | None, all_tenants: bool) -> DataScope:
        if not all_tenants:
            return self.caller(tenant, user)
        if user is not None:
            raise InputError(f"user: {user!r} belongs to one tenant: leave out either user or all_tenants")
        return ALL_TENANTS


def _not_negative(value: int, what: str) -> int:
    if not isinstance(value, int) or not 0 <= value <= HIGHEST_POSITION:
        raise InputError(f"{what}: {value!r:.80} is not a whole number from 0 to {HIGHEST_POSITION}")
    return value
