"""The overview: what needs attention first, activity, and the latest conversations."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from fastapi import APIRouter

from agent_manager.console.kept import kept
from agent_manager.console.operator import events_per_second, read_backups
from agent_manager.console.pages import ROOT, ConsoleRoute, models, page, wait_for_written
from agent_manager.server.authorization import Data
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.operators import is_operator
from agent_manager.server.schemas.conversations import ConversationOut
from eventstore.database.queries import query
from projections import Statistics
from projections.status import read_workers

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)

WARNING_SECONDS, CRITICAL_SECONDS = 60.0, 600.0
"""The lag from which on a projection needs attention, as for ``eventstore doctor``."""
MOST_MESSAGES = 20_000
"""Messages of the last hour that are counted: the latest."""
MOST_PENDING, PENDING_ROWS = 1000, 5
"""Messages that await an answer: those that are counted, and those that are listed."""
_MESSAGES_BY_MINUTE = query("agent_manager.console", "messages_by_minute")
_PENDING = query("agent_manager.console", "pending")


@page(router, "/", "overview.html", Data.CONTENT)
async def overview(context: CurrentContext) -> dict[str, Any]:
    """Show what needs attention, activity of the last hour, and the latest conversations."""
    await wait_for_written(context)
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    tables, tenant = context.store.tables(context.caller), context.caller.tenant
    counts, pending, activity, conversations = await asyncio.gather(
        tables.fetch(_MESSAGES_BY_MINUTE, {"tenant": tenant, "limit": MOST_MESSAGES}),
        tables.fetch(_PENDING, {"tenant": tenant, "limit": MOST_PENDING}),
        kept(context, "activity", minute.date(), partial(_activity, context, minute)),
        context.reader.conversations(limit=12),
    )
    numbers = dict(counts)
    minutes = [minute - timedelta(minutes=59 - number) for number in range(60)]
    operates = is_operator(context)
    return {
        "attention": await _attention(context, len(pending)),
        "pending": [
            {"conversation": conversation, "message_id": message, "since": since, "name": name}
            for conversation, message, since, name in pending[:PENDING_ROWS]
        ],
        "events_per_second": events_per_second(await context.server_context.lag_history.samples())
        if operates
        else None,
        "messages": [(f"{each:%H:%M}", numbers.get(each, 0)) for each in minutes],
        "is_cut": sum(numbers.values()) == MOST_MESSAGES,
        "response_times": activity and activity["response_times"],
        "statuses": activity and activity["statuses"],
        "conversations": await models(context, ConversationOut, conversations),
        "is_operator_view": operates,
    }


async def _activity(context: RequestContext, minute: datetime) -> dict[str, Any]:
    """Return the response times since yesterday, and the numbers of conversations and tasks by status."""
    statistics = Statistics(context.store, caller=context.caller)
    times, statuses = await asyncio.gather(
        statistics.response_times(since=minute.date() - timedelta(days=1)), statistics.by_status()
    )
    return {"response_times": times, "statuses": {f"{each.kind} {each.status}": each.number for each in statuses}}


async def _attention(context: RequestContext, pending: int) -> list[dict[str, Any]]:
    """Return what needs attention: its severity, kind, place of the page about it, and numbers for its text."""
    found: list[dict[str, Any]] = []

    def add(severity: str, kind: str, path: str, **values: Any) -> None:
        found.append({"severity": severity, "kind": kind, "path": path, "values": values})

    if is_operator(context):
        samples, workers, backups = await asyncio.gather(
            context.server_context.lag_history.samples(),
            read_workers(context.store),
            kept(context, "backups", None, partial(read_backups, context)),
        )
        now = samples[-1]
        if not workers:
            add("critical", "no_worker", "projections")
        for lag in now.lags:
            if lag.paused_at:
                add("warning", "paused", "projections", projection=lag.projection)
            if lag.parked:
                add("critical", "parked", "projections", projection=lag.projection, number=lag.parked)
            if lag.seconds > WARNING_SECONDS:
                severity = "critical" if lag.seconds > CRITICAL_SECONDS else "warning"
                add(severity, "lag", "projections", projection=lag.projection, seconds=lag.seconds)
        if now.at - samples[0].at > WARNING_SECONDS and all(
            each.horizon_distance for each in samples if now.at - each.at <= WARNING_SECONDS
        ):
            add("warning", "horizon", "operations", number=now.horizon_distance)
        if not context.server_context.settings.backup_dir:
            add("warning", "no_backup", "operations")
        elif backups is not None:
            if backups.error or backups.is_overdue:
                add("critical", "backup", "operations", reason=backups.error)
            if backups.drill is not None and backups.drill.failure:
                add("critical", "drill", "operations", reason=backups.drill.failure)
    if pending:
        add("warning", "pending", "conversations?state=pending", number=pending)
    return sorted(found, key=lambda each: str(each["severity"]))
