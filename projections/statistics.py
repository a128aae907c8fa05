"""Reading the statistics: counts, sizes and times of one tenant, by day, role, actor and status, as typed rows.

Each method calls the SQL function of its name, which anybody may call; the migration ``*_statistics.sql`` says what
each counts. The tables behind them are filled by the projection ``statistics``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypedDict, TypeVar, Unpack

import psycopg

from eventstore import Caller, EventStore
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, InputError
from eventstore.json_text import check_text
from projections.reading import caller_of

Row = TypeVar("Row")

_BY_DAY = query("projections", "statistics_by_day")
_BY_ROLE = query("projections", "statistics_by_role")
_BY_ACTOR = query("projections", "statistics_by_actor")
_BY_STATUS = query("projections", "statistics_by_status")
_RESPONSE_TIMES = query("projections", "statistics_response_times")
_TASK_TIMES = query("projections", "statistics_task_times")
_SIZES = query("projections", "statistics_sizes")


@dataclass(frozen=True, slots=True)
class DayCounts:
    """What happened on a day.

    Attributes:
        conversations: begun on it.
        active_conversations: in which something happened on it.
        tasks: created on it.
        events: all events, also those that are no messages.
        characters, bytes: of the text of the messages; bytes in UTF-8.
    """

    day: date
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
        conversations: in which the role spoke.
        parts_bytes: of the parts as JSON.
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
    """What an actor caused; the members are those of :class:`DayCounts`."""

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
    """How many conversations (``active``, ``archived``, ``deleted``) or tasks are in a status now.

    Attributes:
        kind: ``conversation`` or ``task``.
    """

    kind: str
    status: str
    number: int


@dataclass(frozen=True, slots=True)
class ResponseTimes:
    """From the first message of a user that is not answered yet to the next message of an assistant; in seconds.

    Attributes:
        key: ``all``, or the day (of the question), or the actor (who answered).
        questions: runs of messages of users, answered or not; by actor and of an actor only answered ones.
        unmeasured: answers that are said to have come before their questions; in ``answered``, not in the times.
        average, median, p95, longest: None where nothing was measured.
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
    """The tasks of a status, and how long tasks stay in it; in seconds.

    Attributes:
        tasks: that are in it now.
        unmeasured: of these, said to have come into it before they were created; not in the times.
        average, median, p95: from a task's creation until it came into this status, where it is a final one.
        stays: times that a task was in it and left it; ``…_stay`` how long that was.
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
    """How much of something there is.

    Attributes:
        what: ``text`` of messages, ``parts`` of messages, ``artifacts`` (chunks of them).
        characters: of texts.
        bytes: of texts in UTF-8, of the others as JSON.
        average_bytes: of one; None where there is none.
        largest_bytes: the largest text, parts of one message, chunk.
    """

    what: str
    number: int
    characters: int | None
    bytes: int
    average_bytes: float | None
    largest_bytes: int


class StatisticsFilter(TypedDict, total=False):
    """What of a tenant's data is counted; what is left out, or None, means all.

    Attributes:
        since, until: the first and the last day, both included.
        actor: only what this actor caused.
        zone: the time zone whose days are meant, by a name that PostgreSQL knows, such as ``America/Sao_Paulo``;
            UTC by default.
    """

    since: date | None
    until: date | None
    actor: str | None
    zone: str


class Statistics:
    """Reads the statistics of one tenant, or of what one user of it may see.

    Every method raises :class:`InputError` where what it is given makes no sense.

    A conversation counts on the day when it began, a task on the day when it was created, an answer on the day of its
    question, everything else on the day when it happened, as far as anybody said (``occurred_at``).

    Args:
        tenant: the store's own if left out.
        caller: the tenant, and the user where only what they may see is counted; in the place of ``tenant``.
    """

    def __init__(self, store: EventStore, tenant: str | None = None, *, caller: Caller | None = None) -> None:
        self._store = store
        self._caller = caller_of(store, tenant, caller)

    async def by_day(self, **which: Unpack[StatisticsFilter]) -> list[DayCounts]:
        """The days on which anything happened, in their order."""
        return await self._rows(DayCounts, _BY_DAY, which)

    async def by_role(self, **which: Unpack[StatisticsFilter]) -> list[RoleCounts]:
        """The roles, that of most messages first."""
        return await self._rows(RoleCounts, _BY_ROLE, which)

    async def by_actor(self, **which: Unpack[StatisticsFilter]) -> list[ActorCounts]:
        """The actors, that of most events first."""
        return await self._rows(ActorCounts, _BY_ACTOR, which)

    async def by_status(self, **which: Unpack[StatisticsFilter]) -> list[StatusCount]:
        """The conversations begun, and the tasks created, by the status that they have now."""
        return await self._rows(StatusCount, _BY_STATUS, which)

    async def response_times(self, **which: Unpack[StatisticsFilter]) -> ResponseTimes:
        """Of all questions; ``actor`` is the one who answers."""
        found = await self._rows(ResponseTimes, _RESPONSE_TIMES, which, by="all")
        return found[0] if found else ResponseTimes("all", 0, 0, 0, None, None, None, None)

    async def response_times_by_day(self, **which: Unpack[StatisticsFilter]) -> list[ResponseTimes]:
        """By the day of the question; ``actor`` is the one who answers."""
        return await self._rows(ResponseTimes, _RESPONSE_TIMES, which, by="day")

    async def response_times_by_actor(self, **which: Unpack[StatisticsFilter]) -> list[ResponseTimes]:
        """By the actor who answers, the one with most answers first."""
        return await self._rows(ResponseTimes, _RESPONSE_TIMES, which, by="actor")

    async def task_times(self, **which: Unpack[StatisticsFilter]) -> list[TaskTimes]:
        """Of the tasks created, by status, that of most tasks first."""
        return await self._rows(TaskTimes, _TASK_TIMES, which)

    async def sizes(self, **which: Unpack[StatisticsFilter]) -> list[Size]:
        """Of texts, parts and artifacts."""
        return await self._rows(Size, _SIZES, which)

    async def _rows(self, kind: type[Row], text: Any, which: StatisticsFilter, **more: str) -> list[Row]:
        parameters = {"tenant": self._caller.tenant} | _checked(**which) | more
        rows = await self._store.tables(self._caller).fetch(text, parameters, explain=_refused)
        return [kind(*row) for row in rows]


def _checked(
    since: date | None = None, until: date | None = None, actor: str | None = None, zone: str = "UTC"
) -> dict[str, Any]:
    for name, day in (("since", since), ("until", until)):
        if day is not None and (not isinstance(day, date) or isinstance(day, datetime)):
            raise InputError(f"{name}: {day!r} is no day: give a datetime.date")
    if since is not None and until is not None and since > until:
        raise InputError(f"since: {since} is after until, {until}: nothing lies between; exchange them")
    for name, text in (("actor", actor), ("zone", zone)):
        if text is not None:
            check_text(text, name)
    return {"since": since, "until": until, "actor": actor, "zone": zone}


def _refused(error: psycopg.Error) -> EventStoreError | None:
    """The error for what only the functions can find wrong: a time zone that is unknown or does not fit the days."""
    if error.sqlstate != "22023":
        return None
    advice = error.diag.message_hint or "Give a name that PostgreSQL knows, such as America/Sao_Paulo."
    return InputError(f"zone: {error.diag.message_primary}. {advice}")
