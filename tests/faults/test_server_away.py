"""A server that was away is in use again within seconds, by everything that polled it meanwhile.

``EVENTSTORE_TEST_AWAY_SECONDS`` is how long it is away; ten minutes are worth trying.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from time import monotonic
from uuid import uuid4

import httpx
import pytest
from support.network import Network, lossy_network
from support.processes import Commands
from support.raw import note
from support.replication import Node, single_server
from support.waiting import until_async

from eventstore import EventStore, MessageAdded, Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.database.migrate import Migrator
from eventstore.errors import EventStoreError
from projections import Reader, wait_for

AWAY_SECONDS = float(os.environ.get("EVENTSTORE_TEST_AWAY_SECONDS", "5"))
MAX_SECONDS = 15


@pytest.fixture(params=["stopped", "unreachable"])
def network(request: pytest.FixtureRequest) -> Iterator[Network | None]:
    if request.param == "stopped":
        yield None
    else:
        with lossy_network() as network:
            yield network


@pytest.fixture
def server(clean_environment: None, network: Network | None) -> Iterator[Node]:
    with single_server(network) as server:
        Migrator(server.url, Settings(database_url=server.url)).up()
        yield server


class Poller:
    """A caller that repeats a request without end.

    Attributes:
        succeeded_at: when it last had an answer.
    """

    def __init__(self, request: Callable[[], Awaitable[object]]) -> None:
        self.succeeded_at = 0.0
        self.task = asyncio.create_task(self._run(request))

    async def _run(self, request: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await request()
            except (EventStoreError, httpx.HTTPError):
                continue
            else:
                self.succeeded_at = monotonic()
            finally:
                await asyncio.sleep(0.1)

    async def since(self, moment: float) -> float:
        """Return the seconds from a moment to the first answer after it."""

        async def has_succeeded() -> bool:
            return self.succeeded_at > moment

        await until_async(has_succeeded, "there is an answer", 120)
        return self.succeeded_at - moment


@pytest.mark.timeout(240 + 2 * AWAY_SECONDS)
async def test_everything_uses_a_server_that_is_back(
    server: Node, network: Network | None, started: Commands, record_property: Callable[[str, object], None]
) -> None:
    up = started.start("up", "--port", "0", DATABASE_URL=server.url, EVENTSTORE_CONNECT_TIMEOUT="2")
    await asyncio.to_thread(up.until_printed, "Ctrl-C")
    [address] = re.findall(r"^HTTP +(http://[^;]+);", up.out, re.MULTILINE)
    conversation = uuid4()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=address))
        writing, store = [
            await stack.enter_async_context(EventStore(Settings(database_url=server.url))) for _ in range(2)
        ]

        async def append() -> None:
            await writing.append(conversation, [MessageAdded(role="user", content="x")])

        async def read() -> None:
            assert [event async for event in store.read(conversation)]

        async def page() -> None:
            await Reader(store).conversation(conversation)

        async def request() -> None:
            (await client.get(f"/v1/conversations/{conversation}/messages")).raise_for_status()

        async def follow() -> None:
            async for _ in store.subscribe(after=(await store.append(uuid4(), [note()])).position - 1):
                return

        async def apply() -> None:
            result = await writing.append(conversation, [MessageAdded(role="user", content="x")])
            await wait_for(store, result.position, timeout=60)

        await append()
        pollers = {each.__name__: Poller(each) for each in (append, read, page, request, follow, apply)}
        stack.push_async_callback(cancel_and_wait, [poller.task for poller in pollers.values()])
        began = monotonic()
        await asyncio.gather(*(poller.since(began) for poller in pollers.values()))

        if network is None:
            await asyncio.to_thread(server.stop)
        else:
            network.lose("requests")
        gone_at = monotonic()
        await asyncio.sleep(AWAY_SECONDS)
        assert max(poller.succeeded_at for poller in pollers.values()) < gone_at + 1
        if network is None:
            refused = await client.get(f"/v1/conversations/{conversation}/messages", timeout=60)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            await asyncio.to_thread(server.start)
        else:
            network.restore()
        back_at = monotonic()
        times = await asyncio.gather(*(poller.since(back_at) for poller in pollers.values()))
        seconds = dict(zip(pollers, (round(each, 1) for each in times), strict=True))
        print(f"away for {AWAY_SECONDS:g} s, then seconds until each was back:", seconds)
        record_property("seconds until back", seconds)
        assert max(times) < MAX_SECONDS
        assert not up.ended
