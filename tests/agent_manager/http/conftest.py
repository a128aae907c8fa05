"""A server of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from support.serving import Served, served

from eventstore import EventStore


@pytest.fixture
async def here(store: EventStore) -> AsyncIterator[Served]:
    """A server on the fresh database."""
    async with served(store) as here:
        yield here


@pytest.fixture
def http(here: Served) -> httpx.AsyncClient:
    """A client of that server."""
    return here.client
