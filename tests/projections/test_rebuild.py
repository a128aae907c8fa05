"""A rebuild shows no empty or partly filled table, keeps what was added to a table, and can be undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from support.catalog import belongings
from support.scoped_queries import open_as, open_scoped_async
from support.waiting import until_async

from eventstore import EventStore, MessageAdded, Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.errors import RebuildError
from projections import (
    PROJECTIONS,
    Projection,
    Worker,
    applied_position,
    catch_up,
    rebuild,
    select_projections,
    undo_rebuild,
    verify,
    wait_for,
)
from projections.rebuild import RebuildProgress, StagingTables

Sync = psycopg.Connection[tuple[object, ...]]
[MESSAGES] = select_projections(["messages"])


def message(text: str = "x") -> MessageAdded:
    return MessageAdded(role="user", content=text)


@pytest.fixture
def owner(database_url: str) -> Iterator[Sync]:
    with open_as(database_url, "eventstore_owner") as connection:
        yield connection


@pytest.fixture
async def filled(store: EventStore) -> EventStore:
    """A store with a hundred messages in ten conversations, projected."""
    for number in range(10):
        await store.append(uuid4(), [message(f"{number}/{n}") for n in range(10)])
    await catch_up(store)
    return store


@asynccontextmanager
async def working(store: EventStore, projections: tuple[Projection, ...] = PROJECTIONS) -> AsyncIterator[None]:
    task = asyncio.create_task(Worker(store, projections).run())
    try:
        yield
        assert not task.done()
    finally:
        await cancel_and_wait([task])


def changed(projection: Projection = MESSAGES) -> Projection:
    """The projection of another version: it shouts."""
    text = (projection.text or "").replace("b.content ->> 'content'", "upper(b.content ->> 'content')")
    return replace(projection, text=text)


def contents(owner: Sync) -> list[str]:
    return [
        str(row[0]) for row in owner.execute("SELECT content FROM messages ORDER BY created_at, version").fetchall()
    ]


async def test_a_rebuilt_table_has_everything_that_belonged_to_the_old_one(filled: EventStore, owner: Sync) -> None:
    owner.execute(
        """
        CREATE INDEX by_role ON messages (role) WHERE role <> 'user';
        CREATE UNIQUE INDEX by_text ON messages (lower(content), conversation_id, id);
        ALTER TABLE messages SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
        ALTER TABLE messages ADD COLUMN more text DEFAULT 'more' CHECK (more <> '');
        ALTER TABLE messages ALTER COLUMN content SET STATISTICS 500;
        COMMENT ON TABLE messages IS 'Told by many';
        CREATE STATISTICS together ON role, actor FROM messages;
        GRANT SELECT ON messages TO PUBLIC;
        GRANT UPDATE (more) ON messages TO eventstore_app WITH GRANT OPTION;
        CREATE FUNCTION passes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER looked_at BEFORE UPDATE ON messages FOR EACH ROW EXECUTE FUNCTION passes();
        ALTER TABLE messages ENABLE ALWAYS TRIGGER looked_at;
        CREATE POLICY everybody ON messages USING (true) WITH CHECK (role <> 'nobody');
        ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
        CREATE VIEW short WITH (security_barrier) AS SELECT id, left(content, 10) AS content FROM messages;
        CREATE VIEW shorter AS SELECT id FROM short;
        GRANT SELECT ON short TO PUBLIC;
        CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM messages; END;
        """
    )
    before = belongings(owner)
    await rebuild(filled, [MESSAGES])
    assert belongings(owner) == before
    result = await filled.append(uuid4(), [message("new")])
    await catch_up(filled)
    assert await applied_position(filled) == result.position
    assert owner.execute("SELECT count(*) FROM short WHERE content = 'new'").fetchone() == (1,)
    assert owner.execute("SELECT counted(), (SELECT count(*) FROM shorter)").fetchone() == (101, 101)
    await undo_rebuild(filled, [MESSAGES])
    assert belongings(owner) == before
    assert owner.execute("SELECT counted(), (SELECT count(*) FROM shorter)").fetchone() == (101, 101)


async def test_a_changed_projection_takes_effect_and_can_be_undone(filled: EventStore, owner: Sync) -> None:
    old = contents(owner)
    await filled.append(uuid4(), [message("late")])
    loud = changed()
    owner.execute("UPDATE messages SET content = 'tampered' WHERE content = '3/3'")
    [done] = await rebuild(filled, [loud])
    assert done.definition_changed
    assert contents(owner) == [text.upper() for text in [*old, "late"]]
    await filled.append(uuid4(), [message("later")])
    await undo_rebuild(filled, [MESSAGES])
    assert contents(owner) == ["tampered" if text == "3/3" else text for text in [*old, "late", "later"]]
    await undo_rebuild(filled, [MESSAGES])
    assert contents(owner) == [text.upper() for text in [*old, "late", "later"]]


async def test_tables_that_were_never_filled_are_filled_once(store: EventStore, owner: Sync) -> None:
    await store.append(uuid4(), [message("old")])
    await rebuild(store, [MESSAGES])
    assert contents(owner) == ["old"]
    row = owner.execute("SELECT stage_schema('previous')").fetchone()
    assert row is not None
    previous = sql.SQL("SELECT count(*) FROM {}.messages").format(sql.Identifier(row[0]))
    assert owner.execute(previous).fetchone() == (0,)
    await undo_rebuild(store, [MESSAGES])
    assert contents(owner) == ["old"]


async def test_differences_without_a_change_stop_the_swap_and_name_the_conversation(
    filled: EventStore, owner: Sync
) -> None:
    row = owner.execute(
        "UPDATE messages SET content = 'tampered' WHERE content = '7/7' RETURNING conversation_id"
    ).fetchone()
    assert row is not None
    owner.execute("DELETE FROM messages WHERE content = '2/2'")
    with pytest.raises(RebuildError, match=r"differ.* and 1 more; eventstore verify messages"):
        await rebuild(filled, [MESSAGES])
    assert "tampered" in contents(owner)
    [found] = await verify(filled, [MESSAGES])
    assert {difference.rows for difference in found.differences} == {9, 10}
    assert row[0] in {difference.conversation_id for difference in found.differences}
    assert sorted(("tampered" in row.row, row.is_expected) for row in found.rows) == [
        (False, True),
        (False, True),
        (True, False),
    ]
    [done] = await rebuild(filled, [MESSAGES], accept_differences=True)
    assert len(done.differences) == 2
    assert not (await verify(filled, [MESSAGES]))[0].differences


async def test_readers_never_see_an_empty_or_mixed_table(filled: EventStore, database_url: str) -> None:
    stop = asyncio.Event()
    seen: list[tuple[int, int]] = []

    async def read(isolation: str) -> None:
        async with await open_scoped_async(database_url, autocommit=False) as connection:
            while not stop.is_set():
                await connection.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
                counts = []
                for _ in range(2):
                    cursor = await connection.execute(
                        "SELECT count(*), count(*) FILTER (WHERE content = upper(content)) FROM messages"
                        " WHERE content NOT LIKE '%/%'"
                    )
                    row = await cursor.fetchone()
                    assert row is not None
                    counts.append(row)
                await connection.commit()
                seen.extend(counts)

    texts = [f"word{chr(97 + n % 26)}" for n in range(100)]
    await filled.append(uuid4(), [message(text) for text in texts])
    await catch_up(filled)
    readers = [asyncio.create_task(read(i)) for i in ("READ COMMITTED", "REPEATABLE READ")]
    try:
        for _ in range(3):
            await rebuild(filled, [changed()])
            await undo_rebuild(filled, [MESSAGES])
    finally:
        stop.set()
        await asyncio.gather(*readers)
    assert {count for count, _ in seen} == {100}
    assert {loud for _, loud in seen} == {0, 100}


async def test_a_swap_waits_for_a_transaction_that_would_find_the_new_tables_empty(
    filled: EventStore, database_url: str
) -> None:
    steps: list[str] = []
    async with await open_scoped_async(database_url, autocommit=False) as old:
        await old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await old.execute("SELECT FROM conversations LIMIT 1")
        task = asyncio.create_task(rebuild(filled, [MESSAGES], on_progress=lambda now: steps.append(now.doing)))

        async def waits() -> bool:
            return any(f"process {old.info.backend_pid}" in doing for doing in steps)

        await until_async(waits, "the rebuild waits for the transaction")
        cursor = await old.execute("SELECT count(*) FROM messages")
        assert await cursor.fetchone() == (100,)
        await old.commit()
    await task


@pytest.mark.slow
@pytest.mark.usefixtures("clean_environment")
async def test_a_swap_does_not_wait_for_autovacuum(own_server: EmbeddedServer) -> None:
    """Its snapshot may be as old as a reader's, but it reads for nobody."""
    settings = Settings(database_url=own_server.url())
    await asyncio.to_thread(Migrator(own_server.url(), settings).up)
    with psycopg.connect(own_server.superuser_url, autocommit=True, dbname="flowagents") as superuser:
        superuser.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
        superuser.execute("SELECT pg_reload_conf()")
        superuser.execute(
            """
            CREATE TABLE slowly_analyzed
                WITH (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)
                AS SELECT repeat('x', 1000) FROM generate_series(1, 10000)
            """
        )

        def analyzing() -> list[tuple[object, ...]]:
            return superuser.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND backend_xmin IS NOT NULL"
                " AND query ~ 'slowly_analyzed'"
            ).fetchall()

        async def analyzes() -> bool:
            return bool(analyzing())

        async with EventStore(settings) as store:
            await store.append(uuid4(), [message()])
            await catch_up(store)
            await until_async(analyzes, "autovacuum analyzes the table")
            before = analyzing()
            await rebuild(store, [MESSAGES])
            assert before == analyzing() != []


