"""However long a server is away, the pauses between attempts to reach it stay short, and all use it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import quote
from uuid import uuid4

import pytest
from psycopg.conninfo import conninfo_to_dict
from support.raw import note
from support.replication import single_server
from support.waiting import until_async

from eventstore import EventStore, Settings, batching, notifier, subscribe
from eventstore.concurrency import cancel_and_wait
from eventstore.database import connection, pools
from eventstore.errors import EventStoreError, ServerUnreachable
from projections import Worker, worker
from tools.checker.proxy import Proxy

ATTEMPTS = 60
"""With pauses that are doubled from a hundredth of a second on, they would take millions of years."""
MAX_SECONDS_AWAY = 15


async def append(store: EventStore) -> None:
    await store.append(uuid4(), [note()])


async def read(store: EventStore) -> None:
    await store.pool.fetch("SELECT 1")


async def follow(store: EventStore) -> None:
    async for _ in store.subscribe():
        return


async def wait(store: EventStore) -> None:
    await store.wait(2**40)


async def work(store: EventStore) -> None:
    await Worker(store).run()


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    to = conninfo_to_dict(database_url)
    proxy = Proxy(str(to["host"]), int(to.get("port") or 5432))
    await proxy.open()
    yield proxy
    await proxy.close()


@pytest.fixture
def through(clean_environment: None, monkeypatch: pytest.MonkeyPatch, proxy: Proxy, database_url: str) -> str:
    """The URL of the database through the proxy; all pauses are short."""
    for module in (notifier, subscribe, pools, worker):
        monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.01)
    for module in (batching, connection):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    to = conninfo_to_dict(database_url)
    return f"postgresql://{to['user']}@/{to['dbname']}?host={quote(proxy.host, safe='')}&port={proxy.port}"


@pytest.mark.slow
@pytest.mark.parametrize("use", [append, read, follow, wait, work])
async def test_attempts_go_on_at_the_same_pace(
    proxy: Proxy, through: str, use: Callable[[EventStore], Awaitable[None]]
) -> None:
    async with EventStore(Settings(database_url=through, connect_timeout=1)) as store:
        proxy.refuse()

        async def use_repeatedly() -> None:
            while True:
                try:
                    await use(store)
                except EventStoreError:
                    continue

        async def is_tried() -> bool:
            assert not task.done(), task.result()
            return proxy.refused >= ATTEMPTS

        task = asyncio.create_task(use_repeatedly())
        await until_async(is_tried, "there were many attempts")
        proxy.admit()
        await append(store)
        await read(store)
        await cancel_and_wait([task])


@pytest.mark.parametrize("use", [append, read])
async def test_a_call_that_waits_reaches_the_server_once_it_is_back(
    proxy: Proxy, through: str, use: Callable[[EventStore], Awaitable[None]]
) -> None:
    async with EventStore(Settings(database_url=through, connect_timeout=30)) as store:
        await use(store)
        proxy.refuse()
        task = asyncio.create_task(use(store))

        async def is_tried() -> bool:
            assert not task.done(), task.result()
            return proxy.refused >= 10

        await until_async(is_tried, "there were some attempts")
        proxy.admit()
        await task


def test_pauses_are_shorter_than_an_outage_may_be_felt() -> None:
    assert max(connection.RETRY_SECONDS, connection.RECONNECT_SECONDS) < MAX_SECONDS_AWAY / 5


@pytest.mark.slow
async def test_an_error_names_the_reason_of_each_host(clean_environment: None) -> None:
    with single_server() as server:
        server.fetch("ALTER SYSTEM SET default_transaction_read_only = on")
        server.fetch("SELECT pg_reload_conf()")
        folder, missing = quote(str(server.folder), safe=""), quote("/nowhere", safe="")
        url = f"postgresql://agents@/flowagents?host={missing},{folder}&port=5432&target_session_attrs=read-write"
        expected = r"/nowhere:5432: No such file .*; .*:5432: session is read-only: promote"
        with pytest.raises(ServerUnreachable, match=expected):
            await EventStore(Settings(database_url=url, connect_timeout=2)).open()
