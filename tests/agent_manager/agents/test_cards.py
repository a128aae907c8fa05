"""Agent cards are fetched from the paths of 0.3 and 1.x within the time limit, or an error says why not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from fastapi import FastAPI, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from support.a2a_server import Json, agent_in_thread, serving

from agent_manager.agents.cards import MAX_BYTES, PATHS, agent_url, fetch_card
from agent_manager.errors import (
    AgentLost,
    AgentRefused,
    AgentStalled,
    AgentUnreachable,
    InvalidAgentCard,
    InvalidAgentUrl,
)
from tools.listener import Listener

pytestmark = pytest.mark.any_server


def odd() -> FastAPI:
    """Agents at one path each. Most serve something other than a card."""
    app = FastAPI()
    path = PATHS[0]

    @app.get("/text" + path)
    async def text() -> Response:
        return Response("<html>welcome</html>")

    @app.get("/list" + path)
    async def listed() -> list[int]:
        return [1]

    @app.get("/anonymous" + path)
    async def anonymous() -> Json:
        return {"name": None, "url": "http://a"}

    @app.get("/long" + path)
    async def long() -> Response:
        return Response(b'"' + b"x" * (2 * MAX_BYTES) + b'"')

    @app.get("/slow" + path)
    async def slow() -> Response:
        async def never() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        return StreamingResponse(never())

    @app.get("/broken" + path)
    async def broken() -> Response:
        return Response(status_code=500)

    @app.get("/moved" + path)
    async def moved() -> Response:
        return RedirectResponse("/nameless" + path)

    @app.get("/nameless" + path)
    async def nameless() -> Json:
        return {"name": "n"}

    return app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(odd()) as url:
        yield url


@pytest.mark.parametrize("path", PATHS)
async def test_a_card_is_found_at_the_path_of_either_version(path: str) -> None:
    with agent_in_thread("0.3", streams=True, card_path=path) as agent:
        assert await fetch_card(agent.url) == agent.card
        assert await fetch_card(agent.url + "/") == agent.card
        assert await fetch_card(agent.url + path) == agent.card
        assert await fetch_card(agent.url.removeprefix("http://")) == agent.card


async def test_a_card_without_a_url_gets_the_one_that_serves_it(url: str) -> None:
    assert await fetch_card(f"{url}/nameless") == {"name": "n", "url": f"{url}/nameless"}
    assert (await fetch_card(f"{url}/moved"))["name"] == "n"


@pytest.mark.parametrize(
    ("place", "kind", "words"),
    [
        ("text", InvalidAgentCard, "is not JSON"),
        ("list", InvalidAgentCard, "is a list, expected an object"),
        ("anonymous", InvalidAgentCard, "its name is None"),
        ("long", InvalidAgentCard, "longer than 1,048,576 bytes"),
        ("broken", AgentRefused, "status 404"),
        ("nowhere", AgentRefused, "agent-card.json or http://.*agent.json: the last answer was the HTTP status 404"),
    ],
)
async def test_a_response_without_a_card_is_rejected(url: str, place: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        await fetch_card(f"{url}/{place}")


async def test_fetching_a_card_ends_after_the_time_limit(url: str) -> None:
    with pytest.raises(AgentStalled, match=r"within 0\.3 seconds"):
        await fetch_card(f"{url}/slow", seconds=0.3)


async def test_a_closed_port_is_unreachable_and_a_server_without_http_is_lost() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(1)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(AgentUnreachable):
            await fetch_card(f"http://127.0.0.1:{taken.getsockname()[1]}")
    async with Listener(hang_up) as server:
        with pytest.raises(AgentLost):
            await fetch_card(f"http://127.0.0.1:{server.port}")


@pytest.mark.parametrize(
    "text", ["", "http://", "ftp://host", "http://host:port", "http://host:0", "host:99999", "http://[::1"]
)
def test_an_invalid_url_is_rejected(text: str) -> None:
    with pytest.raises(InvalidAgentUrl, match="is not the URL of an agent"):
        agent_url(text)


def test_a_url_needs_no_scheme() -> None:
    assert agent_url(" localhost:10000/ ") == "http://localhost:10000"
    assert agent_url("https://host/agent") == "https://host/agent"