async def test_a_swap_yields_to_a_long_reader(filled: EventStore, database_url: str, owner: Sync) -> None:
    steps: list[str] = []
    async with await open_scoped_async(database_url, autocommit=False) as reader:
        swap_tables = StagingTables.swap

        async def swap(self: StagingTables, *arguments: object) -> None:
            await reader.execute("SELECT FROM messages LIMIT 1")  # holds its lock until the transaction ends
            await swap_tables(self, *arguments)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StagingTables, "swap", swap)
            task = asyncio.create_task(rebuild(filled, [MESSAGES], on_progress=lambda now: steps.append(now.doing)))

            async def swapping() -> bool:
                return "swapping" in steps

            await until_async(swapping, "the rebuild swaps")
            for _ in range(20):  # other readers are not held up behind the swap for longer than its patience
                owner.execute("SET statement_timeout = '2s'")
                owner.execute("SELECT count(*) FROM messages")
            assert not task.done()
            await reader.commit()
            await task


async def test_a_rebuild_resumes_where_it_was_interrupted(filled: EventStore, owner: Sync) -> None:
    first = asyncio.Event()

    def on_progress(now: RebuildProgress) -> None:
        if now.doing.startswith("index"):
            first.set()

    task = asyncio.create_task(rebuild(filled, [MESSAGES], on_progress=on_progress))
    await first.wait()
    await cancel_and_wait([task])
    stage = owner.execute("SELECT min(position) FROM checkpoints WHERE stage = 'next'").fetchone()
    assert stage == (1 + await applied_position(filled),), "and the act that it was started"
    marked = owner.execute("UPDATE projection_definitions SET made_at = 'epoch' WHERE stage = 'next'").rowcount
    assert marked == 1
    await rebuild(filled, [MESSAGES])
    assert owner.execute(
        "SELECT made_at = 'epoch' FROM projection_definitions WHERE stage = 'live' AND projection = 'messages'"
    ).fetchone() == (True,)


