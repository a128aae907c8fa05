"""A login for which row-level security does not hold is refused, unless it is allowed."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr
from support.environment import TREE
from support.servers import DatabaseServer

from eventstore import EventStore, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.embedded.installation import wheel_bin_dir
from eventstore.database.migrate import Migrator
from eventstore.errors import UnsuitableServer
from projections.status import read_warnings

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


def test_the_login_of_the_compose_file_migrates_and_serves(own_server: EmbeddedServer) -> None:
    password, folder = "it's \\ $ecret", wheel_bin_dir()
    assert folder is not None
    postgres = make_conninfo(own_server.superuser_url, dbname="postgres")
    with psycopg.connect(postgres, autocommit=True) as superuser:
        superuser.execute("DROP DATABASE flowagents WITH (FORCE)")
        subprocess.run(
            [folder / "psql", "-X", "-v", "ON_ERROR_STOP=1", "-f", TREE / "deploy/login.sql", postgres],
            env={"EVENTSTORE_PASSWORD": password}, check=True, capture_output=True,
        )  # fmt: skip
        stored = "SELECT rolsuper, rolbypassrls, rolpassword LIKE 'SCRAM-SHA-256$%%' FROM pg_authid WHERE rolname = %s"
        assert superuser.execute(stored, ("agents",)).fetchone() == (False, False, True)
    settings = Settings(postgres_host=str(own_server.socket_dir), postgres_password=SecretStr(password))
    Migrator(settings.server_url() or "", settings).up(for_service=True)

    async def serves_behind_row_level_security() -> bool:
        async with EventStore(settings) as store:
            return await read_warnings(store) == []

    assert asyncio.run(serves_behind_row_level_security())
