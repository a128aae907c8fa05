"""The audit trail, a page at a time: from the log itself, by the log's own queries."""

from __future__ import annotations

from uuid import UUID

from psycopg.types.numeric import Int8

from eventstore import Caller, Event, EventStore
from eventstore.paging import RawRows
from eventstore.read import HIGHEST_VERSION, Filter, conversation_source
from projections.cursors import Purpose
from projections.pages import Page, check_flag, checked_limit

_HIGHEST_POSITION = 2**63 - 1


async def read_trail(
    store: EventStore,
    caller: Caller,
    conversation_id: UUID | None,
    which: Filter,
    newest_first: bool,
    limit: int | None,
    after: str | None,
) -> Page[Event]:
    """A page of a conversation's trail, in one statement; or of a tenant's, as the log is read."""
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
        events = await _of_tenant(store, caller, which, place, newest_first, wanted)
    else:
        events = await _of_conversation(store, caller, conversation_id, which, place, newest_first, wanted)
    if limit is None or len(events) <= limit:
        return Page(events)
    last = events[limit - 1]
    return Page(events[:limit], purpose.write([last.position if conversation_id is None else last.version]))


async def _of_conversation(
    store: EventStore,
    caller: Caller,
    conversation_id: UUID,
    which: Filter,
    place: int | None,
    newest_first: bool,
    wanted: int | None,
) -> list[Event]:
    first, last = _bounds(place, newest_first, HIGHEST_VERSION)
    source = conversation_source(caller.tenant, conversation_id, which, backwards=newest_first)
    bounds = {"first": Int8(first), "last": Int8(last), "limit": Int8(wanted or HIGHEST_VERSION)}
    rows = await store.log(caller).fetch(source.text, source.given | bounds, cursor=RawRows)
    return [Event.from_row(row) for row in rows]


async def _of_tenant(
    store: EventStore, caller: Caller, which: Filter, place: int | None, newest_first: bool, wanted: int | None
) -> list[Event]:
    first, last = _bounds(place, newest_first, _HIGHEST_POSITION)
    events = store.read_log(
        after=first - 1, until_position=last, backwards=newest_first, limit=wanted, types=which.types,
        actor=which.actor, since=which.since, until=which.until, tenant=caller.tenant, user=caller.user,
    )  # fmt: skip
    return [event async for event in events]


def _bounds(place: int | None, newest_first: bool, highest: int) -> tuple[int, int]:
    """The first and the last version or position that the page may hold."""
    if place is None:
        return 1, highest
    return (1, place - 1) if newest_first else (place + 1, highest)
