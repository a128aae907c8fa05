"""Reads from a hot standby (``EVENTSTORE_READ_URL``) of a real server; its replay is paused, so its lag is known."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.replica import Replica, replica_of
from support.servers import embedded_server, memory_folder, open_folder
from support.waiting import until_async

from eventstore import ConversationShared, ConversationUnshared, EventStore, MessageAdded, Settings, TaskCreated
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.errors import (
    LoginRefused,
    NotCaughtUp,
    NotFound,
    RecoveryConflict,
    ServerUnreachable,
    SettingsError,
    UnsuitableServer,
)
from projections import ConversationCache, Reader, Search, Statistics, catch_up, read_status, wait_for

pytestmark = pytest.mark.slow

AWAY = re.compile("EVENTSTORE_READ_URL.*prefer-standby")


@pytest.fixture(scope="module")
def primary() -> Iterator[EmbeddedServer]:
    """A server with the schema of the store."""
    with open_folder(memory_folder()) as folder, embedded_server(folder / "server") as own:
        migrate(own)
        yield own


def migrate(own: EmbeddedServer) -> None:
    Migrator(own.url(), Settings(database_url=own.url())).up()


@pytest.fixture(scope="module")
def replica(primary: EmbeddedServer) -> Iterator[Replica]:
    with replica_of(primary) as replica:
        yield replica


@pytest.fixture
def settings(primary: EmbeddedServer, replica: Replica, clean_environment: None) -> Settings:
    """The settings of a store that reads from the standby, with a tenant of the test's own."""
    return Settings(database_url=primary.url(), read_url=replica.url, tenant=f"tenant {uuid4()}", connect_timeout=3)


@pytest.fixture
async def store(settings: Settings, replica: Replica) -> AsyncIterator[EventStore]:
    async with EventStore(settings) as store:
        yield store
    replica.resume()


async def say(store: EventStore, conversation: UUID, text: str, **options: Any) -> int:
    """Appends a message, and applies it to the read tables of the primary."""
    position = (await store.append(conversation, [MessageAdded(role="user", content=text)], **options)).position
    await catch_up(store)
    return position


async def texts(store: EventStore, conversation: UUID, **options: Any) -> list[str]:
    return [message.content for message in await Reader(store).messages(conversation, **options)]


async def test_every_read_of_the_read_tables_goes_to_the_standby(store: EventStore, replica: Replica) -> None:
    conversation, later = uuid4(), uuid4()
    await say(store, conversation, "early")
    replica.pause()
    await say(store, conversation, "late")
    await store.append(
        later, [MessageAdded(role="user", content="late"), TaskCreated(task_id=uuid4(), description="late")]
    )
    await catch_up(store)
    reader = Reader(store)
    cache = ConversationCache(reader)
    reads: dict[str, Callable[[Reader], Awaitable[Any]]] = {
        "conversations": lambda of: of.conversations(),
        "messages": lambda of: of.messages(),
        "messages of a conversation": lambda of: of.messages(conversation),
        "tasks": lambda of: of.tasks(),
        "conversation": lambda of: of.conversation(conversation),
    }
    others: dict[str, Callable[[], Awaitable[Any]]] = {
        "search": lambda: Search(store).page("late"),
        "misspelt search": lambda: Search(store).page("laate"),
        "statistics by day": lambda: Statistics(store).by_day(),
        "statistics by role": lambda: Statistics(store).by_role(),
        "statistics by actor": lambda: Statistics(store).by_actor(),
        "statistics by status": lambda: Statistics(store).by_status(),
        "response times": lambda: Statistics(store).response_times(),
        "task times": lambda: Statistics(store).task_times(),
        "sizes": lambda: Statistics(store).sizes(),
    }

    def shown(value: Any) -> str:
        return repr(list(value) if isinstance(value, list) else value)

    before = {name: shown(await read(reader)) for name, read in reads.items()}
    fresh = {name: shown(await read(Reader(store, on_primary=True))) for name, read in reads.items()}
    assert "late" not in "".join(before.values())
    assert {name for name in reads if before[name] == fresh[name]} == set()
    before_others = {name: shown(await read()) for name, read in others.items()}
    state = await cache.conversation(conversation)
    assert [message.content for message in state.messages] == ["early"]
    with pytest.raises(NotFound):
        await reader.conversation(later)

    # The log, and what is folded from it, is that of the primary.
    assert len(await reader.history(conversation)) == 2
    assert len((await reader.conversation_at(conversation, version=2)).messages) == 2

    replica.resume()
    await replica.wait_for_replay_async()
    assert {name: shown(await read(reader)) for name, read in reads.items()} == fresh
    after_others = {name: shown(await read()) for name, read in others.items()}
    assert {name for name in others if before_others[name] == after_others[name]} == set()
    state = await cache.conversation(conversation)
    assert [message.content for message in state.messages] == ["early", "late"]


