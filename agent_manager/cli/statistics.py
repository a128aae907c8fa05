"""The command stats."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import asdict
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

import typer

from agent_manager.cli.conversations import mention_lag
from agent_manager.cli.options import DataDir, Json, Limit, Tenant, read_settings, run
from agent_manager.cli.output import bars, duration, print_json, print_table
from eventstore import EventStore
from eventstore.errors import InputError, printable
from projections import Statistics
from projections.statistics import ResponseTimes, Size, StatisticsFilter, TaskTimes

_NOTHING = "nothing to count: eventstore seed or eventstore import FILE.jsonl puts something in"
_LATEST_DAYS, _FIRST_ACTORS = 14, 10


class By(StrEnum):
    """What the numbers are shown by."""

    DAY = "day"
    ROLE = "role"
    ACTOR = "actor"
    STATUS = "status"


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(stats)


def stats(
    by: Annotated[By | None, typer.Option("--by", help="Only the numbers by this.", show_default=False)] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DAY", help="From this day on: YYYY-MM-DD.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="DAY", help="Up to and with this day.", show_default=False)
    ] = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Only of this actor.", show_default=False)] = None,
    zone: Annotated[str, typer.Option("--zone", help="Whose days: a time zone, such as America/Sao_Paulo.")] = "UTC",
    limit: Limit = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Count conversations, messages and tasks, and show how long answers and tasks take.

    Without --by it shows a little of everything: the latest days, the busiest actors. --limit is for the rows of
    --by: the latest days, or those with most.

    A response is the time from a user's first unanswered message to the assistant's next one.
    """
    which: StatisticsFilter = {
        "since": _day("--since", since),
        "until": _day("--until", until),
        "actor": actor,
        "zone": zone,
    }

    async def work(store: EventStore) -> None:
        statistics = Statistics(store)
        if by is None:
            await (_everything_as_json if as_json else _show_everything)(statistics, which)
        else:
            rows = await _ROWS[by](statistics, which)
            if limit is not None:
                rows = rows[-limit:] if by is By.DAY else rows[:limit]
            if as_json:
                print_json(rows)
            else:
                _SHOW[by](rows)
        await mention_lag(store)

    run(work, read_settings(data_dir, tenant))


