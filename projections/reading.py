"""Reading conversations, messages, tasks and the audit trail: filtered, in pages, asynchronous and synchronous."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from itertools import accumulate
from typing import Any, Literal, TypeAlias
from uuid import UUID

from psycopg.rows import TupleRow

from eventstore import Caller, Event, EventStore, Role, SyncEventStore, TaskStatus, conversation_uuid
from eventstore.database.queries import query
from eventstore.errors import InputError, NotFound, conversation_not_found
from eventstore.events import HIGHEST_VERSION
from eventstore.ids import parse_uuid
from eventstore.read import Filter, RawRows
from eventstore.sync import Portal, synchronous
from projections.comparison import Comparison, compare
from projections.conversation_snapshot import (
    Ancestor,
    ConversationSnapshot,
    ConversationState,
    MessagePage,
    read_ancestry,
    read_tasks,
    shared_then,
    snapshot_as_of,
)
from projections.pages import (
    ALL_MESSAGES,
    ALL_TASKS,
    ALL_TASKS_IN_STATUS,
    CONVERSATIONS,
    CONVERSATIONS_OF_ACTOR,
    FEW_CONVERSATIONS,
    MESSAGES,
    TASKS,
    CursorFormat,
    Listing,
    Page,
    Row,
    check_flag,
    read_page,
    read_rows,
    row_bytes,
)
from projections.read_your_writes import fetch_at_least
from projections.rows import Conversation, Message, Task

ConversationOrder: TypeAlias = Literal["updated", "created"]
"""The time by which conversations are ordered."""

WAIT_SECONDS = 10.0
"""The time that a read waits for a position that it must include, by default."""

_CONVERSATION = query("projections", "conversation")
_MEMBERSHIPS = query("projections", "memberships")
_VERSIONS = query("projections", "as_of_versions")
_MESSAGE_PLACE = query("projections", "message_place")


class Reader:
    """A reader of the data of one tenant, or of what one user of it may see.

    Every list is read in pages: at most ``limit`` rows, and in :attr:`Page.next` the cursor which, passed as ``after``
    to the same call, returns the next ones; :func:`all_items` yields the rows of all pages. A page is one statement,
    unless its rows are large. Without a limit the whole list is read, with a statement for each thousand rows.
    ``since`` and ``until`` are a half-open range of aware times.

    Every read of the read tables takes ``at_least``, such as the ``position`` of an append: the result then includes
    what was appended up to there. The read waits for the workers if necessary; if they have applied the position
    already, it costs no further statement.

    Args:
        tenant: by default that of the store.
        timeout: seconds to wait at most.
        caller: the tenant, and the user if only what they may see is read; instead of ``tenant``.
        on_primary: whether the primary is read even if ``EVENTSTORE_READ_URL`` names a standby, which may be behind.
            The audit trail, and a conversation as it was, are always read from the primary.

    Attributes:
        store, tenant, caller, timeout, on_primary: as given.

    Raises:
        InvalidCursor: a cursor is damaged, or was made with another order or other filters.
        NotCaughtUp: the workers have not applied ``at_least`` within the timeout.
    """

    def __init__(
        self,
        store: EventStore,
        tenant: str | None = None,
        *,
        timeout: float = WAIT_SECONDS,
        caller: Caller | None = None,
        on_primary: bool = False,
    ) -> None:
        self.store = store
        self.on_primary = on_primary
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
        by: ConversationOrder = "updated",
        newest_first: bool = True,
        limit: int | None = None,
        after: str | None = None,
        at_least: int | None = None,
    ) -> Page[Conversation]:
        """Return conversations, by default the last updated first.

        Args:
            active: only active ones, or only archived ones.
            deleted: also deleted ones.
            actor: only those in which this actor caused an event.
            since, until: of the time by which they are ordered.
            by: the time of the last update, or that of the beginning. The latter never changes: pages in that order
                have each conversation that existed at the first page exactly once. An update moves a conversation to
                the newest end: newest first, a conversation that is updated between two pages may be missing, but is
                never in two of them; oldest first, it may be in two, but is never missing.
        """
        check_choice(by, "by", ("updated", "created"))
        if active is not None:
            check_flag(active, "active")
        filters = {"active": active, **_deleted_filter(deleted), **_checked(actor, since, until)}
        listings = CONVERSATIONS if actor is None else CONVERSATIONS_OF_ACTOR
        return await self._page(listings[by], filters, newest_first, limit, after, at_least)

    async def conversation(self, conversation: UUID | str, *, at_least: int | None = None) -> Conversation:
        """Return a conversation, deleted or not, by its id or by the id that its client gave it.

        Raises:
            NotFound: it does not exist.
        """
        given = {"tenant": self.tenant, "ids": self.candidates(conversation)}
        rows = await fetch_current(self, _CONVERSATION, given, projections=("conversations",), at_least=at_least)
        if not rows:
            raise conversation_not_found(conversation)
        return Conversation.from_row(rows[0])

    async def ancestry(self, conversation: UUID | str, *, at_least: int | None = None) -> list[Ancestor]:
        """Return the conversations whose messages and tasks a conversation shows, the nearest first.

        They are itself and, if it is a fork, those that it continues, each up to a version. The list ends before the
        first one that the caller may not read, or that is deleted.

        Raises:
            NotFound: the conversation does not exist.
        """
        found = await self.conversation(conversation, at_least=at_least)
        fetch = self.store.tables(self.caller, on_primary=self.on_primary).fetch
        _, *shared = await read_ancestry(fetch, self.tenant, found.id)
        return [Ancestor(found.id, found.version), *shared]

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
        """Return the messages of a conversation in its order, or those of all conversations by ``created_at``.

        A fork begins with the messages that it shares (:meth:`ancestry`): the rows of the conversations in which they
        were written, with their versions there. In a list of all conversations each message occurs once.

        Args:
            conversation_id: None reads all conversations.
            role, actor: only those of this role or actor. If these are few, a page scans many others: limit the time.
            since, until: of ``created_at``.
            after_version: of a conversation, only its own above this version.
            deleted: of all conversations, also those of deleted ones.
        """
        check_choice(role, "role", (None, *Role))
        filters = {"role": role, **_checked(actor, since, until)}
        if conversation_id is None:
            if after_version is not None:
                raise InputError("after_version: is a version of one conversation: give conversation_id too")
            filters |= _deleted_filter(deleted)
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
        """Return the tasks of a conversation, or of all conversations, by ``created_at``.

        A fork includes the tasks that it shares, as they were then, with what its own events have changed.

        Args:
            conversation_id: None reads all conversations.
            status: only those in this status.
            since, until: of ``created_at``.
            deleted: of all conversations, also those of deleted ones.
        """
        check_choice(status, "status", (None, *TaskStatus))
        filters = {"status": status, **_checked(None, since, until)}
        if conversation_id is None:
            listing = ALL_TASKS if status is None else ALL_TASKS_IN_STATUS
            filters |= _deleted_filter(deleted)
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
        correlation_id: str | None = None,
        shared: bool = False,
        newest_first: bool = False,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Event]:
        """Return the audit trail: the events of a conversation in its order, or those of all in the order of the log.

        It is read from the log itself: an append is in its conversation's trail once it has returned. A page of all
        conversations takes one more statement, for the position up to which the log is final, and further ones if few
        events match the filters.

        Args:
            conversation_id: None reads all conversations.
            types, actor, correlation_id: only events of these types, of this actor, with this correlation id.
            since, until: of ``timestamp``, when the event was appended.
            shared: of a fork, also the events of the conversations that it continues, up to it, before its own.
        """
        target = None if conversation_id is None else parse_uuid(conversation_id, "conversation_id")
        conditions = Filter(types, actor, since, until, correlation_id=correlation_id).parameters()
        check_flag(shared, "shared")
        if shared and target is None:
            raise InputError("shared: is for the trail of one conversation: give conversation_id too")
        options = {**conditions, "tenant": self.tenant, "user": self.caller.user, "backwards": newest_first}
        ancestry = [] if target is None else [Ancestor(target, HIGHEST_VERSION)]
        if shared and target is not None:
            ancestry += await shared_then(self.store, self.caller, target, {})
        # As in the list of messages: a fork keeps its places, whatever it shares.
        sums = accumulate((ancestor.last_version for ancestor in ancestry[1:]), initial=0)
        shifts = {ancestor.conversation_id: shift for ancestor, shift in zip(ancestry, sums, strict=False)}

        async def read_trail(place: int | None, wanted: int | None) -> AsyncIterator[tuple[Sequence[Event], int]]:
            for conversation_id, last in ancestry if newest_first else reversed(ancestry):
                beyond = None if place is None else max(0, place + shifts[conversation_id])
                after, until = (0 if newest_first or beyond is None else beyond), last
                if newest_first and beyond is not None:
                    until = min(last, max(0, beyond - 1))
                events = self.store.read(conversation_id, after=after, until_version=until, limit=wanted, **options)
                async for event in events:
                    yield [event], event.size
                    wanted = None if wanted is None else wanted - 1

        async def read_log(place: int | None, wanted: int | None) -> AsyncIterator[tuple[Sequence[Event], int]]:
            if place is not None:
                options.update({"until_position": place - 1} if newest_first else {"after": place})
            async for event in self.store.read_log(limit=wanted, **options):
                yield [event], event.size

        kind = "the trail of all conversations" if target is None else "the trail of a conversation"
        filters = {"tenant": self.tenant, "conversation_id": target, "shared": shared or None, **conditions}
        return await read_page(
            lambda place, wanted: (read_trail if ancestry else read_log)(None if place is None else place[0], wanted),
            CursorFormat(kind, newest_first, filters, (int,)),
            limit=limit,
            after=after,
            size_of=lambda event: event.size,
            place_of=lambda event: [event.version - shifts[event.conversation_id] if ancestry else event.position],
        )

    async def conversation_at(
        self,
        conversation: UUID | str,
        *,
        version: int | None = None,
        position: int | None = None,
        time: datetime | None = None,
    ) -> ConversationState:
        """Return a conversation with its messages and tasks as it was, folded from the log by the projections.

        Args:
            version, position, time: exactly one: as it was at this version, when the log had reached this position, or
                as the log had it at this time (``timestamp``).

        Raises:
            NotFound: the conversation does not exist, or did not exist then, or has not reached that version.
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
        page: MessagePage | None = None,
    ) -> AsyncIterator[ConversationSnapshot]:
        """Open the snapshot of :meth:`conversation_at`, to be read in chunks until the end of the block.

        Args:
            page: the messages to fold; all by default.
        """
        limits = {"version": version, "position": position, "time": time}
        async with snapshot_as_of(self.store, self.caller, self.candidates(conversation), limits, page) as snapshot:
            if snapshot is None:
                raise conversation_not_found(conversation)
            yield snapshot

    async def message_place(self, conversation: UUID | str, message: UUID | str) -> Ancestor:
        """Return the conversation in which a message of a conversation was written, and its version there.

        A fork of that conversation at the version before shares everything up to the message, so that another one can
        follow in its place.

        Args:
            conversation: the conversation, or a fork that shares the message.
            message: the id of the message.

        Raises:
            NotFound: the conversation does not exist, or shows no such message.
        """
        rows = await self.store.log(self.caller).fetch(
            _VERSIONS, {"tenant": self.tenant, "ids": (candidates := self.candidates(conversation))}
        )
        found = [candidate for candidate in candidates if candidate in dict(rows)]
        if not found:
            raise conversation_not_found(conversation)
        shared = await shared_then(self.store, self.caller, found[0], {})
        shown = dict([Ancestor(found[0], HIGHEST_VERSION), *shared])
        given = {"tenant": self.tenant, "ids": list(shown), "message": parse_uuid(message, "message")}
        for place in map(Ancestor._make, await self.store.log(self.caller).fetch(_MESSAGE_PLACE, given)):
            if place.last_version <= shown[place.conversation_id]:
                return place
        raise NotFound(f"conversation {found[0]} has no message {message}: its list of messages shows their ids")

    async def compare(
        self,
        first: UUID | str,
        second: UUID | str | None = None,
        *,
        version: int | None = None,
        second_version: int | None = None,
        max_bytes: int | None = None,
    ) -> Comparison:
        """Compare two conversations, such as two forks, or two versions of one conversation.

        They are read from the log itself, so no worker is needed.

        Args:
            second: by default the first one.
            version, second_version: of the two; by default the latest.
            max_bytes: the approximate memory that each of them may take; None for any.

        Raises:
            NotFound: one of them does not exist, or has not reached its version.
            InputError: they differ in more than that.
        """
        return await compare(self, first, second, version, second_version, max_bytes)

    def candidates(self, conversation: UUID | str) -> list[UUID]:
        """Return the ids of the conversations that a text may name: a UUID in any of its forms, or a client's id."""
        if isinstance(conversation, UUID):
            return [conversation]
        by_given_id = conversation_uuid(self.tenant, conversation)
        try:
            return list(dict.fromkeys([by_given_id, UUID(conversation)]))
        except ValueError:
            return [by_given_id]

    async def _page(
        self,
        listing: Listing[Row],
        conditions: dict[str, Any],
        newest_first: bool,
        limit: int | None,
        after: str | None,
        at_least: int | None,
    ) -> Page[Row]:
        """Read a page in one statement, unless its rows are many or large, or it has to wait for the projections.

        Args:
            conditions: one that is None does not apply.
        """
        filters = {"tenant": self.tenant, **conditions}
        of_member = bool(listing.table) and self.caller.user is not None and await self._is_member_of_few()

        def read(place: Sequence[Any] | None, wanted: int | None) -> AsyncIterator[tuple[list[TupleRow], float]]:
            fetch = partial(fetch_current, self, projections=listing.projections, at_least=at_least)
            if listing.kind == TASKS.kind:
                return read_tasks(self.store, fetch, filters, place, newest_first=newest_first, limit=wanted)
            return read_rows(
                fetch, listing, filters, place, newest_first=newest_first, limit=wanted, of_member=of_member
            )

        rows = await read_page(
            read,
            CursorFormat(listing.kind, newest_first, filters, listing.types),
            limit=limit,
            after=after,
            size_of=row_bytes,
            place_of=listing.place_of,
        )
        return Page(map(listing.row_type.from_row, rows), rows.next)

    async def _is_member_of_few(self) -> bool:
        """Return whether the user is a member of at most :data:`FEW_CONVERSATIONS` conversations."""
        tables = self.store.tables(self.caller, on_primary=self.on_primary)
        ((number,),) = await tables.fetch(_MEMBERSHIPS, {"limit": FEW_CONVERSATIONS + 1})
        return bool(number <= FEW_CONVERSATIONS)


