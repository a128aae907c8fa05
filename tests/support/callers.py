"""People of two tenants, with tokens, for the tests of what keeps them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from agent_manager.auth import Directory, TokenScope
from eventstore import EventStore

_LIMITS = httpx.Limits(keepalive_expiry=2)
"""Sooner than the server lets go of a connection that is idle: a request on its way then would be lost."""
WORKING = (TokenScope.READ, TokenScope.WRITE, TokenScope.AUDIT)


@dataclass(frozen=True)
class Person:
    """Somebody who calls.

    Attributes:
        name: of the user.
        key: the id of their key.
        token: that they show.
        client: which shows it.
    """

    tenant: str
    name: str
    key: str
    token: str
    client: httpx.AsyncClient

    async def get(self, path: str, **more: Any) -> httpx.Response:
        """Send a GET request as the caller."""
        return await self.client.get(path, **more)

    async def post(self, path: str, json: Any = None, **more: Any) -> httpx.Response:
        """Send a POST request as the caller."""
        return await self.client.post(path, json={} if json is None else json, **more)


class People:
    """Creates users, and closes their clients. On a database that tests share, their tenants are the test's own."""

    def __init__(self, store: EventStore, url: str) -> None:
        self.directory = Directory(store)
        self._suffix = "" if store.tenant == "default" else f" of {store.tenant}"
        self._url = url
        self._clients: list[httpx.AsyncClient] = []
        self._known: set[tuple[str, str]] = set()

    async def person(self, tenant: str, user: str | None, *scopes: TokenScope) -> Person:
        """Somebody with a key of their own; user None is a key of the whole tenant."""
        tenant += self._suffix
        if (tenant, "") not in self._known:
            await self.directory.add_tenant(tenant)
            self._known.add((tenant, ""))
        if user is not None and (tenant, user) not in self._known:
            await self.directory.add_user(tenant, user)
            self._known.add((tenant, user))
        made = await self.directory.add_key(tenant, "tests", user=user, scopes=scopes or WORKING)
        headers = {"Authorization": f"Bearer {made.token.get_secret_value()}"}
        client = httpx.AsyncClient(base_url=self._url, timeout=30, headers=headers, limits=_LIMITS, verify=False)
        self._clients.append(client)
        return Person(tenant, user or "", made.key.id, made.token.get_secret_value(), client)

    async def close(self) -> None:
        """Closes the clients."""
        for client in self._clients:
            await client.aclose()
