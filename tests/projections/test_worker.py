"""Workers apply the log as it grows, divide it among them, and continue after failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from support.folding import fold, stored
from support.scoped_queries import open_as
from support.waiting import until_async

from eventstore import EventStore, MessageAdded, Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.database import connection
from eventstore.errors import NotCaughtUp, NotFound
from projections import (
    PROJECTIONS,
    Reader,
    Worker,
    applied_position,
    catch_up,
    read_status,
    rebuild,
    select_projections,
    wait_for,
)
from projections.apply import Applier

PROJECTOR = "eventstore_projector"
READ_TABLES = (
    "conversations", "messages", "tasks", "task_artifacts", "statistics_activity", "statistics_conversations",
    "statistics_answers", "statistics_tasks", "statistics_status_periods", "search_documents", "search_conversations",
    "conversation_actors", "pending_messages", "checkpoints",
)  # fmt: skip


@asynccontextmanager
async def working(store: EventStore, *, workers: int = 1, batch_size: int = 10_000) -> AsyncIterator[None]:
    """Workers that run until the block ends."""
    tasks = [asyncio.create_task(Worker(store, batch_size=batch_size).run()) for _ in range(workers)]
    try:
        yield
        assert not any(task.done() for task in tasks), "a worker ended by itself"
    finally:
        await cancel_and_wait(tasks)


@pytest.fixture
def owner(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The login that owns the database."""
    with open_as(database_url, "eventstore_owner") as connection:
        yield connection


@pytest.fixture
def login(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The login itself, which sees what its sessions do, and may end them."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def message(text: str = "x") -> MessageAdded:
    return MessageAdded(role="user", content=text)


async def test_a_worker_applies_appends_as_they_come(store: EventStore) -> None:
    conversation = uuid4()
    async with working(store):
        for number in range(1, 6):
            result = await store.append(conversation, [message(str(number))])
            await wait_for(store, result.position)
            row = await Reader(store).conversation(conversation)
            assert (row.message_count, row.version) == (number, number)


async def test_a_worker_begins_with_the_existing_log(store: EventStore) -> None:
    result = await store.append(uuid4(), [message() for _ in range(50)])
    async with working(store, batch_size=7):
        await wait_for(store, result.position)
    assert await applied_position(store) == result.position


@pytest.mark.slow
async def test_an_idle_worker_notices_checkpoints_that_were_set_back(store: EventStore, database_url: str) -> None:
    async with working(store):
        position = (await store.append(uuid4(), [MessageAdded(role="user", content="hello")])).position
        await wait_for(store, position)
        with open_as(database_url, PROJECTOR) as connection, connection.transaction():
            connection.execute("DELETE FROM messages")
            connection.execute("UPDATE checkpoints SET position = 0 WHERE projection = 'messages'")

        async def is_back() -> bool:
            return len(await Reader(store).messages()) == 1

        await until_async(is_back, "the worker has applied the log again, without a new event")


@pytest.mark.slow
async def test_workers_at_once_apply_everything_once(store: EventStore, database_url: str) -> None:
    conversations = [uuid4() for _ in range(4)]

    async def write(number: int) -> int:
        positions = [
            (await store.append(conversations[n % 4], [message(f"{number}/{n}"), message()])).position
            for n in range(40)
        ]
        return positions[-1]

    async with working(store, workers=3, batch_size=5):
        last = max(await asyncio.gather(*map(write, range(3))))
        await wait_for(store, last, timeout=30)
    tables = stored(database_url)
    assert tables == fold([event async for event in store.read_log()])
    assert [row["message_count"] for row in tables["conversations"].values()] == [60] * 4


@pytest.mark.slow
async def test_a_worker_whose_connections_are_cut_continues(
    store: EventStore, login: psycopg.Connection[tuple[object, ...]]
) -> None:
    async with working(store):
        for number in range(3):
            result = await store.append(uuid4(), [message()])
            await wait_for(store, result.position)
            ended = login.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'eventstore%'"
            ).fetchone()
            assert ended is not None
            assert ended[0]
            result = await store.append(uuid4(), [message(str(number))])
            await wait_for(store, result.position, timeout=30)


