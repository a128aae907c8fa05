"""Code works with the schema of the next release while both run, unless a migration says or shows that it cannot."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import psycopg
import pytest
from support.environment import TREE
from support.raw import append_raw, note
from support.scoped_queries import open_as
from support.waiting import until

from eventstore import EventStore, Settings
from eventstore.database import dbmate, migrate
from eventstore.database.connection import BOOKKEEPING
from eventstore.database.migrate import Migrator, known_versions
from eventstore.errors import MigrationFailed, SchemaTooNew, SchemaTooOld

NEXT, LATER = "29990101000000", "29990201000000"
ADDITIVE = """
ALTER TABLE {schema}.events ADD COLUMN note text;
CREATE TABLE {schema}.notes (id bigint PRIMARY KEY);
CREATE POLICY additional ON {schema}.events FOR SELECT TO eventstore_auditor USING (false);
"""


def migrator(url: str, **values: object) -> Migrator:
    return Migrator(url, Settings(_env_file=None, database_url=url, **values))


def record(url: str, *versions: str, statements: str = "") -> None:
    """Do what migrations that the code does not know would do."""
    with psycopg.connect(url) as connection:
        connection.execute("SET LOCAL ROLE eventstore_owner")
        connection.execute(statements.format(schema="public").encode())
        connection.execute("RESET ROLE")
        for version in versions:
            connection.execute(f"INSERT INTO {BOOKKEEPING} VALUES (%s)".encode(), (version,))


async def opens(settings: Settings) -> None:
    async with EventStore(settings) as store:
        await store.append(note.conversation, [note("from older code")])


async def test_a_schema_with_more_than_the_code_expects_is_used(settings: Settings, database_url: str) -> None:
    record(database_url, NEXT, statements=ADDITIVE)
    await opens(settings)
    migrations = migrator(database_url)
    assert migrations.up() == migrations.up(for_service=True) == []
    assert migrations.findings() == []
    assert [(m.version, m.applied) for m in migrations.status()][-1] == (NEXT, True)


@pytest.mark.parametrize("knows", [True, False])
async def test_a_migration_may_require_code_that_knows_an_earlier_one(
    settings: Settings, database_url: str, knows: bool
) -> None:
    required = max(known_versions()) if knows else NEXT
    record(database_url, NEXT, LATER, f"0 {required}")
    if knows:
        await opens(settings)
        assert migrator(database_url).up(for_service=True) == []
        return
    with pytest.raises(SchemaTooNew, match=f"{NEXT}, {LATER}.*cannot work with: upgrade"):
        await opens(settings)
    with pytest.raises(SchemaTooNew):
        migrator(database_url).up()


async def test_a_newer_schema_that_has_changed_what_the_code_needs_is_refused(
    settings: Settings, database_url: str
) -> None:
    record(database_url, NEXT, statements="ALTER TABLE events NO FORCE ROW LEVEL SECURITY")
    with pytest.raises(
        SchemaTooNew, match=rf"{NEXT}.*have changed what it needs: altered row-level security on: events: upgrade"
    ):
        await opens(settings)


async def test_a_newer_schema_that_lacks_a_migration_of_the_code_is_refused(
    settings: Settings, database_url: str
) -> None:
    record(database_url, NEXT)
    missing = max(known_versions())
    with psycopg.connect(database_url) as connection:
        connection.execute(f"DELETE FROM {BOOKKEEPING} WHERE version = %s".encode(), (missing,))
    with pytest.raises(SchemaTooOld, match=f"{missing}.*or begin with an empty database"):
        await opens(settings)
    with pytest.raises(SchemaTooOld, match=missing):
        migrator(database_url).up()


def test_what_changes_a_schema_needs_the_code_that_knows_it(database_url: str) -> None:
    record(database_url, NEXT)
    with pytest.raises(SchemaTooNew, match=f"does not know.*{NEXT}"):
        migrator(database_url).down()
    with pytest.raises(SchemaTooNew, match=f"does not know.*{NEXT}"):
        migrator(database_url).make_roles()


# Migrations of the next release, run by its code


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the migrations, to which a test adds one."""
    folder = tmp_path / "migrations"
    shutil.copytree(TREE / "db/migrations", folder)
    for module in (dbmate, migrate):
        monkeypatch.setattr(module, "migrations_folder", lambda: folder)
    return folder


