"""Packets are dropped silently: every append ends in a typed error, and everything recovers by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic
from uuid import uuid4

import pytest
from support.follow import Follower
from support.network import LOSSES, Network, lossy_network
from support.raw import note
from support.replication import Node, single_server

from eventstore import EventStore, NewEvent, Settings
from eventstore.database.migrate import Migrator
from eventstore.errors import ConnectionLost, ServerError
from projections import Reader, Worker, wait_for

SECONDS = 10.0
"""The deadline of an append, which is longer with the default settings."""


@pytest.fixture
def network() -> Iterator[Network]:
    with lossy_network() as network:
        yield network


@pytest.fixture
def server(clean_environment: None, network: Network) -> Iterator[Node]:
    with single_server(network) as server:
        Migrator(server.url, Settings(database_url=server.url)).up()
        yield server


@pytest.mark.parametrize("lost", LOSSES)
async def test_an_append_whose_packets_are_lost_ends_in_an_error_and_may_be_repeated(
    network: Network, server: Node, lost: str
) -> None:
    settings = Settings(database_url=server.url, append_seconds=SECONDS, connect_timeout=2)
    async with EventStore(settings) as store:
        conversation, event = uuid4(), NewEvent(note("once"))
        await store.append(conversation, [note("before")])
        network.lose(lost)
        began = monotonic()
        with pytest.raises(ConnectionLost, match="append them again with the same ids, which is harmless") as error:
            await store.append(conversation, [event])
        seconds = monotonic() - began
        print(f"{lost} lost: {seconds:.1f} s: {error.value}")
        assert seconds < SECONDS + 5
        assert error.value.event_ids == (event.id,)
        [stored] = server.fetch(f"SELECT count(*) FROM events WHERE id = '{event.id}'") or ()
        assert stored == (0 if lost == "requests" else 1)
        network.restore()
        [repeated] = (await store.append(conversation, [event])).events
        assert repeated.is_new == (lost == "requests")
        assert [found.content async for found in store.read(conversation)] == ["before", "once"]


async def test_idle_connections_that_died_are_replaced(network: Network, server: Node) -> None:
    """A listening connection, a worker's and those of pools: none of them has anything to send."""
    keepalives = "keepalives_idle=3&keepalives_interval=1"  # so that the kernel notices within seconds
    settings = Settings(database_url=f"{server.url}?{keepalives}", connect_timeout=4)
    elsewhere = Settings(database_url=server.socket_url)
    async with (
        EventStore(settings) as store,
        EventStore(elsewhere) as unaffected,
        Follower(store.subscribe()) as follower,
    ):
        worker = asyncio.create_task(Worker(store).run())
        conversation = uuid4()
        first = await store.append(conversation, [note(1)])
        await follower.take()
        await wait_for(store, first.position, timeout=30)
        network.lose("requests")
        second = await unaffected.append(conversation, [note(2)])
        with pytest.raises(ServerError):
            await Reader(store).conversation(conversation)
        network.restore()
        began = monotonic()
        assert await follower.contents() == [2]
        await wait_for(unaffected, second.position, timeout=30)
        await Reader(store).conversation(conversation)
        seconds = monotonic() - began
        print(f"everything is back after {seconds:.1f} s")
        assert seconds < 15
        worker.cancel()
        await asyncio.wait([worker])
