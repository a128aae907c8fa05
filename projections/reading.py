"""Reading conversations, messages, tasks and the audit trail: filtered, in pages, asynchronous and synchronous."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias, TypeVar
from uuid import UUID

from eventstore import Caller, Event, EventStore, Role, SyncEventStore, TaskStatus, conversation_uuid
from eventstore.database.queries import query
from eventstore.errors import InputError, NotFound
from eventstore.ids import parse_uuid
from eventstore.read import Filter
from projections.as_of import snapshot_as_of
from projections.audit import read_audit_trail
from projections.conversation_snapshot import ConversationSnapshot, ConversationState
from projections.pages import (
    ALL_MESSAGES,
    ALL_TASKS,
    ALL_TASKS_IN_STATUS,
    MESSAGES,
    TASKS,
    Listing,
    Page,
    PageRequest,
    Row,
    check_flag,
    conversations,
    read_page,
)
from projections.read_your_writes import fetch_at_least
from projections.rows import Conversation, Message, Task

# For whom the read side asks: given as a tenant, or as a caller


def caller_of(store: EventStore, tenant: str | None, caller: Caller | None) -> Caller:
    """The caller that was given, or the whole of a tenant, which is the store's own if left out.

    Raises:
        InputError: both are given, or the store is not an EventStore.
        InvalidEvent: the tenant is no name.
    """
    if not isinstance(store, EventStore):
        raise InputError(f"store: expected an EventStore, got a {type(store).__name__}")
    if caller is None:
        return store.caller(tenant)
    if not isinstance(caller, Caller):
        raise InputError(f"caller: expected a Caller, got a {type(caller).__name__}")
    if tenant is not None:
        raise InputError(f"tenant: {tenant!r} is given beside a caller, who names one: leave out one of them")
    return caller


# Reading the read tables: conversations, messages, tasks and the audit trail, filtered, in pages

By: TypeAlias = Literal["updated", "created"]
"""The time by which conversations are ordered."""

WAIT_SECONDS = 10.0
"""How long a read waits for a position that it must have seen."""

_CONVERSATION = query("projections", "conversation")


class Reader:
    """Reads what one tenant has, or what one user of it may see.

    Every list is read in pages: at most ``limit`` rows, and in :attr:`Page.next` the cursor that, given as ``after`` to
    the same call, brings the next ones; :func:`every` goes through all of them. A page is one statement. Without a
    limit a list comes whole, with a statement for each thousand rows. ``since`` and ``until`` are a half-open range of
    aware times.

    Every read of the read tables takes ``at_least``, such as the ``position`` of an append: it then holds what was
    appended until there, and waits for the workers if need be; that costs no further statement where they have come so
    far.

    Args:
        tenant: the store's own if left out.
        timeout: seconds to wait at most.
        caller: the tenant, and the user where only what they may see is to be read; in the place of ``tenant``.

    Attributes:
        store, tenant, caller, timeout: as given.

    Raises:
        InvalidCursor: a cursor is damaged, or was made with another order or other filters.
        NotCaughtUp: the workers have not come to ``at_least`` within the time.
    """

    def __init__(
        self,
        store: EventStore,
        tenant: str | None = None,
        *,
        timeout: float = WAIT_SECONDS,
        caller: Caller | None = None,
    ) -> None:
        self.store = store
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
            raise InputError(f"timeout: {timeout!r:.80} is not a number of seconds")
        self.timeout = timeout
        self.caller = caller_of(store, tenant, caller)
        self.tenant = self.caller.tenant

    async def conversations(
        self,
        *,
        active: bool | None = None,
        deleted: bool = False,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        by: By = "updated",
        newest_first: bool = True,
        limit: int | None = None,
        after: str | None = None,
        at_least: int | None = None,
    ) -> Page[Conversation]:
        """Conversations, the latest updated first.

        Args:
            active: only active, or only archived ones.
            deleted: the hidden ones too.
            actor: only those in which this actor caused an event.
            since, until: of the time by which they are ordered.
            by: the time of the last update, or that of the beginning. The latter never changes: through pages in that
                order comes each conversation that was there at the first exactly once. An update moves a conversation
                to the newest end: newest first, one that is updated between two pages may be left out, but
                comes in no two of them; oldest first, it comes again, but is not left out.
        """
        if by not in ("updated", "created"):
            raise InputError(f"by: {by!r} is unknown: choose updated or created")
        if active is not None:
            check_flag(active, "active")
        filters = {"active": active, **_hiding(deleted=deleted), **_checked(actor, since, until)}
        listing = conversations(by, of_actor=actor is not None)
        return await self._page(listing, filters, newest_first, limit, after, at_least)

    async def conversation(self, conversation: UUID | str, *, at_least: int | None = None) -> Conversation:
        """One conversation, hidden or not, by its id or by the id that its client gave it.

        Raises:
            NotFound: there is none.
        """
        given = {"tenant": self.tenant, "ids": self.candidates(conversation)}
        rows = await fetch_at_least(
            self.store, self.caller, _CONVERSATION, given, ("conversations",), at_least, self.timeout
        )
        if not rows:
            raise not_found(conversation)
        return Conversation.from_row(rows[0])

    async def messages(
        self,
        conversation_id: UUID | str | None = None,
        *,
        role: str | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after_version: int | None = None,
        deleted: bool = False,
        newest_first: bool = False,
        limit: int | None = None,
        after: str | None = None,
        at_least: int | None = None,
    ) -> Page[Message]:
        """The messages of a conversation in its order, or those of all by the time when they happened.

        Args:
            conversation_id: None is all conversations.
            role, actor: only those of this role or actor. Where few are, a page looks at many more: bound it by time.
            since, until: of ``created_at``.
            after_version: of a conversation, only those above this version.
            deleted: of all conversations, those of deleted ones too.
        """
        _known(role, Role, "role")
        filters = {"role": role, **_checked(actor, since, until)}
        if conversation_id is None:
            if after_version is not None:
                raise InputError("after_version: is one of a conversation: name that too")
            filters |= _hiding(deleted=deleted)
            return await self._page(ALL_MESSAGES, filters, newest_first, limit, after, at_least)
        filters |= {"after_version": after_version, "conversation_id": parse_uuid(conversation_id, "conversation_id")}
        return await self._page(MESSAGES, filters, newest_first, limit, after, at_least)

    async def tasks(
        self,
        conversation_id: UUID | str | None = None,
        *,
        status: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        deleted: bool = False,
        newest_first: bool = False,
        limit: int | None = None,
        after: str | None = None,
        at_least: int | None = None,
    ) -> Page[Task]:
        """The tasks of a conversation, or of all, by the time when they were created.

        Args:
            conversation_id: None is all conversations.
            status: only those in this status.
            since, until: of ``created_at``.
            deleted: of all conversations, those of deleted ones too.
        """
        _known(status, TaskStatus, "status")
        filters = {"status": status, **_checked(None, since, until)}
        if conversation_id is None:
            listing = ALL_TASKS if status is None else ALL_TASKS_IN_STATUS
            filters |= _hiding(deleted=deleted)
            return await self._page(listing, filters, newest_first, limit, after, at_least)
        filters |= {"conversation_id": parse_uuid(conversation_id, "conversation_id")}
        return await self._page(TASKS, filters, newest_first, limit, after, at_least)

    async def history(
        self,
        conversation_id: UUID | str | None = None,
        *,
        types: Sequence[str] | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        newest_first: bool = False,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Event]:
        """The audit trail: the events of a conversation in its order, or those of all in the order of the log.

        It is read from the log itself: an append is in its conversation's trail once it has returned. A page of all
        takes a statement more, for the position up to which the log is final, and further ones where a filter
        lets few events through.

        Args:
            conversation_id: None is all conversations.
            types, actor: only events of these types, of this actor.
            since, until: of ``timestamp``, when the log took the event.
        """
        which = Filter(types, actor, since, until)
        conversation = None if conversation_id is None else parse_uuid(conversation_id, "conversation_id")
        return await read_audit_trail(self.store, self.caller, conversation, which, newest_first, limit, after)

    async def conversation_at(
        self,
        conversation: UUID | str,
        *,
        version: int | None = None,
        position: int | None = None,
        time: datetime | None = None,
    ) -> ConversationState:
        """A conversation with its messages and tasks as it was, folded from the log by the projections themselves.

        Give one of:

        Args:
            version: as it was at this version.
            position: as it was when the log had come to this position.
            time: as the log knew it at this time (``timestamp``).

        Raises:
            NotFound: there is no such conversation, or there was none then, or it has not come to that version.
        """
        async with self.snapshot_at(conversation, version=version, position=position, time=time) as snapshot:
            return await snapshot.read()

    @asynccontextmanager
    async def snapshot_at(
        self,
        conversation: UUID | str,
        *,
        version: int | None = None,
        position: int | None = None,
        time: datetime | None = None,
    ) -> AsyncIterator[ConversationSnapshot]:
        """The same, read a stretch at a time until the end of the block. See :meth:`conversation_at`."""
        candidates = self.candidates(conversation)
        async with snapshot_as_of(
            self.store, self.caller, candidates, version=version, position=position, time=time
        ) as found:
            if found is None:
                raise not_found(conversation)
            yield found

    def candidates(self, conversation: UUID | str) -> list[UUID]:
        """The ids of the conversations that a text may name: a UUID in any of its forms, or a client's own id."""
        if isinstance(conversation, UUID):
            return [conversation]
        named = conversation_uuid(self.tenant, conversation)
        try:
            return list(dict.fromkeys([named, UUID(conversation)]))
        except ValueError:
            return [named]

    def _page(
        self,
        listing: Listing[Row],
        filters: dict[str, Any],
        newest_first: bool,
        limit: int | None,
        after: str | None,
        at_least: int | None,
    ) -> Awaitable[Page[Row]]:
        asked = PageRequest({"tenant": self.tenant, **filters}, newest_first, limit, after, at_least)
        return read_page(self.store, self.caller, listing, asked, self.timeout)