async def test_a_connection_that_breaks_while_it_is_opened_is_opened_again(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure, broken = connection.configure, iter([True])

    async def broken_once(opened: connection.Connection, *more: Any) -> None:
        if next(broken, False):
            await opened.close()
        await configure(opened, *more)

    result = await store.append(uuid4(), [message()])
    monkeypatch.setattr(connection, "configure", broken_once)
    async with working(store):
        await wait_for(store, result.position)


async def test_a_changed_projection_is_rebuilt_at_the_start(
    store: EventStore, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    conversation = uuid4()
    result = await store.append(conversation, [message("right")])
    await catch_up(store)
    owner.execute("UPDATE messages SET content = 'of another version'")
    owner.execute("UPDATE conversations SET name = 'of this version'")
    owner.execute("UPDATE projection_definitions SET definition_hash = 'another' WHERE projection = 'messages'")
    current = {projection.name: projection.is_current for projection in (await read_status(store)).projections}
    assert current == {projection.name: projection.name != "messages" for projection in PROJECTIONS}
    async with working(store):

        async def refilled() -> bool:
            return [row.content for row in await Reader(store).messages(conversation)] == ["right"]

        await until_async(refilled, "the table is refilled")
        await wait_for(store, result.position)
    assert (await Reader(store).conversation(conversation)).name == "of this version"
    assert all(projection.is_current for projection in (await read_status(store)).projections)


async def test_two_workers_that_find_a_changed_projection_rebuild_it_correctly(
    store: EventStore, database_url: str, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    result = await store.append(uuid4(), [message() for _ in range(100)])
    await catch_up(store)
    owner.execute("UPDATE projection_definitions SET definition_hash = 'another'")
    async with working(store, workers=2, batch_size=3):

        async def current() -> bool:
            return all(projection.is_current for projection in (await read_status(store)).projections)

        await until_async(current, "the projections are current")
        await wait_for(store, result.position, timeout=30)
    assert stored(database_url) == fold([event async for event in store.read_log()])


@pytest.mark.slow
async def test_rebuilding_beside_working_workers(store: EventStore, database_url: str) -> None:
    conversations = [uuid4() for _ in range(3)]
    async with working(store, workers=2, batch_size=20):
        for number in range(20):
            result = await store.append(conversations[number % 3], [message() for _ in range(10)])
            if number % 5 == 0:
                await rebuild(store)
        await wait_for(store, result.position, timeout=30)
    assert stored(database_url) == fold([event async for event in store.read_log()])


def conversation_of(session: psycopg.Connection[tuple[object, ...]], partition: int) -> UUID:
    """Return the id of a new conversation in a partition."""
    [[conversation]] = session.execute(
        "SELECT g.id FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 1000) OFFSET 0) AS g"
        " WHERE partition_of(g.id) = %s LIMIT 1",
        (partition,),
    ).fetchall()
    assert isinstance(conversation, UUID)
    return conversation


async def test_a_batch_leaves_locked_partitions_to_the_session_that_has_locked_them(
    store: EventStore, settings: Settings, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    [messages] = select_projections(["messages"])
    await store.append(conversation_of(owner, 1), [message()])
    await catch_up(store)
    own, others = conversation_of(owner, 5), conversation_of(owner, 9)

    def seen() -> set[object]:
        return {row[0] for row in owner.execute("SELECT conversation_id FROM messages").fetchall()}

    async with await Applier.open(store) as applier:
        with open_as(settings.server_url() or "", PROJECTOR) as holder, holder.transaction():
            holder.execute("SELECT FROM checkpoints WHERE projection = 'messages' AND partition = 9 FOR UPDATE")
            for conversation in (others, own, others):
                await store.append(conversation, [message()])
            last = (await store.append(own, [message()])).position
            await applier.apply_batch(messages)
            assert own in seen()
            assert others not in seen()
            free = [partition for partition in range(16) if partition != 9]
            assert await applied_position(store, [messages], free) == last
        await applier.apply_all(messages)
    assert others in seen()
    assert await applied_position(store, [messages]) == last


async def test_a_batch_moves_no_checkpoint_that_was_set_back(
    store: EventStore, settings: Settings, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    """An undone rebuild sets checkpoints back while a batch of other partitions is applied."""
    [messages] = select_projections(["messages"])
    one, two = conversation_of(owner, 2), conversation_of(owner, 12)
    await store.append(two, [message()])
    await catch_up(store)
    first = await applied_position(store, [messages])
    last = (await store.append(one, [message()])).position
    with open_as(settings.server_url() or "", PROJECTOR) as applying, applying.transaction():
        applying.execute(
            "SELECT FROM begin_batch('messages', 'live', %s, %s::smallint[], 100, %s)",
            (messages.definition_hash, list(range(16)), last),
        )
        owner.execute("UPDATE checkpoints SET position = 0 WHERE projection = 'messages' AND partition = 12")
        applying.execute("SELECT end_batch(%s)", (last,))
    positions = dict(
        owner.execute("SELECT partition, position FROM checkpoints WHERE projection = 'messages'").fetchall()
    )
    assert first > 0
    assert positions == {partition: 0 if partition == 12 else last for partition in range(16)}


async def test_a_rebuild_and_a_worker_never_wait_for_each_other(
    store: EventStore,
    settings: Settings,
    owner: psycopg.Connection[tuple[object, ...]],
    login: psycopg.Connection[tuple[object, ...]],
) -> None:
    await store.append(conversation_of(owner, 3), [message()])
    await catch_up(store)
    # Turns the rows round in the table: locks must not be taken in the order in which they happen to lie there.
    owner.execute("CREATE TEMPORARY TABLE kept AS SELECT * FROM checkpoints")
    owner.execute("TRUNCATE checkpoints")
    owner.execute("INSERT INTO checkpoints SELECT * FROM kept ORDER BY partition DESC")
    owner.execute("ANALYZE checkpoints")

    async def waiting(count: int) -> None:
        async def seen() -> bool:
            rows = login.execute(
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return len(rows.fetchall()) >= count

        await until_async(seen, f"{count} wait for a lock")

    [messages] = select_projections(["messages"])
    applier = await Applier.open(store)
    try:
        with open_as(settings.server_url() or "", PROJECTOR) as holder, holder.transaction():
            holder.execute("SELECT FROM checkpoints WHERE partition = 8 FOR UPDATE")
            rebuilding = asyncio.create_task(rebuild(store, [messages]))
            await waiting(1)
            for partition in (3, 8, 15):
                await store.append(conversation_of(owner, partition), [message()])
            # The rebuild waits for 8 and has locked 3.
            assert await applier.apply_batch(messages, partitions=(15,)) is not None
            applying = asyncio.create_task(applier.apply_all(messages))
            await waiting(2)
        ended = await asyncio.gather(rebuilding, applying, return_exceptions=True)
    finally:
        await applier.close()
    assert not [end for end in ended if isinstance(end, BaseException)]


async def test_one_projection_can_be_rebuilt_alone(
    store: EventStore, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    conversation = uuid4()
    await store.append(conversation, [message("right")])
    await catch_up(store)
    owner.execute("UPDATE messages SET content = 'wrong'")
    owner.execute("UPDATE conversations SET name = 'wrong'")
    [done] = await rebuild(store, select_projections(["messages"]), accept_differences=True)
    assert [difference.conversation_id for difference in done.differences] == [conversation]
    [row] = await Reader(store).messages(conversation)
    assert row.content == "right"
    assert (await Reader(store).conversation(conversation)).name == "wrong"


def test_projections_are_found_by_name_and_each_table_belongs_to_one() -> None:
    assert select_projections([]) == PROJECTIONS
    assert [projection.name for projection in select_projections(["tasks", "messages", "tasks"])] == [
        "tasks",
        "messages",
    ]
    with pytest.raises(NotFound, match="no projection 'nonsense': choose among conversations, messages, tasks, actors"):
        select_projections(["nonsense"])
    tables = [table for projection in PROJECTIONS for table in projection.tables]
    assert sorted(tables) == sorted(set(READ_TABLES) - {"checkpoints"})


async def test_waiting_without_a_worker_says_what_to_do(store: EventStore) -> None:
    result = await store.append(uuid4(), [message()])
    assert await applied_position(store) == 0
    with pytest.raises(NotCaughtUp, match=f"not applied position {result.position} after.*eventstore up"):
        await wait_for(store, result.position, timeout=0.1)
    await catch_up(store)
    await wait_for(store, result.position, timeout=0)


def refused(connection: psycopg.Connection[tuple[object, ...]], role: str, statement: sql.Composable) -> bool:
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        try:
            with connection.transaction():
                connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            return True
        return False


@pytest.mark.parametrize("table", READ_TABLES)
def test_the_application_cannot_write_a_read_table(owner: psycopg.Connection[tuple[object, ...]], table: str) -> None:
    name = sql.Identifier(table)
    assert refused(owner, "eventstore_app", sql.SQL("INSERT INTO {} DEFAULT VALUES").format(name))
    assert refused(owner, "eventstore_app", sql.SQL("DELETE FROM {}").format(name))
    assert refused(owner, "eventstore_app", sql.SQL("TRUNCATE {}").format(name))
    assert not refused(owner, PROJECTOR, sql.SQL("SELECT FROM {}").format(name))
    assert not refused(owner, PROJECTOR, sql.SQL("DELETE FROM {}").format(name))


@pytest.mark.parametrize("role", ["eventstore_auditor", PROJECTOR])
def test_neither_role_writes_events_but_through_the_append(
    owner: psycopg.Connection[tuple[object, ...]], role: str
) -> None:
    assert refused(owner, role, sql.SQL("INSERT INTO events (position) VALUES (1)"))
    assert refused(owner, role, sql.SQL("SELECT nextval('events_position')"))
    assert not refused(owner, role, sql.SQL("SELECT FROM events"))


def test_the_projector_cannot_append(owner: psycopg.Connection[tuple[object, ...]]) -> None:
    append = sql.SQL("SELECT append_events('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')")
    assert refused(owner, PROJECTOR, append)


def test_no_foreign_keys(owner: psycopg.Connection[tuple[object, ...]]) -> None:
    found = owner.execute("SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f'").fetchall()
    assert [name for (name,) in found if not name.startswith("identity_")] == []  # those are no read tables


PLANNED_COLUMNS = {
    "conversations": {
        "id": "uuid", "name": "character varying(255)", "is_active": "boolean",
        "created_at": "timestamp with time zone", "updated_at": "timestamp with time zone", "metadata": "jsonb",
    },
    "messages": {
        "id": "uuid", "conversation_id": "uuid", "role": "character varying(50)", "content": "text", "parts": "jsonb",
        "created_at": "timestamp with time zone", "metadata": "jsonb",
    },
    "tasks": {
        "id": "uuid", "conversation_id": "uuid", "status": "character varying(50)", "description": "text",
        "created_at": "timestamp with time zone", "updated_at": "timestamp with time zone", "metadata": "jsonb",
    },
    "events": {
        "id": "uuid", "conversation_id": "uuid", "actor": "character varying(255)", "content": "jsonb",
        "timestamp": "timestamp with time zone", "event_type": "character varying(100)",
    },
}  # fmt: skip
PLANNED_NULLABLE = {
    ("conversations", "metadata"),
    ("messages", "parts"),
    ("messages", "metadata"),
    ("tasks", "metadata"),
}
PLANNED_INDEXES = {
    "idx_conversations_updated_at": ("conversations", "(updated_at DESC"),
    "idx_messages_conversation_id": ("messages", "(conversation_id"),
    "idx_messages_created_at": ("messages", "(created_at DESC"),
    "idx_tasks_conversation_id": ("tasks", "(conversation_id"),
    "idx_events_conversation_id": ("events", "(conversation_id"),
    "idx_events_timestamp": ("events", '("timestamp" DESC'),
}


@pytest.mark.parametrize("table", PLANNED_COLUMNS)
def test_the_required_columns_exist_with_their_types(owner: psycopg.Connection[tuple[object, ...]], table: str) -> None:
    rows = owner.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        (table,),
    ).fetchall()
    found = {str(name): (kind, required) for name, kind, required in rows}
    expected = {name: (kind, (table, name) not in PLANNED_NULLABLE) for name, kind in PLANNED_COLUMNS[table].items()}
    assert {name: found.get(name) for name in expected} == expected


def test_the_required_indexes_exist(owner: psycopg.Connection[tuple[object, ...]]) -> None:
    rows = owner.execute("SELECT indexname, tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'").fetchall()
    found = {str(name): (table, str(text)) for name, table, text in rows}
    for name, (table, columns) in PLANNED_INDEXES.items():
        assert found[name][0] == table
        assert columns in found[name][1]


def test_the_partition_of_a_conversation_never_changes(owner: psycopg.Connection[tuple[object, ...]]) -> None:
    """Checkpoints are kept by it: another hash would apply events twice or never."""
    ids = [UUID(int=0), UUID(int=1), UUID("6c0a1f0e-5a5b-5d0c-9a43-0f6f1d0b7f2e")]
    rows = owner.execute("SELECT partition_of(id) FROM unnest(%s::uuid[]) AS id", (ids,)).fetchall()
    assert [share for (share,) in rows] == SHARES_OF_THESE


SHARES_OF_THESE = [3, 9, 2]
