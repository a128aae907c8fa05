"""The server of the tests, and a database of its own for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from support.environment import clear_settings
from support.servers import Choice, DatabaseServer, choose, embedded_server, open_folder

from eventstore import EventStore, Settings
from eventstore.database.embedded import EmbeddedServer

# A database takes the time it takes; each example uses a tenant or a conversation of its own.
hypothesis_settings.register_profile(
    "eventstore",
    deadline=None,
    database=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
hypothesis_settings.load_profile("eventstore")

_CHOICE = pytest.StashKey[Choice]()


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker by which a second run, on another PostgreSQL, leaves out what it cannot change."""
    config.addinivalue_line("markers", "any_server: the same whatever PostgreSQL is under test, or in need of none")
    config.addinivalue_line("markers", "slow: takes minutes; run with -m slow")


def pytest_report_header(config: pytest.Config) -> str:
    """Says which server the tests will use."""
    config.stash[_CHOICE] = choose()
    return f"PostgreSQL for the tests: {config.stash[_CHOICE].text}"


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """The server, one for the whole session."""
    with ExitStack() as stack:
        yield (request.config.stash.get(_CHOICE, None) or choose()).start(stack)


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """An embedded server of the test's own, which it may kill; it has the database ``flowagents``, empty."""
    with open_folder() as folder, embedded_server(folder / "server") as own:
        yield own


@pytest.fixture
def database(server: DatabaseServer) -> Iterator[str]:
    """The name of a fresh database with the schema of the store."""
    name = server.create_database()
    yield name
    server.drop_database(name)


@pytest.fixture
def database_url(server: DatabaseServer, database: str) -> str:
    """The URL of a fresh database with the schema of the store."""
    return server.url(database)


@pytest.fixture
def superuser_url(server: DatabaseServer, database: str) -> str:
    """The URL of the same database for the superuser."""
    return server.superuser_url_of(database)


@pytest.fixture
def events_after_deletions(superuser_url: str) -> None:
    """Lets the log accept events of deleted conversations: a fold must be right however a log was written."""
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        superuser.execute(
            "CREATE OR REPLACE FUNCTION accepted_when_deleted(event_type text) RETURNS boolean "
            "LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true"
        )


@pytest.fixture
def empty_database_url(server: DatabaseServer) -> Iterator[str]:
    """The URL of a fresh database with nothing in it."""
    name = server.create_database(migrated=False)
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting comes from the caller's environment or ``.env``."""
    clear_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(clean_environment: None, database_url: str) -> Settings:
    """Settings for the fresh database."""
    return Settings(database_url=database_url)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[EventStore]:
    """An open store on the fresh database."""
    async with EventStore(settings) as store:
        yield store
