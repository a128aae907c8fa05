"""The fast waits of a connection keep psycopg's behaviour: results, errors, cancellation, loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from support.waiting import until_async

from eventstore.database.connection import Connection

pytestmark = pytest.mark.shared_database


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    async with await Connection.connect(database_url, autocommit=True) as made:
        assert isinstance(made, Connection)
        yield made


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as made:
        yield made


async def sleeping(connection: Connection, other: psycopg.AsyncConnection) -> asyncio.Task[object]:
    """A query that lasts, once it is under way."""
    task = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
    await until_async(lambda: is_busy(connection, other), "the query is under way")
    return task


async def is_busy(connection: Connection, other: psycopg.AsyncConnection) -> bool:
    found = await other.execute(
        "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active'", (connection.info.backend_pid,)
    )
    return found.rowcount == 1


async def one(connection: Connection) -> object:
    return await (await connection.execute("SELECT 1")).fetchone()


async def test_long_results_are_complete(connection: Connection) -> None:
    cursor = await connection.execute("SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) AS n")
    rows = await cursor.fetchall()
    assert rows == [(n, "x" * 1000) for n in range(1, 20001)]


async def test_long_parameters_are_complete(connection: Connection) -> None:
    cursor = await connection.execute("SELECT octet_length(%s), %s", ("x" * 20_000_000, "y" * 5_000_000))
    assert await cursor.fetchone() == (20_000_000, "y" * 5_000_000)


async def test_other_coroutines_run_meanwhile(connection: Connection, other: psycopg.AsyncConnection) -> None:
    task = await sleeping(connection, other)
    await other.execute("SELECT pg_cancel_backend(%s)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.errors.QueryCanceled):
        await task
    assert await one(connection) == (1,)


async def test_errors_are_raised_and_the_connection_stays(connection: Connection) -> None:
    for _ in range(2):
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("SELECT n, 1 / (n - 15000) FROM generate_series(1, 20000) AS n")
    assert await one(connection) == (1,)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_query_is_ended_on_the_server(
    connection: Connection, other: psycopg.AsyncConnection, times: int
) -> None:
    task = await sleeping(connection, other)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await is_busy(connection, other)
    assert await one(connection) == (1,)


async def test_a_time_limit_ends_a_query(connection: Connection) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connection.execute("SELECT pg_sleep(600)")
    assert await one(connection) == (1,)


async def test_a_lost_connection_raises_an_error(connection: Connection, other: psycopg.AsyncConnection) -> None:
    task = await sleeping(connection, other)
    await other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        await task


@pytest.mark.slow
async def test_a_connection_that_is_closed_during_a_query_raises_an_error(
    connection: Connection, other: psycopg.AsyncConnection
) -> None:
    task = await sleeping(connection, other)
    await connection.close()
    with pytest.raises(psycopg.OperationalError):
        await task


async def test_notifications_have_a_timeout(connection: Connection, other: psycopg.AsyncConnection) -> None:
    await connection.execute("LISTEN here")
    assert [notify async for notify in connection.notifies(timeout=0.01)] == []
    await other.execute("NOTIFY here, 'x'")
    assert [notify.payload async for notify in connection.notifies(timeout=30, stop_after=1)] == ["x"]
