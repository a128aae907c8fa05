"""Reading: the right events in the right order, a page at a time, through an index."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw import append_raw, append_raw_async, note
from support.scoped_queries import open_as

from eventstore import EventStore, NewEvent, Settings
from eventstore.errors import InputError, InvalidId

pytestmark = pytest.mark.shared_database

CONVERSATION = UUID(int=1)


async def numbers(events: Any) -> list[Any]:
    return [event.content async for event in events]


async def fill(store: EventStore) -> None:
    """Numbers 1 to 10: even ones are of the type "even", every third is ana's."""
    for n in range(1, 11):
        event = NewEvent(note(n, "odd" if n % 2 else "even"), actor="" if n % 3 else "ana")
        await store.append(CONVERSATION, [event])


QUERIES: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ({"backwards": True}, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
    ({"limit": 3}, [1, 2, 3]),
    ({"limit": 0}, []),
    ({"limit": 3, "backwards": True}, [10, 9, 8]),
    ({"after": 8}, [9, 10]),
    ({"after": 8, "backwards": True}, [10, 9]),
    ({"after": 10}, []),
    ({"after": 2**62}, []),
    ({"types": ["even"]}, [2, 4, 6, 8, 10]),
    ({"types": ["even", "odd"], "limit": 2}, [1, 2]),
    ({"types": []}, []),
    ({"types": ["other"]}, []),
    ({"actor": "ana"}, [3, 6, 9]),
    ({"actor": ""}, [1, 2, 4, 5, 7, 8, 10]),
    ({"actor": "ana", "types": ["odd"], "backwards": True, "limit": 1}, [9]),
]


@pytest.mark.own_database
async def test_filters_apply_to_the_log_and_to_conversations_alike(store: EventStore) -> None:
    await fill(store)
    for which, found in QUERIES:
        assert await numbers(store.read(CONVERSATION, **which)) == found, which
        assert await numbers(store.read_log(**which)) == found, which


@pytest.mark.own_database
async def test_reads_end_at_a_last_version_or_position(store: EventStore) -> None:
    await fill(store)
    assert await numbers(store.read(CONVERSATION, until_version=3)) == [1, 2, 3]
    assert await numbers(store.read(CONVERSATION, until_version=0)) == []
    assert await numbers(store.read(CONVERSATION, after=5, until_version=7, backwards=True)) == [7, 6]
    assert await numbers(store.read_log(until_position=3)) == [1, 2, 3]
    assert await numbers(store.read_log(until_position=2**63 - 1)) == list(range(1, 11))


async def test_time_filters_are_half_open_ranges_of_the_timestamp(store: EventStore) -> None:
    await fill(store)
    times: list[datetime] = [event.timestamp async for event in store.read_log()]
    assert await numbers(store.read_log(since=times[3])) == list(range(4, 11))
    assert await numbers(store.read_log(until=times[3])) == [1, 2, 3]
    assert await numbers(store.read(CONVERSATION, since=times[3], until=times[6])) == [4, 5, 6]
    assert await numbers(store.read(CONVERSATION, since=times[9] + timedelta(microseconds=1))) == []


TIMES = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second) for second in range(40)]
_AT = """
INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type,
                    content, digest)
SELECT p, t, p, 1, %s, gen_random_uuid(), 'default', 'noted', to_jsonb(p), sha256('')
  FROM unnest(%s::timestamptz[]) WITH ORDINALITY AS e (t, p)
"""


@pytest.fixture
def jumping_clock(database_url: str) -> list[datetime]:
    """The timestamps of a log that was written while the server's clock was set back and forth."""
    times = random.Random(5).sample(TIMES, len(TIMES))
    with open_as(database_url, "eventstore_owner") as connection:
        connection.execute(_AT, (CONVERSATION, times))
        connection.execute("SELECT setval('events_position', %s)", (len(times),))
    return times


