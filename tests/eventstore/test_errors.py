"""Whatever goes wrong outside is a typed error that says what to do, and leaves nothing half-written."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.environment import TREE, child_environment
from support.follow import until_nothing_is_in_flight
from support.raw import note
from support.servers import DatabaseServer, embedded_server, open_folder
from support.small_disk import fill_up, small_disk

from eventstore import EventStore, NewEvent, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.errors import (
    FORBIDDEN,
    HELD,
    ConnectionLost,
    DiskFull,
    PermissionDenied,
    ServerError,
    ServerUnreachable,
    UnsuitableServer,
    translate,
)

NOWHERE = {
    "nobody listens": ("postgresql://ana:s3cret@127.0.0.1:{port}/flowagents", "Connection refused"),
    "no such host": ("postgresql://ana:s3cret@nowhere.invalid/flowagents", "nowhere.invalid"),
    "no such socket": ("postgresql://ana:s3cret@/flowagents?host=/nonexistent", "No such file"),
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(autouse=True)
def _no_settings_of_the_environment(clean_environment: None) -> None:
    """All settings are given in the tests."""


@pytest.mark.parametrize("where", NOWHERE)
async def test_a_server_that_does_not_answer_raises_a_typed_error(where: str) -> None:
    url, reason = NOWHERE[where]
    url = url.format(port=free_port())
    with pytest.raises(ServerUnreachable, match=f"no connection to .*ana@.*{reason}.*DATABASE_URL") as refused:
        await EventStore(Settings(database_url=url, connect_timeout=2)).open()
    assert "s3cret" not in str(refused.value)


async def test_a_missing_database_raises_a_typed_error(server: DatabaseServer) -> None:
    with pytest.raises(ServerUnreachable, match=r'database "missing" does not exist'):
        await EventStore(Settings(database_url=server.url("missing"))).open()


@pytest.mark.slow
async def test_a_wrong_password_raises_a_typed_error() -> None:
    with open_folder() as folder, embedded_server(folder / "server", pg_port=free_port()) as own:
        assert own.tcp_url is not None
        Migrator(own.tcp_url, Settings(database_url=own.tcp_url)).up()
        async with EventStore(Settings(database_url=own.tcp_url)) as store:
            await store.append(uuid4(), [note()])
        login, _, rest = own.tcp_url.partition("@")
        wrong = f"{login.rpartition(':')[0]}:s3cret@{rest}"
        with pytest.raises(ServerUnreachable, match=r"password authentication failed.*DATABASE_URL") as refused:
            await EventStore(Settings(database_url=wrong)).open()
        assert "s3cret" not in str(refused.value)
        with pytest.raises(ServerUnreachable, match="password authentication failed"):
            Migrator(wrong, Settings(database_url=wrong)).up()


async def test_a_database_in_another_encoding_is_refused(server: DatabaseServer) -> None:
    name = server.create_database(migrated=False)
    server.drop_database(name)
    with psycopg.connect(server.superuser_url_of("postgres"), autocommit=True) as superuser:
        superuser.execute(
            f"CREATE DATABASE {name} OWNER {server.login} TEMPLATE template0 ENCODING 'SQL_ASCII' "
            + ("LOCALE_PROVIDER libc LOCALE 'C'" if server.version >= 15 else "LOCALE 'C'")
        )
    try:
        with pytest.raises(UnsuitableServer, match="SQL_ASCII, the store needs UTF8: create it with ENCODING 'UTF8'"):
            await EventStore(Settings(database_url=server.url(name))).open()
    finally:
        server.drop_database(name)


async def test_a_login_without_rights_raises_a_typed_error(database_url: str, superuser_url: str) -> None:
    settings = Settings(database_url=database_url)
    async with EventStore(settings) as store:
        with psycopg.connect(superuser_url) as superuser:
            superuser.execute(
                "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC, eventstore_app, eventstore_writer"
            )
        with pytest.raises(PermissionDenied, match="grant the login the role eventstore_app"):
            await store.append(uuid4(), [note()])
    with pytest.raises(PermissionDenied, match="grant the login the role eventstore_app"):
        await EventStore(settings).open()


async def test_a_read_only_session_raises_a_typed_error(database: str, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    async with EventStore(Settings(database_url=database_url)) as store:
        with pytest.raises(UnsuitableServer, match="connect to the primary"):
            await store.append(uuid4(), [note()])
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")


@pytest.mark.slow
async def test_a_server_killed_during_appends_neither_loses_nor_repeats_an_event(own_server: EmbeddedServer) -> None:
    settings = Settings(database_url=own_server.url(), connect_timeout=5)
    Migrator(own_server.url(), settings).up()
    conversation = uuid4()
    sent: list[NewEvent] = []
    halfway = asyncio.Event()

    async def write(store: EventStore, back: asyncio.Event) -> None:
        for _ in range(40):
            event = NewEvent(note(len(sent)))
            sent.append(event)
            while True:
                try:
                    await store.append(conversation, [event])
                except (ConnectionLost, ServerUnreachable):
                    await back.wait()
                else:
                    break
            if len(sent) > 100:
                halfway.set()

    back = asyncio.Event()
    async with EventStore(settings) as store:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(write(store, back))
            await halfway.wait()
            assert own_server.pid is not None
            os.kill(own_server.pid, signal.SIGKILL)
            await asyncio.to_thread(own_server.ensure_running)
            back.set()
        events = [event async for event in store.read(conversation)]
    assert {event.id for event in events} == {event.id for event in sent}
    assert [event.version for event in events] == list(range(1, len(sent) + 1))


def write_until_killed(command: list[str], lines: int) -> set[UUID]:
    """Kills the process when it has acknowledged so many events; returns all that it acknowledged."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment()) as process:
        assert process.stdout is not None
        acknowledged = {UUID(process.stdout.readline().strip()) for _ in range(lines)}
        process.kill()
        rest, _ = process.communicate()
    return acknowledged | {UUID(line) for line in rest.split("\n")[:-1]}


