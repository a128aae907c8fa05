"""The definitions of the statistics, one by one, and what is refused."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from support.catalog import roles_of_the_store
from support.plans import Plan, explain_inside
from support.scoped_queries import open_scoped

from eventstore import (
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationReactivated,
    EventData,
    EventStore,
    MessageAdded,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskCreated,
    TaskDescribed,
    TaskStatusChanged,
)
from eventstore.errors import InputError
from projections import Statistics, catch_up
from projections.statistics import MAX_ROWS, ResponseTimes, Size

pytestmark = pytest.mark.shared_database

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = NOON.date()
TASK = UUID("7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e")


def message(role: Any, second: float, actor: str = "") -> NewEvent:
    return happened(MessageAdded(role=role, content="x"), second, actor)


def happened(data: EventData, second: float, actor: str = "") -> NewEvent:
    return NewEvent(data, actor=actor, metadata=Metadata(occurred_at=NOON + timedelta(seconds=second)))


async def store_each(store: EventStore, *events: NewEvent, conversation: UUID | None = None) -> None:
    """Appends and applies the events one by one, so that each finds its past only in the tables."""
    conversation = conversation or uuid4()
    for event in events:
        await store.append(conversation, [event])
        await catch_up(store)


@pytest.fixture
def statistics(store: EventStore) -> Statistics:
    return Statistics(store)


async def test_a_response_is_timed_from_the_first_of_several_questions(
    store: EventStore, statistics: Statistics
) -> None:
    await store_each(store, message("user", 0), message("user", 50), message("assistant", 60), message("assistant", 90))
    assert await statistics.response_times() == ResponseTimes("all", 1, 1, 0, 60, 60, 60, 60)


async def test_neither_tools_nor_the_system_answer(store: EventStore, statistics: Statistics) -> None:
    await store_each(store, message("user", 0), message("tool", 1), message("system", 2), message("assistant", 3))
    assert (await statistics.response_times()).median == 3


async def test_an_assistant_message_without_a_question_is_not_a_response(
    store: EventStore, statistics: Statistics
) -> None:
    await store_each(store, message("assistant", 0), message("tool", 1), message("assistant", 2))
    assert await statistics.response_times() == ResponseTimes("all", 0, 0, 0, None, None, None, None)


async def test_unanswered_questions_are_counted(store: EventStore, statistics: Statistics) -> None:
    await store_each(store, message("user", 0), message("assistant", 4), message("user", 10), message("user", 11))
    assert await statistics.response_times() == ResponseTimes("all", 2, 1, 0, 4, 4, 4, 4)


async def test_an_answer_dated_before_its_question_is_counted_and_not_measured(
    store: EventStore, statistics: Statistics
) -> None:
    await store_each(
        store, message("user", 0), message("assistant", -30), message("user", 10), message("assistant", 12)
    )
    assert await statistics.response_times() == ResponseTimes("all", 2, 2, 1, 2, 2, 2, 2)


async def test_responses_belong_to_the_day_of_the_question_and_to_the_actor_who_answers(
    store: EventStore, statistics: Statistics
) -> None:
    noon_to_noon = 86_400
    await store_each(
        store, message("user", 0, "ana"), message("assistant", noon_to_noon, "bot"),
        message("user", noon_to_noon, "ana"), message("assistant", noon_to_noon + 8, "other"),
        message("user", 2 * noon_to_noon),
    )  # fmt: skip
    by_day = await statistics.response_times_by_day()
    assert [(row.key, row.answered, row.median) for row in by_day] == [
        ("2026-05-04", 1, noon_to_noon), ("2026-05-05", 1, 8), ("2026-05-06", 0, None),
    ]  # fmt: skip
    by_actor = await statistics.response_times_by_actor()
    assert [(row.key, row.questions, row.median) for row in by_actor] == [("bot", 1, noon_to_noon), ("other", 1, 8)]
    assert (await statistics.response_times(actor="other")).questions == 1
    assert (await statistics.response_times(actor="ana")).questions == 0


async def test_percentiles_lie_between_the_times(store: EventStore, statistics: Statistics) -> None:
    for seconds in range(1, 22):
        await store.append(uuid4(), [message("user", 0), message("assistant", seconds)])
    await catch_up(store)
    times = await statistics.response_times()
    assert (times.average, times.median, times.p95, times.longest) == (11, 11, 20, 21)


async def test_a_task_takes_from_its_first_event_to_its_final_status(store: EventStore, statistics: Statistics) -> None:
    await store_each(
        store,
        happened(TaskCreated(task_id=TASK), 0),
        happened(TaskStatusChanged(task_id=TASK, status="in_progress"), 10),
        happened(TaskStatusChanged(task_id=TASK, status="in_progress"), 20),
        happened(TaskStatusChanged(task_id=TASK, status="completed"), 25),
        happened(TaskStatusChanged(task_id=TASK, status="completed"), 99),
    )
    rows = {row.status: row for row in await statistics.task_times()}
    assert set(rows) == {"pending", "in_progress", "completed"}
    assert (rows["completed"].tasks, rows["completed"].median, rows["completed"].stays) == (1, 25, 0)
    assert (rows["pending"].tasks, rows["pending"].median_stay) == (0, 10)
    assert (rows["in_progress"].stays, rows["in_progress"].median_stay) == (1, 15)


async def test_a_running_task_has_no_duration_and_its_time_in_the_former_status_counts_as_a_stay(
    store: EventStore, statistics: Statistics
) -> None:
    await store_each(
        store,
        happened(TaskCreated(task_id=TASK, status="failed"), 0),
        happened(TaskStatusChanged(task_id=TASK, status="in_progress"), 7),
    )
    failed, going_on = sorted(await statistics.task_times(), key=lambda row: row.status)
    assert (failed.tasks, failed.median, failed.median_stay) == (0, None, 7)
    assert (going_on.tasks, going_on.is_final, going_on.median) == (1, False, None)


async def test_negative_times_of_tasks_are_not_measured(store: EventStore, statistics: Statistics) -> None:
    await store_each(
        store,
        happened(TaskCreated(task_id=TASK), 0),
        happened(TaskStatusChanged(task_id=TASK, status="completed"), -5),
    )
    rows = {row.status: row for row in await statistics.task_times()}
    assert (rows["completed"].tasks, rows["completed"].unmeasured, rows["completed"].median) == (1, 1, None)
    assert (rows["pending"].stays, rows["pending"].unmeasured_stays, rows["pending"].median_stay) == (1, 1, None)


async def test_a_task_without_a_first_status_begins_as_unknown(store: EventStore, statistics: Statistics) -> None:
    await store_each(
        store,
        happened(TaskDescribed(task_id=TASK, description="x"), 0),
        happened(TaskArtifactAdded(task_id=TASK, artifact_id="a", parts=[{"text": "é"}]), 1),
    )
    [status] = [row for row in await statistics.by_status() if row.kind == "task"]
    assert (status.status, status.number) == ("unknown", 1)
    assert (await statistics.sizes())[2] == Size("artifacts", 1, None, 16, 16, 16)  # [{"text": "é"}]


async def test_sizes_are_those_of_the_text_that_is_read(store: EventStore, statistics: Statistics) -> None:
    await store_each(
        store,
        happened(MessageAdded(role="user", content="olá"), 0),
        happened(MessageAdded(role="assistant", parts=[{"text": "é"}, {"text": "b"}]), 1),
        happened(MessageAdded(role="tool", extra={"content": [{"text": "four"}]}), 2),
        happened(ApplicationEvent("noted", {"role": "user", "content": "no message", "parts": "none"}), 3),
    )
    text, parts, _ = await statistics.sizes()
    assert text == Size("text", 3, 3 + 3 + 4, 4 + 4 + 4, 4, 4)
    assert (parts.number, parts.bytes) == (2, len('[{"text": "é"}, {"text": "b"}]'.encode()))


async def test_the_largest_stays_the_largest(store: EventStore, statistics: Statistics) -> None:
    await store_each(
        store,
        happened(MessageAdded(role="user", content="four", parts=[1, 2]), 0),
        happened(MessageAdded(role="user", content="two", parts=[1]), 1),
        happened(TaskArtifactAdded(task_id=TASK, artifact_id="a", parts=["a", "b"]), 2),
        happened(TaskArtifactAdded(task_id=TASK, artifact_id="a", parts=[]), 3),
    )
    assert [row.largest_bytes for row in await statistics.sizes()] == [4, 6, 10]


@pytest.mark.own_database
@pytest.mark.usefixtures("events_after_deletions")
@pytest.mark.slow
async def test_the_status_of_a_conversation_follows_its_last_event(store: EventStore) -> None:
    archived, deleted, back = ConversationArchived(), ConversationDeleted(), ConversationReactivated()
    histories: list[tuple[str, list[EventData]]] = [
        ("archived", [archived]),
        ("active", [archived, back]),
        ("archived", [back, archived]),
        ("deleted", [deleted, archived]),
        ("active", [archived, deleted, back]),
        ("deleted", [back, deleted]),
    ]
    cases = list(enumerate(product(histories, [False, True])))
    for number, ((_, history), together) in cases:
        events, conversation = [ConversationCreated(), *history], uuid4()
        for batch in [events] if together else [[event] for event in events]:
            await store.append(conversation, batch, tenant=str(number))
            await catch_up(store)
    for number, ((status, history), together) in cases:
        rows = await Statistics(store, str(number)).by_status()
        assert [(row.status, row.number) for row in rows] == [(status, 1)], (history, together)


async def test_tenants_are_counted_separately(store: EventStore) -> None:
    conversation = uuid4()
    for tenant, times in (("a", 1), ("b", 3)):
        await store.append(conversation, [message("user", n) for n in range(times)], tenant=tenant)
    await catch_up(store)
    for tenant, times in (("a", 1), ("b", 3)):
        assert [row.messages for row in await Statistics(store, tenant).by_day()] == [times]
    assert await Statistics(store, "c").by_day() == []
    with pytest.raises(InputError, match="tenant"):
        Statistics(store, "")


async def test_the_first_and_the_last_day_are_included(store: EventStore, statistics: Statistics) -> None:
    midnight = -12 * 3600
    await store_each(store, *(message("user", midnight + second) for second in (-0.001, 0, 86_399.999, 86_400)))
    assert [row.day.day for row in await statistics.by_day()] == [3, 4, 5]
    [only] = await statistics.by_day(since=DAY, until=DAY)
    assert (only.day, only.messages, only.conversations, only.active_conversations) == (DAY, 2, 0, 1)
    assert await statistics.by_day(since=date(2026, 5, 6)) == []
    assert len(await statistics.by_day(since=date.min, until=date.max)) == 3


async def test_days_may_be_those_of_a_zone_three_quarters_of_an_hour_off(
    store: EventStore, statistics: Statistics
) -> None:
    # In Kathmandu, midnight is at 18:15 UTC.
    await store_each(store, message("user", 6.25 * 3600 - 1), message("assistant", 6.25 * 3600))
    assert [(row.day.day, row.messages) for row in await statistics.by_day(zone="Asia/Kathmandu")] == [(4, 1), (5, 1)]
    assert [row.day.day for row in await statistics.by_day()] == [4]


async def test_periods_that_do_not_begin_on_a_quarter_of_an_hour_are_refused_and_old_times_are_not(
    store: EventStore, statistics: Statistics
) -> None:
    """Liberia was 44 and a half minutes behind until 1972."""
    then = Metadata(occurred_at=datetime(1970, 6, 1, tzinfo=UTC))
    await store.append(uuid4(), [NewEvent(ConversationCreated(), metadata=then)])
    await store.append(uuid4(), [message("user", 0)])
    await catch_up(store)
    days = await statistics.by_day(zone="Africa/Monrovia")
    assert [row.day for row in days] == [date(1970, 5, 31), DAY]
    assert len(await statistics.by_day(zone="Africa/Monrovia", since=date(1980, 1, 1))) == 1
    with pytest.raises(
        InputError, match=r'1970-05-31 does not begin on a quarter of an hour of UTC .*"Africa/Monrovia"'
    ):
        await statistics.by_role(zone="Africa/Monrovia", since=date(1970, 5, 31))


PLACEHOLDERS = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]


@pytest.mark.parametrize(
    "zone", ["Asia/Tokyo", "Pacific/Pago_Pago", "America/Sao_Paulo", "Europe/Lisbon", "UTC", "+05:30"]
)
async def test_placeholders_of_times_are_counted_apart(store: EventStore, statistics: Statistics, zone: str) -> None:
    for role, moment in [("user", PLACEHOLDERS[0]), ("assistant", PLACEHOLDERS[1]), ("user", NOON)]:
        metadata = Metadata(occurred_at=moment)
        await store.append(uuid4(), [NewEvent(MessageAdded(role=role, content="x"), metadata=metadata)])
    await catch_up(store)
    assert [(row.day, row.messages) for row in await statistics.by_day(zone=zone)] == [(DAY, 1), (None, 2)]
    assert [row.key for row in await statistics.response_times_by_day(zone=zone)] == [str(DAY), "undated"]
    for period in ({"since": date.min}, {"until": date.max}, {"since": date.min, "until": date.max}):
        counted = await statistics.by_day(**period)  # type: ignore[arg-type]
        assert [(row.day, row.messages) for row in counted] == [(DAY, 1)]
    assert sum(row.messages for row in await statistics.by_role(zone=zone)) == 3


@pytest.mark.parametrize(
    ("zone", "day"), [("-03:00", 4), ("+13:30", 5), ("-0300", 4), ("+14", 5), ("Etc/GMT-14", 5), ("-11:00", 4)]
)
async def test_an_offset_is_read_as_in_a_time(store: EventStore, statistics: Statistics, zone: str, day: int) -> None:
    await store.append(uuid4(), [message("user", 0)])
    await catch_up(store)
    assert [row.day.day for row in await statistics.by_day(zone=zone) if row.day] == [day]


@pytest.mark.parametrize("zone", ["CET", "MET", "EET", "cet", "EST5EDT", "PST8PDT"])
async def test_a_short_name_of_the_iana_database_has_daylight_saving_time(
    store: EventStore, statistics: Statistics, zone: str
) -> None:
    summer = ZoneInfo(zone.upper())
    for hour in range(48):
        moment = datetime(2026, 7, 1, tzinfo=UTC) + timedelta(hours=hour)
        await store.append(
            uuid4(), [NewEvent(MessageAdded(role="user", content="x"), metadata=Metadata(occurred_at=moment))]
        )
    await catch_up(store)
    days = Counter((datetime(2026, 7, 1, hour % 24, tzinfo=UTC) + timedelta(days=hour // 24)).astimezone(summer).date()
                   for hour in range(48))  # fmt: skip
    assert {row.day: row.messages for row in await statistics.by_day(zone=zone)} == days


@pytest.mark.parametrize("zone", ["UTC-3", "GMT+3", "<-03>3", "+3", "-03:60", "+25:00", "", "BRT3", "BRT", "IST"])
async def test_zones_that_may_mean_several_are_refused(statistics: Statistics, zone: str) -> None:
    with pytest.raises(InputError, match=r"zone: .* give a name of .* such as .*, or an offset such as -03:00"):
        await statistics.by_day(zone=zone)


async def test_invalid_filters_are_refused(statistics: Statistics) -> None:
    with pytest.raises(InputError, match="since: 2026-05-04 is after until, 2026-05-03"):
        await statistics.by_day(since=DAY, until=date(2026, 5, 3))
    with pytest.raises(InputError, match=r"since: datetime\.datetime\(2026.* is not a day"):
        await statistics.by_role(since=NOON)
    with pytest.raises(InputError, match=r"until: '2026-05-04' is not a day: give a datetime\.date"):
        await statistics.sizes(until="2026-05-04")  # type: ignore[typeddict-item]
    with pytest.raises(InputError, match="zone: 'Mars' is not a time zone: give a name"):
        await statistics.by_actor(zone="Mars")
    for unreadable in ("\0", "\udcff"):
        with pytest.raises(InputError, match="actor"):
            await statistics.by_status(actor=unreadable)
        with pytest.raises(InputError, match="zone"):
            await statistics.task_times(zone=unreadable)


async def test_the_application_reads_statistics_and_cannot_write_them(store: EventStore, database_url: str) -> None:
    await store.append(uuid4(), [MessageAdded(role="user", content="x", parts=[1])])
    await catch_up(store)
    with open_scoped(database_url, store.tenant) as connection:
        if not roles_of_the_store(connection):
            pytest.skip("the login may not create roles, so there are none")
        connection.execute("SET ROLE eventstore_reader")
        rows = connection.execute("SELECT what, number FROM statistics_sizes(%s)", (store.tenant,)).fetchall()
        assert rows == [("text", 1), ("parts", 1), ("artifacts", 0)]
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="choose among all, day, actor"):
            connection.execute("SELECT FROM statistics_response_times(%s, by => 'week')", (store.tenant,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM statistics_activity")


FILL = """
INSERT INTO statistics_activity (conversation_id, tenant_id, quarter_hour, role, actor, events, messages, characters,
                                 bytes, parts, parts_bytes, artifacts, artifact_bytes, largest_text, largest_parts,
                                 largest_artifact)
