"""A pooler that confuses prepared statements is refused at opening; no query returns the rows of another."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from support.pgbouncer import PROGRAM, keeps_statements, pgbouncer_to
from support.pooler import pooler_to
from support.raw import note

from eventstore import EventStore, Settings
from eventstore.database.connection import APP, connect, statement_name
from eventstore.database.pipelined_connection import Statement
from eventstore.errors import UnsuitableServer

REMEDY = "does not keep prepared statements: set max_prepared_statements"


def test_the_name_of_a_statement_depends_on_its_text_and_types() -> None:
    names = {
        statement_name(text, types)
        for text in (b"SELECT $1", b"SELECT $1 ", b"SELECT $2")
        for types in ((), (23,), (25,), (23, 25), (25, 23))
    }
    assert len(names) == 15
    assert all(len(name) < 64 for name in names)  # PostgreSQL cuts longer ones
    assert Statement(b"one", b"SELECT 1", ()).name != Statement(b"one", b"SELECT 2", ()).name


@pytest.mark.usefixtures("clean_environment")
async def test_all_statements_of_a_session_are_named_by_their_text(store: EventStore) -> None:
    async with await store.connect() as connection:
        for number in range(3):
            for _ in range(7):
                await connection.execute(f"SELECT {number}, %s", [number])
        found = await connection.execute("SELECT name, statement, parameter_types::oid[] FROM pg_prepared_statements")
        prepared = await found.fetchall()
        assert len(prepared) == 3
        assert {name for name, *_ in prepared} == {
            statement_name(text.encode(), types, b"eventstore_cursor").decode() for _, text, types in prepared
        }


@pytest.mark.usefixtures("clean_environment")
async def test_statements_that_psycopg_drops_are_only_its_own(store: EventStore) -> None:
    async with store.connections.reader.connection() as connection:
        for _ in range(7):
            await connection.fetch("SELECT 1", None, None, psycopg.AsyncCursor)
            await connection.execute("SELECT %s", [1])
        async with connection.transaction(force_rollback=True):
            await connection.execute("SELECT 2")
        await connection.execute("SELECT 2")
        assert await connection.fetch("SELECT 1", None, None, psycopg.AsyncCursor) == [(1,)]


@pytest.mark.parametrize("sessions", [1, 2, 5])
@pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed")
async def test_pgbouncer_that_keeps_no_statements_is_refused(
    database_url: str, clean_environment: None, sessions: int
) -> None:
    options = {"max_prepared_statements": 0} if keeps_statements() else {}
    for round_robin in (0, 1):
        options["server_round_robin"] = round_robin
        async with pgbouncer_to(database_url, pool_mode="transaction", sessions=sessions, **options) as url:
            with pytest.raises(UnsuitableServer, match=REMEDY):
                await EventStore(Settings(database_url=url, listen_url=database_url)).open()


@pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed")
@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
async def test_pgbouncer_that_keeps_sessions_or_statements_is_accepted(
    database_url: str, clean_environment: None, pool_mode: str
) -> None:
    if pool_mode == "transaction" and not keeps_statements():
        pytest.skip("this PgBouncer cannot keep prepared statements")
    options = {"max_prepared_statements": 50} if keeps_statements() else {}
    async with (
        pgbouncer_to(database_url, pool_mode=pool_mode, sessions=20, **options) as url,
        EventStore(Settings(database_url=url, listen_url=database_url, pool_size=3)) as store,
    ):

        async def work(number: int) -> None:
            mine = uuid4()
            for version in range(1, 11):
                await store.append(mine, [note(number)])
                assert [event.version async for event in store.read(mine)] == [*range(1, version + 1)]
                assert await store.pool.fetch(f"SELECT {number}") == [(number,)]

        await asyncio.gather(*map(work, range(12)))


async def test_a_pooler_that_keeps_statements_is_accepted(database_url: str, clean_environment: None) -> None:
    for sessions in (1, 3):
        async with (
            pooler_to(database_url, sessions) as pooler,
            EventStore(Settings(database_url=pooler.url, listen_url=database_url)) as store,
        ):
            await store.append(uuid4(), [note()])
            connection = await connect(pooler.url, store.settings, APP)
            assert not connection.liveness.is_backend_known
            await connection.close()


async def test_a_pooler_whose_sessions_begin_with_other_settings_is_refused(
    database_url: str, superuser_url: str, clean_environment: None
) -> None:
    database = sql.Identifier(str(conninfo_to_dict(database_url)["dbname"]))
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        superuser.execute(sql.SQL("ALTER DATABASE {} SET row_security = off").format(database))
    async with pooler_to(database_url, 2) as pooler:
        with pytest.raises(UnsuitableServer, match=r"ALTER ROLE .* SET row_security = 'on'"):
            await EventStore(Settings(database_url=pooler.url, listen_url=database_url)).open()
