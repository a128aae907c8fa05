"""A login for which row-level security does not hold is refused, unless it is allowed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from support.servers import DatabaseServer

from eventstore import EventStore, Settings
from eventstore.database.migrate import Migrator
from eventstore.errors import UnsuitableServer

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture(params=["SUPERUSER", "BYPASSRLS"])
def exempt_url(request: pytest.FixtureRequest, server: DatabaseServer, database: str) -> Iterator[str]:
    """The URL of a fresh database for a login that is exempt from row-level security."""
    name, superuser_url = f"exempt_{uuid4().hex[:8]}", server.superuser_url_of(database)
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'test' {request.param}".encode())
        superuser.execute(f"GRANT eventstore_app, eventstore_projector TO {name}".encode())
        host = conninfo_to_dict(superuser_url)["host"]
        try:
            yield f"postgresql://{name}:test@/{database}?host={host}&port={superuser.info.port}"
        finally:
            superuser.execute(f"DROP ROLE {name}".encode())


async def test_an_exempt_login_is_refused_before_the_store_opens(
    exempt_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UnsuitableServer, match=r"superuser or has BYPASSRLS.*--allow-superuser"):
        async with EventStore(Settings(database_url=exempt_url)):
            pass
    with caplog.at_level(logging.WARNING):
        async with EventStore(Settings(database_url=exempt_url, allow_superuser=True)):
            assert "row-level security does not hold" in caplog.text


def test_up_migrates_nothing_as_a_superuser(server: DatabaseServer) -> None:
    name = server.create_database(migrated=False)
    try:
        url = server.superuser_url_of(name)
        with pytest.raises(UnsuitableServer, match="--allow-superuser"):
            Migrator(url, Settings(database_url=url)).up(for_service=True)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT to_regclass('eventstore_migrations')").fetchone() == (None,)
    finally:
        server.drop_database(name)
