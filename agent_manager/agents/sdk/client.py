"""What both versions of a2a-sdk's client are used for here, and which of them is installed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Protocol

from agent_manager.agents.errors import AgentUnsupported
from agent_manager.agents.wire import Json

if TYPE_CHECKING:
    import httpx

PROTOCOLS = ("JSONRPC", "HTTP+JSON")
"""The transports that are used, as agent cards call them."""


class SdkClient(Protocol):
    """Talks to one agent."""

    def send(self, message: Json, *, streaming: bool) -> AsyncGenerator[Json, None]:
        """Sends a message in any shape and gives the updates, as JSON on the wire, while they come."""
        ...

    async def task(self, task_id: str) -> Json:
        """A task of the agent's as it is now."""
        ...

    def resubscribe(self, task_id: str) -> AsyncGenerator[Json, None]:
        """Listen again to the updates of a task that the agent is working on, from now on."""
        ...


def open_client(card: Json, http: httpx.AsyncClient) -> SdkClient:
    """A client of the agent that the card describes.

    Raises:
        AgentUnsupported: a2a-sdk is not installed, or it cannot talk to the agent.
    """
    try:
        version = metadata.version("a2a-sdk")
    except metadata.PackageNotFoundError:
        raise AgentUnsupported(
            "talking to a remote agent takes a2a-sdk: pip install 'flowagents-eventstore[a2a]'"
        ) from None
    module = import_module(f"agent_manager.agents.sdk.{'old' if version.startswith('0.') else 'new'}")
    client: SdkClient = module.Client(card, http)
    return client
