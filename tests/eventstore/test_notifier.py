"""Listening connections may use another address, and whatever happens to them, events arrive."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import psycopg
import pytest
from support.follow import PATIENCE, Admin, Follower, until_waiting
from support.raw import note
from support.servers import DatabaseServer
from support.waiting import until_async
from support.wire import Wire, wire_to

import eventstore.listener
import eventstore.notifier
from eventstore import EventStore, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.errors import SettingsError

POLL_ONLY_SECONDS = 1000.0
"""Between two polls, so long that an event can arrive by notification only."""


@pytest.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    """A proxy to the server that only listening connections use."""
    async with wire_to(database_url) as wire:
        yield wire


@pytest.fixture
async def store(wire: Wire, database_url: str, clean_environment: None) -> AsyncIterator[EventStore]:
    """A store that listens through the proxy."""
    settings = Settings(database_url=database_url, listen_url=wire.url, connect_timeout=2)
    async with EventStore(settings) as store:
        yield store


async def assert_notified(store: EventStore, follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that a consumer receives an event by a notification: its next poll would come too late."""
    monkeypatch.setattr(eventstore.notifier, "POLL_SECONDS", POLL_ONLY_SECONDS)
    for content in ("by a poll or a notification", "by a notification"):  # a poll that has begun may find the first
        await store.append(uuid4(), [note(content)])
        assert await follower.contents() == [content]


async def wait_repeatedly(store: EventStore) -> None:
    """Wait repeatedly, as a consumer does that reads by itself."""
    while True:
        await store.wait(0)


async def test_only_listening_connections_use_the_listen_url(store: EventStore, wire: Wire, admin: Admin) -> None:
    await store.append(uuid4(), [note(1)])
    assert [event.content async for event in store.read_log()] == [1]
    assert wire.links == []
    async with Follower(store.subscribe()) as one, Follower(store.subscribe()) as two:
        await until_waiting(admin)
        assert len(wire.links) == 1
        await store.append(uuid4(), [note(2)])
        assert await one.contents(2) == await two.contents(2) == [1, 2]


@pytest.mark.slow
async def test_a_listen_url_of_another_database_is_refused(
    clean_environment: None, database_url: str, server: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstore.listener, "REPLY_SECONDS", 0.5)
    other = server.create_database()
    try:
        async with EventStore(Settings(database_url=database_url, listen_url=server.url(other))) as store:
            with pytest.raises(SettingsError, match="EVENTSTORE_LISTEN_URL: leads to another database"):
                await asyncio.wait_for(wait_repeatedly(store), PATIENCE)
            async with Follower(store.subscribe()) as follower:
                with pytest.raises(SettingsError, match="EVENTSTORE_LISTEN_URL"):
                    await asyncio.wait_for(asyncio.shield(follower.task), PATIENCE)
    finally:
        server.drop_database(other)


async def test_an_invalid_listen_url_is_refused_when_the_store_opens(
    clean_environment: None, database_url: str
) -> None:
    with pytest.raises(SettingsError, match="EVENTSTORE_LISTEN_URL: expected postgresql://"):
        await EventStore(Settings(database_url=database_url, listen_url="elsewhere")).open()


@pytest.mark.slow
@pytest.mark.parametrize(("silent", "waiting"), [("both ways", 2), ("to us", 1)])
async def test_a_silent_connection_is_noticed_and_replaced(
    store: EventStore, wire: Wire, admin: Admin, silent: str, waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Follower(store.subscribe()) as follower:
        await until_waiting(admin)
        [dead] = wire.links
        dead.passes_requests = silent == "to us"
        dead.passes_answers = False
        await store.append(uuid4(), [note("in the dark")])
        assert await follower.contents() == ["in the dark"]
        # In the first case the server does not know yet that the dead connection has ended.
        await until_waiting(admin, waiting)
        await assert_notified(store, follower, monkeypatch)


@pytest.mark.slow
async def test_the_server_ends_a_listening_session_whose_client_vanished(
    store: EventStore, wire: Wire, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventstore.notifier, "POLL_SECONDS", 0.2)
    monkeypatch.setattr(eventstore.listener, "REPLY_SECONDS", 0.5)
    monkeypatch.setattr(eventstore.listener, "IDLE_SECONDS", 2.0)
    async with Follower(store.subscribe()):
        await until_waiting(admin)
        [dead] = wire.links
        dead.passes_requests = dead.passes_answers = False
        await until_waiting(admin, 2)
        await until_waiting(admin, 1)

        async def is_closed() -> bool:
            return dead not in wire.links

        await until_async(is_closed, "the server has closed the dead connection")


@pytest.mark.slow
async def test_a_terminated_connection_is_replaced(store: EventStore, admin: Admin) -> None:
    async with Follower(store.subscribe()) as follower:
        await until_waiting(admin)
        cursor = await admin.execute(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l"
            " WHERE l.locktype = 'advisory' AND l.classid = 'waiter_flag'::regclass"
        )
        assert await cursor.fetchall() == [(True,)]
        await until_waiting(admin, 0)
        await store.append(uuid4(), [note("in the dark")])
        assert await follower.contents() == ["in the dark"]
        await until_waiting(admin)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["refuses", "is silent"])
async def test_events_arrive_while_listening_is_impossible(
    store: EventStore, wire: Wire, admin: Admin, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "refuses":
        wire.refuse()
    wire.is_dead = how == "is silent"
    async with Follower(store.subscribe()) as follower:
        for n in range(4):
            await store.append(uuid4(), [note(n)])
            assert await follower.contents() == [n]
        if how == "refuses":
            wire.open()
        wire.is_dead = False
        await until_waiting(admin)
        await assert_notified(store, follower, monkeypatch)


@pytest.mark.slow
async def test_a_pooler_that_swallows_notifications_is_detected(
    store: EventStore, wire: Wire, admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    wire.swallows_notifications = True
    with caplog.at_level(logging.WARNING, "eventstore"):
        async with Follower(store.subscribe()) as follower:

            async def warned() -> bool:
                return "EVENTSTORE_LISTEN_URL" in caplog.text

            await until_async(warned, "a warning names the setting")
            await store.append(uuid4(), [note(1)])
            assert await follower.contents() == [1]
            await until_waiting(admin, 0)  # a wait on a borrowed session would leave the lock behind
    assert caplog.text.count("notifications do not come through") == 1


@pytest.mark.slow
async def test_a_server_that_was_restarted_is_listened_to_again(
    clean_environment: None, own_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = own_server.url()
    settings = Settings(database_url=url)
    Migrator(url, settings).up()
    async with EventStore(settings) as store, Follower(store.subscribe()) as follower:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as before:
            await until_waiting(before)
        assert own_server.pid is not None
        os.kill(own_server.pid, signal.SIGQUIT)
        own_server.ensure_running()
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as after:
            await until_waiting(after)
        await assert_notified(store, follower, monkeypatch)
