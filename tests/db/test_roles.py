"""Roles: the migrations work for a login that may make roles, for one that may not, and beside other databases."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from support.catalog import roles_of_the_store
from support.raw import note
from support.rights import ROLES as EVERY_ROLE

from eventstore import EventStore, Settings
from eventstore.database.embedded import EmbeddedServer
from eventstore.database.migrate import Migrator

ROLES = {f"eventstore_{role}" for role in EVERY_ROLE}


@pytest.fixture
def superuser(clean_environment: None, own_server: EmbeddedServer) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The superuser of a server on which nobody has migrated anything yet."""
    with psycopg.connect(own_server.superuser_url, autocommit=True) as connection:
        yield connection


def migrate(url: str) -> Migrator:
    migrator = Migrator(url, Settings(database_url=url))
    migrator.up()
    return migrator


async def use(url: str) -> None:
    async with EventStore(Settings(database_url=url)) as store:
        await store.append(note.conversation, [note(1)])
        assert [event.content async for event in store.read_log()] == [1]


async def test_a_login_that_may_not_make_roles_works_without_them(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    migrate(own_server.url())
    assert roles_of_the_store(superuser) == {}
    await use(own_server.url())


async def test_a_login_that_may_not_make_roles_works_beside_roles_that_somebody_else_made(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    for role in ROLES:
        superuser.execute(f"CREATE ROLE {role} NOLOGIN")
    migrate(own_server.url())
    await use(own_server.url())


async def test_a_login_with_the_roles_granted_works(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    for role in ROLES:
        superuser.execute(f"CREATE ROLE {role} NOLOGIN")
        superuser.execute(f"GRANT {role} TO eventstore")
    migrate(own_server.url())
    owner = superuser.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'events'").fetchone()
    assert owner == ("eventstore_owner",)
    await use(own_server.url())


async def test_a_superuser_may_migrate_and_the_login_use_it(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    migrate(own_server.superuser_url)
    assert set(roles_of_the_store(superuser)) == ROLES
    superuser.execute("GRANT eventstore_app TO eventstore")
    await use(own_server.url())


def test_the_roles_go_with_the_last_database_that_uses_them(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("CREATE DATABASE second OWNER eventstore TEMPLATE template0")
    first, second = migrate(own_server.url()), migrate(own_server.url(database="second"))
    while first.down():
        pass
    assert set(roles_of_the_store(superuser)) == ROLES
    while second.down():
        pass
    assert roles_of_the_store(superuser) == {}
