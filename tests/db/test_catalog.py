"""The catalog: what a restored or altered database lacks of what the migrations make is noticed and named."""

from __future__ import annotations

import os

import psycopg
from psycopg.rows import tuple_row
from support.servers import DatabaseServer

from eventstore.database.catalog import CATALOG, catalog_file, catalog_text, compare_catalog


def facts(url: str) -> list[tuple[str, str, str]]:
    with psycopg.connect(url, row_factory=tuple_row) as connection:
        connection.execute("SELECT set_config('search_path', 'public, pg_temp', false)")
        return connection.execute(CATALOG).fetchall()


def test_the_list_of_facts_is_what_the_migrations_make_on_every_version(
    server: DatabaseServer, database_url: str
) -> None:
    text = catalog_text(facts(database_url))
    if os.environ.get("EVENTSTORE_TEST_UPDATE_SCHEMA") and server.version == 18:
        catalog_file().write_text(text)
    assert catalog_file().read_text() == text, (
        "update it: EVENTSTORE_TEST_UPDATE_SCHEMA=1 pytest tests/db -k 'schema_sql or list_of_facts'"
    )
    assert compare_catalog(facts(database_url)).differences == ()