def not_found(conversation: UUID | str) -> NotFound:
    """The error for a conversation that there is not."""
    return NotFound(
        f"no conversation has the id {str(conversation)!r}: the list of conversations shows those that are there"
    )


def _hiding(*, deleted: bool) -> dict[str, Any]:
    """The filter by which every list leaves out deleted conversations and what belongs to them."""
    check_flag(deleted, "deleted")
    return {"deleted": None if deleted else False}


def _checked(actor: str | None, since: datetime | None, until: datetime | None) -> dict[str, Any]:
    which = Filter(None, actor, since, until)
    return {"actor": which.actor, "since": which.since, "until": which.until}


def _known(word: str | None, words: type[Role] | type[TaskStatus], what: str) -> None:
    if word is not None and word not in list(words):
        raise InputError(f"{what}: {word!r} is unknown: choose among {', '.join(words)}")


# The reader for synchronous code; every method does what its namesake in :class:`Reader` does

P = ParamSpec("P")
T = TypeVar("T")


def _synchronous(
    method: Callable[Concatenate[Reader, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncReader, P], T]:
    """The same method, which returns when it is done: one signature for both."""

    @wraps(method)
    def call(reader: SyncReader, /, *what: P.args, **which: P.kwargs) -> T:
        return reader.store.portal.call(method(reader.asynchronous, *what, **which))

    return call


class SyncReader:
    """Reads what one tenant has, from any thread.

    Args:
        tenant: the store's own if left out.
        timeout: seconds to wait at most for a position that a read must have seen.
        caller: the tenant, and the user where only what they may see is to be read; in the place of ``tenant``.
    """

    def __init__(
        self,
        store: SyncEventStore,
        tenant: str | None = None,
        *,
        timeout: float = WAIT_SECONDS,
        caller: Caller | None = None,
    ) -> None:
        if not isinstance(store, SyncEventStore):
            raise InputError(f"store: expected a SyncEventStore, got a {type(store).__name__}")
        self.store = store
        self.asynchronous = Reader(store.asynchronous, tenant, timeout=timeout, caller=caller)

    conversations = _synchronous(Reader.conversations)
    conversation = _synchronous(Reader.conversation)
    messages = _synchronous(Reader.messages)
    tasks = _synchronous(Reader.tasks)
    history = _synchronous(Reader.history)
    conversation_at = _synchronous(Reader.conversation_at)