def test_a_migration_that_does_not_fit_an_earlier_baseline_says_what_to_do(
    database_url: str, next_release: Path
) -> None:
    migration = "-- migrate:up\nDROP FUNCTION of_the_present_baseline();\n\n-- migrate:down\nSELECT;\n"
    (next_release / f"{NEXT}_change.sql").write_text(migration)
    with pytest.raises(MigrationFailed, match=r"of_the_present_baseline.*begin with an empty database"):
        migrator(database_url).up()


def test_an_index_is_created_concurrently_in_the_schema_of_the_store(
    empty_database_url: str, next_release: Path
) -> None:
    (next_release / f"{NEXT}_index.sql").write_text(
        "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY events_actor ON events (actor);\n\n"
        "-- migrate:down transaction:false\nDROP INDEX CONCURRENTLY events_actor;\n"
    )
    migrations = migrator(empty_database_url, db_schema="log")
    assert migrations.up()[-1] == NEXT
    find = "SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass('log.events_actor')"
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        assert connection.execute(find).fetchone() == (True,)
        connection.execute("SET search_path = log")
        append_raw(connection, 1)
        assert migrations.down() == NEXT
        assert connection.execute(find).fetchone() is None
        assert migrations.up() == [NEXT]
    with open_as(empty_database_url) as connection:
        connection.execute("SET search_path = log")
        acts = connection.execute("SELECT act, details ->> 'version' FROM audit_acts ORDER BY position").fetchall()
    assert acts == [("migration_reverted", NEXT), ("migration_applied", NEXT)]


def test_a_migration_that_waits_for_a_table_lets_appends_pass(
    database_url: str, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_column = "-- migrate:up\nALTER TABLE events ADD COLUMN note text;\n"
    (next_release / f"{NEXT}_column.sql").write_text(f"{add_column}\n-- migrate:down\nSELECT;\n")
    applied: list[list[str]] = []
    attempts: list[float] = []
    monkeypatch.setattr(migrate.time, "sleep", attempts.append)
    migrating = threading.Thread(target=lambda: applied.append(migrator(database_url).up()))
    with psycopg.connect(database_url) as reader, psycopg.connect(database_url, autocommit=True) as writer:
        reader.execute("SET LOCAL ROLE eventstore_projector")
        reader.execute("SELECT count(*) FROM events")
        migrating.start()
        try:
            until(lambda: len(attempts) >= 2, "the migration has given way twice")
            writer.execute("SET lock_timeout = '5s'")
            with writer.transaction():
                append_raw(writer, "meanwhile")
        finally:
            reader.rollback()
            migrating.join()
    assert applied == [[NEXT]]
    assert len(attempts) < 40


@pytest.mark.slow
def test_a_migration_that_never_gets_its_lock_says_what_to_do(
    database_url: str, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (next_release / f"{NEXT}_lock.sql").write_text(
        "-- migrate:up\nSET LOCAL lock_timeout = '1ms';\nLOCK TABLE events;\n\n-- migrate:down\nSELECT;\n"
    )
    monkeypatch.setattr(migrate.time, "sleep", lambda _: None)
    with psycopg.connect(database_url) as reader:
        reader.execute("SET LOCAL ROLE eventstore_projector")
        reader.execute("SELECT count(*) FROM events")
        with pytest.raises(MigrationFailed, match=r"lock timeout.*40 times.*pg_stat_activity.*repeat the command"):
            migrator(database_url).up()