async def test_two_rebuilds_of_one_projection_do_not_run_at_once(filled: EventStore) -> None:
    first = asyncio.Event()
    task = asyncio.create_task(rebuild(filled, [MESSAGES], on_progress=lambda _: first.set()))
    await first.wait()
    with pytest.raises(RebuildError, match="being rebuilt or restored by another process"):
        await rebuild(filled, [MESSAGES])
    await task


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("CREATE MATERIALIZED VIEW kept AS SELECT * FROM messages", "the materialized view kept reads messages"),
        (
            "CREATE TABLE noted (t text, c uuid, i uuid, FOREIGN KEY (t, c, i) REFERENCES messages)",
            "the foreign key noted_t_c_i_fkey of noted refers to messages",
        ),
        ("CREATE FUNCTION f() RETURNS SETOF messages LANGUAGE sql AS 'SELECT * FROM messages'", "type of a row"),
    ],
)
async def test_objects_that_would_follow_the_old_table_prevent_a_rebuild(
    filled: EventStore, owner: Sync, statement: str, reason: str
) -> None:
    owner.execute(statement.encode())
    with pytest.raises(RebuildError, match=reason):
        await rebuild(filled, [MESSAGES])


async def test_undo_without_a_rebuild_is_refused(filled: EventStore) -> None:
    with pytest.raises(RebuildError, match="no previous tables"):
        await undo_rebuild(filled, [MESSAGES])


