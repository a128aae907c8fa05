"""Agent cards, fetched from the paths that A2A 0.3 and 1.x define."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent_manager.a2a import Json
from agent_manager.agents.a2a_client import agent_errors
from agent_manager.agents.credentials import AgentCredentials
from agent_manager.agents.updates import normalize_response
from agent_manager.errors import (
    AgentRefused,
    AgentStalled,
    AgentUnreachable,
    InvalidAgentCard,
    InvalidAgentUrl,
    InvalidUpdate,
)
from eventstore.errors import SettingsError
from eventstore.urls import check_url, show_name, show_url

if TYPE_CHECKING:  # imported when used: it takes about as long as all the rest
    import httpx

    from agent_manager.agents.access import AgentAccess

PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")
"""Paths of the card below an agent's URL, newest version of A2A first."""
MAX_BYTES = 1024 * 1024
"""Largest card."""
CARD_SECONDS = 20.0
_MAX_PORT = 65535


async def fetch_card(
    url: str,
    *,
    seconds: float = CARD_SECONDS,
    http: httpx.AsyncClient | None = None,
    allow_private: bool = True,
    credentials: AgentCredentials | None = None,
) -> Json:
    """Return the card of the agent at a URL as the agent serves it; with ``url`` added if the card has none.

    Args:
        url: the URL of the agent, or of the card itself (it ends in ``.json``).
        seconds: time limit for the whole call.
        http: the client to use; without one, one is made with the arguments that follow.
        allow_private: fetch it also from an address that is not global.
        credentials: the credentials of agents.

    Raises:
        InvalidAgentUrl: the URL is not valid.
        AgentUnreachable: no server answers there.
        AgentRefused: the server has no card.
        AgentStalled: the time limit expired.
        InvalidAgentCard: the server's answer is not a card.
    """
    base = agent_url(url)
    if http is None:
        from agent_manager.agents.access import AgentAccess

        access = AgentAccess(allow_private, credentials=credentials or AgentCredentials())
        access.add(base)
        async with http_client(access) as client:
            return await fetch_card(base, seconds=seconds, http=client)
    urls = [base] if base.endswith(".json") else [base + path for path in PATHS]
    try:
        async with asyncio.timeout(seconds) as limit:
            card = await _first_card(urls, http)
    except TimeoutError:
        if not limit.expired():
            raise AgentUnreachable(f"{show_url(base)}: cannot be reached in time") from None
        raise AgentStalled(f"{show_url(base)}: did not give its agent card within {seconds:g} seconds") from None
    if not card.get("url") and not card.get("supportedInterfaces"):
        card["url"] = base
    return card


def agent_url(text: str) -> str:
    """Return an agent's URL; ``http://`` is added if the text has no scheme.

    Raises:
        InvalidAgentUrl: the text is not the URL of an agent.
    """
    import httpx

    url = text.strip()
    url = url if "://" in url else f"http://{url}"
    problem = f"{show_name(text)!r:.200} is not the URL of an agent"
    try:
        parsed = httpx.URL(check_url(url, "the agent's URL"))
    except (SettingsError, httpx.InvalidURL) as error:
        raise InvalidAgentUrl(f"{problem}: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidAgentUrl(f"{problem}: expected http://host:port or https://host")
    if parsed.port is not None and not 0 < parsed.port <= _MAX_PORT:
        raise InvalidAgentUrl(f"{problem}: there is no port {parsed.port}")
    return url.rstrip("/")


def http_client(access: AgentAccess, rejected: list[InvalidUpdate] | None = None) -> httpx.AsyncClient:
    """Return a client for one exchange with an agent. It belongs to the running event loop.

    Only connecting has a time limit; answers are limited by the caller. An error status raises at once, because some
    versions of a2a-sdk parse events before they check the status.

    Args:
        rejected: collects invalid updates, see :func:`~agent_manager.agents.updates.normalize_response`; None leaves
            responses as they are.
    """
    import httpx

    from agent_manager.agents.access import CONNECT_SECONDS, MAX_RESPONSE_BYTES, AuthorizingTransport
    from agent_manager.http_client import open_client

    async def check(response: httpx.Response) -> None:
        if response.is_error:
            await response.aread()  # a2a-sdk finds the kind of the error in the body
            response.raise_for_status()
        if rejected is not None:
            normalize_response(response, rejected)

    return open_client(
        limit=MAX_RESPONSE_BYTES,
        allow_private=access.allow_private,
        trusted_host=access.trusted_host,
        transport=AuthorizingTransport(access) if access.credentials else None,
        hooks=[check],
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        follow_redirects=True,
    )


async def _first_card(urls: list[str], http: httpx.AsyncClient) -> Json:
    code: int | None = None
    for url in urls:
        try:
            return await _card(url, http)
        except AgentRefused as error:
            code = error.code
    tried = " or ".join(map(show_url, urls))
    raise AgentRefused(f"no agent card at {tried}: the last answer was the HTTP status {code}", code)


async def _card(url: str, http: httpx.AsyncClient) -> Json:
    from agent_manager.http_client import load_json

    shown = show_url(url)
    body = b""
    with agent_errors(shown):
        async with http.stream("GET", url, headers={"Accept": "application/json"}) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise InvalidAgentCard(f"{shown}: the agent card is longer than {MAX_BYTES:,} bytes")
    try:
        card = load_json(body)
    except ValueError as error:
        raise InvalidAgentCard(f"{shown}: the agent card is not JSON: {error}") from None
    if not isinstance(card, dict):
        raise InvalidAgentCard(f"{shown}: the agent card is a {type(card).__name__}, expected an object")
    if not isinstance(card.get("name"), str):
        raise InvalidAgentCard(f"{shown}: the agent card is not valid: its name is {card.get('name')!r:.80}")
    return card
