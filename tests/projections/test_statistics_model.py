"""The statistics equal a plain count of the events, however the log is divided into batches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql
from support.counting import Counting, rounded
from support.examples import examples
from support.histories import CONVERSATIONS, TASKS, events_data
from support.scoped_queries import open_as

from eventstore import (
    Append,
    ConversationArchived,
    ConversationDeleted,
    ConversationReactivated,
    Event,
    EventStore,
    MessageAdded,
    Metadata,
    NewEvent,
    TaskStatus,
    TaskStatusChanged,
)
from projections import Statistics, catch_up, rebuild, select_projections
from projections.apply import Applier

[STATISTICS] = select_projections(["statistics"])
ACTORS = ["", "ana", "agent"]
BEGIN = datetime(2026, 3, 28, 22, tzinfo=UTC)  # the day before summer begins in Lisbon

# Mostly in some hours of three days, so that counters, answers and stays meet; sometimes anywhere, and back in time.
hours = st.builds(timedelta, hours=st.sampled_from([0, 1, 2, 25, 50]), seconds=st.integers(0, 1800))
times = st.none() | hours.map(lambda after: BEGIN + after) | st.datetimes(timezones=st.just(UTC))
# Half of the events are those that go together with others: questions and answers, and what becomes of two tasks.
messages = st.builds(
    lambda role, values: MessageAdded(role=role, **values),
    st.sampled_from(["user", "assistant"]),
    st.sampled_from([{"content": "olá"}, {"content": "o" * 9}, {"parts": [{"text": "a"}]}, {"parts": [1, 2, 3]}]),
)
statuses = st.builds(TaskStatusChanged, task_id=st.sampled_from(TASKS), status=st.sampled_from(list(TaskStatus)[1:3]))
states = st.sampled_from([ConversationArchived(), ConversationReactivated(), ConversationDeleted()])
new_events = st.builds(
    lambda data, actor, time: NewEvent(data, actor=actor, metadata=Metadata(occurred_at=time)),
    messages | statuses | states | events_data,
    st.sampled_from(ACTORS),
    times,
)
pytestmark = pytest.mark.usefixtures("events_after_deletions")

appends = st.dictionaries(st.sampled_from(CONVERSATIONS), st.lists(new_events, min_size=1, max_size=20), min_size=1)
days = st.none() | st.integers(0, 4).map(lambda n: BEGIN.date() + timedelta(days=n)) | st.dates()
filters = st.fixed_dictionaries({"since": days, "until": days, "actor": st.none() | st.sampled_from(ACTORS)})


async def log_of(store: EventStore, tenant: str) -> list[Event]:
    return [event async for event in store.read_log(tenant=tenant)]


async def parts_bytes(store: EventStore, tenant: str) -> Callable[[Event], int]:
    """Return how long the parts of each event are, as the server writes JSON."""
    rows = await store.log(store.caller(tenant)).fetch(
        "SELECT position, octet_length((content -> 'parts')::text) FROM events WHERE tenant_id = %s", (tenant,)
    )
    sizes = dict(rows)
    return lambda event: int(sizes[event.position])


async def assert_counted(store: EventStore, tenant: str, which: dict[str, Any], **model: Any) -> None:
    """All functions say what the model says."""
    statistics = Statistics(store, tenant)
    zone = {"zone": model.pop("zone")} if "zone" in model else {}
    counting = Counting(await log_of(store, tenant), await parts_bytes(store, tenant), **which, **model)
    assert await statistics.by_day(**which, **zone) == counting.by_day()
    assert await statistics.by_role(**which, **zone) == counting.by_role()
    assert await statistics.by_actor(**which, **zone) == counting.by_actor()
    assert await statistics.by_status(**which, **zone) == counting.by_status()
    assert await statistics.sizes(**which, **zone) == counting.sizes()
    assert rounded(await statistics.response_times(**which, **zone)) == rounded(counting.response_times())
    times = await statistics.task_times(**which, **zone)
    assert [rounded(row) for row in times] == [rounded(row) for row in counting.task_times()]


def tables_of(url: str, tenant: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every column of every row."""
    with open_as(url) as connection:
        query = sql.SQL("SELECT t::text FROM {} AS t WHERE tenant_id = %s ORDER BY t::text")
        return {
            table: connection.execute(query.format(sql.Identifier(table)), (tenant,)).fetchall()
            for table in STATISTICS.tables
        }


async def apply(store: EventStore, size: int, times: int | None) -> None:
    applier = await Applier.open(store, size)
    try:
        await applier.register(STATISTICS)
        while times != 0 and await applier.apply_batch(STATISTICS) is not None:
            times = None if times is None else times - 1
    finally:
        await applier.close()


