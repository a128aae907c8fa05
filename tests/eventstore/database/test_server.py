"""A server that does not carry the store is left as it was found."""

from __future__ import annotations

import psycopg
import pytest
from support.servers import DatabaseServer, open_folder

from eventstore import Settings
from eventstore.database.migrate import Migrator
from eventstore.database.server import Server
from eventstore.errors import SchemaTooNew, UnsuitableServer


@pytest.mark.slow
def test_an_embedded_server_with_a_newer_schema_is_released(clean_environment: None) -> None:
    with open_folder() as folder:
        settings = Settings(data_dir=folder / "data")
        with Server(settings) as server, psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("INSERT INTO eventstore_migrations VALUES ('29990101000000'), ('0 29990101000000')")
        with pytest.raises(SchemaTooNew, match="29990101000000"):
            Server(settings).acquire()
        again = Server(settings, migrate=False)
        with again:
            assert again.embedded is not None
            assert not again.embedded.joined


def test_a_database_in_another_encoding_is_not_migrated(server: DatabaseServer) -> None:
    name = server.create_database(migrated=False)
    server.drop_database(name)
    with psycopg.connect(server.superuser_url_of("postgres"), autocommit=True) as superuser:
        superuser.execute(
            f"CREATE DATABASE {name} OWNER {server.login} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
            + (" LOCALE_PROVIDER libc" if server.version >= 15 else "")
        )
    try:
        url = server.url(name)
        with pytest.raises(UnsuitableServer, match="LATIN1"):
            Migrator(url, Settings(database_url=url)).up()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT to_regclass('eventstore_migrations')").fetchone() == (None,)
    finally:
        server.drop_database(name)
