"""Migrations behind poolers, and in sessions with other settings than the program requested."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from support.bouncer import bouncer_to
from support.certificates import self_signed
from support.pooler import pooler_to
from support.ports import free_port
from support.raw import append_raw
from support.servers import DatabaseServer, open_folder

from eventstore import Settings
from eventstore.database import dbmate
from eventstore.database.connection import BOOKKEEPING
from eventstore.database.dbmate import dbmate_url
from eventstore.database.migrate import Migrator, known_versions
from eventstore.database.schema_comparison import CATALOG
from eventstore.errors import MigrationFailed, PermissionDenied, UnsuitableServer

IGNORED = "search_path,options,extra_float_digits,default_transaction_read_only"
OTHER_SETTINGS = {
    "search_path": "theirs, public", "datestyle": "'SQL, DMY'", "intervalstyle": "sql_standard",
    "timezone": "'Asia/Kabul'", "bytea_output": "escape", "extra_float_digits": "-3", "quote_all_identifiers": "on",
    "standard_conforming_strings": "off", "transform_null_equals": "on", "check_function_bodies": "off",
    "row_security": "off", "lock_timeout": "'1s'", "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on", "default_tablespace": "theirs",
    "statement_timeout": "'3s'", "idle_in_transaction_session_timeout": "'300ms'", "client_min_messages": "error",
    "xmloption": "document", "array_nulls": "off", "plpgsql.extra_errors": "'all'",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_settings_of_the_environment(clean_environment: None) -> None:
    """All settings are given in the tests."""


def migrator(url: str, schema: str = "public", **values: Any) -> Migrator:
    return Migrator(url, Settings(_env_file=None, database_url=url, db_schema=schema, **values))


def facts(url: str, schema: str) -> set[tuple[str, str, str]]:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", (f"{schema}, pg_temp",))
        connection.execute("SELECT set_config('quote_all_identifiers', 'off', false)")
        return {tuple(row) for row in connection.execute(CATALOG).fetchall()}  # type: ignore[misc]


def migrate_up_and_down_beside_public(url: str, direct: str) -> None:
    """Migrate ``conv`` over ``url`` and back, in a database whose schema public holds a log."""
    with psycopg.connect(direct) as connection:
        append_raw(connection, 1)
    public = facts(direct, "public")
    migrations = migrator(url, "conv")
    assert migrations.up() == list(known_versions())
    assert facts(direct, "conv") == public
    assert (migrations.up(), migrations.findings()) == ([], [])
    with psycopg.connect(direct) as connection:
        connection.execute("SELECT set_config('search_path', 'conv', false)")
        append_raw(connection, 2)
    for _ in known_versions():
        if max(m.version for m in migrations.status() if m.applied) == "20261129000300":
            break
        assert migrations.down() is not None
    with pytest.raises(MigrationFailed, match="would destroy the log, and it holds events"):
        migrations.down()
    while migrations.down(destroy_events=True):
        pass
    assert facts(direct, "public") == public
    with psycopg.connect(direct) as connection:
        connection.execute("SELECT set_config('eventstore.tenant', 'default', false)")
        assert connection.execute("SELECT content FROM public.events").fetchall() == [(1,)]
        left = "SELECT relname FROM pg_class WHERE relnamespace = 'conv'::regnamespace AND relkind = 'r'"
        assert connection.execute(left).fetchall() == [(BOOKKEEPING,)]


def test_behind_pgbouncer_only_the_schema_of_the_settings_changes(server: DatabaseServer, database_url: str) -> None:
    with bouncer_to(server, database_url, ignore_startup_parameters=IGNORED) as url:
        migrate_up_and_down_beside_public(url, database_url)


@pytest.fixture
def pooler_url(database_url: str) -> Iterator[str]:
    """The URL of the database through the pooler of the tests, which has four sessions and resets nothing."""
    loop, ready, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with pooler_to(database_url, 4) as pooler:
            urls.append(pooler.url)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    yield urls[0]
    loop.call_soon_threadsafe(done.set)
    thread.join()
    loop.close()


@pytest.mark.slow
def test_in_sessions_with_foreign_settings_only_the_schema_of_the_settings_changes(
    pooler_url: str, database_url: str
) -> None:
    with psycopg.connect(pooler_url, autocommit=True) as connection:
        for _ in range(8):  # each session in turn
            connection.execute(
                "SELECT set_config('search_path', 'public', false), set_config('row_security', 'off', false)"
            )
    migrate_up_and_down_beside_public(pooler_url, database_url)


def test_in_sessions_whose_role_may_not_migrate_nothing_changes_and_the_error_names_the_pooler(
    pooler_url: str, database_url: str
) -> None:
    before = facts(database_url, "public")
    with psycopg.connect(pooler_url, autocommit=True) as connection:
        for _ in range(8):
            connection.execute("SELECT set_config('role', 'eventstore_reader', false)")
    with pytest.raises(MigrationFailed, match="connect to the server itself"):
        migrator(pooler_url, "conv").up()
    assert facts(database_url, "public") == before


@pytest.mark.slow
def test_a_pooler_with_one_session_is_refused_instead_of_waiting_without_end(
    server: DatabaseServer, database_url: str
) -> None:
    options = {"ignore_startup_parameters": IGNORED, "default_pool_size": "1"}
    with bouncer_to(server, database_url, **options) as url, pytest.raises(UnsuitableServer, match="larger pool"):
        migrator(url, "conv", connect_timeout=1).up()


def test_a_migration_refuses_a_session_in_another_database(
    server: DatabaseServer, database_url: str, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy may lead dbmate to another database than the connection that has checked it."""
    with psycopg.connect(database_url) as connection:
        elsewhere = dbmate_url(connection)
    before = facts(database_url, "public")
    with psycopg.connect(database_url) as connection:
        connection.execute(f"DELETE FROM {BOOKKEEPING} WHERE version = '{max(known_versions())}'")
    monkeypatch.setattr(dbmate, "dbmate_url", lambda connection: elsewhere)
    with pytest.raises(MigrationFailed, match="did not reach the database that was checked"):
        migrator(empty_database_url).up()
    assert facts(database_url, "public") == before


