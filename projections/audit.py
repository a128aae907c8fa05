"""Pages of the audit trail, read from the log itself."""

from __future__ import annotations

from uuid import UUID

from eventstore import Caller, Event, EventStore
from eventstore.events import HIGHEST_POSITION, HIGHEST_VERSION
from eventstore.read import Filter, read_conversation
from projections.pages import CursorFormat, Page, check_flag, check_limit, order_name, take_page


async def read_audit_trail(
    store: EventStore,
    caller: Caller,
    conversation_id: UUID | None,
    event_filter: Filter,
    *,
    newest_first: bool,
    limit: int | None,
    after: str | None,
) -> Page[Event]:
    """Read a page of the events of a conversation, or of all conversations of the caller's tenant.

    It ends before its limit if its events take more than :data:`~projections.pages.PAGE_BYTES`.
    """
    check_limit(limit)
    check_flag(newest_first, "newest_first")
    filters = {"conversation_id": conversation_id, **event_filter.parameters()}
    kind = "the trail of all conversations" if conversation_id is None else "the trail of a conversation"
    cursor_format = CursorFormat(kind, order_name(newest_first), filters, (int,))
    # The first and the last version or position that the page may have.
    first, last = 1, HIGHEST_POSITION if conversation_id is None else HIGHEST_VERSION
    if after is not None:
        (place,) = cursor_format.decode(after)
        first, last = (first, place - 1) if newest_first else (place + 1, last)
    if limit == 0:
        return Page([], after)
    wanted = None if limit is None else limit + 1
    if conversation_id is None:
        events = store.read_log(
            after=first - 1,
            until_position=last,
            backwards=newest_first,
            limit=wanted,
            types=event_filter.types,
            actor=event_filter.actor,
            since=event_filter.since,
            until=event_filter.until,
            tenant=caller.tenant,
            user=caller.user,
        )
    else:
        log = store.log(caller)
        events = read_conversation(
            log, conversation_id, first, last, event_filter, backwards=newest_first, limit=wanted
        )
    page, has_more = await take_page(events, limit, lambda event: event.size)
    if not has_more:
        return Page(page)
    return Page(page, cursor_format.encode([page[-1].position if conversation_id is None else page[-1].version]))