async def test_a_read_with_at_least_waits_for_the_replay(store: EventStore, replica: Replica) -> None:
    conversation = uuid4()
    await say(store, conversation, "early")
    replica.pause()
    position = await say(store, conversation, "late")
    with pytest.raises(NotCaughtUp, match="the standby of EVENTSTORE_READ_URL has not replayed it"):
        await Reader(store, timeout=0.1).messages(conversation, at_least=position)
    with pytest.raises(NotCaughtUp, match="has not replayed"):
        await wait_for(store, position, timeout=0.1)
    assert len(await Reader(store, on_primary=True).messages(conversation, at_least=position)) == 2

    reading = asyncio.create_task(texts(store, conversation, at_least=position))
    done, _ = await asyncio.wait([reading], timeout=0.2)
    assert not done
    replica.resume()
    assert await reading == ["early", "late"]


async def test_a_read_with_at_least_waits_for_the_workers_too(store: EventStore) -> None:
    conversation = uuid4()
    position = (await store.append(conversation, [MessageAdded(role="user", content="x")])).position
    with pytest.raises(NotCaughtUp, match="no worker is running"):
        await Reader(store, timeout=0.1).messages(conversation, at_least=position)
    await catch_up(store)
    assert await texts(store, conversation, at_least=position) == ["x"]


async def test_the_status_shows_how_far_the_standby_is_behind(store: EventStore, replica: Replica) -> None:
    conversation = uuid4()
    before = await say(store, conversation, "early")
    await replica.wait_for_replay_async()
    status = (await read_status(store)).standby
    assert status is not None
    assert (status.in_recovery, status.position, status.lag_events, status.lag_seconds) == (True, before, 0, 0)
    assert status.url == replica.url
    replica.pause()
    for number in range(3):
        await say(store, conversation, f"late {number}")
    behind = (await read_status(store)).standby
    assert behind is not None
    assert (behind.position, behind.lag_events) == (before, 3)
    assert (behind.lag_seconds or 0) > 0
    assert (behind.lag_bytes or 0) > 0
    replica.resume()


async def test_row_level_security_holds_on_the_standby(store: EventStore, replica: Replica) -> None:
    conversation, of_another = uuid4(), uuid4()
    await say(store, conversation, "hers", user="ana")
    await store.append(of_another, [MessageAdded(role="user", content="theirs")], tenant="another")
    await catch_up(store)
    await replica.wait_for_replay_async()

    async def seen(user: str | None, tenant: str | None = None) -> list[str]:
        reader = Reader(store, caller=store.caller(tenant, user))
        found = [message.content for message in await reader.messages()]
        hits = await Search(store, caller=reader.caller).page("hers or theirs")
        assert len(hits) == len(found)
        return found

    assert await seen("ana") == await seen(None) == ["hers"]
    assert await seen("bob") == []
    assert "theirs" in await seen(None, "another")

    # A membership is as old as the data: it is in force on the standby once it is replayed.
    await store.append(conversation, [ConversationShared(user="bob", access="read")])
    await replica.wait_for_replay_async()
    assert await seen("bob") == ["hers"]
    await store.append(conversation, [ConversationUnshared(user="bob")])
    await replica.wait_for_replay_async()
    assert await seen("bob") == []


