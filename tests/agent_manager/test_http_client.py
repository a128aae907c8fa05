"""Documents of other servers are fetched within bounds, and only from addresses that are allowed."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from hypothesis import given
from hypothesis import strategies as st
from support.a2a_server import serving

from agent_manager.agents.cards import fetch_card
from agent_manager.audit.publish import PublishFailed, fetch_published
from agent_manager.errors import AgentUnreachable, InvalidAgentCard, InvalidUpdate
from agent_manager.http_client import MAX_NESTING, PrivateAddress, ResponseTooLarge, is_global, load_json, open_client

pytestmark = pytest.mark.any_server

LIMIT = 1024 * 1024
CARD = json.dumps({"name": "n", "url": "http://n"}).encode()


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


BODIES = {
    "gzip": gzip.compress(CARD),
    "x-gzip": gzip.compress(CARD),
    "deflate": zlib.compress(CARD),
    "Deflate": raw_deflate(CARD),
    "gzip, gzip": gzip.compress(gzip.compress(CARD)),
    "deflate, gzip": gzip.compress(zlib.compress(CARD)),
    "identity": CARD,
}
BOMB = gzip.compress(gzip.compress(bytes(256 * LIMIT)))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = FastAPI()

    @app.get("/encoded/{number}.json")
    async def encoded(number: int) -> Response:
        name = list(BODIES)[number]
        return Response(BODIES[name], headers={"Content-Encoding": name})

    @app.get("/bomb.json")
    async def bomb() -> Response:
        return Response(BOMB, headers={"Content-Encoding": "gzip, gzip"})

    @app.get("/thrice.json")
    async def thrice() -> Response:
        return Response(gzip.compress(BODIES["gzip, gzip"]), headers={"Content-Encoding": "gzip, gzip, gzip"})

    @app.get("/lies.json")
    async def lies() -> Response:
        return Response(CARD, headers={"Content-Encoding": "gzip"})

    @app.get("/deep.json")
    async def deep() -> Response:
        return Response(b'{"name": "n", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")

    @app.get("/moved.json")
    async def moved(request: Request) -> Response:
        return RedirectResponse(str(request.query_params["to"]))

    with serving(app) as url:
        yield url


@pytest.mark.parametrize("number", range(len(BODIES)), ids=list(BODIES))
async def test_a_card_may_be_compressed(url: str, number: int) -> None:
    assert await fetch_card(f"{url}/encoded/{number}.json") == json.loads(CARD)


async def test_a_checkpoint_that_grows_is_not_decoded_to_its_end(url: str) -> None:
    with pytest.raises(PublishFailed, match="ResponseTooLarge"):
        await fetch_published(f"{url}/bomb.json")


async def test_a_body_that_grows_is_not_decoded_to_its_end(url: str) -> None:
    tracemalloc.start()
    try:
        async with open_client(limit=LIMIT) as http:
            with pytest.raises(ResponseTooLarge, match="longer than 1,048,576 bytes"):
                await http.get(f"{url}/bomb.json")
        with pytest.raises(InvalidAgentCard, match="longer than"):
            await fetch_card(f"{url}/bomb.json")
        assert tracemalloc.get_traced_memory()[1] < 8 * LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("what", "why"), [("thrice", "not supported"), ("lies", "as Content-Encoding says")])
async def test_other_encodings_are_refused(url: str, what: str, why: str) -> None:
    with pytest.raises(InvalidUpdate, match=why):
        await fetch_card(f"{url}/{what}.json")


async def test_a_card_is_not_nested_deeply(url: str) -> None:
    with pytest.raises(InvalidAgentCard, match="levels deep"):
        await fetch_card(f"{url}/deep.json")


@given(st.integers(0, MAX_NESTING + 3), st.booleans())
def test_nesting_has_a_limit(depth: int, in_objects: bool) -> None:
    opens, closes = ('{"a":', "}") if in_objects else ("[1,", "]")
    text = opens * depth + "0" + closes * depth
    if depth <= MAX_NESTING:
        assert load_json(text) == json.loads(text)
    else:
        with pytest.raises(ValueError, match="levels deep"):
            load_json(text)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::127.0.0.1",
    ],
)  # fmt: skip
def test_what_is_not_of_the_public_internet(address: str) -> None:
    assert not is_global(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_what_is_of_the_public_internet(address: str) -> None:
    assert is_global(address)


async def test_nothing_is_fetched_from_a_private_address(url: str) -> None:
    port = url.rpartition(":")[2]
    hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0", "[::1]"]
    for host in hosts:
        with pytest.raises(AgentUnreachable, match=r"EVENTSTORE_AGENT_ALLOW_PRIVATE|resolved"):
            await fetch_card(f"http://{host}:{port}/encoded/0.json", allow_private=False)
    assert await fetch_card(f"{url}/encoded/0.json", allow_private=True)


def resolving(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> list[str]:
    """Have the loop resolve these names; the list gets those that were asked for."""
    asked: list[str] = []

    async def getaddrinfo(self: Any, host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port)) for found in names.get(host, [host])]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


async def test_a_redirect_is_checked_and_the_configured_host_is_trusted(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = url.rpartition(":")[2]
    asked = resolving(monkeypatch, {"agent.test": ["127.0.0.1"], "inner.test": ["127.0.0.1"]})
    async with open_client(limit=LIMIT, allow_private=False, trusted_host="agent.test", follow_redirects=True) as http:
        answer = await http.get(f"http://agent.test:{port}/encoded/0.json")
        assert answer.json() == json.loads(CARD)
        assert asked[0] == "agent.test"
        assert asked.count("agent.test") == 1  # what was checked is what was connected to
        with pytest.raises(PrivateAddress):
            await http.get(
                f"http://agent.test:{port}/moved.json", params={"to": f"http://inner.test:{port}/encoded/0.json"}
            )


async def test_one_private_address_among_others_is_enough(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {"mixed.test": ["8.8.8.8", "127.0.0.1"]})
    async with open_client(limit=LIMIT, allow_private=False) as http:
        with pytest.raises(PrivateAddress):
            await http.get(f"http://mixed.test:{url.rpartition(':')[2]}/encoded/0.json")


async def test_the_host_keeps_its_name_when_its_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()

    @app.get("/")
    async def host(request: Request) -> str:
        return request.headers["host"]

    with serving(app) as url:
        port = url.rpartition(":")[2]
        resolving(monkeypatch, {"agent.test": ["127.0.0.1"]})
        async with open_client(limit=LIMIT, allow_private=False, trusted_host="agent.test") as http:
            response: httpx.Response = await http.get(f"http://agent.test:{port}/")
            assert response.json() == f"agent.test:{port}"
