"""A connection sets the caller in the transaction of each query, and for no other query."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw import note
from support.values import texts
from support.waiting import until_async

from eventstore import Caller, EventStore, Settings
from eventstore.database.scoped_connection import MAX_PREPARED
from eventstore.errors import ConnectionLost, EventStoreError, InputError

CALLER = "SELECT current_tenant(), current_tenant_user()"
TENANTS = [f"tenant {number}" for number in range(5)]
USERS = [None, "ana", "bob"]


@given(tenant=texts(min_size=1, max_size=255), user=st.none() | texts(min_size=1, max_size=255))
async def test_any_name_is_transferred_unchanged(store: EventStore, tenant: str, user: str | None) -> None:
    assert await store.tables(Caller(tenant, user)).fetch(CALLER) == [(tenant, user)]


async def test_a_query_without_a_caller_has_none(clean_environment: None, database_url: str) -> None:
    async with EventStore(Settings(database_url=database_url, pool_size=1)) as store:
        for _ in range(8):  # so often that it is prepared
            assert await store.tables(Caller("acme", "ana")).fetch(CALLER) == [("acme", "ana")]
            assert await store.connections.reader.fetch(CALLER) == [(None, None)]
            assert await store.tables(Caller("acme")).fetch(CALLER) == [("acme", None)]
            async with store.connections.reader.connection() as connection:
                assert await (await connection.execute(CALLER)).fetchone() == (None, None)


async def test_the_caller_is_reset_after_an_error_and_a_cancellation(
    clean_environment: None, database_url: str
) -> None:
    async with (
        EventStore(Settings(database_url=database_url, pool_size=1)) as store,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching,
    ):

        async def is_sleeping() -> bool:
            cursor = await watching.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
            return await cursor.fetchone() is not None

        view = store.tables(Caller("acme", "ana"))
        for _ in range(8):  # so often that it is prepared
            with pytest.raises(InputError):
                await view.fetch("SELECT 'x'::text::int")
            assert await store.connections.reader.fetch(CALLER) == [(None, None)]
            waiting = asyncio.create_task(view.fetch("SELECT pg_sleep(60)"))
            await until_async(is_sleeping, "the query runs")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await store.connections.reader.fetch(CALLER) == [(None, None)]
            assert await view.fetch(CALLER) == [("acme", "ana")]


async def test_more_queries_than_stay_prepared(clean_environment: None, database_url: str) -> None:
    async with EventStore(Settings(database_url=database_url, pool_size=1)) as store:
        view = store.tables(Caller("acme"))
        for _ in range(2):
            for number in range(MAX_PREPARED + 20):
                for _ in range(6 if number < 30 else 1):
                    assert await view.fetch(f"SELECT {number}, %(a)s, '100%%'", {"a": "x"}) == [(number, "x", "100%")]
        [(kept,)] = await view.fetch("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'eventstore%%'", {})
        assert 0 < kept <= MAX_PREPARED + 1


async def test_a_connection_that_ends_during_a_query_is_replaced(store: EventStore, database_url: str) -> None:
    view = store.tables(Caller("acme"))
    for _ in range(3):
        assert await view.fetch(CALLER) == [("acme", None)]
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
            )
    with pytest.raises((ConnectionLost, EventStoreError)):
        await view.fetch("SELECT pg_terminate_backend(pg_backend_pid())")


async def test_under_load_no_caller_sees_a_row_of_another(clean_environment: None, database_url: str) -> None:
    """Many coroutines on few connections, some of which fail or are cancelled."""
    chance = random.Random(3)
    conversations = [UUID(int=number) for number in range(1, 7)]
    settings = Settings(database_url=database_url, pool_size=3)
    async with EventStore(settings) as store:
        may_see: dict[Caller, set[UUID]] = {}
        for tenant in TENANTS:
            for conversation in conversations:
                user = chance.choice(USERS)
                await store.append(conversation, [note([tenant, user]) for _ in range(3)], tenant=tenant, user=user)
                for each in {None, user}:
                    may_see.setdefault(Caller(tenant, each), set()).add(conversation)

        async def read(seed: int) -> int:
            own = random.Random(seed)
            seen = 0
            for _ in range(40):
                caller = Caller(own.choice(TENANTS), own.choice(USERS))
                log = store.log(caller)
                kind = own.random()
                if kind < 0.1:
                    with pytest.raises(InputError):
                        await log.fetch("SELECT 'x'::int FROM pg_class")
                elif kind < 0.2:
                    task = asyncio.create_task(log.fetch("SELECT pg_sleep(0.01), tenant_id FROM events"))
                    await asyncio.sleep(own.choice((0, 0.001, 0.005)))
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                else:
                    rows = await log.fetch(
                        "SELECT current_tenant(), current_tenant_user(), tenant_id, conversation_id FROM events"
                    )
                    assert {row[:2] for row in rows} <= {(caller.tenant, caller.user)}
                    assert {row[2] for row in rows} <= {caller.tenant}
                    assert {row[3] for row in rows} == may_see.get(caller, set())
                    seen += len(rows)
            return seen

        seen = await asyncio.gather(*map(read, range(20)))
    assert sum(seen) > 1500


async def test_each_pool_has_the_role_of_its_purpose(store: EventStore) -> None:
    await store.append(uuid4(), [note()], tenant="acme")
    roles = {
        "eventstore_reader": store.connections.reader,
        "eventstore_auditor": store.connections.auditor,
        "eventstore_projector": store.connections.projector,
        "eventstore_app": store.connections.service,
    }
    for role, pool in roles.items():
        assert await pool.fetch("SELECT current_user::text") == [(role,)]
    assert await store.connections.auditor.fetch("SELECT count(*) FROM events") == [(0,)]
    assert await store.connections.projector.fetch("SELECT count(*) FROM events") == [(1,)]
    async with await store.connect() as connection:
        assert await (await connection.execute("SELECT current_user::text")).fetchone() == ("eventstore_writer",)
