"""Agent cards: fetched from where agents of 0.3 and 1.x put them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent_manager.a2a import Json
from agent_manager.agents.a2a_client import translated
from agent_manager.agents.errors import AgentError, AgentRefused, AgentStalled, AgentUnreachable, InvalidUpdate
from agent_manager.agents.updates import normalize
from eventstore.errors import InputError, SettingsError
from eventstore.urls import check_url, show_name, show_url

if TYPE_CHECKING:  # imported when it is used: it takes about as long as all the rest
    import httpx

PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""Below an agent's URL, newest first."""

MAX_BYTES = 1024 * 1024
"""Of a card."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Of all that an agent sends in one response, a stream included."""
CONNECT_SECONDS = 10.0
CARD_SECONDS = 20.0
_HIGHEST_PORT = 65535


class InvalidAgentCard(AgentError):
    """What the agent gave as its card is none."""


class InvalidAgentUrl(InputError):
    """A text that should be an agent's URL is none."""


def agent_url(text: str) -> str:
    """An agent's URL; ``http://`` is added where no scheme stands before it.

    Raises:
        InvalidAgentUrl: it is none.
    """
    import httpx

    url = text.strip()
    url = url if "://" in url else f"http://{url}"
    shown = show_name(text)
    try:
        parsed = httpx.URL(check_url(url, "the agent's URL"))
    except SettingsError as error:
        raise InvalidAgentUrl(f"{shown!r:.200} is not the URL of an agent: {error}") from None
    except httpx.InvalidURL as error:
        raise InvalidAgentUrl(f"{shown!r:.200} is not the URL of an agent: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidAgentUrl(f"{shown!r:.200} is not the URL of an agent: expected http://host:port or https://host")
    if parsed.port is not None and not 0 < parsed.port <= _HIGHEST_PORT:
        raise InvalidAgentUrl(f"{shown!r:.200} is not the URL of an agent: there is no port {parsed.port}")
    return url.rstrip("/")


def http_client(
    refused: list[InvalidUpdate] | None = None, *, allow_private: bool = True, trusted_host: str = ""
) -> httpx.AsyncClient:
    """A client for one conversation with an agent: it belongs to the event loop that runs now.

    It waits for answers as long as it is told from outside, but not for connections. A status that is an error raises
    at once: some versions of a2a-sdk look for events before they look at the status.

    Args:
        refused: for answers to messages, see :func:`~agent_manager.agents.updates.normalize`.
        allow_private, trusted_host: see :func:`~agent_manager.http_client.open_client`.
    """
    import httpx

    from agent_manager.http_client import open_client

    async def refuse_errors(response: httpx.Response) -> None:
        if response.is_error:
            response.raise_for_status()
        if refused is not None:
            normalize(response, refused)

    return open_client(
        limit=MAX_ANSWER_BYTES,
        allow_private=allow_private,
        trusted_host=trusted_host,
        hooks=[refuse_errors],
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        follow_redirects=True,
    )


async def fetch_card(
    url: str, *, seconds: float = CARD_SECONDS, http: httpx.AsyncClient | None = None, allow_private: bool = True
) -> Json:
    """The card of the agent at a URL, as it gave it; with the URL, if it names none.

    Args:
        url: the agent's, or the card's own (it ends in ``.json``).
        seconds: for the whole of it.
        allow_private: fetch it also from an address that is not global, if no client is given.

    Raises:
        InvalidAgentUrl: the URL is none.
        AgentUnreachable: nobody answers there.
        AgentRefused: somebody does, but has no card.
        AgentStalled: it takes too long.
        InvalidAgentCard: what is there is no card.
    """
    base = agent_url(url)
    if http is None:
        async with http_client(allow_private=allow_private) as own:
            return await fetch_card(base, seconds=seconds, http=own)
    places = [base] if base.endswith(".json") else [base + path for path in PATHS]
    try:
        async with asyncio.timeout(seconds) as limit:
            card = await _first(places, http)
    except TimeoutError:
        if not limit.expired():
            raise AgentUnreachable(f"{show_url(base)}: cannot be reached in time") from None
        raise AgentStalled(f"{show_url(base)}: did not give its agent card within {seconds:g} seconds") from None
    if not card.get("url") and not card.get("supportedInterfaces"):
        card["url"] = base
    return card


async def _first(places: list[str], http: httpx.AsyncClient) -> Json:
    refused: AgentRefused | None = None
    for place in places:
        try:
            return await _card(place, http)
        except AgentRefused as error:
            refused = error
    assert refused is not None
    wanted = " or ".join(map(show_url, places))
    raise AgentRefused(f"no agent card at {wanted}: the last answer was the HTTP status {refused.code}", refused.code)


async def _card(place: str, http: httpx.AsyncClient) -> Json:
    body = b""
    from agent_manager.http_client import load_json

    shown = show_url(place)
    with translated(shown):
        async with http.stream("GET", place, headers={"Accept": "application/json"}) as response:
            response.raise_for_status()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    raise InvalidAgentCard(f"{shown}: the agent card is longer than {MAX_BYTES:,} bytes")
    try:
        card = load_json(body)
    except ValueError as error:
        raise InvalidAgentCard(f"{shown}: the agent card is not JSON: {error}") from None
    if not isinstance(card, dict):
        raise InvalidAgentCard(f"{shown}: the agent card is a {type(card).__name__}, expected an object")
    if not isinstance(card.get("name"), str):
        raise InvalidAgentCard(f"{shown}: the agent card names no agent: its name is {card.get('name')!r:.80}")
    return card
