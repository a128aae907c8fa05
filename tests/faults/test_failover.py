"""A failover: the primary is gone for good, a standby takes its place, and all clients continue there without help.

It is killed, or it vanishes behind a proxy that goes on to take what it is sent and never answers.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from time import monotonic
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import psycopg
import pytest
from support.folding import fold, stored
from support.processes import Commands
from support.standby import promote, standby_of
from support.waiting import until_async

from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.errors import EventStoreError
from projections import wait_for
from tools.checker.proxy import Proxy

SECONDS_AFTER_PROMOTION = 60
"""The time limit on a busy machine: a silent server is noticed after seven seconds, and left after five more."""


@pytest.fixture
async def proxy(own_server: EmbeddedServer) -> AsyncIterator[Proxy]:
    """A way to the primary that can be cut off from it."""
    proxy = Proxy(str(own_server.socket_dir), 5432)
    await proxy.open()
    yield proxy
    await proxy.close()


@pytest.mark.parametrize("fate", ["killed", "vanished"])
@pytest.mark.usefixtures("clean_environment")
async def test_store_subscriber_and_worker_continue_at_the_promoted_standby(
    own_server: EmbeddedServer, proxy: Proxy, started: Commands, fate: str
) -> None:
    async with EventStore(Settings(data_dir=own_server.data_dir)) as store:
        await asyncio.to_thread(store.server.migrator().up)
    with standby_of(own_server) as standby:
        [folder] = parse_qs(urlsplit(standby).query)["host"]
        url = f"postgresql://eventstore@/flowagents?host={proxy.host},{folder}&port=5432,5432"
        url += "&target_session_attrs=read-write"
        async with EventStore(Settings(database_url=url)) as store:
            worker = started.start("project", DATABASE_URL=url)
            conversation = uuid4()
            before = await store.append(conversation, [MessageAdded(role="user", content="before")])
            await wait_for(store, before.position, timeout=60)
            await until_async(lambda: has_replayed(standby, before.position), "the standby has it")
            followed: dict[int, str] = {}

            async def follow() -> None:
                async for event in store.subscribe():
                    followed[event.position] = event.content["content"]

            following = asyncio.create_task(follow())
            if fate == "killed":
                assert own_server.pid is not None
                os.kill(own_server.pid, signal.SIGKILL)
            else:
                proxy.freeze()
            with psycopg.connect(f"{standby.replace('eventstore@', 'postgres@')}", autocommit=True) as connection:
                promote(connection)
            promoted_at = monotonic()

            async def appended() -> bool:
                try:
                    await store.append(conversation, [MessageAdded(role="user", content="after")], expected=1)
                except EventStoreError:
                    return False
                return True

            await until_async(appended, "the store has found the new primary")
            assert monotonic() - promoted_at < SECONDS_AFTER_PROMOTION
            events = [event async for event in store.read(conversation)]
            assert [event.content["content"] for event in events] == ["before", "after"]
            await until_async(lambda: has_both(followed), "the subscriber has both")
            following.cancel()
            await wait_for(store, events[-1].position, timeout=60)
            assert await asyncio.to_thread(worker.interrupt, signal.SIGTERM) == 0
            assert stored(standby) == fold(events)


async def has_both(followed: dict[int, str]) -> bool:
    return list(followed.values()) == ["before", "after"]


async def has_replayed(url: str, position: int) -> bool:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("SET ROLE eventstore_projector")
        cursor = await connection.execute("SELECT 1 FROM events WHERE position = %s", (position,))
        return await cursor.fetchone() is not None