async def test_another_login_may_read_from_the_standby_if_it_can_choose_the_tenant(
    primary: EmbeddedServer, replica: Replica, settings: Settings, store: EventStore
) -> None:
    with psycopg.connect(primary.superuser_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE reports LOGIN PASSWORD 'secret'")
        connection.execute("GRANT eventstore_reader TO reports")
        try:
            conversation = uuid4()
            await say(store, conversation, "hello")
            await replica.wait_for_replay_async()
            url = replica.url.replace("eventstore@", "reports:secret@")
            given = Settings(**settings.model_dump() | {"read_url": url})
            with pytest.raises(UnsuitableServer, match="GRANT eventstore_app TO reports"):
                await EventStore(given).open()
            connection.execute("GRANT eventstore_app TO reports")
            await replica.wait_for_replay_async()
            async with EventStore(given) as other:
                assert await texts(other, conversation) == ["hello"]
                assert len(await Search(other).page("hello")) == 1
                assert len(await Statistics(other).by_day()) == 1
                position = await say(other, conversation, "again")
                assert await texts(other, conversation, at_least=position) == ["hello", "again"]
        finally:
            connection.execute("DROP ROLE reports")


@pytest.mark.parametrize("wrong", ["superuser", "unknown login", "another server", "another database"])
async def test_a_url_that_cannot_be_right_is_refused_when_the_store_opens(
    primary: EmbeddedServer, replica: Replica, settings: Settings, wrong: str
) -> None:
    async def open_with(url: str) -> None:
        given = settings.model_dump() | {"read_url": url}
        async with EventStore(Settings(**given)):
            pass

    if wrong == "superuser":
        with pytest.raises(UnsuitableServer, match="the login postgres is a superuser"):
            await open_with(replica.url.replace("eventstore@", "postgres@"))
    elif wrong == "unknown login":
        with pytest.raises(LoginRefused, match="in EVENTSTORE_READ_URL"):
            await open_with(replica.url.replace("eventstore@", "nobody:wrong@"))
    elif wrong == "another database":
        with pytest.raises(SettingsError, match="EVENTSTORE_READ_URL: leads to another database"):
            await open_with(replica.url.replace("/flowagents", "/postgres"))
    else:
        with (
            open_folder(memory_folder()) as folder,
            embedded_server(folder / "server") as stranger,
            pytest.raises(SettingsError, match="EVENTSTORE_READ_URL: leads to another database"),
        ):
            await open_with(stranger.url())


async def test_a_read_that_conflicts_with_the_replay_is_repeated_and_then_a_typed_error(
    store: EventStore, primary: EmbeddedServer, replica: Replica
) -> None:
    conversation = uuid4()
    await say(store, conversation, "hello")
    replica.wait_for_replay()
    replica.set("max_standby_streaming_delay", "0")
    tables = store.tables(store.caller())
    begun = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(%' AND pid <> pg_backend_pid()"

    async def conflict() -> None:
        """Ends the read that runs on the standby: the replay takes a lock that conflicts with all others."""

        async def runs() -> bool:
            return bool(replica.execute(begun + " AND state = 'active'"))

        await until_async(runs, "the read is running")
        with psycopg.connect(primary.superuser_url) as connection:
            connection.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
        await replica.wait_for_replay_async()

    try:
        reading = asyncio.create_task(tables.fetch("SELECT content, pg_sleep(1) FROM messages"))
        await conflict()
        assert await reading == [("hello", "")]

        reading = asyncio.create_task(tables.fetch("SELECT content, pg_sleep(30) FROM messages"))
        for _ in range(3):
            await conflict()
        with pytest.raises(RecoveryConflict, match="max_standby_streaming_delay"):
            await reading
    finally:
        replica.set("max_standby_streaming_delay", "30000")


async def test_appends_go_on_without_the_standby_and_its_reads_fail_with_its_setting(
    store: EventStore, settings: Settings, replica: Replica
) -> None:
    conversation = uuid4()
    await say(store, conversation, "before")
    await replica.wait_for_replay_async()
    assert await texts(store, conversation) == ["before"]
    replica.stop()
    try:
        await say(store, conversation, "meanwhile")
        with pytest.raises(ServerUnreachable, match=AWAY):
            await texts(store, conversation)
        status = (await read_status(store)).standby
        assert status is not None
        assert "EVENTSTORE_READ_URL" in status.error
        assert len(await Reader(store, on_primary=True).messages(conversation)) == 2
        async with EventStore(settings) as other:  # a store opens, too
            await other.append(conversation, [MessageAdded(role="user", content="other")])
    finally:
        replica.start()

    async def is_back() -> bool:
        try:
            return await texts(store, conversation) == ["before", "meanwhile"]
        except ServerUnreachable:
            return False

    await until_async(is_back, "the standby is read again")


async def test_the_url_may_name_the_primary_for_the_time_without_a_standby(
    primary: EmbeddedServer, replica: Replica, settings: Settings
) -> None:
    url = f"postgresql://eventstore@/flowagents?host={replica.folder},{primary.socket_dir}&port=5432,5432"
    given = settings.model_dump() | {"read_url": f"{url}&target_session_attrs=prefer-standby"}
    async with EventStore(Settings(**given)) as store:
        conversation = uuid4()
        await say(store, conversation, "one")
        status = (await read_status(store)).standby
        assert status is not None
        assert status.in_recovery
        replica.stop()
        try:
            await say(store, conversation, "two")
            assert await texts(store, conversation) == ["one", "two"]
        finally:
            replica.start()
        replica.pause()
        try:
            await say(store, conversation, "three")
            assert await texts(store, conversation) == ["one", "two", "three"]
            # Not from the standby again before it has what the primary has shown.
            async with asyncio.TaskGroup() as group:
                reads = [group.create_task(texts(store, conversation)) for _ in range(20)]
            assert {tuple(read.result()) for read in reads} == {("one", "two", "three")}
        finally:
            replica.resume()


async def test_reads_never_go_back_in_time_when_another_standby_takes_over(
    primary: EmbeddedServer, replica: Replica, settings: Settings
) -> None:
    with replica_of(primary) as second:
        url = f"postgresql://eventstore@/flowagents?host={replica.folder},{second.folder}&port=5432,5432"
        async with EventStore(Settings(**settings.model_dump() | {"read_url": url})) as store:
            conversation = uuid4()
            await say(store, conversation, "one")
            second.pause()
            await say(store, conversation, "two")
            await replica.wait_for_replay_async()
            assert await texts(store, conversation) == ["one", "two"]
            replica.stop()
            try:
                with pytest.raises(ServerUnreachable, match="behind the one that was read from before"):
                    await texts(store, conversation)
                second.resume()
                await second.wait_for_replay_async()

                async def is_read() -> bool:
                    try:
                        return await texts(store, conversation) == ["one", "two"]
                    except ServerUnreachable:
                        return False

                await until_async(is_read, "the second standby is read")
            finally:
                replica.start()


@pytest.mark.usefixtures("clean_environment")
async def test_reads_go_on_without_the_primary(own_server: EmbeddedServer) -> None:
    migrate(own_server)
    with replica_of(own_server) as replica:
        async with EventStore(Settings(database_url=own_server.url(), read_url=replica.url)) as store:
            conversation = uuid4()
            await say(store, conversation, "hello")
            await replica.wait_for_replay_async()
            assert await texts(store, conversation) == ["hello"]
            assert own_server.pid is not None
            os.kill(own_server.pid, signal.SIGKILL)
            assert await texts(store, conversation) == ["hello"]
            assert len(await Search(store).page("hello")) == 1
            assert len(await Statistics(store).by_day()) == 1
            assert (await Reader(store).conversation(conversation)).id == conversation
