"""The registered agents of a tenant."""

from __future__ import annotations

from math import inf
from time import monotonic
from uuid import UUID

from pydantic_core import to_json

from agent_manager.a2a import RESERVED, Json
from agent_manager.agents.cards import fetch_card
from agent_manager.agents.credentials import AgentCredentials
from agent_manager.conversation_cache import ConversationFoldCache
from agent_manager.storage import Log
from agent_manager.writer import checked_id
from eventstore import AgentRegistered, AgentUnregistered, NewEvent, conversation_uuid
from eventstore.administration import ADMINISTRATION
from eventstore.errors import InputError, NotFound, printable

AGENTS = RESERVED + "agents"
"""The conversation that contains the registrations."""
MAX_CARDS_BYTES = 8 * 1024 * 1024
"""Size of all cards of a tenant as JSON, :data:`_REGISTRATION_BYTES` more for each: a list of agents has them all."""
_REGISTRATION_BYTES = 1024
RECENT_SECONDS = 1.0


class AgentRegistry:
    """The registered agents of one tenant."""

    def __init__(self, log: Log, cache: ConversationFoldCache, credentials: AgentCredentials | None = None) -> None:
        self._log = log
        self._credentials = credentials
        self._cache = cache
        self._id = conversation_uuid(log.tenant, AGENTS)
        self._read_at = -inf

    async def register(self, url_or_card: str | Json, *, allow_private: bool) -> Json:
        """See :meth:`agent_manager.manager.Manager.register_agent`."""
        if isinstance(url_or_card, str):
            url = url_or_card
            card = await fetch_card(url, allow_private=allow_private, credentials=self._credentials)
        elif isinstance(url_or_card, dict):
            card = url_or_card
            if not (url := url_of(card) or ""):
                raise InputError("the card has no url, nor a url in supportedInterfaces: register the agent by its URL")
        else:
            kind = type(url_or_card).__name__
            raise InputError(f"an agent is registered by a URL or a card as a dict, not by a {kind}")
        agents = await self._agents()
        if agents.get(url) != card:
            size = sum(_REGISTRATION_BYTES + len(to_json(each)) for each in (agents | {url: card}).values())
            if size > MAX_CARDS_BYTES:
                raise InputError(
                    f"agent {printable(url)!r}: the cards of the registered agents would take {size:,} bytes, "
                    f"the limit is {MAX_CARDS_BYTES:,}: unregister others first"
                )
            await self._append(AgentRegistered(url=url, card=card))
        return card

    async def unregister(self, url: str) -> None:
        """Remove a registration by its URL, or by the URL that its card contains. Raises NotFound."""
        if not isinstance(url, str):
            raise InputError(f"an agent's URL is a {type(url).__name__}: give a text")
        for registered, card in (await self._agents()).items():
            if url.rstrip("/") in (registered.rstrip("/"), (url_of(card) or "").rstrip("/")):
                await self._append(AgentUnregistered(url=registered))
                return
        raise NotFound(f"no agent is registered under {printable(url)!r}: the list of agents shows their URLs")

    async def cards(self) -> list[Json]:
        """Return the cards, in the order in which they were first registered."""
        return list((await self._agents()).values())

    async def recent_cards(self) -> list[Json]:
        """Return the cards as of at most a second ago, including all that were registered through this process."""
        if monotonic() - self._read_at > RECENT_SECONDS:
            self._read_at = monotonic()
            return await self.cards()
        fold = self._cache.kept(self._id)
        return [] if fold is None else list(fold.agents.values())

    async def _agents(self) -> dict[str, Json]:
        fold = await self._cache.get(self._id)
        return {} if fold is None else fold.agents

    async def _append(self, event: AgentRegistered | AgentUnregistered) -> None:
        await self._log.append(self._id, [NewEvent(event, actor="user")])
        self._read_at = -inf


def checked_conversation(tenant: str, text: str) -> UUID:
    """Return the UUID of a conversation if a client may begin it.

    Raises:
        InputError: it is reserved, by its id or by its UUID.
    """
    uuid = conversation_uuid(tenant, checked_id(text))
    if uuid in (conversation_uuid(tenant, AGENTS), ADMINISTRATION):
        raise InputError(f"conversation {printable(text)!r}: the id is reserved: choose another")
    return uuid


def url_of(card: Json) -> str | None:
    """Return the URL in a card: ``url`` in A2A 0.3, that of the first interface in 1.x."""
    interfaces = card.get("supportedInterfaces")
    for each in (card, *(interfaces if isinstance(interfaces, list) else [])):
        if isinstance(each, dict) and isinstance(url := each.get("url"), str) and url:
            return url
    return None
