"""The event store for synchronous code; every method does what its namesake in :class:`EventStore` does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Self
from uuid import UUID

from eventstore.append import Append
from eventstore.database.settings import Settings
from eventstore.eventdata import EventData
from eventstore.events import ANY, AppendResult, Event, ExpectedVersion, NewEvent
from eventstore.portal import Portal
from eventstore.store import EventStore


class SyncEventStore:
    """The log of one database, for any thread.

    Open it as a context manager::

        with SyncEventStore() as store:
            store.append(conversation_id, [MessageAdded(role="user", content="hello")])
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.asynchronous = EventStore(settings)
        self.portal = Portal()

    def __enter__(self) -> Self:
        if self.portal.is_closed:  # the store was closed, or was opened by the parent of this process
            self.portal = Portal()
        try:
            self.portal.call(self.asynchronous.open())
        except BaseException:
            self.portal.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections, leaves the embedded server and ends the private loop."""
        if self.portal.is_closed:
            return
        try:
            self.portal.call(self.asynchronous.close())
        finally:
            self.portal.close()

    def append(
        self,
        conversation_id: UUID | str,
        events: Sequence[EventData | NewEvent],
        *,
        expected: ExpectedVersion = ANY,
        actor: str = "",
        tenant: str | None = None,
        user: str | None = None,
    ) -> AppendResult:
        """See :meth:`EventStore.append`."""
        return self.portal.call(
            self.asynchronous.append(conversation_id, events, expected=expected, actor=actor, tenant=tenant, user=user)
        )

    def append_all(
        self, appends: Iterable[Append], *, actor: str = "", tenant: str | None = None, user: str | None = None
    ) -> AppendResult:
        """See :meth:`EventStore.append_all`."""
        return self.portal.call(self.asynchronous.append_all(appends, actor=actor, tenant=tenant, user=user))

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
    ) -> Iterator[Event]:
        """See :meth:`EventStore.read`."""
        return self.portal.iterate(
            self.asynchronous.read(
                conversation_id,
                after=after,
                until_version=until_version,
                backwards=backwards,
                limit=limit,
                types=types,
                actor=actor,
                since=since,
                until=until,
                tenant=tenant,
                user=user,
            )
        )

    def read_log(
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
    ) -> Iterator[Event]:
        """See :meth:`EventStore.read_log`."""
        return self.portal.iterate(
            self.asynchronous.read_log(
                after=after,
                until_position=until_position,
                backwards=backwards,
                limit=limit,
                types=types,
                actor=actor,
                since=since,
                until=until,
                tenant=tenant,
                user=user,
                all_tenants=all_tenants,
            )
        )

    def subscribe(
        self,
        *,
        after: int = 0,
        types: Sequence[str] | None = None,
        actor: str | None = None,
        tenant: str | None = None,
        user: str | None = None,
        all_tenants: bool = False,
    ) -> Iterator[Event]:
        """See :meth:`EventStore.subscribe`."""
        return self.portal.iterate(
            self.asynchronous.subscribe(
                after=after, types=types, actor=actor, tenant=tenant, user=user, all_tenants=all_tenants
            )
        )
