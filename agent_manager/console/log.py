"""The log: newest first, filtered, from any position or time, and live."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field
from pydantic_core import to_json
from starlette.responses import Response

from agent_manager.console.pages import ROOT, ConsoleRoute, page
from agent_manager.console.rendering import BlockRenderer
from agent_manager.server.authorization import Data, needs
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.schemas.common import In, Time
from agent_manager.server.schemas.events import event_out
from agent_manager.server.streams import log_source, start_position
from eventstore import Event
from eventstore.errors import NotFound
from eventstore.event_types import BUILT_IN
from eventstore.read import Filter, end_of_log, horizon

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)

ROWS = 50
MAX_SCANNED = 5000
"""Events that a page looks through for those that match; further ones follow when asked for."""
KNOWN_TYPES = sorted(BUILT_IN.json_schema()["discriminator"]["mapping"])
"""The names of the built-in events."""
Position = Annotated[int, Field(ge=0, lt=2**63)] | Literal[""] | None


class LogQuery(In):
    """Which events to list, newest first.

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

    def matches(self, event: Event) -> bool:
        """Return whether an event of the selected types and actor also fits what only this page filters by."""
        if event.event_type in self.selected()[1]:
            return False
        if not self.text:
            return True
        whole = to_json([event.event_type, event.actor, event.content, event.raw_metadata]).decode()
        return self.text.lower() in whole.lower()


class LiveQuery(LogQuery):
    """Which events to follow."""

    after: Position = None


@page(router, "/log", "log.html", Data.LOG)
async def show_log(context: CurrentContext, query: Annotated[LogQuery, Query()]) -> dict[str, Any]:
    """List the events of the log, as far as it is final, the newest first."""
    final = await horizon(context.log)
    until = min(final, int(query.before) - 1) if query.before else final
    types, _ = query.selected()
    items, scanned, position = [], 0, until
    events = context.store.read_log(
        until_position=max(0, until),
        backwards=True,
        limit=MAX_SCANNED,
        types=types,
        actor=query.actor or None,
        since=query.since or None,
        until=query.until or None,
        tenant=context.caller.tenant,
        user=context.caller.user,
    )
    async for event in events:
        await context.time_slice.give_way()
        scanned, position = scanned + 1, event.position
        if query.matches(event):
            items.append(event_out(event))
        if len(items) == ROWS:
            break
    return {
        "items": items,
        "show_conversation": True,
        "next": position if len(items) == ROWS or scanned == MAX_SCANNED else None,
        "scanned": scanned,
        "filters": query,
        "final": final,
        "known_types": KNOWN_TYPES,
        "is_live": not (query.before or query.until),
    }


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
            if query.matches(event):
                text = row.render(event=event_out(event)).replace("\n", " ").replace("\r", " ")
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
        return {"event": event_out(event)}
    raise NotFound(f"there is no event at position {position}, or you may not see it: positions have gaps")