SELECT gen_random_uuid(), CASE WHEN n % 10 = 0 THEN 'small' ELSE 'large' END,
       '2020-01-01 00:00+00'::timestamptz + n / 50 * interval '1 day', 'user', '', 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0
  FROM generate_series(1, 50000) AS n
"""


@pytest.mark.own_database
def test_a_week_of_a_large_tenant_is_found_by_its_time(superuser_url: str) -> None:
    query = "SELECT day, messages FROM statistics_by_day('large', since => '2021-03-01', until => '2021-03-07')"
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE statistics_activity SET (autovacuum_enabled = false)")
        connection.execute(FILL)
        plans_without_statistics = explain_inside(connection, query, {})
        connection.execute("ANALYZE statistics_activity")
        plans_with_statistics = explain_inside(connection, query, {})
    for plans in (plans_without_statistics, plans_with_statistics):
        assert_week_is_found_by_its_time(plans)


def assert_week_is_found_by_its_time(plans: list[Plan]) -> None:
    [plan] = [plan for plan in plans if "statistics_activity" in plan.statement]
    assert "statistics_activity_pkey" in plan.indexes, plan.text
    assert not {node["Relation Name"] for node in plan.nodes if node["Node Type"] == "Seq Scan"} & {
        "statistics_activity"
    }, plan.text
    assert plan.rows in (6, 7)
    assert plan.filtered == 0
    assert plan.buffers < 500, plan.text  # of some 2,000 for both scans of the whole
    assert len(plans) < 40, "each day is checked once, not each row"


@pytest.mark.slow
async def test_of_too_many_days_the_latest_are_returned_and_of_too_many_actors_those_with_most_events(
    store: EventStore, statistics: Statistics
) -> None:
    days = MAX_ROWS + 5
    questions_and_answers = [
        happened(MessageAdded(role=role, content="x"), 86_400 * day, f"actor-{day:05}")
        for day in range(days)
        for role in (["user", "assistant", "assistant"] if day == 7 else ["user", "assistant"])
    ]
    for start in range(0, len(questions_and_answers), 1000):
        await store.append(uuid4(), questions_and_answers[start : start + 1000])
    await catch_up(store)
    by_day = await statistics.by_day()
    assert len(by_day) == MAX_ROWS
    assert (by_day[0].day, by_day[-1].day) == (DAY + timedelta(days=5), DAY + timedelta(days=days - 1))
    by_actor = await statistics.by_actor()
    assert len(by_actor) == MAX_ROWS
    assert (by_actor[0].actor, by_actor[0].events) == ("actor-00007", 3)
    times = await statistics.response_times_by_day()
    assert len(times) == MAX_ROWS
    assert times[-1].key == str(by_day[-1].day)
