"""The audit trail, in pages, from the log itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from eventstore import Caller, Event, EventStore
from eventstore.read import HIGHEST_VERSION, Filter, conversation_source, pages
from projections.pages import PAGE_BYTES, Page, Purpose, check_flag, checked_limit

_HIGHEST_POSITION = 2**63 - 1


async def read_audit_trail(
    store: EventStore,
    caller: Caller,
    conversation_id: UUID | None,
    which: Filter,
    newest_first: bool,
    limit: int | None,
    after: str | None,
) -> Page[Event]:
    """A page of a conversation's trail, or of a tenant's, as the log is read. It ends before its limit where its events
    take more than :data:`~projections.pages.PAGE_BYTES`.
    """
    checked_limit(limit)
    check_flag(newest_first, "newest_first")
    filters = {"tenant": caller.tenant, "conversation_id": conversation_id, **which.parameters()}
    kind = "the trail of all conversations" if conversation_id is None else "the trail of a conversation"
    purpose = Purpose(kind, "newest first" if newest_first else "oldest first", filters, (int,))
    (place,) = purpose.read(after) if after is not None else (None,)
    if limit == 0:
        return Page([], after)
    wanted = None if limit is None else limit + 1
    if conversation_id is None:
        read = _of_tenant(store, caller, which, place, newest_first, wanted)
    else:
        read = _of_conversation(store, caller, conversation_id, which, place, newest_first, wanted)
    events: list[Event] = []
    size, is_full = 0, False
    async for event in read:
        events.append(event)
        size += event.size
        is_full = limit is not None and (len(events) > limit or size > PAGE_BYTES)
        if is_full:
            break
    if not is_full:
        return Page(events)
    del events[limit:]
    return Page(events, purpose.write([events[-1].position if conversation_id is None else events[-1].version]))


def _of_conversation(
    store: EventStore,
    caller: Caller,
    conversation_id: UUID,
    which: Filter,
    place: int | None,
    newest_first: bool,
    wanted: int | None,
) -> AsyncIterator[Event]:
    first, last = _bounds(place, newest_first, HIGHEST_VERSION)
    source = conversation_source(caller.tenant, conversation_id, which, backwards=newest_first)
    return pages(store.log(caller), source, first, last, wanted)


def _of_tenant(
    store: EventStore, caller: Caller, which: Filter, place: int | None, newest_first: bool, wanted: int | None
) -> AsyncIterator[Event]:
    first, last = _bounds(place, newest_first, _HIGHEST_POSITION)
    return store.read_log(
        after=first - 1, until_position=last, backwards=newest_first, limit=wanted, types=which.types,
        actor=which.actor, since=which.since, until=which.until, tenant=caller.tenant, user=caller.user,
    )  # fmt: skip


def _bounds(place: int | None, newest_first: bool, highest: int) -> tuple[int, int]:
    """The first and the last version or position that the page may hold."""
    if place is None:
        return 1, highest
    return (1, place - 1) if newest_first else (place + 1, highest)
