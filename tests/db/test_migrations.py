"""Schema: every migration has a way back, and touches nothing that it did not make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from support.catalog import everything
from support.environment import TREE, child_environment
from support.raw import append_raw, note
from support.servers import DatabaseServer

from eventstore import EventStore, Settings
from eventstore.database.connection import BOOKKEEPING
from eventstore.database.dbmate import dbmate_url
from eventstore.database.migrate import Migrator, known_versions
from eventstore.errors import MigrationFailed, SchemaMissing, SchemaTooOld

SCHEMA_FILE = TREE / "db" / "schema.sql"
FOREIGN = "CREATE TABLE diagrams (id integer PRIMARY KEY); CREATE VIEW drawn AS SELECT id FROM diagrams"

MIGRATE_UP = """
import sys
from eventstore import Settings
from eventstore.database.migrate import Migrator
settings = Settings(_env_file=None, database_url=sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(" ".join(Migrator(sys.argv[1], settings).up()), flush=True)
"""


def migrator(url: str, **values: object) -> Migrator:
    return Migrator(url, Settings(_env_file=None, database_url=url, **values))


def down_all(migrator: Migrator) -> None:
    while migrator.down(destroy_events=True):
        pass


def down_completely(migrator: Migrator) -> None:
    while migrator.down():
        pass


def dumped(url: str, server: DatabaseServer, tmp_path: Path) -> str:
    if server.pg_dump_folder is None:
        pytest.skip(f"there is no pg_dump of version {server.version}")
    target = tmp_path / "schema.sql"
    with psycopg.connect(url) as connection:
        reached = f"{dbmate_url(connection)}&search_path=public"  # from which pg_dump takes the schema
    command = ["dbmate", "--env-file", os.devnull, "--migrations-table", f"public.{BOOKKEEPING}"]
    path = os.pathsep.join((str(server.pg_dump_folder), str(Path(sys.executable).parent)))
    environment = os.environ | {"DATABASE_URL": reached, "PATH": path}
    subprocess.run([*command, "--schema-file", str(target), "dump"], env=environment, check=True, capture_output=True)
    # pg_dump puts a random word and its own minor version into each dump.
    volatile = ("\\restrict ", "\\unrestrict ", "-- Dumped from ", "-- Dumped by ")
    return "".join(line for line in target.read_text().splitlines(keepends=True) if not line.startswith(volatile))


@pytest.fixture(autouse=True)
def _no_settings_of_the_environment(clean_environment: None) -> None:
    """All settings are given in the tests."""


@pytest.mark.slow
def test_up_down_up_gives_the_same_schema(server: DatabaseServer, empty_database_url: str, tmp_path: Path) -> None:
    migrations = migrator(empty_database_url)
    migrations.up()
    first = dumped(empty_database_url, server, tmp_path)
    down_all(migrations)
    migrations.up()
    assert dumped(empty_database_url, server, tmp_path) == first


def test_schema_sql_is_what_the_migrations_make(server: DatabaseServer, database_url: str, tmp_path: Path) -> None:
    if server.version != 18:
        pytest.skip("db/schema.sql is dumped from PostgreSQL 18")
    schema = dumped(database_url, server, tmp_path)
    if os.environ.get("EVENTSTORE_TEST_UPDATE_SCHEMA"):
        SCHEMA_FILE.write_text(schema)
    assert SCHEMA_FILE.read_text() == schema, "update it: EVENTSTORE_TEST_UPDATE_SCHEMA=1 pytest -k schema_sql"


@pytest.mark.slow
def test_each_migration_goes_down_and_up_again_alone(empty_database_url: str) -> None:
    migrations = migrator(empty_database_url)
    migrations.up()
    after = {}
    for version in reversed(known_versions()):
        after[version] = everything(empty_database_url)
        assert migrations.down() == version
    assert migrations.down() is None
    migrations.up()
    assert everything(empty_database_url) == after[max(known_versions())]


def test_down_leaves_only_the_bookkeeping_table(empty_database_url: str) -> None:
    migrations = migrator(empty_database_url)
    before = everything(empty_database_url)
    migrations.up()
    assert everything(empty_database_url) != before
    down_all(migrations)
    left = {name for name in everything(empty_database_url) - before if BOOKKEEPING not in name}
    assert left == set()


def test_status_lists_applied_and_pending_migrations(empty_database_url: str) -> None:
    migrations = migrator(empty_database_url)
    assert [m.applied for m in migrations.status()] == [False] * len(known_versions())
    assert migrations.up() == list(known_versions())
    assert migrations.up() == []
    migrations.down()
    assert [m.applied for m in migrations.status()] == [True] * (len(known_versions()) - 1) + [False]


@pytest.mark.parametrize(
    "taken",
    [
        "CREATE TABLE messages (id integer)",
        "CREATE VIEW tasks AS SELECT 1 AS id",
        "CREATE SEQUENCE waiter_flag",
        "CREATE TABLE theirs (id integer); CREATE INDEX conversations ON theirs (id)",
    ],
)
def test_a_name_in_use_is_refused_and_nothing_is_created(empty_database_url: str, taken: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(taken)
    before = everything(empty_database_url)
    with pytest.raises(MigrationFailed, match=r"already has other objects named \w+: set EVENTSTORE_SCHEMA"):
        migrator(empty_database_url).up()
    left = {name for name in everything(empty_database_url) - before if BOOKKEEPING not in name}
    assert left == set()


@pytest.mark.slow
def test_foreign_objects_are_not_changed(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(FOREIGN)
        connection.execute("INSERT INTO diagrams VALUES (1), (2)")
    before = {text for text in everything(empty_database_url) if not text.startswith(("schema", "database"))}
    migrations = migrator(empty_database_url)
    migrations.up()
    assert before <= everything(empty_database_url)
    down_all(migrations)
    assert before <= everything(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM drawn").fetchone() == (2,)


@pytest.mark.slow
async def test_two_schemas_work_side_by_side(empty_database_url: str) -> None:
    for schema in ("first", "second"):
        migrator(empty_database_url, db_schema=schema).up()
    first = Settings(database_url=empty_database_url, db_schema="first")
    second = Settings(database_url=empty_database_url, db_schema="second")
    async with EventStore(first) as one, EventStore(second) as other:
        await one.append(note.conversation, [note(1), note(2)])
        assert [e async for e in other.read_log()] == []
        await other.append(note.conversation, [note(3)])
        assert [e.content async for e in one.read_log()] == [1, 2]
        assert [e.content async for e in other.read_log()] == [3]
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    down_all(migrator(empty_database_url, db_schema="first"))
    async with EventStore(second) as other:
        assert [e.content async for e in other.read_log()] == [3]


@pytest.mark.slow
def test_processes_that_migrate_at_once_apply_everything_once(server: DatabaseServer) -> None:
    name = server.create_database(migrated=False)
    try:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", MIGRATE_UP, server.url(name)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment(),
            )
            for _ in range(4)
        ]  # fmt: skip
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate()[0].split() for process in processes]
        assert [process.returncode for process in processes] == [0] * 4
        assert list(known_versions()) in outputs
        assert all(m.applied for m in migrator(server.url(name)).status())
    finally:
        server.drop_database(name)


def test_up_creates_a_missing_database_if_the_login_may(server: DatabaseServer) -> None:
    name = server.create_database(migrated=False)
    server.drop_database(name)
    url = server.url(name) if server.superuser_url is None else server.superuser_url_of(name)
    try:
        assert migrator(url).up() == list(known_versions())
    finally:
        server.drop_database(name)


def test_down_refuses_to_destroy_a_log_with_events(database_url: str) -> None:
    migrations = migrator(database_url)
    with psycopg.connect(database_url) as connection:
        append_raw(connection, 1)
    with pytest.raises(MigrationFailed, match=r"would destroy the log.*--destroy-events"):
        down_completely(migrations)
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('eventstore.tenant', 'default', false)")
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)
    down_all(migrations)
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT FROM events")


async def test_a_database_without_the_schema_is_refused(empty_database_url: str) -> None:
    with pytest.raises(SchemaMissing, match="eventstore migrate up"):
        await EventStore(Settings(database_url=empty_database_url)).open()


async def test_a_schema_older_than_the_code_is_refused(settings: Settings, database_url: str) -> None:
    migrator(database_url).down()
    latest = max(known_versions())
    with pytest.raises(SchemaTooOld, match=f"lacks 1 .*{latest}.*eventstore migrate up"):
        await EventStore(settings).open()
