"""a2a-sdk 0.3: its transports, which give each update as it came.

Not its client: that folds the updates into one task by itself and gives up on an agent that speaks of two. The modules
are imported by name, so that types are checked the same whichever version is installed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any

from agent_manager.a2a import Json, message_in_version
from agent_manager.agents.a2a_client import PROTOCOLS, sdk_module
from agent_manager.agents.errors import AgentUnsupported

if TYPE_CHECKING:
    import httpx

_TRANSPORTS = {"JSONRPC": ("jsonrpc", "JsonRpcTransport"), "HTTP+JSON": ("rest", "RestTransport")}


class Client:
    """See :class:`~agent_manager.agents.a2a_client.SdkClient`."""

    def __init__(self, card: Json, http: httpx.AsyncClient) -> None:
        protocol, url = _interface(card)
        module, name = _TRANSPORTS[protocol]
        self._types = sdk_module("a2a.types")
        self._transport = getattr(sdk_module(f"a2a.client.transports.{module}"), name)(http, url=url)

    async def send(self, message: Json, *, streaming: bool) -> AsyncGenerator[Json, None]:
        """Sends a message."""
        types = self._types
        params = types.MessageSendParams(
            message=types.Message.model_validate(message_in_version(message, "0.3")),
            configuration=types.MessageSendConfiguration(blocking=True),
        )
        if not streaming:
            yield _json(await self._transport.send_message(params))
            return
        async for update in self._transport.send_message_streaming(params):
            yield _json(update)

    async def task(self, task_id: str) -> Json:
        """A task as it is now."""
        return _json(await self._transport.get_task(self._types.TaskQueryParams(id=task_id)))

    async def resubscribe(self, task_id: str) -> AsyncGenerator[Json, None]:
        """Listen again to the updates of a task."""
        async for update in self._transport.resubscribe(self._types.TaskIdParams(id=task_id)):
            yield _json(update)


def _json(update: Any) -> Json:
    sent: Json = update.model_dump(mode="json", by_alias=True, exclude_none=True)
    return sent


def _interface(card: Json) -> tuple[str, str]:
    for protocol, url in _interfaces(card):
        if protocol in PROTOCOLS and isinstance(url, str) and url:
            return protocol, url
    newer = " of version 0.3; newer ones take a2a-sdk 1.0 or later" if "supportedInterfaces" in card else ""
    raise AgentUnsupported(
        f"the card of {card.get('name') or 'the agent'} offers no {' or '.join(PROTOCOLS)} interface{newer}"
    )


def _interfaces(card: Json) -> Iterator[tuple[Any, Any]]:
    yield card.get("preferredTransport") or "JSONRPC", card.get("url")
    for entry in card.get("additionalInterfaces") or []:
        if isinstance(entry, dict):
            yield entry.get("transport"), entry.get("url")
    for entry in card.get("supportedInterfaces") or []:
        if isinstance(entry, dict) and str(entry.get("protocolVersion", "")).startswith("0.3"):
            yield entry.get("protocolBinding"), entry.get("url")
