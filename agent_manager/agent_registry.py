"""The registered agents of a tenant."""

from __future__ import annotations

from math import inf
from time import monotonic
from uuid import UUID

from agent_manager.a2a import RESERVED
from agent_manager.agents.cards import fetch_card
from agent_manager.conversation import Json
from agent_manager.conversation_cache import ConversationCache
from agent_manager.storage import Log
from agent_manager.writer import checked_id
from eventstore import AgentRegistered, AgentUnregistered, NewEvent, conversation_uuid
from eventstore.errors import InputError, NotFound, printable

AGENTS = RESERVED + "agents"
"""The conversation in which agents are registered."""
RECENT_SECONDS = 1.0


def checked_conversation(tenant: str, text: str) -> UUID:
    """The UUID of a conversation that a client may begin.

    Raises:
        InputError: it is one of the manager's own, by its name or by its UUID.
    """
    uuid = conversation_uuid(tenant, checked_id(text))
    if uuid == conversation_uuid(tenant, AGENTS):
        raise InputError(f"conversation {printable(text)!r}: is where agents are registered: choose another id")
    return uuid


class Registry:
    """The agents of one tenant."""

    def __init__(self, log: Log, folds: ConversationCache) -> None:
        self._log = log
        self._folds = folds
        self._id = conversation_uuid(log.tenant, AGENTS)
        self._looked = -inf

    async def register(self, url_or_card: str | Json, *, allow_private: bool = True) -> Json:
        """See :meth:`AsyncManager.register_agent`."""
        url, card = await url_and_card(url_or_card, allow_private=allow_private)
        if (await self._agents()).get(url) == card:
            return card
        await self._log.append(self._id, [NewEvent(AgentRegistered(url=url, card=card), actor="user")])
        self._looked = -inf
        return card

    async def unregister(self, url: str) -> None:
        """See :meth:`AsyncManager.unregister_agent`."""
        found = registered_as(url, await self._agents())
        await self._log.append(self._id, [NewEvent(AgentUnregistered(url=found), actor="user")])
        self._looked = -inf

    async def recent(self) -> list[Json]:
        """The cards, as they were a second ago at most; what was registered here is among them."""
        if monotonic() - self._looked > RECENT_SECONDS:
            self._looked = monotonic()
            return await self.cards()
        fold = self._folds.kept(self._id)
        return [] if fold is None else list(fold.agents.values())

    async def cards(self) -> list[Json]:
        """The cards, in the order in which they were registered first."""
        return list((await self._agents()).values())

    async def _agents(self) -> dict[str, Json]:
        fold = await self._folds.get(self._id)
        return {} if fold is None else fold.agents


async def url_and_card(url_or_card: str | Json, *, allow_private: bool = True) -> tuple[str, Json]:
    """What is registered: the URL as given, and the card that stands there; or a card, and the URL that it names.

    Raises:
        InputError: the card names no URL.
        AgentUnreachable: its card could not be had.
    """
    if isinstance(url_or_card, str):
        return url_or_card, await fetch_card(url_or_card, allow_private=allow_private)
    if not isinstance(url_or_card, dict):
        raise InputError(f"an agent is registered by a URL or a card as a dict, not by a {type(url_or_card).__name__}")
    url = url_of(url_or_card)
    if url is None:
        raise InputError("the card names no url, nor a url in supportedInterfaces: register the agent by its URL")
    return url, url_or_card


def url_of(card: Json) -> str | None:
    """Where a card says that its agent is: ``url`` in A2A 0.3, its first interface in 1.x."""
    interfaces = card.get("supportedInterfaces")
    places = [card, *(interfaces if isinstance(interfaces, list) else [])]
    urls = [place.get("url") for place in places if isinstance(place, dict)]
    return next((url for url in urls if isinstance(url, str) and url), None)


def registered_as(url: str, agents: dict[str, Json]) -> str:
    """The URL under which an agent was registered, by that or by the one its card names.

    Raises:
        NotFound: there is none.
        InputError: it is no text.
    """
    if not isinstance(url, str):
        raise InputError(f"an agent's URL is a {type(url).__name__}: give a text")
    for registered, card in agents.items():
        if url.rstrip("/") in (registered.rstrip("/"), (url_of(card) or "").rstrip("/")):
            return registered
    raise NotFound(f"no agent is registered under {printable(url)!r}")