@given(st.lists(appends | st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 9), filters)
@examples(30)
@pytest.mark.slow
async def test_the_statistics_are_a_count_of_the_log(
    store: EventStore, steps: list[Any], size: int, which: dict[str, Any]
) -> None:
    tenant = str(uuid4())
    await catch_up(store, [STATISTICS])  # with what earlier examples left
    for step in steps:
        if isinstance(step, int):
            await apply(store, step, times=1)
        else:
            parts = [Append(conversation, events) for conversation, events in step.items()]
            await store.append_all(parts, tenant=tenant)
    await apply(store, size, times=None)
    if which["since"] and which["until"] and which["since"] > which["until"]:
        which["since"], which["until"] = which["until"], which["since"]
    await assert_counted(store, tenant, which)
    await assert_counted(store, tenant, {})


@given(st.lists(st.lists(new_events, min_size=1, max_size=20), min_size=1, max_size=4), st.integers(1, 9))
@examples(8)
async def test_a_rebuild_gives_the_same_rows_column_by_column(
    store: EventStore, database_url: str, histories: list[list[NewEvent]], size: int
) -> None:
    tenant = str(uuid4())
    for number, events in enumerate(histories):
        await store.append(UUID(int=number), events, tenant=tenant)
    await apply(store, size, times=None)
    in_pieces = tables_of(database_url, tenant)
    assert all(in_pieces[table] for table in ("statistics_activity", "statistics_conversations"))
    await rebuild(store, [STATISTICS])
    assert tables_of(database_url, tenant) == in_pieces


@given(st.lists(new_events, min_size=1, max_size=20), filters, st.sampled_from(["Asia/Kathmandu", "Europe/Lisbon"]))
@examples(20)
async def test_days_are_those_of_the_time_zone(
    store: EventStore, events: list[NewEvent], which: dict[str, Any], zone: str
) -> None:
    def in_use(event: NewEvent) -> NewEvent:
        """Return an event with a time at which the zone was a multiple of a quarter of an hour from UTC."""
        at = event.metadata.occurred_at
        if at is None or date(1990, 1, 1) <= at.date() <= date(2030, 1, 1):
            return event
        return NewEvent(event.data, actor=event.actor, metadata=Metadata(occurred_at=BEGIN))

    which = {name: value for name, value in which.items() if name == "actor"} | {
        name: value
        for name, value in which.items()
        if isinstance(value, date) and date(1990, 1, 1) < value < date(2030, 1, 1)
    }
    if "since" in which and "until" in which and which["since"] > which["until"]:
        which["since"], which["until"] = which["until"], which["since"]
    tenant = str(uuid4())
    await store.append(UUID(int=1), [in_use(event) for event in events], tenant=tenant)
    await catch_up(store, [STATISTICS])
    there = ZoneInfo(zone)
    await assert_counted(store, tenant, which, zone=zone, day_of=lambda moment: moment.astimezone(there).date())


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Atlantic/Azores", datetime(2025, 10, 26, 1, tzinfo=UTC)),  # from 1:00 to 0:00: midnight comes twice
        ("America/Havana", datetime(2025, 11, 2, 5, tzinfo=UTC)),
        ("America/Scoresbysund", datetime(2023, 10, 29, 1, tzinfo=UTC)),
        ("Asia/Beirut", datetime(2025, 10, 25, 21, tzinfo=UTC)),  # from 24:00 to 23:00: the day before is longer
        ("America/Santiago", datetime(2026, 4, 5, 3, tzinfo=UTC)),
        ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),  # from 24:00 to 1:00: there is no midnight
        ("Asia/Beirut", datetime(2025, 3, 29, 22, tzinfo=UTC)),
        ("Antarctica/Casey", datetime(2019, 3, 16, 17, tzinfo=UTC)),  # from 4:00 to 1:00
        ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),  # a day is left out
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),  # by half an hour
    ],
)
async def test_days_on_which_clocks_change_are_those_of_the_time_zone(
    store: EventStore, zone: str, change: datetime
) -> None:
    tenant = str(uuid4())
    times = [change + timedelta(minutes=15 * number) for number in range(-4 * 28, 4 * 28)]
    events = [
        NewEvent(MessageAdded(role=role, content="x"), metadata=Metadata(occurred_at=at))
        for at in times
        for role in ("user", "assistant")
    ]
    await store.append(UUID(int=1), events, tenant=tenant)
    await catch_up(store, [STATISTICS])
    there = ZoneInfo(zone)

    def day_of(moment: datetime) -> date:
        return moment.astimezone(there).date()

    await assert_counted(store, tenant, {}, zone=zone, day_of=day_of)
    for day in sorted({day_of(at) for at in times}):
        await assert_counted(store, tenant, {"since": day, "until": day}, zone=zone, day_of=day_of)
