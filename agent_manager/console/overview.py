"""The overview: what needs attention first, activity, and the latest conversations."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter

from agent_manager.console.operator import events_per_second, is_operator, read_backups, samples
from agent_manager.console.pages import ROOT, ConsoleRoute, page, wait_for_written
from agent_manager.server.authorization import Data
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.schemas.conversations import ConversationOut
from eventstore.database.queries import query
from projections import Statistics
from projections.status import read_workers

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)

WARNING_SECONDS, CRITICAL_SECONDS = 60.0, 600.0
"""The lag from which on a projection needs attention, as for ``eventstore doctor``."""
_MESSAGES_BY_MINUTE = query("agent_manager.console", "messages_by_minute")


@page(router, "/", "overview.html", Data.CONTENT)
async def overview(context: CurrentContext) -> dict[str, Any]:
    """Show what needs attention, activity of the last hour, and the latest conversations."""
    await wait_for_written(context)
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    statistics = Statistics(context.store, caller=context.caller)
    pending = await context.manager.pending()
    counts, times, statuses, conversations, attention = await asyncio.gather(
        context.store.tables(context.caller).fetch(_MESSAGES_BY_MINUTE, {"tenant": context.caller.tenant}),
        statistics.response_times(since=minute.date() - timedelta(days=1)),
        statistics.by_status(),
        context.reader.conversations(limit=12),
        _attention(context, len(pending)),
    )
    numbers = dict(counts)
    minutes = [minute - timedelta(minutes=59 - number) for number in range(60)]
    return {
        "attention": attention,
        "pending": [
            {
                "conversation": each.conversation,
                "message_id": each.message_id,
                "since": each.since,
                "status": each.status,
            }
            for each in pending[:5]
        ],
        "events_per_second": events_per_second(await samples(context)) if is_operator(context) else None,
        "messages": [(f"{each:%H:%M}", numbers.get(each, 0)) for each in minutes],
        "response_times": times,
        "statuses": {f"{each.kind} {each.status}": each.number for each in statuses},
        "conversations": [ConversationOut.model_validate(row) for row in conversations],
        "is_operator_view": is_operator(context),
    }


async def _attention(context: RequestContext, pending: int) -> list[dict[str, Any]]:
    """Return what needs attention: its severity, kind, place of the page about it, and numbers for its text."""
    found: list[dict[str, Any]] = []

    def add(severity: str, kind: str, path: str, **values: Any) -> None:
        found.append({"severity": severity, "kind": kind, "path": path, "values": values})

    if is_operator(context):
        kept = await samples(context)
        now = kept[-1]
        if not await read_workers(context.store):
            add("critical", "no_worker", "projections")
        for lag in now.lags:
            if lag.parked:
                add("critical", "parked", "projections", projection=lag.projection, number=lag.parked)
            if lag.seconds > WARNING_SECONDS:
                severity = "critical" if lag.seconds > CRITICAL_SECONDS else "warning"
                add(severity, "lag", "projections", projection=lag.projection, seconds=lag.seconds)
        if now.at - kept[0].at > WARNING_SECONDS and all(
            each.horizon_distance for each in kept if now.at - each.at <= WARNING_SECONDS
        ):
            add("warning", "horizon", "operations", number=now.horizon_distance)
        backups = await read_backups(context)
        if backups is None:
            add("warning", "no_backup", "operations")
        else:
            if backups.error or backups.is_overdue:
                add("critical", "backup", "operations", reason=backups.error)
            if backups.drill is not None and backups.drill.failure:
                add("critical", "drill", "operations", reason=backups.drill.failure)
    if pending:
        add("warning", "pending", "", number=pending)
    return sorted(found, key=lambda each: str(each["severity"]))