@pytest.mark.own_database
@given(
    since=st.none() | st.sampled_from(TIMES), until=st.none() | st.sampled_from(TIMES),
    after=st.integers(0, 45), limit=st.none() | st.integers(0, 45), backwards=st.booleans(),
)  # fmt: skip
async def test_time_filters_find_all_events_although_the_clock_went_back(
    store: EventStore, jumping_clock: list[datetime], since: datetime | None, until: datetime | None, after: int,
    limit: int | None, backwards: bool,
) -> None:  # fmt: skip
    expected = [
        number
        for number, time in enumerate(jumping_clock, 1)
        if number > after and (since is None or time >= since) and (until is None or time < until)
    ][:: -1 if backwards else 1][:limit]
    which: dict[str, Any] = {"since": since, "until": until, "after": after, "limit": limit, "backwards": backwards}
    assert await numbers(store.read_log(**which)) == expected
    assert await numbers(store.read(CONVERSATION, **which)) == expected


_AHEAD = """
INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, content,
                    digest)
SELECT nextval('events_position'), clock_timestamp() + %s, 1, 1, %s, gen_random_uuid(), %s, 'noted', '0', sha256('')
RETURNING timestamp
"""


@pytest.mark.parametrize(("ahead", "is_kept"), [(timedelta(seconds=50), True), (timedelta(days=1), False)])
@pytest.mark.parametrize("events", [1, 2])
async def test_a_clock_that_was_ahead_by_more_than_a_minute_does_not_date_what_follows(
    store: EventStore, database_url: str, ahead: timedelta, is_kept: bool, events: int
) -> None:
    conversation = uuid4()
    with open_as(database_url, "eventstore_owner") as connection:
        row = connection.execute(_AHEAD, (ahead, conversation, store.tenant)).fetchone()
        assert row is not None
    await store.append(conversation, [note(number) for number in range(events)])
    [_, *following] = [event.timestamp async for event in store.read(conversation)]
    assert all((timestamp == row[0]) == is_kept for timestamp in following)
    assert is_kept or all(abs(datetime.now(UTC) - timestamp) < timedelta(hours=1) for timestamp in following)


async def test_an_event_is_typed_and_complete(store: EventStore) -> None:
    result = await store.append(CONVERSATION, [note(1, "odd"), note(2)])
    [event] = [event async for event in store.read_log(limit=1)]
    assert (event.position, event.version, event.event_type, event.content) == (result.position - 1, 1, "odd", 1)
    assert event.timestamp.utcoffset() == timedelta(0)
    assert isinstance(event.id, UUID)
    assert len(event.digest) == 32


async def test_an_unknown_conversation_has_no_events(store: EventStore) -> None:
    await fill(store)
    assert await numbers(store.read(uuid4())) == []


@pytest.mark.parametrize(
    "which",
    [
        {"after": -1},
        {"limit": -1},
        {"since": datetime(2026, 1, 1)},
        {"until": datetime(2026, 1, 1)},
        {"types": ["\0"]},
        {"actor": "\ud800"},
        {"tenant": "\0"},
        {"tenant": "\ud800"},
    ],
    ids=str,
)
async def test_invalid_filters_are_refused(store: EventStore, which: dict[str, Any]) -> None:
    await fill(store)
    with pytest.raises(InputError):
        await numbers(store.read_log(**which))
    with pytest.raises(InputError):
        await numbers(store.read(CONVERSATION, **which))


async def test_a_conversation_needs_a_uuid(store: EventStore) -> None:
    with pytest.raises(InvalidId):
        await numbers(store.read("chat-1"))


@pytest.mark.parametrize("backwards", [False, True])
async def test_many_pages_are_one_stream(store: EventStore, backwards: bool) -> None:
    for start in range(0, 3000, 1000):
        await store.append(CONVERSATION, [note(n) for n in range(start, start + 1000)])
    expected = list(range(3000))[:: -1 if backwards else 1]
    assert await numbers(store.read_log(backwards=backwards)) == expected
    assert await numbers(store.read(CONVERSATION, backwards=backwards)) == expected
    assert await numbers(store.read_log(backwards=backwards, limit=2345)) == expected[:2345]
    assert await numbers(store.read(CONVERSATION, backwards=backwards, limit=101)) == expected[:101]


