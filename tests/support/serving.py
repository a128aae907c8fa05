"""A real HTTP server in the test's own event loop, with workers, on a free port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from agent_manager.agents.agent import Answer
from agent_manager.factory import AsyncManager
from agent_manager.server.context import ServerContext
from agent_manager.server.serve import listen, serving, url_of
from eventstore import EventStore
from eventstore.concurrency import cancel_and_wait
from projections import Worker


@dataclass(frozen=True)
class Served:
    """A server that runs, and a client of it."""

    url: str
    client: httpx.AsyncClient
    server_context: ServerContext
    store: EventStore

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        return url.host, url.port or 0

    async def begin(self, **members: Any) -> str:
        """Begins a conversation; gives its id."""
        made = await self.client.post("/v1/conversations", json=members)
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    async def say(self, conversation: str, text: str, **members: Any) -> dict[str, Any]:
        """Adds a message of a user."""
        message = {"role": "user", "content": text} | members
        response = await self.client.post(f"/v1/conversations/{conversation}/messages", json=message)
        assert response.status_code == 201, response.text
        return dict(response.json())


@asynccontextmanager
async def served(
    store: EventStore, *, answer: Answer | None = None, works: bool = True, requires_tokens: bool = False
) -> AsyncIterator[Served]:
    """Serves a store.

    Args:
        works: whether a worker keeps the read tables up.
        requires_tokens: whether requests without a token are refused.
    """
    worker = asyncio.create_task(Worker(store).run()) if works else None
    listening = listen("127.0.0.1", 0)
    url = url_of(listening)
    try:
        async with (
            AsyncManager(store, answer=answer, runs_worker=False) as manager,
            serving(store, manager, listening, requires_tokens=requires_tokens) as server_context,
            httpx.AsyncClient(base_url=url, timeout=30, verify=False) as client,
        ):
            yield Served(url, client, server_context, store)
    finally:
        if worker is not None:
            await cancel_and_wait([worker])
