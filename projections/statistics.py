"""Statistics of one tenant: counts, sizes and times by day, role, actor and status, as typed rows.

Each method calls the SQL function with its name (``db/schema/statistics``), which defines what is counted. The
projection ``statistics`` maintains the tables that the functions read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack
from zoneinfo import ZoneInfo

import psycopg

from eventstore import Caller, EventStore
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, InputError
from eventstore.json_text import check_text
from eventstore.times import parse_zone
from projections.reading import caller_of

Row = TypeVar("Row")
MAX_ROWS = 10_000
"""The rows of a list at most, such as the days of 27 years."""
UNDATED = "undated"
"""The key of undated times in place of a day."""
_ABBREVIATIONS = {"CET": "Europe/Brussels", "EET": "Europe/Athens", "MET": "Europe/Brussels", "WET": "Europe/Lisbon"}
"""Zones, with the one that each is a link to in the IANA database: PostgreSQL reads their names as fixed offsets."""


@dataclass(frozen=True, slots=True)
class DayCounts:
    """The activity of a day.

    Attributes:
        day: None stands for what is undated: programs write the first day of the calendar, or the year 9999, for a time
            that they do not have.
        conversations: the number of conversations that began on it.
        active_conversations: the number of conversations with events on it.
        tasks: created on it.
        events: all events, messages included.
        characters, bytes: of the text of the messages; bytes in UTF-8.
    """

    day: date | None
    conversations: int
    active_conversations: int
    messages: int
    tasks: int
    events: int
    characters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RoleCounts:
    """The messages of a role.

    Attributes:
        conversations: the number of conversations with messages of the role.
        parts_bytes: size of the parts as JSON.
    """

    role: str
    conversations: int
    messages: int
    characters: int
    bytes: int
    parts: int
    parts_bytes: int


@dataclass(frozen=True, slots=True)
class ActorCounts:
    """The activity of an actor, with the members of :class:`DayCounts`."""

    actor: str
    conversations: int
    active_conversations: int
    messages: int
    tasks: int
    events: int
    characters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class StatusCount:
    """The number of conversations (``active``, ``archived``, ``deleted``) or tasks that have a status now.

    Attributes:
        kind: ``conversation`` or ``task``.
    """

    kind: str
    status: str
    number: int


@dataclass(frozen=True, slots=True)
class ResponseTimes:
    """Seconds from the first unanswered message of a user to the next message of an assistant.

    Attributes:
        key: ``all``, or the day of the question (``undated`` if it has none), or the actor who answered.
        questions: runs of messages of users, answered or not; by actor, and of one actor, only answered ones.
        unmeasured: answers whose time is before that of their question; counted in ``answered``, not in the times.
        average, median, p95, longest: None if nothing was measured.
    """

    key: str
    questions: int
    answered: int
    unmeasured: int
    average: float | None
    median: float | None
    p95: float | None
    longest: float | None


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """The tasks of a status, and the seconds that tasks spend in it.

    Attributes:
        tasks: the number of tasks with the status now.
        unmeasured: those of them whose time of entering it is before their creation; not counted in the times.
        average, median, p95: from a task's creation until it entered this status, if that is a final one.
        stays: how often a task was in it and left it; ``…_stay`` is how long it was in it.
    """

    status: str
    is_final: bool
    tasks: int
    unmeasured: int
    average: float | None
    median: float | None
    p95: float | None
    stays: int
    unmeasured_stays: int
    average_stay: float | None
    median_stay: float | None
    p95_stay: float | None


@dataclass(frozen=True, slots=True)
class Size:
    """The number and the sizes of texts, parts or artifacts.

    Attributes:
        what: ``text`` of messages, ``parts`` of messages, or ``artifacts`` (chunks of them).
        characters: of texts.
        bytes: of texts in UTF-8, of the others as JSON.
        average_bytes: None if there is none.
        largest_bytes: of the largest text, parts of one message, or chunk.
    """

    what: str
    number: int
    characters: int | None
    bytes: int
    average_bytes: float | None
    largest_bytes: int


class StatisticsFilter(TypedDict, total=False):
    """The part of a tenant's data that is counted; a filter that is None or left out does not apply.

    Attributes:
        since, until: the first and the last day, both included.
        actor: only what this actor caused.
        zone: the time zone of the days: a name of the IANA database, such as ``America/Sao_Paulo``, or an offset from
            UTC, such as ``-03:00``, negative west of Greenwich; by default UTC.
    """

    since: date | None
    until: date | None
    actor: str | None
    zone: str


class Statistics:
    """The statistics of one tenant, or of what one user of it may see.

    Every method raises :class:`InputError` if a filter is not valid.

    A conversation counts on the day when it began, a task on the day when it was created, an answer on the day of its
    question, everything else on the day when it happened (``occurred_at``, otherwise when it was appended).

    Of more than :data:`MAX_ROWS` days the latest are returned, of more actors those with most events or answers.

    Args:
        tenant: by default that of the store.
        caller: the tenant, and the user if only what they may see is counted; instead of ``tenant``.
    """

    def __init__(self, store: EventStore, tenant: str | None = None, *, caller: Caller | None = None) -> None:
        self._store = store
        self._caller = caller_of(store, tenant, caller)

    async def by_day(self, **filters: Unpack[StatisticsFilter]) -> list[DayCounts]:
        """Return the days that have events, in their order, and then what is undated, unless a period is given."""
        return await self._rows(DayCounts, "by_day", filters)

    async def by_role(self, **filters: Unpack[StatisticsFilter]) -> list[RoleCounts]:
        """Return the roles, that with most messages first."""
        return await self._rows(RoleCounts, "by_role", filters)

    async def by_actor(self, **filters: Unpack[StatisticsFilter]) -> list[ActorCounts]:
        """Return the actors, that with most events first."""
        return await self._rows(ActorCounts, "by_actor", filters)

    async def by_status(self, **filters: Unpack[StatisticsFilter]) -> list[StatusCount]:
        """Return the conversations that began, and the tasks that were created, by their present status."""
        return await self._rows(StatusCount, "by_status", filters)

    async def response_times(self, **filters: Unpack[StatisticsFilter]) -> ResponseTimes:
        """Return the response times of all questions; ``actor`` is the one who answers."""
        rows = await self._rows(ResponseTimes, "response_times", filters, by="all")
        return rows[0] if rows else ResponseTimes("all", 0, 0, 0, None, None, None, None)

    async def response_times_by_day(self, **filters: Unpack[StatisticsFilter]) -> list[ResponseTimes]:
        """Return the response times by the day of the question; ``actor`` is the one who answers."""
        return await self._rows(ResponseTimes, "response_times", filters, by="day")

    async def response_times_by_actor(self, **filters: Unpack[StatisticsFilter]) -> list[ResponseTimes]:
        """Return the response times by the actor who answers, the one with most answers first."""
        return await self._rows(ResponseTimes, "response_times", filters, by="actor")

    async def task_times(self, **filters: Unpack[StatisticsFilter]) -> list[TaskTimes]:
        """Return the times of the tasks that were created, by status, that with most tasks first."""
        return await self._rows(TaskTimes, "task_times", filters)

    async def sizes(self, **filters: Unpack[StatisticsFilter]) -> list[Size]:
        """Return the sizes of texts, parts and artifacts."""
        return await self._rows(Size, "sizes", filters)

    async def _rows(self, row_type: type[Row], name: str, filters: StatisticsFilter, **more: str) -> list[Row]:
        text = query("projections", f"statistics_{name}")
        parameters = {"tenant": self._caller.tenant, "limit": MAX_ROWS} | _checked_filters(**filters) | more
        rows = await self._store.tables(self._caller).fetch(text, parameters, explain=_zone_error)
        return [row_type(*row) for row in rows]


def _checked_filters(
    since: date | None = None, until: date | None = None, actor: str | None = None, zone: str = "UTC"
) -> dict[str, Any]:
    for name, day in (("since", since), ("until", until)):
        if day is not None and (not isinstance(day, date) or isinstance(day, datetime)):
            raise InputError(f"{name}: {day!r} is not a day: give a datetime.date")
    if since is not None and until is not None and since > until:
        raise InputError(f"since: {since} is after until, {until}: exchange them")
    for name, text in (("actor", actor), ("zone", zone)):
        if text is not None:
            check_text(text, name)
    return {"since": since, "until": until, "actor": actor, "zone": _zone(zone)}


def _zone(text: str) -> str:
    """Return a time zone as PostgreSQL reads it: in an offset, it takes a positive sign for west (POSIX)."""
    zone = parse_zone(text)
    if isinstance(zone, ZoneInfo):
        return _ABBREVIATIONS.get(zone.key, zone.key)
    minutes = (zone.utcoffset(None) or timedelta()) // timedelta(minutes=1)
    return f"{'-' if minutes > 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}" if minutes else "UTC"


def _zone_error(error: psycopg.Error) -> EventStoreError | None:
    """Return the error for what only the SQL functions check: a time zone that is unknown or does not fit the days."""
    if error.sqlstate != "22023":
        return None
    return InputError(f"zone: {error.diag.message_primary}: {error.diag.message_hint or 'choose another'}")
