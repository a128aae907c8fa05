"""A server is ready while it can do its work, and otherwise says why not; it is alive meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from support.blackhole import black_hole
from support.serving import Served, served
from support.waiting import until_async

from agent_manager.metrics import Metrics
from agent_manager.server import readiness, serve
from agent_manager.server.serve import listen, serving_metrics, url_of
from agent_manager.settings import ServerSettings
from eventstore import EventStore, MessageAdded, Settings
from projections import PROJECTIONS, catch_up
from tools.checker.proxy import Proxy


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check again at each probe."""
    monkeypatch.setattr(readiness, "SHARED_SECONDS", 0)


@asynccontextmanager
async def idle(settings: Settings, **options: Any) -> AsyncIterator[Served]:
    """A server without a worker, with other settings."""
    requires_tokens = options.pop("requires_tokens", False)
    async with (
        EventStore(settings.model_copy(update=options)) as store,
        served(store, works=False, requires_tokens=requires_tokens) as here,
    ):
        yield here


async def probe(here: Served) -> tuple[int, str, str]:
    """The status, and the title and the detail of the problem."""
    assert (await here.client.get("/health")).status_code == 200
    answer = await here.client.get("/ready")
    body = answer.json()
    return answer.status_code, body.get("title", ""), body.get("detail", "")


async def test_a_server_without_its_schema_is_not_ready(settings: Settings, superuser_url: str) -> None:
    async with idle(settings) as here:
        assert (await probe(here))[0] == 200
        with psycopg.connect(superuser_url, autocommit=True) as superuser:
            for change, undo, title in (
                ("DELETE FROM eventstore_migrations WHERE version = (SELECT max(version) FROM eventstore_migrations)",
                 None, "SchemaTooOld"),
                ("INSERT INTO eventstore_migrations VALUES ('99990101000000'), ('0 99990101000000')",
                 "DELETE FROM eventstore_migrations WHERE version LIKE '%9990101000000'", "SchemaTooNew"),
                ("ALTER TABLE tasks RENAME TO old_tasks",
                 "ALTER TABLE old_tasks RENAME TO tasks", "SchemaError"),
            ):  # fmt: skip
                saved = superuser.execute("SELECT version FROM eventstore_migrations").fetchall()
                superuser.execute(change.encode())
                status, found, detail = await probe(here)
                assert (status, found) == (503, title), detail
                assert "does not fit this server: " in detail
                for version in saved if undo is None else ():
                    superuser.execute("INSERT INTO eventstore_migrations VALUES (%s) ON CONFLICT DO NOTHING", version)
                if undo is not None:
                    superuser.execute(undo.encode())
                assert (await probe(here))[0] == 200


@pytest.mark.slow
async def test_a_server_whose_pool_is_exhausted_is_not_ready(settings: Settings) -> None:
    async with idle(settings, pool_size=2) as here, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(here.store.connections.reader.connection())
        status, title, detail = await probe(here)
        assert (status, title) == (503, "PoolExhausted")
        assert "reader" in detail
        assert "EVENTSTORE_POOL_SIZE" in detail
        await stack.aclose()
        assert (await probe(here))[0] == 200


async def test_a_server_whose_workers_are_too_far_behind_is_not_ready(settings: Settings) -> None:
    async with idle(settings, ready_lag_seconds=0.01) as here:
        await here.store.append(uuid4(), [MessageAdded(role="user", content="x")])

        async def is_behind() -> bool:
            return (await probe(here))[:2] == (503, "NotCaughtUp")

        await until_async(is_behind, "the tables are behind")
        assert "EVENTSTORE_READY_LAG_SECONDS" in (await probe(here))[2]
        await catch_up(here.store, [each for each in PROJECTIONS if each.name not in ("search", "statistics")])
        assert (await probe(here))[0] == 200, "search and statistics may fall behind under load"


async def test_a_server_whose_database_is_gone_is_not_ready(settings: Settings, database_url: str) -> None:
    to = conninfo_to_dict(database_url)
    proxy = Proxy(str(to["host"]), int(to.get("port") or 5432))
    await proxy.open()
    url = f"postgresql://{to['user']}@/{to['dbname']}?host={proxy.host}&port={proxy.port}"
    async with idle(ServerSettings(database_url=url, connect_timeout=1)) as here:
        assert (await probe(here))[0] == 200
        await proxy.close()
        assert (await probe(here))[:2] == (503, "ServerUnreachable")


@pytest.mark.slow
async def test_a_server_is_ready_again_when_its_database_answers_again(settings: Settings, database_url: str) -> None:
    async with black_hole(database_url) as hole, idle(ServerSettings(database_url=hole.url, connect_timeout=1)) as here:
        assert (await probe(here))[0] == 200
        hole.silence()
        assert (await probe(here))[:2] == (503, "ServerUnreachable")
        hole.is_silent = False  # for new connections

        async def is_ready() -> bool:
            return (await probe(here))[0] == 200

        await until_async(is_ready, "it is ready again")


async def test_strangers_learn_the_reason_but_not_the_cause(settings: Settings) -> None:
    async with idle(settings, requires_tokens=True, ready_lag_seconds=1e-6) as here:
        await here.store.append(uuid4(), [MessageAdded(role="user", content="x")])
        status, title, detail = await probe(here)
        assert (status, title) == (503, "NotCaughtUp")
        assert "EVENTSTORE" not in detail


async def test_connections_to_the_port_of_the_metrics_are_limited(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "METRICS_CONNECTIONS", 3)
    monkeypatch.setattr(serve, "METRICS_SECONDS", 0.5)
    store = EventStore(settings)
    listening = listen("127.0.0.1", 0, "metrics-")
    address = listening.getsockname()
    async with serving_metrics(store, Metrics(store), listening):
        opened = [await asyncio.open_connection(*address) for _ in range(6)]
        for _, writer in opened:
            writer.write(b"GET /metrics HTTP/1.1\r\n")
        async with httpx.AsyncClient(base_url=url_of(listening)) as client:
            assert (await client.get("/health")).json() == {"status": "ok"}
        async with asyncio.timeout(10):
            ends = [(await reader.read()).split(b"\r\n")[0] for reader, _ in opened]
        assert {end[:12] for end in ends} <= {b"HTTP/1.1 408", b"HTTP/1.1 503"}
        for _, writer in opened:
            writer.close()


async def test_the_port_of_the_metrics_serves_probes_without_tokens(settings: Settings) -> None:
    store = EventStore(settings)
    listening = listen("127.0.0.1", 0, "metrics-")
    async with (
        serving_metrics(store, Metrics(store), listening),
        httpx.AsyncClient(base_url=url_of(listening)) as client,
    ):
        starting = await client.get("/ready")
        assert (starting.status_code, starting.json()["title"]) == (503, "StoreClosed")
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert "eventstore_database_up 0.0" in (await client.get("/metrics")).text
        async with store:
            assert (await client.get("/ready")).json() == {"status": "ready"}
            seen = await client.get("/metrics")
            assert seen.headers["content-type"].startswith("text/plain; version=")
            assert "eventstore_database_up 1.0" in seen.text
        for path, status in (("/", 404), ("/v1/conversations", 404)):
            assert (await client.get(path)).status_code == status
        assert (await client.get("/metrics", headers={"Host": "evil.example"})).status_code == 421
        assert (await client.post("/metrics", content=b"x")).status_code == 413
