"""The command stats."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from itertools import groupby
from typing import Annotated, Any, TypeAlias

import typer
from typer import Option

from agent_manager.cli.options import Actor, DataDir, Json, Limit, Tenant, User, read_settings, run
from agent_manager.cli.output import (
    Lag,
    bars,
    duration,
    print_json,
    print_page,
    print_paragraph,
    print_remark,
    print_table,
)
from eventstore import EventStore
from eventstore.errors import printable
from eventstore.times import parse_day
from projections import Statistics
from projections.statistics import UNDATED, ResponseTimes, Size, StatisticsFilter

_NOTHING = "nothing to count: eventstore seed or eventstore import FILE.jsonl adds something"
_LATEST_DAYS = 14
_FIRST_ROWS = 10
_Rows: TypeAlias = list[dict[str, Any]]


class By(StrEnum):
    """The grouping of rows."""

    DAY = "day"
    ROLE = "role"
    ACTOR = "actor"
    STATUS = "status"


_COLUMNS = {
    By.DAY: ("day", ">conversations", ">active", ">messages", ">tasks", ">characters", ">median response"),
    By.ROLE: ("role", ">conversations", ">messages", ">characters", ">bytes", ">parts"),
    By.ACTOR: ("actor", ">conversations", ">active", ">messages", ">tasks", ">events", ">median response"),
    By.STATUS: ("of", "status", ">number", ">median until it", ">95 % until it", ">stays", ">median in it"),
}
_CHARTED = {By.DAY: "messages", By.ROLE: "messages", By.ACTOR: "events", By.STATUS: "number"}
"""The columns that a bar chart at the end of each row shows."""


def stats(
    by: Annotated[By | None, Option(help="Only the numbers by this.")] = None,
    since: Annotated[str | None, Option(metavar="DAY", help="From this day on: YYYY-MM-DD.")] = None,
    until: Annotated[str | None, Option(metavar="DAY", help="Up to and including this day.")] = None,
    actor: Actor = None,
    zone: Annotated[str, Option(help="The time zone of the days, such as America/Sao_Paulo or -03:00.")] = "UTC",
    limit: Limit = None,
    as_json: Json = False,
    user: User = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Count conversations, messages and tasks, and show how long answers and tasks take.

    Without --by it shows an overview: the latest days, the busiest actors. --limit applies to the rows of --by: the
    latest days, or the rows with the largest numbers.

    A response time is the time from a user's first unanswered message to the assistant's next one.
    """
    which: StatisticsFilter = {
        "since": None if since is None else parse_day(since, "--since"),
        "until": None if until is None else parse_day(until, "--until"),
        "actor": actor,
        "zone": zone,
    }

    async def work(store: EventStore) -> None:
        lag = await Lag.wait(store, "statistics")
        statistics = Statistics(store, caller=store.caller(user=user))
        if by is None:
            await (_print_all_as_json if as_json else _print_overview)(statistics, which, zone)
        else:
            rows = await _read(by, statistics, which)
            if limit is not None:
                rows = rows[-limit:] if by is By.DAY else rows[:limit]
            if as_json:
                print_page(rows, zone=zone)
            else:
                _print(by, rows, zone)
                if rows and by is not By.DAY:  # whose heading has it
                    print_remark(f"time zone: {printable(zone)}")
        lag.print()

    run(work, read_settings(data_dir, tenant), tenant)


async def _print_all_as_json(statistics: Statistics, which: StatisticsFilter, zone: str) -> None:
    print_json(
        {
            "zone": zone,
            "days": await _read(By.DAY, statistics, which),
            "roles": await _read(By.ROLE, statistics, which),
            "actors": await _read(By.ACTOR, statistics, which),
            "statuses": await _read(By.STATUS, statistics, which),
            "response_times": await statistics.response_times(**which),
            "sizes": await statistics.sizes(**which),
        }
    )


async def _print_overview(statistics: Statistics, which: StatisticsFilter, zone: str) -> None:
    days = await _read(By.DAY, statistics, which)
    _print(By.DAY, days[-_LATEST_DAYS:], zone)
    if not days:
        return
    _print_response_times(await statistics.response_times(**which))
    for by in (By.ROLE, By.ACTOR, By.STATUS):
        typer.echo()
        _print(by, (await _read(by, statistics, which))[:_FIRST_ROWS], zone)
    typer.echo()
    _print_sizes(await statistics.sizes(**which))


async def _read(by: By, statistics: Statistics, which: StatisticsFilter) -> _Rows:
    match by:
        case By.DAY:
            times = {row.key: row for row in await statistics.response_times_by_day(**which)}
            days = await statistics.by_day(**which)
            return [asdict(row) | {"response_times": times.get(str(row.day or UNDATED))} for row in days]
        case By.ROLE:
            return [asdict(row) for row in await statistics.by_role(**which)]
        case By.ACTOR:
            times = {row.key: row for row in await statistics.response_times_by_actor(**which)}
            actors = await statistics.by_actor(**which)
            return [asdict(row) | {"response_times": times.get(row.actor)} for row in actors]
        case By.STATUS:
            counts = await statistics.by_status(**which)
            of_tasks = await statistics.task_times(**which)
            return [
                *(asdict(row) | {"times": None} for row in counts if row.kind == "conversation"),
                *({"kind": "task", "status": row.status, "number": row.tasks, "times": row} for row in of_tasks),
            ]


def _print(by: By, rows: _Rows, zone: str) -> None:
    charted = _CHARTED[by]
    # The bars of conversations and of tasks have a scale each: they are not parts of one total.
    scales = [list(group) for _, group in groupby(rows, key=lambda row: row.get("kind"))]
    lengths = [bar for group in scales for bar in bars([row[charted] for row in group])]
    cells = [
        (*(_cell(row, column.lstrip(">")) for column in _COLUMNS[by]), bar)
        for row, bar in zip(rows, lengths, strict=True)
    ]
    first, *columns = _COLUMNS[by]
    print_table((f"day ({zone})" if by is By.DAY else first, *columns, f"?{charted}"), cells, nothing=_NOTHING)


def _cell(row: dict[str, Any], column: str) -> Any:
    times = row.get("times") or row.get("response_times")
    match column:
        case "day":
            return row["day"] or UNDATED
        case "active":
            return row["active_conversations"]
        case "of":
            return row["kind"]
        case "median response" | "median until it":
            return times and duration(times.median)
        case "95 % until it":
            return times and duration(times.p95)
        case "stays":
            return times and times.stays
        case "median in it":
            return times and duration(times.median_stay)
        case _:
            return row[column]


def _print_response_times(times: ResponseTimes) -> None:
    if times.questions:
        line = f"{times.answered:,} of {times.questions:,} questions answered"
        if times.median is not None:
            line += (
                f": median {duration(times.median)}, average {duration(times.average)}, "
                f"95 % within {duration(times.p95)}, the longest {duration(times.longest)}"
            )
        if times.unmeasured:
            line += f"; {times.unmeasured:,} dated before their questions and not measured"
        typer.echo()
        print_paragraph(line)


def _print_sizes(sizes: list[Size]) -> None:
    print_table(
        ("size of", ">number", ">characters", ">bytes", ">average bytes", ">largest bytes"),
        [
            (s.what, s.number, s.characters, s.bytes, "" if s.average_bytes is None else f"{s.average_bytes:.1f}",
             s.largest_bytes)
            for s in sizes
        ],
        nothing=_NOTHING,
    )  # fmt: skip
