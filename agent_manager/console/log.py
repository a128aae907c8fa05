"""The log: newest first, filtered, from any position or time, and live."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field
from pydantic_core import to_json
from starlette.responses import Response

from agent_manager.console.pages import ROOT, ConsoleRoute, page
from agent_manager.console.rendering import BlockRenderer
from agent_manager.server.authorization import Data, needs
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.response_cache import LARGE_BYTES
from agent_manager.server.schemas.common import In, Time
from agent_manager.server.schemas.events import EventOut, event_out
from agent_manager.server.streams import log_source, start_position
from eventstore import Event
from eventstore.database.queries import query as sql_text
from eventstore.errors import NotFound
from eventstore.event_types import BUILT_IN
from eventstore.events import HIGHEST_POSITION
from eventstore.read import Filter, end_of_log, horizon, last_event, pages
from eventstore.read import log_source as stored_source
from projections.pages import PAGE_BYTES

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)

ROWS = 50
MAX_SECONDS = 0.1
"""Seconds that a page looks for events that match; a further request looks further back."""
STEP, STEP_HERE = 20_000, 1_000
"""Positions that are looked through at a time by the database, and by this page, which filters by more."""
_TIME_EDGES = sql_text("eventstore", "time_edges")
KNOWN_TYPES = sorted(BUILT_IN.json_schema()["discriminator"]["mapping"])
"""The names of the built-in events."""
Position = Annotated[int, Field(ge=0, lt=2**63)] | Literal[""] | None


class LogQuery(In):
    """A selection of events, newest first.

    ``types`` are names separated by commas; those with a minus are left out.
    """

    types: str = ""
    actor: str = ""
    text: str = ""
    since: Time | Literal[""] | None = None
    until: Time | Literal[""] | None = None
    before: Position = None

    def selected(self) -> tuple[list[str] | None, set[str]]:
        """Return the types to list, None for all, and those to leave out."""
        names = [name.strip() for name in self.types.split(",") if name.strip()]
        excluded = {name[1:].strip() for name in names if name.startswith("-")}
        return [name for name in names if not name.startswith("-")] or None, excluded

    @property
    def is_matched_here(self) -> bool:
        """True if some filters are applied to the rows that the database has returned."""
        return bool(self.text or self.selected()[1])

    @property
    def step(self) -> int:
        """The positions to look through at a time."""
        return STEP_HERE if self.is_matched_here else STEP

    def matches(self, event: Event) -> bool:
        """Return whether an event of the selected types and actor also fits what only this page filters by."""
        if event.event_type in self.selected()[1]:
            return False
        if not self.text:
            return True
        whole = to_json([event.event_type, event.actor, event.content, event.raw_metadata]).decode()
        return self.text.lower() in whole.lower()


class LiveQuery(LogQuery):
    """A selection of events to follow."""

    after: Position = None


@page(router, "/log", "log.html", Data.LOG)
async def show_log(context: CurrentContext, query: Annotated[LogQuery, Query()]) -> dict[str, Any]:
    """List the events of the log, as far as it is final, the newest first."""
    log = context.store.log(context.caller)
    final = await horizon(log)
    first, last = await _positions(context, query)
    last = min(last, final, int(query.before) - 1 if query.before else final)
    types, _ = query.selected()
    source = stored_source(
        Filter(types, query.actor or None, query.since or None, query.until or None, context.caller.tenant),
        backwards=True,
    )
    items: list[EventOut] = []
    size = 0
    rest, deadline = last, monotonic() + MAX_SECONDS
    while len(items) < ROWS and size < PAGE_BYTES and rest >= first and (rest == last or monotonic() < deadline):
        low, is_empty = max(first, rest - query.step + 1), True
        limit = None if query.is_matched_here else ROWS - len(items)
        async with aclosing(pages(log, source, low, rest, limit)) as events:
            async for event in events:
                await context.time_slice.give_way()
                is_empty = False
                if (shown := await _shown(context, query, event)) is not None:
                    items.append(shown)
                    size += event.size
                if len(items) == ROWS or size >= PAGE_BYTES or (query.is_matched_here and monotonic() > deadline):
                    low = event.position
                    break
        rest = await last_event(log, low - 1) if is_empty else low - 1
    return {
        "items": items,
        "show_conversation": True,
        "next": rest + 1 if rest >= first else None,
        "scanned": last - rest,
        "filters": query,
        "final": final,
        "known_types": KNOWN_TYPES,
        "is_live": not (query.before or query.until),
    }


async def _shown(context: RequestContext, query: LogQuery, event: Event) -> EventOut | None:
    """Return the response model of an event; None if it does not match."""

    def show() -> EventOut | None:
        return event_out(event) if query.matches(event) else None

    if event.size <= LARGE_BYTES:
        return show()
    await context.begin_large(event.size)
    return await context.in_thread(show)


async def _positions(context: RequestContext, query: LogQuery) -> tuple[int, int]:
    """Return the positions between which the events in the time of a query are."""
    if not (query.since or query.until):
        return 1, HIGHEST_POSITION
    times = {"since": query.since or "-infinity", "until": query.until or "infinity"}
    [(low, high)] = await context.log.fetch(_TIME_EDGES, times)
    # Times increase with positions, but not strictly.
    return (1, 0) if low is None or high is None else (max(1, low - STEP), high + STEP)


@router.get("/log/live", openapi_extra=needs(Data.LOG))
async def follow_log(context: CurrentContext, query: Annotated[LiveQuery, Query()]) -> Response:
    """Send every event of the log that matches, as it is appended, as the row of a page."""
    types, _ = query.selected()
    Filter(types, query.actor or None)  # raises while the response can still have an error status
    after = start_position(context.request, query.after if isinstance(query.after, int) else None)
    if after is None:
        after = await end_of_log(context.log)
    return context.stream_texts(_rows(context, query, after), after)


async def _rows(context: RequestContext, query: LiveQuery, after: int) -> AsyncGenerator[bytes, None]:
    types, _ = query.selected()
    source = log_source(context.store, context.caller, types, query.actor or None)
    row = BlockRenderer(context.request, "event.html", "row", {"root": "./", "show_conversation": True})
    async with aclosing(source.follow(after)) as events:
        async for event in events:
            await context.time_slice.give_way()
            try:
                shown = await _shown(context, query, event)
                text = "" if shown is None else row.render(event=shown).replace("\n", " ").replace("\r", " ")
            finally:
                await context.end_large()
            if text:
                yield f"id: {event.position}\nevent: row\ndata: {text}\n\n".encode()


@page(router, "/log/{position}", "event_page.html", Data.LOG)
async def show_event(context: CurrentContext, position: Annotated[int, Path(ge=1, lt=2**63)]) -> dict[str, Any]:
    """Show an event whole."""
    events = context.store.read_log(
        after=position - 1,
        until_position=position,
        limit=1,
        tenant=context.caller.tenant,
        user=context.caller.user,
    )
    async for event in events:
        return {"event": await _shown(context, LogQuery(), event)}
    raise NotFound(f"there is no event at position {position}, or you may not see it: positions have gaps")