@pytest.mark.slow
async def test_a_killed_writer_leaves_every_acknowledged_event_exactly_once(
    store: EventStore, database_url: str
) -> None:
    command = [sys.executable, "-m", "support.writer", database_url, "1", "8", "25"]
    acknowledged: set[UUID] = set()
    for lines in (20, 60, 100):
        acknowledged |= await asyncio.to_thread(write_until_killed, command, lines)
        # What was in flight when the process died holds the horizon until its backend has noticed.
        async with await store.connect(None) as connection:
            await until_nothing_is_in_flight(connection)
        log = [event.id async for event in store.read_log()]
        assert len(log) == len(set(log))
        assert acknowledged <= set(log)
    # The same work again to its end: what was already there stays where it is.
    done = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=child_environment())
    output, _ = await done.communicate()
    wanted = [UUID(line) for line in output.decode().split()]
    log = [event.id async for event in store.read_log()]
    assert len(log) == len(wanted)
    assert set(log) == set(wanted) >= acknowledged
    for conversation in {event.conversation_id async for event in store.read_log()}:
        versions = [event.version async for event in store.read(conversation)]
        assert versions == list(range(1, len(versions) + 1))


def test_the_sqlstates_that_the_schema_raises_have_a_translation_and_no_others() -> None:
    def has_translation(state: str) -> bool:
        return type(translate(type("Error", (psycopg.Error,), {"sqlstate": state})("refused"))) is not ServerError

    raised = {
        state
        for migration in (TREE / "db" / "migrations").glob("*.sql")
        for state in re.findall(r"ERRCODE\s*=\s*'(ES\d{3})'", migration.read_text(encoding="utf-8"))
    }
    with_detail = {FORBIDDEN, HELD}  # they are translated with it
    assert {"ES001"} | with_detail <= raised
    states = [f"ES{number:03}" for number in range(1000)]
    assert raised - with_detail == {state for state in states if state not in with_detail and has_translation(state)}


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder with room for 160 MB."""
    with open_folder() as folder, small_disk(folder / "disk") as disk:
        yield disk


async def append_until_it_fails(store: EventStore) -> tuple[list[NewEvent], NewEvent, ServerError]:
    """Return the acknowledged events, the others, and the reason."""
    stored: list[NewEvent] = []
    while True:
        assert len(stored) < 500
        event = NewEvent(note(secrets.token_hex(250_000)))
        try:
            await store.append(UUID(int=1), [event])
        except ServerError as error:
            return stored, event, error
        stored.append(event)


async def assert_only(store: EventStore, events: list[NewEvent]) -> None:
    found = [(event.id, event.content) async for event in store.read(UUID(int=1))]
    assert found == [(event.id, event.data.to_content()) for event in events]


@pytest.mark.slow
async def test_a_full_disk_below_the_table_raises_disk_full(own_server: EmbeddedServer, disk: Path) -> None:
    settings = Settings(database_url=own_server.url())
    Migrator(own_server.url(), settings).up()
    about = (own_server.data_dir / "pgdata").stat()
    space = disk / "space"
    space.mkdir(mode=0o700)
    os.chown(space, about.st_uid, about.st_gid)
    with psycopg.connect(own_server.superuser_url, autocommit=True) as superuser:
        superuser.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        superuser.execute("ALTER TABLE events SET TABLESPACE small")
    ballast = fill_up(disk, leave=8_000_000)
    async with EventStore(settings) as store:
        stored, refused, error = await append_until_it_fails(store)
        assert isinstance(error, DiskFull)
        assert "make room" in str(error)
        await assert_only(store, stored)
        ballast.unlink()
        await store.append(UUID(int=1), [refused])
        await assert_only(store, [*stored, refused])
    with psycopg.connect(own_server.url(), autocommit=True) as connection:
        connection.execute("DROP TABLE events CASCADE")


@pytest.mark.slow
async def test_a_full_disk_below_the_embedded_server_raises_disk_full(disk: Path) -> None:
    settings = Settings(data_dir=disk / "server", connect_timeout=3)
    async with EventStore(settings) as store:
        await store.append(UUID(int=1), [first := NewEvent(note("first"))])
        ballast = fill_up(disk, leave=24_000_000)
        stored, refused, error = await append_until_it_fails(store)
        assert isinstance(error, DiskFull)
        assert "make room" in str(error)
    ballast.unlink()
    async with EventStore(settings) as store:
        await store.append(UUID(int=1), [refused])
        found: list[Any] = [event.id async for event in store.read(UUID(int=1))]
        assert found == [first.id, *(event.id for event in stored), refused.id]
