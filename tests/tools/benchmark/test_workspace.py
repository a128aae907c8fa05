"""The benchmark's own database or schema, of which nothing is left in the end."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from support.servers import DatabaseServer

from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.errors import ServerUnreachable
from tools.benchmark.__main__ import not_durable, server_settings
from tools.benchmark.workspace import prepared_workspace

_LEFT = """
SELECT 'database', d.datname FROM pg_database d
UNION ALL SELECT 'schema', n.nspname FROM pg_namespace n WHERE n.nspname !~ '^pg_(toast_)?temp'
UNION ALL SELECT 'relation', c.oid::regclass::text FROM pg_class c WHERE c.relnamespace::regnamespace::text !~ '^pg_'
UNION ALL SELECT 'role', r.rolname FROM pg_roles r
"""


def everything(url: str) -> set[Any]:
    """Return the objects on the server, and in the database of the URL."""
    with psycopg.connect(url) as connection:
        return set(connection.execute(_LEFT).fetchall())


def test_a_login_that_may_not_create_databases_gets_a_schema(settings: Settings, database_url: str) -> None:
    before = everything(database_url)
    with prepared_workspace(settings) as workspace:
        assert not workspace.own_database
        assert workspace.url == database_url
        assert workspace.schema.startswith("eventstore_bench_")
        with workspace.migrated("further") as further:
            assert everything(database_url) > before
            assert further.db_schema != workspace.schema
    assert everything(database_url) == before


def test_a_login_that_may_create_databases_gets_one(clean_environment: None, superuser_url: str) -> None:
    before = everything(superuser_url)
    with prepared_workspace(Settings(database_url=superuser_url)) as workspace:
        assert workspace.own_database
        assert workspace.url != superuser_url
        with workspace.migrated("further"):
            assert ("schema", "bench_further") in everything(workspace.url)
        assert ("schema", "bench_further") not in everything(workspace.url)
    assert everything(superuser_url) == before


def test_a_failed_workspace_leaves_nothing(settings: Settings, database_url: str) -> None:
    before = everything(database_url)
    with pytest.raises(ZeroDivisionError), prepared_workspace(settings):
        raise ZeroDivisionError
    assert everything(database_url) == before


def test_roles_that_the_benchmark_created_are_dropped(clean_environment: None, own_server: EmbeddedServer) -> None:
    before = everything(own_server.url())
    with prepared_workspace(Settings(database_url=own_server.url())):
        assert ("role", "eventstore_owner") in everything(own_server.url())
    assert everything(own_server.url()) == before


async def test_existing_events_are_not_changed(settings: Settings, store: EventStore) -> None:
    await store.append("6f0b5ff0-5b6e-4c1e-9df7-2c4c8f3a5b10", [MessageAdded(role="user", content="mine")])
    with prepared_workspace(settings) as workspace:
        async with EventStore(workspace.settings) as beside:
            assert [event async for event in beside.read_log(all_tenants=True)] == []
    assert [event.data.content async for event in store.read_log()] == ["mine"]  # type: ignore[attr-defined]


def test_an_unreachable_server_raises_a_typed_error(clean_environment: None) -> None:
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(ServerUnreachable), prepared_workspace(settings):
        pass


def test_settings_that_lose_acknowledged_appends_are_named(settings: Settings, server: DatabaseServer) -> None:
    with prepared_workspace(settings) as workspace:
        found = server_settings(workspace)
    assert found["server_version"].startswith(str(server.version))
    assert not_durable(found | {"fsync": "off", "synchronous_commit": "on"}) == ["fsync"]
    assert not_durable(found | {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}) == []