def _day(option: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise InputError(f"{option}: {printable(repr(text))} is no day: write it as 2026-01-31") from None


async def _days(statistics: Statistics, which: StatisticsFilter) -> list[dict[str, Any]]:
    times = {row.key: row for row in await statistics.response_times_by_day(**which)}
    return [asdict(row) | {"response_times": times.get(str(row.day))} for row in await statistics.by_day(**which)]


async def _actors(statistics: Statistics, which: StatisticsFilter) -> list[dict[str, Any]]:
    times = {row.key: row for row in await statistics.response_times_by_actor(**which)}
    return [asdict(row) | {"response_times": times.get(row.actor)} for row in await statistics.by_actor(**which)]


async def _roles(statistics: Statistics, which: StatisticsFilter) -> list[dict[str, Any]]:
    return [asdict(row) for row in await statistics.by_role(**which)]


async def _statuses(statistics: Statistics, which: StatisticsFilter) -> list[dict[str, Any]]:
    counts = await statistics.by_status(**which)
    times = await statistics.task_times(**which)
    return [
        *(asdict(row) | {"times": None} for row in counts if row.kind == "conversation"),
        *({"kind": "task", "status": row.status, "number": row.tasks, "times": row} for row in times),
    ]


def _show_days(rows: list[dict[str, Any]]) -> None:
    print_table(
        ("day", ">conversations", ">active", ">messages", ">tasks", ">characters", ">median response", "messages"),
        [
            (
                r["day"], r["conversations"], r["active_conversations"], r["messages"], r["tasks"], r["characters"],
                _median(r["response_times"]), bar,
            )
            for r, bar in zip(rows, bars([row["messages"] for row in rows]), strict=True)
        ],
        nothing=_NOTHING,
    )  # fmt: skip


def _show_roles(rows: list[dict[str, Any]]) -> None:
    print_table(
        ("role", ">conversations", ">messages", ">characters", ">bytes", ">parts", "messages"),
        [
            (r["role"], r["conversations"], r["messages"], r["characters"], r["bytes"], r["parts"], bar)
            for r, bar in zip(rows, bars([row["messages"] for row in rows]), strict=True)
        ],
        nothing=_NOTHING,
    )


def _show_actors(rows: list[dict[str, Any]]) -> None:
    print_table(
        ("actor", ">conversations", ">active", ">messages", ">tasks", ">events", ">median response", "events"),
        [
            (
                r["actor"], r["conversations"], r["active_conversations"], r["messages"], r["tasks"], r["events"],
                _median(r["response_times"]), bar,
            )
            for r, bar in zip(rows, bars([row["events"] for row in rows]), strict=True)
        ],
        nothing=_NOTHING,
    )  # fmt: skip


def _show_statuses(rows: list[dict[str, Any]]) -> None:
    lengths = [  # conversations and tasks are no parts of one whole
        *bars([row["number"] for row in rows if row["kind"] == "conversation"]),
        *bars([row["number"] for row in rows if row["kind"] == "task"]),
    ]
    print_table(
        ("of", "status", ">number", ">median until it", ">95 % until it", ">stays", ">median in it", "number"),
        [
            (r["kind"], r["status"], r["number"], *_task_times(r["times"]), bar)
            for r, bar in zip(rows, lengths, strict=True)
        ],
        nothing=_NOTHING,
    )


def _median(times: ResponseTimes | None) -> str:
    return duration(times.median if times else None)


def _task_times(times: TaskTimes | None) -> tuple[str, str, str, str]:
    if times is None:
        return "", "", "", ""
    return duration(times.median), duration(times.p95), str(times.stays), duration(times.median_stay)


async def _show_everything(statistics: Statistics, which: StatisticsFilter) -> None:
    days = await _days(statistics, which)
    if not days:
        _show_days(days)
        return
    _show_days(days[-_LATEST_DAYS:])
    _show_responses(await statistics.response_times(**which))
    for show, read in ((_show_roles, _roles), (_show_actors, _actors), (_show_statuses, _statuses)):
        typer.echo()
        show((await read(statistics, which))[:_FIRST_ACTORS])
    typer.echo()
    _show_sizes(await statistics.sizes(**which))


def _show_responses(times: ResponseTimes) -> None:
    if times.questions:
        said = f"{times.answered:,} of {times.questions:,} questions answered"
        if times.median is not None:
            said += (
                f": median {duration(times.median)}, average {duration(times.average)}, "
                f"95 % within {duration(times.p95)}, the longest {duration(times.longest)}"
            )
        if times.unmeasured:
            said += f"; {times.unmeasured:,} dated before their questions and not measured"
        typer.echo(f"\n{said}")


def _show_sizes(sizes: list[Size]) -> None:
    print_table(
        ("size of", ">number", ">characters", ">bytes", ">average bytes", ">largest bytes"),
        [
            (s.what, s.number, s.characters, s.bytes, "" if s.average_bytes is None else f"{s.average_bytes:.1f}",
             s.largest_bytes)
            for s in sizes
        ],
        nothing=_NOTHING,
    )  # fmt: skip


async def _everything_as_json(statistics: Statistics, which: StatisticsFilter) -> None:
    print_json(
        {
            "days": await _days(statistics, which),
            "roles": await _roles(statistics, which),
            "actors": await _actors(statistics, which),
            "statuses": await _statuses(statistics, which),
            "response_times": await statistics.response_times(**which),
            "sizes": await statistics.sizes(**which),
        }
    )


_Rows = list[dict[str, Any]]
_ROWS: dict[By, Callable[[Statistics, StatisticsFilter], Coroutine[Any, Any, _Rows]]] = {
    By.DAY: _days,
    By.ROLE: _roles,
    By.ACTOR: _actors,
    By.STATUS: _statuses,
}
_SHOW: dict[By, Callable[[_Rows], None]] = {
    By.DAY: _show_days,
    By.ROLE: _show_roles,
    By.ACTOR: _show_actors,
    By.STATUS: _show_statuses,
}