def test_settings_of_a_database_that_break_statements_change_nothing(
    server: DatabaseServer, database_url: str, empty_database_url: str
) -> None:
    name = str(conninfo_to_dict(empty_database_url)["dbname"])
    with psycopg.connect(server.superuser_url_of(name), autocommit=True) as superuser:
        superuser.execute("SET allow_in_place_tablespaces = on")
        superuser.execute("CREATE TABLESPACE theirs LOCATION ''")
        try:
            settings = OTHER_SETTINGS | ({"transaction_timeout": "'3s'"} if server.version >= 17 else {})
            for setting, value in settings.items():
                superuser.execute(f"ALTER DATABASE {name} SET {setting} = {value}".encode())
            migrations = migrator(empty_database_url)
            assert migrations.up() == list(known_versions())
            assert migrations.findings() == []
            assert facts(empty_database_url, "public") == facts(database_url, "public")
            assert migrations.down() == max(known_versions())
            while migrations.down():
                pass
        finally:
            server.drop_database(name)
            superuser_elsewhere = server.superuser_url_of("postgres")
            with psycopg.connect(superuser_elsewhere, autocommit=True) as connection:
                connection.execute("DROP TABLESPACE theirs")


def test_a_server_at_an_ipv6_address_is_migrated(server: DatabaseServer, empty_database_url: str) -> None:
    to, port = conninfo_to_dict(empty_database_url), free_port()
    with bouncer_to(server, empty_database_url, listen_addr="::1", listen_port=str(port)):
        assert migrator(f"postgresql://{to['user']}@[::1]:{port}/{to['dbname']}").up() == list(known_versions())


def test_dbmate_verifies_the_server_as_libpq_does(
    server: DatabaseServer, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root certificate is that of libpq's default file; the other server has a certificate of its own."""
    to = conninfo_to_dict(empty_database_url)
    with ExitStack() as stack:
        ports = []
        for _ in range(2):
            folder = stack.enter_context(open_folder())
            certificate, key = self_signed(folder)
            ports.append(free_port())
            options = {
                "listen_addr": "127.0.0.1", "listen_port": str(ports[-1]), "client_tls_sslmode": "require",
                "client_tls_cert_file": str(certificate), "client_tls_key_file": str(key),
            }  # fmt: skip
            stack.enter_context(bouncer_to(server, empty_database_url, **options))
            if len(ports) == 1:
                (folder / ".postgresql").mkdir()
                (folder / ".postgresql" / "root.crt").write_bytes(certificate.read_bytes())
                monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setenv("PGSSLMODE", "verify-full")
        url = f"postgresql://{to['user']}@localhost:{ports[0]}/{to['dbname']}"
        with psycopg.connect(url) as connection:
            given = dbmate_url(connection)
        assert "sslmode=verify-full" in given
        assert migrator(url).up() == list(known_versions())
        monkeypatch.setattr(dbmate, "dbmate_url", lambda connection: given.replace(str(ports[0]), str(ports[1])))
        with pytest.raises(MigrationFailed, match="certificate"):
            migrator(url).down()
        assert all(m.applied for m in migrator(url).status())


def test_a_missing_database_is_created_in_any_language_of_the_server(server: DatabaseServer) -> None:
    name = server.create_database(migrated=False)
    server.drop_database(name)
    with pytest.raises(PermissionDenied, match=f'{name} does not exist.*CREATE DATABASE "{name}" OWNER'):
        migrator(server.url(name)).up()
    url = server.superuser_url_of(name)
    try:
        assert migrator(url).up() == list(known_versions())
    finally:
        server.drop_database(name)


@pytest.mark.parametrize(("option", "value"), [("sslcrl", "/nowhere/none.crl"), ("require_auth", "none")])
def test_a_connection_that_dbmate_cannot_secure_equally_is_refused(
    empty_database_url: str, option: str, value: str
) -> None:
    with pytest.raises(MigrationFailed, match=f"dbmate cannot connect with {option}"):
        migrator(f"{empty_database_url}&{option}={value}").up()