async def test_positions_with_gaps_are_one_stream(store: EventStore) -> None:
    async with await store.connect() as connection:
        for n in range(110):
            await append_raw_async(connection, n, conversation=CONVERSATION, tenant=store.tenant)
            await connection.execute("BEGIN")
            await append_raw_async(connection, "aborted", tenant=store.tenant)
            await connection.execute("ROLLBACK")
    assert await numbers(store.read_log()) == list(range(110))
    assert await numbers(store.read_log(backwards=True)) == list(range(109, -1, -1))


@pytest.mark.own_database
@pytest.mark.parametrize("backwards", [False, True])
async def test_positions_with_wide_gaps_are_read_at_once(store: EventStore, database_url: str, backwards: bool) -> None:
    positions = [1, 2, 10**6, 2**40, 2**62]
    with psycopg.connect(database_url) as connection:
        for position in positions:
            connection.execute("SELECT setval('events_position', %s, false)", (position,))
            connection.commit()
            append_raw(connection, position, tenant="one" if position != 2 else "other")
            connection.commit()
    expected = [1, 10**6, 2**40, 2**62][:: -1 if backwards else 1]
    assert await numbers(store.read_log(tenant="one", backwards=backwards)) == expected
    assert await numbers(store.read_log(tenant="one", backwards=backwards, types=["none"])) == []
    assert await numbers(store.read_log(all_tenants=True, backwards=backwards, after=2)) == [
        position for position in expected if position > 2
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [(800, random.Random(0).randbytes(25_000).hex()), (100, "x" * 900_000)],
    ids=["incompressible", "compressed a hundredfold"],
)
@pytest.mark.slow
async def test_a_long_log_is_read_in_little_memory(store: EventStore, number: int, text: str) -> None:
    await store.append(uuid4(), [note(n) for n in range(1000)])
    for _ in range(number // 20):
        await store.append(uuid4(), [note(text)] * 20)
    tracemalloc.start()
    try:
        count = 0
        async for _ in store.read_log():
            count += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 1000 + number
    assert peak < number * len(text) / 2


async def test_a_reader_holds_no_connection_between_pages(settings: Settings) -> None:
    async with EventStore(settings.model_copy(update={"pool_size": 1})) as store:
        await store.append(CONVERSATION, [note(n) for n in range(500)])
        async for one in store.read_log():
            async for other in store.read_log(after=one.position - 1, limit=1):
                assert other == one
            if one.content == 150:
                break
        assert len(await numbers(store.read_log())) == 500


@pytest.mark.own_database
@pytest.mark.parametrize("broken", [False, True])
async def test_a_read_that_ends_early_leaves_no_tasks(store: EventStore, database_url: str, broken: bool) -> None:
    """Neither the page that is under way nor an error in it."""
    await store.append(CONVERSATION, [note(n) for n in range(500)])
    reading = store.read(CONVERSATION)
    assert (await anext(reading)).version == 1
    if broken:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
            )
    await reading.aclose()  # type: ignore[attr-defined]
    assert not [task for task in asyncio.all_tasks() if "page" in repr(task.get_coro())]
    assert len(await numbers(store.read(CONVERSATION))) == 500


async def test_the_log_is_read_up_to_the_horizon_and_a_conversation_to_its_end(store: EventStore) -> None:
    await store.append(CONVERSATION, [note(1)])
    async with await store.connect() as slow:
        await slow.execute("BEGIN")
        await append_raw_async(slow, "in flight", tenant=store.tenant)
        await store.append(CONVERSATION, [note(2)])
        assert await numbers(store.read_log()) == [1]
        assert await numbers(store.read_log(backwards=True)) == [1]
        assert await numbers(store.read(CONVERSATION)) == [1, 2]
        await slow.execute("COMMIT")
    assert await numbers(store.read_log()) == [1, "in flight", 2]


async def test_a_read_of_the_log_excludes_later_appends(store: EventStore) -> None:
    await fill(store)
    found = []
    async for event in store.read_log():
        found.append(event.content)
        await store.append(CONVERSATION, [note("later")])
    assert found == list(range(1, 11))
