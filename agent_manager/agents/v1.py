"""a2a-sdk 1.x: its client, which talks to agents of 0.3 too. Updates are JSON of its protobuf messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from agent_manager.a2a import Json, message_in_version
from agent_manager.agents.a2a_client import PROTOCOLS, sdk_module
from agent_manager.agents.errors import AgentUnsupported

if TYPE_CHECKING:
    import httpx


class Client:
    """See :class:`~agent_manager.agents.a2a_client.SdkClient`."""

    def __init__(self, card: Json, http: httpx.AsyncClient) -> None:
        self._types = sdk_module("a2a.types")
        self._json_format = sdk_module("google.protobuf.json_format")
        parse = sdk_module("a2a.client.card_resolver").parse_agent_card
        try:
            self._card = parse(deepcopy(card))
        except (self._json_format.ParseError, ValueError) as error:
            raise AgentUnsupported(f"the card of {card.get('name') or 'the agent'} cannot be read: {error}") from None
        self._http = http
        self._client(streaming=True)  # or it is refused now

    async def send(self, message: Json, *, streaming: bool) -> AsyncGenerator[Json, None]:
        """Sends a message."""
        request = self._json_format.ParseDict(
            {"message": message_in_version(message, "1.0")},
            self._types.SendMessageRequest(),
            ignore_unknown_fields=True,
        )
        async for update in self._client(streaming).send_message(request):
            yield self._json(update)

    async def task(self, task_id: str) -> Json:
        """A task as it is now."""
        return self._json(await self._client(streaming=False).get_task(self._types.GetTaskRequest(id=task_id)))

    async def resubscribe(self, task_id: str) -> AsyncGenerator[Json, None]:
        """Listen again to the updates of a task."""
        request = self._types.SubscribeToTaskRequest(id=task_id)
        async for update in self._client(streaming=True).subscribe(request):
            yield self._json(update)

    def _client(self, streaming: bool) -> Any:
        module = sdk_module("a2a.client")
        config = module.ClientConfig(
            httpx_client=self._http, streaming=streaming, supported_protocol_bindings=list(PROTOCOLS)
        )
        try:
            return module.ClientFactory(config).create(self._card)
        except ValueError:
            raise AgentUnsupported(
                f"the card of {self._card.name or 'the agent'} offers no {' or '.join(PROTOCOLS)} interface"
            ) from None

    def _json(self, message: Any) -> Json:
        sent: Json = self._json_format.MessageToDict(message)
        return sent
