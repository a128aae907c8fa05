"""The status shows the size of the log, the progress of each projection, and what holds the horizon back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from support.raw import append_raw
from support.waiting import until_async

from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from projections import PROJECTIONS, catch_up, read_status, rebuild, select_projections


def message(text: str = "x") -> MessageAdded:
    return MessageAdded(role="user", content=text)


@pytest.fixture
def stranger(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection that appends inside transactions of its own."""
    with psycopg.connect(database_url, application_name="stranger") as connection:
        yield connection


async def test_the_status_of_an_empty_log(store: EventStore, settings: Settings) -> None:
    status = await read_status(store)
    assert (status.events, status.conversations, status.last_position, status.horizon) == (0, 0, 0, 0)
    assert status.projections == []
    assert status.appends_in_flight == []
    assert status.db_schema == "public"
    assert int(status.server_version.split(".")[0]) >= 15
    assert status.database_url.startswith("postgresql://")


async def test_row_level_security_that_could_not_be_put_in_force_is_reported(
    clean_environment: None, own_server: EmbeddedServer, store: EventStore
) -> None:
    assert (await read_status(store)).warnings == []
    with psycopg.connect(own_server.superuser_url, autocommit=True) as superuser:
        superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    settings = Settings(database_url=own_server.url())
    Migrator(own_server.url(), settings).up()
    async with EventStore(settings) as without_roles:
        await without_roles.append(uuid4(), [message()])
        await catch_up(without_roles)
        status = await read_status(without_roles)
        assert status.events == 1
        assert ["row-level security is not in force" in warning for warning in status.warnings] == [True]


@pytest.mark.parametrize("is_member", [True, False])
@pytest.mark.slow
async def test_if_another_login_made_the_roles_only_a_member_puts_row_level_security_in_force(
    clean_environment: None, own_server: EmbeddedServer, *, is_member: bool
) -> None:
    Migrator(own_server.url(), Settings(database_url=own_server.url())).up()
    with psycopg.connect(own_server.superuser_url, autocommit=True) as superuser:
        superuser.execute("CREATE ROLE late LOGIN")
        superuser.execute("CREATE DATABASE late OWNER late")
        if is_member:
            superuser.execute("GRANT eventstore_migrator, eventstore_app, eventstore_projector TO late")
    settings = Settings(database_url=own_server.url("late", "late"))
    Migrator(own_server.url("late", "late"), settings).up()
    async with EventStore(settings) as store:
        await store.append(uuid4(), [message()])
        await catch_up(store)
        status = await read_status(store)
    assert status.events == 1
    assert any("not in force" in warning for warning in status.warnings) is not is_member


async def test_the_status_counts_events_and_conversations(store: EventStore) -> None:
    for _ in range(3):
        await store.append(uuid4(), [message(), message()])
    await catch_up(store)
    await store.append(uuid4(), [message()], tenant="another")
    await catch_up(store, select_projections(["tasks"]))
    status = await read_status(store)
    assert (status.events, status.conversations, status.last_position, status.horizon) == (7, 4, 7, 7)
    assert status.bytes > 0
    assert {(p.name, p.position, p.lag_events, p.is_current) for p in status.projections} == {
        (known.name, 7, 0, True) if known.name == "tasks" else (known.name, 6, 1, True) for known in PROJECTIONS
    }
    for projection in status.projections:
        assert (projection.lag_seconds > 0) == (projection.name != "tasks")


async def test_the_lag_is_gone_when_the_projections_have_caught_up(store: EventStore) -> None:
    await store.append(uuid4(), [message()])
    await rebuild(store)
    await catch_up(store)  # with the administrative acts of the rebuild
    status = await read_status(store)
    assert [(p.name, p.lag_events, p.lag_seconds) for p in status.projections] == [
        (name, 0, 0.0) for name in sorted(projection.name for projection in PROJECTIONS)
    ]


async def test_no_password_is_shown(database_url: str, settings: Settings) -> None:
    mark = "&" if "?" in database_url else "?"
    with_password = Settings(database_url=f"{database_url}{mark}password=secret")
    async with EventStore(with_password) as store:
        assert "secret" not in (await read_status(store)).database_url


async def test_an_append_in_flight_is_seen_with_its_holder_and_holds_the_horizon(
    store: EventStore, stranger: psycopg.Connection[tuple[object, ...]]
) -> None:
    first = await store.append(uuid4(), [message()])
    [held] = append_raw(stranger, "not committed yet")
    later = await store.append(uuid4(), [message()])
    assert first.position < held < later.position
    await catch_up(store)

    status = await read_status(store)
    assert (status.events, status.last_position, status.horizon) == (2, later.position, first.position)
    assert {p.position for p in status.projections} == {first.position}
    [append] = status.appends_in_flight
    assert append.pid == stranger.info.backend_pid
    assert append.application == "stranger"
    assert append.login == stranger.info.user

    stranger.commit()
    status = await read_status(store)
    assert (status.events, status.horizon, status.appends_in_flight) == (3, later.position, [])
    await catch_up(store)
    assert {p.position for p in (await read_status(store)).projections} == {later.position}


async def test_an_append_in_flight_shows_its_state_and_duration(
    store: EventStore, stranger: psycopg.Connection[tuple[object, ...]]
) -> None:
    append_raw(stranger, "left lying")

    async def half_a_second() -> bool:
        [append] = (await read_status(store)).appends_in_flight
        return append.seconds > 0.5

    [append] = (await read_status(store)).appends_in_flight
    assert append.state == "idle in transaction"
    await until_async(half_a_second, "the age of the append in flight is shown", 5)


async def test_an_append_that_is_rolled_back_leaves_a_gap_and_no_trace(
    store: EventStore, stranger: psycopg.Connection[tuple[object, ...]]
) -> None:
    append_raw(stranger, "never happened")
    stranger.rollback()
    result = await store.append(uuid4(), [message()])
    await asyncio.wait_for(catch_up(store), 10)
    status = await read_status(store)
    assert (status.events, status.last_position, status.horizon) == (1, result.position, result.position)
    assert result.position == 2
