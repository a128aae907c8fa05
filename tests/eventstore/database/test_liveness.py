"""A silent server is distinguished from a busy one, and no wait outlasts a server that has vanished."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from support.pooler import pooler_to
from support.raw import note
from support.waiting import SECONDS, until_async

from eventstore import EventStore, Settings
from eventstore.database import connection, liveness
from eventstore.database.connection import APP, connect, connect_options
from eventstore.errors import ConnectionLost, ServerError
from projections import Reader, Worker, wait_for
from tools.checker.proxy import Proxy

SILENCE, PROBE, CONNECT = 0.3, 2.0, 2


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    """Shorten the times."""
    monkeypatch.setattr(liveness, "SILENCE_SECONDS", SILENCE)
    monkeypatch.setattr(liveness, "PROBE_SECONDS", PROBE)


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    to = conninfo_to_dict(database_url)
    proxy = Proxy(str(to["host"]), int(to.get("port") or 5432))
    await proxy.open()
    yield proxy
    await proxy.close()


@pytest.fixture
def through(proxy: Proxy, database_url: str) -> Settings:
    """Settings that lead through the proxy."""
    to = conninfo_to_dict(database_url)
    url = f"postgresql://{to['user']}@/{to['dbname']}?host={quote(proxy.host, safe='')}&port={proxy.port}"
    return Settings(database_url=url, connect_timeout=CONNECT)


@pytest.mark.slow
async def test_a_busy_server_is_waited_for(through: Settings) -> None:
    async with EventStore(through) as store:
        for _ in range(2):
            assert await store.pool.fetch("SELECT pg_sleep(%s)", [8 * SILENCE])
        async with await store.connect() as connection:
            await connection.execute("SELECT pg_sleep(%s)", [8 * SILENCE])


@pytest.mark.slow
async def test_only_the_connection_whose_answer_is_lost_is_closed(through: Settings, proxy: Proxy) -> None:
    async with EventStore(through) as store:
        async with await store.connect() as other:
            one = await store.connect()
            proxy.drop_all_replies()
            with pytest.raises(psycopg.OperationalError, match="the reply of the server was lost"):
                async with asyncio.timeout(SECONDS):
                    await one.execute("SELECT 1")
            assert not other.closed
        # What may be repeated is repeated, on connections that answer.
        assert await store.pool.fetch("SELECT 1") == [(1,)]
        conversation = uuid4()
        await store.append(conversation, [note()])
        proxy.drop_replies(random.Random(1))
        assert [event.version async for event in store.read(conversation)] == [1]


@pytest.mark.slow
async def test_all_connections_to_a_frozen_server_are_closed(through: Settings, proxy: Proxy) -> None:
    async with EventStore(through) as store:
        worker = asyncio.create_task(Worker(store).run())
        conversation = uuid4()
        placed = await store.append(conversation, [note()])
        await wait_for(store, placed.position, timeout=30)
        busy = await store.connect()

        async def read() -> None:
            _ = [event async for event in store.read(conversation)]

        proxy.freeze()
        async with asyncio.timeout(2 * (SILENCE + PROBE + CONNECT) + SECONDS):
            outcomes = await asyncio.gather(
                *(store.append(conversation, [note()]) for _ in range(3)),
                *(read() for _ in range(3)),
                *(Reader(store).messages(conversation) for _ in range(3)),
                store.pool.fetch("SELECT 1"),
                return_exceptions=True,
            )
        assert all(isinstance(outcome, ServerError) for outcome in outcomes), outcomes

        async def is_closed() -> bool:
            try:
                await busy.execute("SELECT 1")
            except psycopg.OperationalError:
                return True
            return False

        await until_async(is_closed, "a connection that lay idle is closed as well")
        worker.cancel()
        await asyncio.wait((worker,), timeout=30)
        assert worker.done()


@pytest.mark.slow
async def test_behind_a_pooler_the_longest_silence_is_that_of_a_statement(database_url: str) -> None:
    settings = Settings(database_url=database_url, statement_seconds=1)
    async with pooler_to(database_url, 2) as pooler:
        connection = await connect(pooler.url, settings, APP)
        connection.liveness.reply_seconds = 1.0
        await connection.execute("SELECT pg_sleep(%s)", [2 * SILENCE])
        with pytest.raises(psycopg.OperationalError, match="the server has not replied for"):
            await connection.execute("SELECT pg_sleep(60)")
        await connection.close()


@pytest.mark.slow
async def test_a_lost_answer_raises_an_error_of_the_store(through: Settings, proxy: Proxy) -> None:
    async with EventStore(through) as store:
        listener = await store.connections.open_listener(lambda: None)
        proxy.freeze()
        with pytest.raises(ConnectionLost):
            await listener.check()
        listener.close()


def test_every_connection_has_timeouts_of_the_kernel() -> None:
    settings = Settings(connect_timeout=10)
    one = connect_options("postgresql://a@one/db?keepalives_idle=60", settings)
    assert one["tcp_user_timeout"] == 5000
    assert "keepalives_idle" not in one  # the URL has it
    assert one["connect_timeout"] == 10
    two = connect_options("postgresql://a@one,two/db", settings)
    assert two["connect_timeout"] == 5  # for both together as long as for one


def test_the_host_that_was_reached_last_is_tried_first() -> None:
    class Reached:
        host, port = b"two", b"6432"

    url = "postgresql://a@one:5432,two:6432,three:7432/db?target_session_attrs=read-write"
    assert connection.reordered(url) == url
    connection.remember(url, Reached())  # type: ignore[arg-type]
    given = conninfo_to_dict(connection.reordered(url))
    assert (given["host"], given["port"]) == ("two,three,one", "6432,7432,5432")
    assert given["target_session_attrs"] == "read-write"
    assert connection.reordered("postgresql://a@one/db") == "postgresql://a@one/db"