async def fetch_current(
    reader: Reader, text: str, given: dict[str, Any], projections: Sequence[str], at_least: int | None
) -> list[TupleRow]:
    """Return the rows of a statement, JSON as bytes, once they hold what was appended up to a position.

    Raises:
        NotCaughtUp: the projections have not applied ``at_least`` within the reader's timeout.
    """
    if at_least is None:
        tables = reader.store.tables(reader.caller, on_primary=reader.on_primary)
        return await tables.fetch(text, given, cursor=RawRows)
    rows, _ = await fetch_at_least(
        reader.store,
        reader.caller,
        text,
        given,
        projections,
        at_least,
        reader.timeout,
        on_primary=reader.on_primary,
    )
    return rows


def caller_of(store: EventStore, tenant: str | None, caller: Caller | None) -> Caller:
    """Return the given caller or, if there is none, a whole tenant, by default that of the store."""
    if not isinstance(store, EventStore):
        raise InputError(f"store: expected an EventStore, got a {type(store).__name__}")
    if caller is None:
        return store.caller(tenant)
    if not isinstance(caller, Caller):
        raise InputError(f"caller: expected a Caller, got a {type(caller).__name__}")
    if tenant is not None:
        raise InputError(f"tenant: {tenant!r} is given beside a caller, who names one: leave out one of them")
    return caller


