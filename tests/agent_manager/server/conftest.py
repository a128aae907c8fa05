"""A server for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from support.callers import People
from support.processes import Commands, commands
from support.serving import Served, served

from eventstore import EventStore


@pytest.fixture
async def here(store: EventStore, works: bool) -> AsyncIterator[Served]:
    """A server on the test's database."""
    async with served(store, works=works) as here:
        yield here


@pytest.fixture
def http(here: Served) -> httpx.AsyncClient:
    """A client of that server."""
    return here.client


@pytest.fixture
async def walled(store: EventStore, works: bool) -> AsyncIterator[Served]:
    """A server that lets nobody in without a token."""
    async with served(store, works=works, requires_tokens=True) as walled:
        yield walled


@pytest.fixture
async def people(walled: Served) -> AsyncIterator[People]:
    """Makes people with tokens for it."""
    people = People(walled.store, walled.url)
    yield people
    await people.close()


@pytest.fixture
def started(clean_environment: None, tmp_path: Path) -> Iterator[Commands]:
    """Starts commands, and ends them after the test."""
    with commands(tmp_path) as started:
        yield started
