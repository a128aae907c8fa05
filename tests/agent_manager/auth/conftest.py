"""A tenant with a user, and authenticators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import SecretStr
from support.authentication import OpenAuthenticator

from agent_manager.auth import Authenticator, Directory
from eventstore import EventStore, Settings
from eventstore.database.pools import Pool


@pytest.fixture
async def directory(store: EventStore, no_tenants: None) -> Directory:
    """A directory with the tenant acme and its user ana."""
    directory = Directory(store)
    await directory.add_tenant("acme")
    await directory.add_user("acme", "ana")
    return directory


@pytest.fixture
async def open_authenticator(
    store: EventStore, settings: Settings, directory: Directory
) -> AsyncIterator[OpenAuthenticator]:
    """Opens authenticators with further settings; they are closed after the test."""
    async with AsyncExitStack() as stack:

        async def opened(**more: Any) -> Authenticator:
            if isinstance(key := more.get("jwt_key"), str):
                more["jwt_key"] = SecretStr(key)
            return await stack.enter_async_context(Authenticator(store, settings.model_copy(update=more)))

        yield opened


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The parameters of each query that a pool of connections is asked, as they come."""
    asked: list[Any] = []
    fetch = Pool.fetch

    async def noting(self: Pool, query: Any, parameters: Any = None, **more: Any) -> Any:
        asked.append(parameters)
        return await fetch(self, query, parameters, **more)

    monkeypatch.setattr(Pool, "fetch", noting)
    return asked