def check_choice(value: str | None, name: str, choices: Iterable[str | None]) -> None:
    """Raise an InputError if a value is not among the choices."""
    if value not in (known := tuple(choices)):
        raise InputError(f"{name}: {value!r} is unknown: choose among {', '.join(filter(None, known))}")


def _deleted_filter(deleted: bool) -> dict[str, Any]:
    """Return the filter that leaves out deleted conversations and what belongs to them."""
    check_flag(deleted, "deleted")
    return {"deleted": None if deleted else False}


def _checked(actor: str | None, since: datetime | None, until: datetime | None) -> dict[str, Any]:
    Filter(None, actor, since, until)
    return {"actor": actor, "since": since, "until": until}


class SyncReader:
    """A :class:`Reader`, with the same arguments, for synchronous code; usable from any thread."""

    def __init__(
        self,
        store: SyncEventStore,
        tenant: str | None = None,
        *,
        timeout: float = WAIT_SECONDS,
        caller: Caller | None = None,
        on_primary: bool = False,
    ) -> None:
        if not isinstance(store, SyncEventStore):
            raise InputError(f"store: expected a SyncEventStore, got a {type(store).__name__}")
        self.store = store
        self.asynchronous = Reader(store.asynchronous, tenant, timeout=timeout, caller=caller, on_primary=on_primary)

    @property
    def portal(self) -> Portal:
        """The event loop that reads."""
        return self.store.portal

    conversations = synchronous(Reader.conversations)
    conversation = synchronous(Reader.conversation)
    ancestry = synchronous(Reader.ancestry)
    messages = synchronous(Reader.messages)
    tasks = synchronous(Reader.tasks)
    history = synchronous(Reader.history)
    conversation_at = synchronous(Reader.conversation_at)
    message_place = synchronous(Reader.message_place)
    compare = synchronous(Reader.compare)
