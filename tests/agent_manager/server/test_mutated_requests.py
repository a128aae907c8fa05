"""No request is answered with 500, and a stream that cannot begin is rejected before it starts."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.callers import People
from support.endpoints import BODIES, endpoints
from support.examples import examples
from support.ports import free_port
from support.serving import Served, served
from support.tokens import rsa_issuer

from agent_manager.auth import TokenScope
from eventstore import EventStore

pytestmark = pytest.mark.shared_database

HUGE = ("9" * 50, "0" * 20 + "9" * 30, str(2**63), str(2**63 - 1), str(2**31), "-1", "1e400", "NaN", "٣", "0x10", "1_0")
ODD = (
    "", "\0", "%", "%00", "null", "true", "[]", "{}", "'", '"', "a,b", "*", "W/", "é", "\ud7ff",
    "\U0001f600", " ", "\t",
    "2020-01-01T00:00:00Z", "0001-01-01T00:00:00-23:59", "9999-12-31T23:59:59+23:59", "UTC", "Nowhere/City", "x" * 3000,
    "message.added", "user", "updated",
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(HUGE + ODD),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace").decode()),
    st.binary(max_size=20),
)
PARAMETERS = [
    "q", "by", "kind", "role", "actor", "conversation", "since", "until", "language", "limit", "after", "at_least",
    "newest_first", "active", "deleted", "type", "version", "position", "time", "after_version", "status", "zone",
    "expected_version", "url", "token", "user",
]  # fmt: skip
HEADERS = [
    "Last-Event-ID", "If-None-Match", "A2A-Version", "Idempotency-Key", "Content-Type", "Accept", "Accept-Encoding",
    "Range", "Origin", "Sec-Fetch-Site", "Cookie", "Expect", "Authorization", "If-Match", "Content-Encoding",
    "X-HTTP-Method-Override", "Connection", "Upgrade", "TE", "Trailer", "Referer", "User-Agent",
]  # fmt: skip
OPAQUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40)


def cursor(*members: Any) -> str:
    """A cursor of a page with a valid check sum: whatever anybody can make up."""
    body = json.dumps(members).encode()
    return urlsafe_b64encode(blake2b(body, digest_size=6).digest() + body).decode().rstrip("=")


async def exchange(here: Served, head: bytes, body: bytes = b"", *, token: str = "") -> tuple[int, bytes]:
    """Sends a request byte for byte; returns the status and what comes until the answer ends, or begins to stream."""
    reader, writer = await asyncio.open_connection(*here.address)
    credentials = f"Authorization: Bearer {token}\r\n".encode() if token else b""
    writer.write(head + credentials + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    try:
        async with asyncio.timeout(20):
            received = await reader.readuntil(b"\r\n\r\n")
            status = int(received.split()[1])
            if b"text/event-stream" in received:
                return status, received + await reader.readuntil(b"\n\n")
            length = [line for line in received.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            size = int(length[0].partition(b":")[2]) if length else 0
            return status, received + await reader.readexactly(0 if status == 304 else size)
    finally:
        writer.close()


@pytest.fixture
async def begun(here: Served) -> Served:
    """A server with a conversation in which every endpoint finds something."""
    await here.begin(id="trip", name="n")
    appended = await here.say("trip", "a train to Lisbon")
    await here.say("trip", "another train")
    await here.client.get("/v1/search", params={"q": "train", "at_least": appended["position"]})
    return here


@given(data=st.data())
@examples(250)
async def test_no_mutation_of_a_request_causes_a_server_error(begun: Served, data: st.DataObject) -> None:
    endpoint = data.draw(st.sampled_from([each for each in endpoints() if each.path != "/api_key/update"]))
    path = endpoint.path
    for name in ("{conversation}", "{user}", "{file_id}"):
        if name in path:
            value = data.draw(st.one_of(st.just("trip"), VALUES))
            path = path.replace(name, escaped(value) or "x")
    asked = data.draw(st.lists(st.tuples(st.sampled_from(PARAMETERS), VALUES), max_size=4))
    wanted = data.draw(st.sampled_from([[], [("q", "train")]]))
    query = "&".join(f"{name}={escaped(value)}" for name, value in [*wanted, *asked])
    lines = [b"%s %s?%s HTTP/1.1" % (endpoint.method.encode(), path.encode(), query.encode()), b"Host: 127.0.0.1"]
    lines += data.draw(st.sampled_from([[b"Content-Type: application/json"], []]))
    for name in data.draw(st.lists(st.sampled_from(HEADERS), max_size=3)):
        value = data.draw(st.one_of(OPAQUE, st.sampled_from((*HUGE, "x" * 3000, "", "identity", "1.0", "*"))))
        lines.append(name.encode() + b": " + value.strip().encode("latin-1", "replace"))
    sent = json.dumps(BODIES.get((endpoint.method, endpoint.path), {})).encode()
    body = b"" if endpoint.method == "GET" else data.draw(st.one_of(st.just(sent), st.binary(max_size=40), edits(sent)))
    status, answer = await exchange(begun, b"\r\n".join(lines) + b"\r\n", body)
    assert status < 500 or b"NotCaughtUp" in answer or b"AgentUnreachable" in answer, (lines, body, answer)


def edits(sent: bytes) -> st.SearchStrategy[bytes]:
    """Other bytes in place of a few of a body."""
    inserted = st.one_of(st.binary(max_size=8), st.sampled_from([value.encode() for value in (*HUGE, *ODD)]), JSON)
    places = st.integers(0, len(sent))
    return st.tuples(places, places, inserted).map(lambda edit: sent[: min(edit[:2])] + edit[2] + sent[max(edit[:2]) :])


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(ODD)),
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(st.text(max_size=3), children, max_size=3)
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())
"""Values as Python writes them, ``NaN`` and lone surrogates among them."""


def escaped(value: str | bytes) -> str:
    return quote_from_bytes(value, safe="") if isinstance(value, bytes) else quote(value, safe="")


@given(
    kind=st.sampled_from(["messages of a conversation", "messages of all conversations", "x"]),
    order=st.sampled_from(["oldest first", "newest first"]),
    place=st.lists(
        st.one_of(st.integers(), st.sampled_from([2**63, -(2**70), 10**400, None, "x", 1.5, [], {}])), max_size=4
    ),
)
@examples(60)
async def test_a_made_up_cursor_is_rejected_or_starts_elsewhere(
    begun: Served, kind: str, order: str, place: list[Any]
) -> None:
    page = (await begun.client.get("/v1/conversations/trip/messages", params={"limit": 1})).json()["next"]
    filters = json.loads(urlsafe_b64decode(page + "=" * (-len(page) % 4))[6:])[2]
    for path in ("/v1/conversations/trip/messages", "/v1/messages", "/v1/search", "/v1/conversations/trip/events"):
        for after in (cursor(kind, order, filters, *place), page[:-3], page + "AAAA"):
            answer = await begun.client.get(
                path, params={"after": after, "q": "x"} if "search" in path else {"after": after}
            )
            assert answer.status_code in (200, 400), (path, place, answer.text)


@pytest.mark.parametrize("path", ["/v1/log/stream", "/v1/conversations/trip/stream"])
async def test_a_stream_with_invalid_parameters_is_rejected_before_it_starts(begun: Served, path: str) -> None:
    for last_event_id in HUGE:
        if last_event_id not in (str(2**63 - 1), str(2**31)):
            head = (
                f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: ".encode() + last_event_id.encode() + b"\r\n"
            )
            status, answer = await exchange(begun, head)
            assert (status, b"Last-Event-ID" in answer) == (422, True), (last_event_id, answer)
    for asked in ("type=%00", "actor=%00", "type=message.added&type=%00", "after=-1", f"after={2**63}", "after=x"):
        if path == "/v1/log/stream" or "after" in asked:
            status, answer = await exchange(begun, f"GET {path}?{asked} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode())
            assert status == 422, (asked, answer)


async def test_an_unreadable_jwks_causes_503_without_its_location(store: EventStore, settings: Any) -> None:
    jwks = f"http://127.0.0.1:{free_port()}/secret-place/jwks"
    away = settings.model_copy(update={"jwt_jwks": jwks})
    async with EventStore(away) as other, served(other, requires_tokens=True, works=False) as here:
        for path in ("/v1/conversations", "/v1/log/stream", "/message/file/x"):
            answer = await here.client.get(path, headers={"Authorization": f"Bearer {rsa_issuer().token()}"})
            assert (answer.status_code, answer.json()["title"]) == (503, "KeysUnavailable")
            assert answer.headers["retry-after"]
            assert "secret-place" not in answer.text
        rpc = await here.client.post("/conversation/list", headers={"Authorization": f"Bearer {rsa_issuer().token()}"})
        assert (rpc.status_code, "secret-place" in rpc.text) == (503, False)
        people = People(other, here.url)
        ana = await people.person("acme", "ana", *TokenScope)
        assert (await ana.get("/v1/conversations")).status_code == 200, "static keys go on"
        await people.close()
