"""The read tables equal a plain fold of the log, however it is divided into batches."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.folding import FILLED_BY, KEYS, Tables, fold, stored
from support.histories import CONVERSATIONS, new_events, sent_messages
from support.scoped_queries import open_as

from eventstore import (
    Append,
    ApplicationEvent,
    ConversationCreated,
    Event,
    EventData,
    EventStore,
    MessageAdded,
    NewEvent,
    TaskArtifactAdded,
    TaskCreated,
    TaskDescribed,
    TaskStatus,
    TaskStatusChanged,
    UnknownEvent,
    message_from_sent,
)
from eventstore.errors import InputError
from projections import PROJECTIONS, Reader, applied_position, catch_up, rebuild, select_projections
from projections.apply import Applier
from projections.projection import ALL_PARTITIONS

pytestmark = pytest.mark.usefixtures("events_after_deletions")

appends = st.tuples(
    st.integers(0, 1),
    st.dictionaries(st.sampled_from(CONVERSATIONS), st.lists(new_events, min_size=1, max_size=4), min_size=1),
)
"""Appends to one of two tenants, which use the same conversation ids."""
NAMES = [projection.name for projection in PROJECTIONS]
batches = st.tuples(st.sampled_from(NAMES), st.integers(1, 7))
small_batches = st.tuples(st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple), st.integers(1, 7))
"""Small batches of several projections in one round trip."""


async def log_of(store: EventStore, tenants: list[str]) -> list[Event]:
    return [event async for event in store.read_log(all_tenants=True) if event.tenant_id in tenants]


async def apply_one(store: EventStore, name: str, size: int) -> None:
    applier = await Applier.open(store, size)
    try:
        [projection] = select_projections([name])
        await applier.register(projection)
        await applier.apply_batch(projection)
    finally:
        await applier.close()


async def apply_small_batch(store: EventStore, names: tuple[str, ...], size: int) -> None:
    applier = await Applier.open(store)
    try:
        for projection in select_projections(names):
            await applier.register(projection)
        before = await positions(store)
        outcomes = await applier.apply_small_batches(select_projections(names), ALL_PARTITIONS, size)
        after = await positions(store)
        assert [applied.position for applied in outcomes] == [after[name] for name in names]
        assert [applied.events > 0 for applied in outcomes] == [before[name] < after[name] for name in names]
    finally:
        await applier.close()


async def positions(store: EventStore) -> dict[str, int]:
    rows = await store.connections.reader.fetch("SELECT projection, min(position) FROM checkpoints GROUP BY projection")
    return dict(rows)


@given(st.lists(appends | batches | small_batches, min_size=1, max_size=12), st.integers(1, 40))
@examples(30)
async def test_the_tables_are_a_fold_of_the_log(
    store: EventStore, database_url: str, steps: list[tuple[Any, Any]], size: int
) -> None:
    tenants = [str(uuid4()), str(uuid4())]
    await catch_up(store)  # with what earlier examples left
    for what, more in steps:
        if isinstance(what, int):
            parts = [Append(conversation, events) for conversation, events in more.items()]
            await store.append_all(parts, tenant=tenants[what])
        elif isinstance(what, str):
            await apply_one(store, what, more)
        else:
            await apply_small_batch(store, what, more)
    log = await log_of(store, tenants)
    assert_follows(stored(database_url, tenants), log, await positions(store))

    applier = await Applier.open(store, size)
    for projection in PROJECTIONS:
        await applier.apply_all(projection)
    await applier.close()
    assert stored(database_url, tenants) == fold(log)


def assert_follows(tables: Tables, log: list[Event], applied: dict[str, int]) -> None:
    """Each table holds the log as far as its projection has applied it, and nothing of what comes after."""
    for table, projection in FILLED_BY.items():
        position = applied.get(projection, 0)
        assert tables[table] == fold(event for event in log if event.position <= position)[table]


@given(st.lists(st.lists(new_events, min_size=1, max_size=6), min_size=1, max_size=4))
@examples(8)
@pytest.mark.slow
async def test_rebuilding_changes_nothing(
    store: EventStore, database_url: str, histories: list[list[NewEvent]]
) -> None:
    tenant = str(uuid4())
    for number, events in enumerate(histories):
        await store.append(UUID(int=number), events, tenant=tenant)
        await catch_up(store)
    before = stored(database_url)
    await rebuild(store)
    assert stored(database_url) == before
    assert stored(database_url, [tenant]) == fold(await log_of(store, [tenant]))


@given(sent_messages)
async def test_every_message_reads_back_as_it_was_sent(store: EventStore, sent: dict[str, Any]) -> None:
    conversation = uuid4()
    await store.append(conversation, [message_from_sent(sent, given_id="m")])
    await catch_up(store)
    [message] = await Reader(store).messages(conversation)
    assert message.sent == sent
    assert message.given_id == "m"


def all_columns(url: str) -> dict[str, list[tuple[Any, ...]]]:
    with open_as(url) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY {', '.join(key)}").fetchall()  # type: ignore[arg-type]
            for table, key in KEYS.items()
        }


async def test_a_rebuild_gives_the_same_rows_column_by_column(store: EventStore, database_url: str) -> None:
    task = uuid4()
    first: list[EventData] = [
        ConversationCreated(name="one", metadata={"a": [1, 2.5, None]}),
        MessageAdded(role="user", content="olá"),
        TaskStatusChanged(task_id=task, status="in_progress", message={"text": "on it"}),
        TaskArtifactAdded(task_id=task, artifact_id="a", parts=[{"text": "x"}]),
    ]
    for number in range(5):
        await store.append(UUID(int=number), first)
        await catch_up(store)
        await store.append(UUID(int=number), [MessageAdded(role="assistant", parts=[{"text": "b"}, {"text": "c"}])])
    await catch_up(store)
    before = all_columns(database_url)
    assert {table: len(rows) for table, rows in before.items()} == {
        "conversations": 5, "messages": 10, "tasks": 5, "task_artifacts": 5,
        "conversation_actors": 5, "pending_messages": 0,
    }  # fmt: skip
    await rebuild(store)
    assert all_columns(database_url) == before
    await rebuild(store, select_projections(["messages"]))
    assert all_columns(database_url) == before


async def test_the_first_event_creates_the_row_whatever_its_type(store: EventStore) -> None:
    conversation, task = uuid4(), uuid4()
    await store.append(conversation, [ApplicationEvent("noted", "anything")])
    await store.append(conversation, [TaskArtifactAdded(task_id=task, artifact_id="a", parts=[])])
    await catch_up(store)
    row = await Reader(store).conversation(conversation)
    assert (row.name, row.is_active, row.message_count, row.version) == ("", True, 0, 2)
    [unannounced] = await Reader(store).tasks(conversation)
    assert (unannounced.id, unannounced.status, unannounced.description) == (task, "unknown", "")


async def test_a_later_event_of_a_task_in_another_batch_changes_only_what_it_contains(
    store: EventStore, database_url: str
) -> None:
    conversation, task = uuid4(), uuid4()
    history: list[EventData] = [
        TaskCreated(task_id=task, description="one", given_id="first", metadata={"n": 1}),
        TaskStatusChanged(task_id=task, status=TaskStatus.INPUT_REQUIRED, message={"text": "which?"}),
        TaskArtifactAdded(task_id=task, artifact_id="a", parts=[]),
        TaskStatusChanged(task_id=task, status=TaskStatus.COMPLETED),
        TaskCreated(task_id=task, description="again", given_id="second"),
        TaskDescribed(task_id=task, description="described"),
    ]
    messages = []
    for event in history:
        await store.append(conversation, [event])
        await catch_up(store)
        assert stored(database_url) == fold(await log_of(store, ["default"]))
        messages.append((await Reader(store).tasks(conversation))[0].status_message)
    assert messages == [None, {"text": "which?"}, {"text": "which?"}, None, None, None]
    [row] = await Reader(store).tasks(conversation)
    assert (row.given_id, row.status, row.description, row.metadata) == ("first", "pending", "described", {"n": 1})


@pytest.mark.parametrize(
    ("event_type", "content"),
    [
        ("conversation.created", "a text"),
        ("conversation.renamed", {"name": "x" * 256}),
        ("message.added", {"text": "without a role"}),
        ("message.added", {"role": "r" * 51}),
        ("task.described", {"task_id": "no uuid", "description": "x"}),
        ("task.artifact_added", {"task_id": str(uuid4())}),
    ],
)
async def test_no_event_stops_the_projections(store: EventStore, event_type: str, content: Any) -> None:
    """Events in the log stay there: one that no projection could read must be refused, or be skipped."""
    with suppress(InputError):
        await store.append(uuid4(), [UnknownEvent(event_type=event_type, content=content, schema_version=2)])
    later = await store.append(uuid4(), [MessageAdded(role="user", content="after it")])
    await catch_up(store)
    assert await applied_position(store) == later.position
