"""The catalog: what a restored or altered database lacks of what the migrations make is noticed and named."""

from __future__ import annotations

import os
import subprocess
from uuid import uuid4

import psycopg
import pytest
from support.servers import DatabaseServer

from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.database.schema_comparison import CATALOG, catalog_file, compare_catalog
from eventstore.errors import SchemaError


def facts(url: str) -> list[tuple[str, str, str]]:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('search_path', 'public, pg_temp', false)")
        return connection.execute(CATALOG).fetchall()


def test_the_list_of_facts_is_what_the_migrations_make_on_every_version(
    server: DatabaseServer, database_url: str
) -> None:
    rows = (f"{kind}\t{name}\t{detail}".replace("\n", "\\n") for kind, name, detail in facts(database_url))
    text = "".join(f"{row}\n" for row in sorted(rows))
    if os.environ.get("EVENTSTORE_TEST_UPDATE_SCHEMA") and server.version == 18:
        catalog_file().write_text(text)
    assert catalog_file().read_text() == text, (
        "update it: EVENTSTORE_TEST_UPDATE_SCHEMA=1 pytest tests/db -k 'schema_sql or list_of_facts'"
    )
    assert compare_catalog(facts(database_url)).differences == ()


async def opened(url: str) -> str:
    """Return the error of opening a store; empty if it opens."""
    try:
        async with EventStore(Settings(_env_file=None, database_url=url)):
            return ""
    except SchemaError as error:
        return str(error)


def migrator(url: str) -> Migrator:
    return Migrator(url, Settings(_env_file=None, database_url=url))


@pytest.fixture(autouse=True)
def _no_settings_of_the_environment(clean_environment: None) -> None:
    """All settings are given in the tests."""


@pytest.mark.parametrize(
    ("change", "named", "step"),
    [
        ("ALTER TABLE events DISABLE TRIGGER events_are_append_only",
         "disabled trigger: events_are_append_only on events",
         "ALTER TABLE events ENABLE ALWAYS TRIGGER events_are_append_only"),
        ("ALTER TABLE events ENABLE TRIGGER event_is_append_only", "altered trigger: event_is_append_only on events",
         "complete dump"),
        ("DROP TRIGGER event_is_append_only ON events", "missing trigger: event_is_append_only on events",
         "complete dump"),
        ("DROP POLICY open_to_caller ON messages", "missing policy: open_to_caller on messages", "migrate roles"),
        ("ALTER POLICY open_to_caller ON messages USING (true)", "altered policy: open_to_caller on messages",
         "migrate roles"),
        ("ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY", "altered row-level security on: tasks", "migrate roles"),
        ("ALTER TABLE tasks DISABLE ROW LEVEL SECURITY", "missing row-level security on: tasks", "migrate roles"),
        ("DROP FUNCTION search_for", "missing function: search_for(", "complete dump"),
        ("ALTER FUNCTION members_of(uuid) SECURITY INVOKER", "altered security of function: members_of(uuid)",
         "complete dump"),
        ("ALTER TABLE events DROP CONSTRAINT events_pkey CASCADE", "missing constraint: events_pkey on events",
         "complete dump"),
        ("DROP TABLE pending_messages", "missing table: pending_messages", "complete dump"),
    ],
)  # fmt: skip
async def test_an_altered_object_is_named_when_a_store_opens_and_by_migrate(
    superuser_url: str, database_url: str, change: str, named: str, step: str
) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(change.encode())
    message = await opened(database_url)
    assert named in message
    assert step in message
    assert migrator(database_url).up() == []
    assert any(named in finding for finding in migrator(database_url).findings())


async def test_migrate_roles_restores_owners_policies_and_grants(superuser_url: str, database_url: str) -> None:
    before = facts(database_url)
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute("DROP POLICY open_to_caller ON messages")
        connection.execute("ALTER POLICY open_to_owner ON events USING (false)")
        connection.execute("ALTER TABLE tasks NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")
        connection.execute("ALTER TABLE messages OWNER TO CURRENT_USER")
        connection.execute("REVOKE ALL ON conversations FROM eventstore_reader")
        connection.execute("GRANT EXECUTE ON FUNCTION bind_login(name, text) TO PUBLIC")
    assert await opened(database_url) != ""
    assert migrator(superuser_url).make_roles() != []
    assert set(facts(database_url)) == set(before)
    assert await opened(database_url) == ""


async def test_objects_of_users_beside_the_store_are_ignored(superuser_url: str, database_url: str) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE theirs (id int PRIMARY KEY); CREATE FUNCTION append_one() RETURNS int LANGUAGE sql RETURN 1;"
            "ALTER TABLE theirs ENABLE ROW LEVEL SECURITY; CREATE POLICY open_to_caller ON theirs USING (true);"
            "CREATE INDEX ON messages (role); CREATE VIEW seen AS SELECT id FROM messages"
        )
    assert await opened(database_url) == ""
    assert migrator(database_url).findings() == []


def dump_and_restore(server: DatabaseServer, url: str, target: str, *options: str) -> None:
    """Restores a dump into another database, as its login; what fails there fails."""
    folder = server.pg_dump_folder
    if folder is None or not (folder / "pg_restore").is_file():
        pytest.skip(f"there is no pg_dump and pg_restore of version {server.version}")
    dump = subprocess.run(
        [folder / "pg_dump", "--format=custom", *options, "--dbname", url], capture_output=True, check=True
    )
    subprocess.run([folder / "pg_restore", "--dbname", target], input=dump.stdout, capture_output=True, check=False)


async def test_a_database_restored_without_roles_is_refused_until_it_has_them(
    server: DatabaseServer, store: EventStore, superuser_url: str, own_server: EmbeddedServer
) -> None:
    await store.append(conversation := uuid4(), [MessageAdded(role="user", content="hello")])
    with psycopg.connect(own_server.superuser_url, autocommit=True) as connection:
        connection.execute("ALTER ROLE eventstore SUPERUSER")  # restores everything, but there are no roles
        dump_and_restore(server, superuser_url, own_server.url())
        connection.execute("ALTER ROLE eventstore NOSUPERUSER CREATEROLE")
    migrations = migrator(own_server.url())
    message = await opened(own_server.url())
    assert "missing policy: open_to_owner on" in message
    assert "missing roles: eventstore_app, eventstore_auditor, eventstore_eraser, eventstore_migrator" in message
    assert "eventstore migrate roles" in message
    assert any("row-level security is not in force" in finding for finding in migrations.findings())
    migrations.make_roles()
    assert migrations.findings() == []
    assert await opened(own_server.url()) == ""
    async with EventStore(Settings(_env_file=None, database_url=own_server.url())) as restored:
        assert [event.conversation_id async for event in restored.read_log()] == [conversation]
