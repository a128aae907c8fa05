"""Appends succeed while the server's queue of notifications is full, and consumers receive their events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import psycopg
import pytest
from support.follow import Follower
from support.servers import embedded_server, open_folder

from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from projections.status import read_status

HEARD_WITHIN_SECONDS = 20


@pytest.fixture
def small_queue() -> Iterator[EmbeddedServer]:
    """A server whose queue has its smallest size; skips the test before PostgreSQL 17, where the size is fixed."""
    with open_folder() as folder:
        with embedded_server(folder / "server") as server, _superuser(server) as superuser:
            if superuser.info.server_version < 170000:
                pytest.skip("the queue of 8 GB takes too long to fill")
            superuser.execute("ALTER SYSTEM SET max_notify_queue_pages = 64")
        with embedded_server(folder / "server") as server:
            Migrator(server.url(), Settings(database_url=server.url())).up()
            yield server


def _superuser(server: EmbeddedServer) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(server.superuser_url, autocommit=True)


@contextmanager
def full_queue(server: EmbeddedServer) -> Iterator[None]:
    """Keep the queue full until the end of the block, with a login that may only connect."""
    with _superuser(server) as superuser:
        superuser.execute("CREATE ROLE stranger LOGIN PASSWORD 'test'")
    url = server.url("stranger").replace("stranger@", "stranger:test@")
    with psycopg.connect(url) as listening, psycopg.connect(url, autocommit=True) as filling:
        listening.execute("LISTEN nothing")
        listening.commit()
        listening.execute("SELECT 1")  # a transaction that stays open: it reads no notification
        with suppress(psycopg.errors.ProgramLimitExceeded):
            while True:
                filling.execute("SELECT pg_notify('nothing', repeat('x', 7000) || n) FROM generate_series(1, 8) n")
        try:
            yield
        finally:
            listening.rollback()


@pytest.mark.slow
@pytest.mark.usefixtures("clean_environment")
async def test_appends_and_consumers_work_while_the_queue_is_full(small_queue: EmbeddedServer) -> None:
    settings = Settings(database_url=small_queue.url())
    conversation = uuid4()
    async with EventStore(settings) as store:
        async with Follower(store.subscribe()) as follower:
            await store.append(conversation, [MessageAdded(role="user", content="before")])
            await follower.take(1)
            with full_queue(small_queue):
                assert (await read_status(store)).notify_queue_usage > 0.5
                for number in range(20):
                    await store.append(conversation, [MessageAdded(role="user", content=f"during {number}")])
                await follower.take(20, HEARD_WITHIN_SECONDS)
                async with EventStore(settings) as late, Follower(late.subscribe()) as other:
                    await other.take(21, HEARD_WITHIN_SECONDS)
                    await late.append(conversation, [MessageAdded(role="user", content="late")])
                    await other.take(1, HEARD_WITHIN_SECONDS)
            await store.append(conversation, [MessageAdded(role="user", content="after")])
            await follower.take(2, HEARD_WITHIN_SECONDS)
        assert (await read_status(store)).notify_queue_usage < 0.5
