"""Statistics: by day, role, actor, status and tool, response times, and each table as CSV."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from agent_manager.console.kept import kept
from agent_manager.console.pages import ROOT, ConsoleRoute, page, wait_for_written
from agent_manager.server.authorization import Data, needs
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.schemas.common import Day, In
from eventstore.concurrency import gather_or_raise
from eventstore.database.queries import query
from eventstore.times import parse_zone
from projections import Statistics

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)

FEW_ROWS = 200
"""Rows that are converted at once; more of them, in a thread."""
DAYS = 30
"""Days that are counted by default."""
READS = ("statistics", "messages")
"""The projections whose tables are read: the calls of tools are in the messages."""
_TOOLS = query("agent_manager.console", "tools")
_READS: dict[str, Callable[..., Coroutine[Any, Any, list[Any]]]] = {
    "days": Statistics.by_day,
    "roles": Statistics.by_role,
    "actors": Statistics.by_actor,
    "statuses": Statistics.by_status,
    "response_times": Statistics.response_times_by_day,
    "answerers": Statistics.response_times_by_actor,
    "task_times": Statistics.task_times,
}


@dataclass(frozen=True)
class ToolCalls:
    """The calls of a tool."""

    name: str
    calls: int


class StatisticsQuery(In):
    """A selection of the data that is counted; the last month by default."""

    since: Day | Literal[""] | None = None
    until: Day | Literal[""] | None = None
    actor: str = ""
    zone: str = Field("UTC", description="The time zone of the days.")

    def filters(self) -> dict[str, Any]:
        """Return the filters of :class:`Statistics`."""
        since = self.since or (None if self.until else datetime.now(UTC).date() - timedelta(days=DAYS - 1))
        return {"since": since, "until": self.until or None, "actor": self.actor or None, "zone": self.zone or "UTC"}


class TableQuery(StatisticsQuery):
    """A selection of the table that is returned as CSV."""

    table: Literal["days", "roles", "actors", "statuses", "response_times", "answerers", "task_times", "tools"]


@page(router, "/statistics", "statistics.html", Data.CONTENT)
async def show_statistics(context: CurrentContext, query: Annotated[StatisticsQuery, Query()]) -> dict[str, Any]:
    """Show all statistics."""
    await wait_for_written(context, READS)
    found = await kept(context, "statistics", query, partial(_read, context, query))
    return {"filters": query, "shown": query.filters(), **(found or {"tables": None})}


async def _read(context: RequestContext, query: StatisticsQuery) -> dict[str, Any]:
    filters = query.filters()
    source = Statistics(context.store, caller=context.caller)
    times, tools, tables = await asyncio.gather(
        source.response_times(**filters),
        _read_tools(context, query),
        gather_or_raise(read(source, **filters) for read in _READS.values()),
    )
    named = dict(zip((*_READS, "tools"), (*tables, tools), strict=True))
    few = sum(map(len, named.values())) < FEW_ROWS
    return {
        "tables": _as_dicts(named) if few else await context.in_thread(_as_dicts, named),
        "response_times": asdict(times),
    }


def _as_dicts(tables: dict[str, list[Any]]) -> dict[str, list[dict[str, Any]]]:
    return {name: list(map(asdict, rows)) for name, rows in tables.items()}


async def _read_tools(context: RequestContext, query: StatisticsQuery) -> list[ToolCalls]:
    filters = query.filters()
    zone = parse_zone(filters["zone"])
    begin, end = (
        None if day is None else datetime.combine(day + timedelta(days=days), time(), zone)
        for day, days in ((filters["since"], 0), (filters["until"], 1))
    )
    given = {"tenant": context.caller.tenant, "since": begin, "until": end, "actor": filters["actor"]}
    return [ToolCalls(*row) for row in await context.store.tables(context.caller).fetch(_TOOLS, given)]


@router.get("/statistics.csv", openapi_extra=needs(Data.CONTENT))
async def export_table(context: CurrentContext, query: Annotated[TableQuery, Query()]) -> Response:
    """Return one of the tables as CSV."""
    await wait_for_written(context, READS)
    rows: list[Any]
    if query.table == "tools":
        rows = await _read_tools(context, query)
    else:
        rows = await _READS[query.table](Statistics(context.store, caller=context.caller), **query.filters())
    headers = {"Content-Disposition": f'attachment; filename="{query.table}.csv"'}
    return Response(await context.in_thread(_csv, rows), media_type="text/csv", headers=headers)


def _csv(rows: list[Any]) -> str:
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, asdict(rows[0]).keys())
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in asdict(row).items()} for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    """Return a value that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