async def test_a_worker_rebuilds_a_changed_projection_and_applies_the_old_text_until_then(
    filled: EventStore, owner: Sync
) -> None:
    loud = (changed(),)
    async with working(filled, loud):

        def is_renewed() -> bool:
            hashes = owner.execute(
                "SELECT definition_hash FROM projection_definitions WHERE projection = 'messages' AND stage = 'live'"
            )
            return hashes.fetchone() == (loud[0].definition_hash,) and all(
                "/" in text or text.isupper() for text in contents(owner)
            )

        async def renewed() -> bool:  # in a thread: the swap, on this loop, may hold what is read
            return await asyncio.to_thread(is_renewed)

        await filled.append(uuid4(), [message("meanwhile")])
        await until_async(renewed, "the tables are renewed")
        result = await filled.append(uuid4(), [message("now")])
        await wait_for(filled, result.position, projections=loud)
        assert contents(owner)[-2:] == ["MEANWHILE", "NOW"]
    # Who took it back does not get it again.
    await undo_rebuild(filled, [MESSAGES])
    async with working(filled, loud):
        result = await filled.append(uuid4(), [message("quiet")])
        await wait_for(filled, result.position, projections=loud)
    assert contents(owner)[-1] == "quiet"


@pytest.mark.slow
async def test_a_rebuild_of_the_actors_takes_not_much_longer_than_that_of_their_conversations(
    store: EventStore, owner: Sync
) -> None:
    """One actor in many conversations, in several batches: no row is looked for in a table without an index."""
    conversations, batches = 10_000, 4
    owner.execute(
        """
        INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type,
                            actor, content, salt, digest)
        SELECT nextval('events_position'), clock_timestamp(), version, 1, conversation_id, gen_random_uuid(), 'default',
               'note.written', 'agent', '{}', uuid_send(gen_random_uuid()), sha256('')
          FROM generate_series(1, %s) AS version,
               LATERAL (SELECT md5(number::text)::uuid AS conversation_id FROM generate_series(1, %s) AS number) AS c
        """,
        (batches, conversations),
    )
    rebuilt = [replace(each, largest_batch=conversations) for each in select_projections(["conversations", "actors"])]
    await catch_up(store, rebuilt)
    of_conversations, of_actors = await rebuild(store, rebuilt, jobs=1)
    print(f"conversations {of_conversations.seconds:.1f} s, actors {of_actors.seconds:.1f} s")
    assert owner.execute("SELECT count(*) FROM conversation_actors").fetchone() == (conversations,)
    assert of_actors.seconds < 5 * of_conversations.seconds
