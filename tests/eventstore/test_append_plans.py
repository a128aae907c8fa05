"""An append costs the same however long the log and the conversation have become, and whatever the planner believes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.longlog import conversation, fill
from support.plans import Plan, explain, explain_inside
from support.servers import DatabaseServer

from eventstore import EventStore

SHORT, LONG = 2_000, 50_000
LONG_CONVERSATION = UUID(int=10**15)
LENGTH = 20_000

ONE = """
SELECT a.outcome
  FROM append_one('default', %(conversation)b::uuid, -2, %(id)b::uuid, 'message.added', 1::smallint, 'ana',
                  '{"role": "user", "content": "a train to Lisbon"}', '{}', 0, '') AS a
"""
GROUP = """
SELECT unnest(a.outcomes)
  FROM append_group(ARRAY['default', 'default'], ARRAY[%(conversation)b::uuid, %(other)b::uuid], ARRAY[-2, -2],
                    ARRAY[1, 2], ARRAY[1, 2], ARRAY[%(id)b::uuid, %(id)b::uuid],
                    ARRAY['message.added', 'message.added'], ARRAY[1, 1]::smallint[], ARRAY['ana', 'ana'],
                    array_fill('{"role": "user", "content": "a train to Lisbon"}'::jsonb, ARRAY[2]),
                    array_fill('{}'::jsonb, ARRAY[2]), ARRAY['', ''], 0) AS a
"""
LENGTHEN = """
INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, actor,
                    content, metadata, salt, digest)
SELECT 1000000 + v, clock_timestamp(), v, 1, %s, gen_random_uuid(), 'default', 'message.added', '',
       '{"role": "user", "content": "text"}', '{}', '', sha256('')
  FROM generate_series(1, %s) AS v
"""


@pytest.fixture(scope="module")
def logs(server: DatabaseServer) -> Iterator[dict[tuple[int, bool], str]]:
    """URLs of databases by the length of their logs, and whether the tables were analyzed.

    The statistics never include a conversation that is far longer than all others.
    """
    with ExitStack() as stack:
        urls = {}
        for size in (SHORT, LONG):
            for analyzed in (False, True):
                name = server.create_database()
                stack.callback(server.drop_database, name)
                urls[size, analyzed] = url = server.superuser_url_of(name)
                fill(url, size, analyzed=analyzed)
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(LENGTHEN, (LONG_CONVERSATION, LENGTH))
                    connection.execute("SELECT setval('events_position', 2000000)")
        yield urls


def cost(url: str, text: str, target: UUID, times: int = 3) -> Plan:
    """An append on a connection that has done a few, as the library's connections are set up."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")
        for _ in range(times):
            plan = explain(connection, text, parameters(target), kind="force_generic_plan")
    assert plan.rows >= 1
    return plan


def parameters(target: UUID) -> dict[str, Any]:
    return {"conversation": target, "other": uuid4(), "id": uuid4()}


def to_old() -> UUID:
    return conversation(1)


def to_long() -> UUID:
    return LONG_CONVERSATION


every_way = pytest.mark.parametrize("text", [ONE, GROUP], ids=["one", "group"])
every_target = pytest.mark.parametrize("target", [uuid4, to_old, to_long], ids=["new", "old", "long"])


@every_way
@every_target
@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "analyzed"])
def test_its_cost_does_not_grow(logs: dict[tuple[int, bool], str], text: str, target: Any, analyzed: bool) -> None:
    short, long = (cost(logs[size, analyzed], text, target()) for size in (SHORT, LONG))
    # One page more in each of the five indexes and of the two look-ups, where they have become a level higher.
    assert long.buffers <= short.buffers + 2 * 7, long.text
    assert long.buffers < 150
    assert long.wal_records <= short.wal_records + 4


@every_way
def test_a_long_conversation_costs_what_a_new_one_does(logs: dict[tuple[int, bool], str], text: str) -> None:
    new, old = (cost(logs[LONG, True], text, target) for target in (uuid4(), LONG_CONVERSATION))
    assert old.buffers <= new.buffers + 20, old.text


@every_way
def test_an_event_is_one_row_one_entry_in_each_index_and_nothing_more(
    logs: dict[tuple[int, bool], str], text: str
) -> None:
    events = 1 if text is ONE else 2
    with psycopg.connect(logs[SHORT, True], autocommit=True) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_index WHERE indrelid = 'events'::regclass AND indpred IS NULL"
        ).fetchone()
        assert found is not None
        indexes = int(found[0])
    records = min(cost(logs[SHORT, True], text, uuid4(), times=1).wal_records for _ in range(5))
    # A sequence writes a record for every 32 values; a page of an index that is full writes a few more.
    assert events * (1 + indexes) <= records <= events * (1 + indexes) + 3


LOOKED_UP = {ONE: {"events_pkey"}, GROUP: {"events_pkey", "events_id_key"}}
"""The indexes along which a statement looks up what is there. The insertion of one event finds a known id by itself."""
ANSWERED = ONE.replace("message.added", "message.answered")


@every_way
@pytest.mark.parametrize(
    ("before", "further"),
    [(ONE, set()), (ANSWERED, {"idx_events_lifecycle"})],
    ids=["not deleted", "perhaps deleted"],
)
def test_what_is_there_is_looked_up_along_unique_indexes(
    logs: dict[tuple[int, bool], str], text: str, before: str, further: set[str]
) -> None:
    with psycopg.connect(logs[LONG, False], autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
        connection.execute(before, parameters(LONG_CONVERSATION))
        plans = explain_inside(connection, text, parameters(LONG_CONVERSATION))
    looked = [plan for plan in plans if plan.indexes]
    assert {index for plan in looked for index in plan.indexes} == LOOKED_UP[text] | further
    assert all(node["Node Type"] != "Seq Scan" for plan in plans for node in plan.nodes)


async def test_nothing_that_the_store_asks_is_compiled_first(store: EventStore) -> None:
    # Compiling takes the server a thousand times as long as an append.
    async with await store.connect() as connection:
        assert await (await connection.execute("SHOW jit")).fetchone() == ("off",)
    assert await store.pool.fetch("SHOW jit") == [("off",)]


def test_functions_that_avoid_sequential_scans_are_not_compiled_for_it(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT proname, 'jit=off' = ANY (proconfig) FROM pg_proc WHERE 'enable_seqscan=off' = ANY (proconfig)"
        ).fetchall()
    assert {"append_events", "begin_wait"} <= {name for name, _ in rows}
    assert all(compiles_nothing for _, compiles_nothing in rows), rows
