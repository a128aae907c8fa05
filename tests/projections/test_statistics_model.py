"""The statistics say what a plain count of the events says, however the log is cut into batches."""

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
from projections import Statistics, catch_up, named, rebuild
from projections.apply import Applier

[STATISTICS] = named(["statistics"])
ACTORS = ["", "ana", "agent"]
BEGIN = datetime(2026, 3, 28, 22, tzinfo=UTC)  # the day before summer begins in Lisbon

# Mostly in some hours of three days, so that counters, answers and stays meet; sometimes anywhere, and back in time.
hours = st.builds(timedelta, hours=st.sampled_from([0, 1, 2, 25, 50]), seconds=st.integers(0, 1800))
times = st.none() | hours.map(lambda after: BEGIN + after) | st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)
)  # fmt: skip
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
    """How long the parts of each event are, as the server writes JSON."""
    rows = await store.log(store.caller(tenant)).fetch(
        "SELECT position, octet_length((content -> 'parts')::text) FROM events WHERE tenant_id = %s", (tenant,)
    )
    sizes = dict(rows)
    return lambda event: int(sizes[event.position])


async def assert_counted(store: EventStore, tenant: str, which: dict[str, Any], **model: Any) -> None:
    """All functions say what the model says."""
    said = Statistics(store, tenant)
    zone = {"zone": model.pop("zone")} if "zone" in model else {}
    counting = Counting(await log_of(store, tenant), await parts_bytes(store, tenant), **which, **model)
    assert await said.by_day(**which, **zone) == counting.by_day()
    assert await said.by_role(**which, **zone) == counting.by_role()
    assert await said.by_actor(**which, **zone) == counting.by_actor()
    assert await said.by_status(**which, **zone) == counting.by_status()
    assert await said.sizes(**which, **zone) == counting.sizes()
    assert rounded(await said.response_times(**which, **zone)) == rounded(counting.response_times())
    times = await said.task_times(**which, **zone)
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
        while times != 0 and await applier.apply(STATISTICS) is not None:
            times = None if times is None else times - 1
    finally:
        await applier.close()


@given(st.lists(appends | st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 9), filters)
@examples(30)
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
        """When the zone was a multiple of a quarter of an hour from UTC."""
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
