"""Reading: the right events in the right order, a page at a time, through an index."""

from __future__ import annotations

import tracemalloc
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.raw import append_raw_async, note

from eventstore import EventStore, NewEvent, Settings
from eventstore.database.queries import query
from eventstore.errors import InputError, InvalidId

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


@pytest.mark.parametrize(("which", "found"), QUERIES, ids=lambda value: str(value)[:50])
async def test_both_readers_filter_alike(store: EventStore, which: dict[str, Any], found: list[int]) -> None:
    await fill(store)
    assert await numbers(store.read(CONVERSATION, **which)) == found
    assert await numbers(store.read_log(**which)) == found


async def test_the_last_version_or_position_may_be_given(store: EventStore) -> None:
    await fill(store)
    assert await numbers(store.read(CONVERSATION, until_version=3)) == [1, 2, 3]
    assert await numbers(store.read(CONVERSATION, until_version=0)) == []
    assert await numbers(store.read(CONVERSATION, after=5, until_version=7, backwards=True)) == [7, 6]
    assert await numbers(store.read_log(until_position=3)) == [1, 2, 3]
    assert await numbers(store.read_log(until_position=2**70)) == list(range(1, 11))


async def test_time_filters_are_half_open_ranges_of_the_timestamp(store: EventStore) -> None:
    await fill(store)
    times: list[datetime] = [event.timestamp async for event in store.read_log()]
    assert await numbers(store.read_log(since=times[3])) == list(range(4, 11))
    assert await numbers(store.read_log(until=times[3])) == [1, 2, 3]
    assert await numbers(store.read(CONVERSATION, since=times[3], until=times[6])) == [4, 5, 6]
    assert await numbers(store.read(CONVERSATION, since=times[9] + timedelta(microseconds=1))) == []


async def test_an_event_is_typed_and_complete(store: EventStore) -> None:
    await fill(store)
    [event] = [event async for event in store.read_log(limit=1)]
    assert (event.position, event.version, event.event_type, event.content) == (1, 1, "odd", 1)
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
async def test_what_cannot_be_asked_is_refused(store: EventStore, which: dict[str, Any]) -> None:
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
            await append_raw_async(connection, n, conversation=CONVERSATION)
            await connection.execute("BEGIN")
            await append_raw_async(connection, "aborted")
            await connection.execute("ROLLBACK")
    assert await numbers(store.read_log()) == list(range(110))
    assert await numbers(store.read_log(backwards=True)) == list(range(109, -1, -1))


async def test_a_long_log_is_read_in_little_memory(store: EventStore) -> None:
    total = 0
    for _ in range(8):
        texts = ["x" * 50_000] * 100
        await store.append(uuid4(), [note(text) for text in texts])
        total += sum(map(len, texts))
    tracemalloc.start()
    try:
        count = 0
        async for _ in store.read_log():
            count += 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 800
    assert peak < total / 3


async def test_a_reader_holds_no_connection_between_pages(clean_environment: None, database_url: str) -> None:
    async with EventStore(Settings(database_url=database_url, pool_size=1)) as store:
        await store.append(CONVERSATION, [note(n) for n in range(500)])
        async for one in store.read_log():
            async for other in store.read_log(after=one.position - 1, limit=1):
                assert other == one
            if one.content == 150:
                break
        assert len(await numbers(store.read_log())) == 500


async def test_the_log_is_read_up_to_where_it_is_final_and_a_conversation_to_its_end(store: EventStore) -> None:
    await store.append(CONVERSATION, [note(1)])
    async with await store.connect() as slow:
        await slow.execute("BEGIN")
        await append_raw_async(slow, "in flight")
        await store.append(CONVERSATION, [note(2)])
        assert await numbers(store.read_log()) == [1]
        assert await numbers(store.read_log(backwards=True)) == [1]
        assert await numbers(store.read(CONVERSATION)) == [1, 2]
        await slow.execute("COMMIT")
    assert await numbers(store.read_log()) == [1, "in flight", 2]


async def test_what_is_appended_meanwhile_is_not_read(store: EventStore) -> None:
    await fill(store)
    found = []
    async for event in store.read_log():
        found.append(event.content)
        await store.append(CONVERSATION, [note("later")])
    assert found == list(range(1, 11))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("read_log_forwards", "idx_events_position"),
        ("read_log_backwards", "idx_events_position"),
        ("read_conversation_forwards", "events_pkey"),
        ("read_conversation_backwards", "events_pkey"),
        ("last_event", "idx_events_position"),
    ],
)
async def test_reading_uses_an_index_and_does_not_sort(
    store: EventStore, database_url: str, name: str, index: str
) -> None:
    for conversation in range(40):
        await store.append(UUID(int=conversation), [note(n) for n in range(100)])
    parameters = {
        "tenant": "default", "conversation_id": UUID(int=7), "first": 3900, "last": 4000, "horizon": 4000,
        "types": ["noted"], "actor": None, "since": None, "until": None, "limit": 50,
    }  # fmt: skip
    with psycopg.connect(database_url) as connection:
        connection.execute("ANALYZE events")
        plan = "\n".join(
            line for (line,) in connection.execute("EXPLAIN " + query("eventstore", name), parameters).fetchall()
        )
    assert index in plan
    assert "Sort" not in plan
    assert "Seq Scan" not in plan
