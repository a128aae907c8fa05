"""The command line called in the process of the tests, an HTTP server in it, and a manager, on the test's database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from support.agents import agent
from support.browser import Chromium, chromium_if_installed
from support.callers import People
from support.commandline import Eventstore, program_in_process
from support.scoped_queries import open_as
from support.serving import Served, served

from agent_manager.cli import main
from agent_manager.factory import AsyncManager
from eventstore import EventStore


@pytest.fixture
def eventstore(
    clean_environment: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Eventstore:
    """Call the command line in this process."""
    return program_in_process("eventstore", main, monkeypatch, capsys)


@pytest.fixture
def empty(eventstore: Eventstore, monkeypatch: pytest.MonkeyPatch, database_url: str, own_tenant: str) -> Eventstore:
    """The command line on the test's database, for a tenant without data."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("EVENTSTORE_TENANT", own_tenant)
    return eventstore


@pytest.fixture
def no_tenants(database_url: str) -> None:
    """Remove the tenants, users and keys that other tests have added to the same database."""
    with open_as(database_url, "eventstore_owner") as owner:
        owner.execute("TRUNCATE identity_tenants CASCADE")


@pytest.fixture
async def manager(store: EventStore, works: bool) -> AsyncIterator[AsyncManager]:
    """A manager whose agent follows the text of the message."""
    async with AsyncManager(store, answer=agent, runs_worker=works) as manager:
        yield manager


@pytest.fixture
async def here(store: EventStore, works: bool) -> AsyncIterator[Served]:
    """An HTTP server on the test's database."""
    async with served(store, works=works) as here:
        yield here


@pytest.fixture
def http(here: Served) -> httpx.AsyncClient:
    """A client of that server."""
    return here.client


@pytest.fixture
async def protected(store: EventStore, works: bool) -> AsyncIterator[Served]:
    """An HTTP server that requires tokens."""
    async with served(store, works=works, requires_tokens=True) as protected:
        yield protected


@pytest.fixture
async def people(protected: Served) -> AsyncIterator[People]:
    """Users with tokens for the server that requires them."""
    people = People(protected.store, protected.url)
    yield people
    await people.close()


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Chromium]:
    """A browser for the tests of a module, if the extra ``browser`` is installed and the system has Chromium."""
    async with chromium_if_installed() as browser:
        yield browser
