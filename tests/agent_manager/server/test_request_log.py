"""Each request has one id, in its header, in its errors and in what is logged for it, and one line at its end."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from io import StringIO
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from support.serving import Served, served
from support.waiting import until_async

from agent_manager.logs import JsonFormatter, request_id
from agent_manager.server.request_log import RequestLog
from eventstore import EventStore, Settings
from eventstore.concurrency import cancel_and_wait

pytestmark = pytest.mark.shared_database


class Logged(StringIO):
    """The log of requests, as JSON."""

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the records of an event."""
        return [line for line in map(json.loads, self.getvalue().splitlines()) if line.get("event") == name]


@pytest.fixture
def logged() -> Iterator[Logged]:
    stream, root = Logged(), logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    levels = {name: logging.getLogger(name).level for name in ("agent_manager", "eventstore")}
    root.addHandler(handler)
    for name in levels:
        logging.getLogger(name).setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
async def here(store: EventStore) -> AsyncIterator[Served]:
    async with served(store) as running:
        yield running


async def test_the_id_is_in_the_header_the_errors_and_the_log(here: Served, logged: Logged) -> None:
    given = {"X-Request-ID": "7f.From_the-proxy"}
    refused = await here.client.get("/v1/conversations/absent", headers=given)
    assert refused.headers["X-Request-ID"] == refused.json()["request_id"] == "7f.From_the-proxy"
    rpc = await here.client.post("/message/list", json={"params": 5}, headers=given)
    assert rpc.json()["error"]["data"]["request_id"] == "7f.From_the-proxy"
    assert [line["request_id"] for line in logged.events("request")] == ["7f.From_the-proxy"] * 2


async def test_an_id_that_is_not_a_short_token_is_replaced(here: Served) -> None:
    for unsafe in (b"", b"a b", b"a" * 65, b'a"b', b"{}", "é".encode()):
        answer = await here.client.get("/v1/nothing", headers={b"X-Request-ID": unsafe})
        assert re.fullmatch("[0-9a-f]{32}", answer.json()["request_id"])
        assert answer.headers["X-Request-ID"] == answer.json()["request_id"]


async def test_a_rejection_before_any_route_has_an_id_and_a_line(here: Served, logged: Logged) -> None:
    foreign = await here.client.post("/v1/conversations", json={}, headers={"Origin": "https://other.example"})
    assert foreign.json()["request_id"] == foreign.headers["X-Request-ID"]
    [line] = logged.events("request")
    assert (line["route"], line["status"], line["method"]) == ("unmatched", 403, "POST")


async def test_the_route_is_named_by_its_template(here: Served, logged: Logged) -> None:
    await here.begin(id="a/secret")
    await here.client.get("/v1/conversations/a%2Fsecret/messages")
    await here.client.post("/message/list", json={"params": "a/secret"})
    routes = [line["route"] for line in logged.events("request")]
    assert routes == ["/v1/conversations", "/v1/conversations/{conversation}/messages", "/message/list"]
    assert "secret" not in logged.getvalue()


async def test_a_stream_is_logged_at_its_end_with_its_size(here: Served, logged: Logged) -> None:
    await here.begin()
    async with here.client.stream("GET", "/v1/log/stream?after=0") as stream:
        size = len(await anext(stream.aiter_raw()))
        assert [line["route"] for line in logged.events("request")] == ["/v1/conversations"]

    async def has_ended() -> bool:
        return len(logged.events("request")) == 2

    await until_async(has_ended, "the end of the stream is logged")
    line = logged.events("request")[-1]
    assert (line["route"], line["status"], line["tenant"]) == ("/v1/log/stream", 200, here.store.tenant)
    assert line["bytes"] >= size > 0


async def test_what_serves_all_requests_is_not_logged_under_the_first_one(settings: Settings, logged: Logged) -> None:
    """The first caller that waits for events begins to listen, for all that follow; here it cannot."""
    nowhere = settings.model_copy(update={"listen_url": SecretStr("postgresql://x@127.0.0.1:1/nothing")})
    token = request_id.set("the first one")
    async with EventStore(nowhere) as store:
        waiting = asyncio.create_task(store.wait(0))
        request_id.reset(token)

        async def is_logged() -> bool:
            return bool(logged.events("listening_failed"))

        await until_async(is_logged, "the failure is logged")
        await cancel_and_wait([waiting])
    assert not any("request_id" in line for line in logged.events("listening_failed"))


async def test_an_unforeseen_error_is_logged_with_its_type_and_place_only(logged: Logged) -> None:
    async def fails(*_: Any) -> None:
        raise LookupError("secret")

    transport = httpx.ASGITransport(RequestLog(fails, lambda _: ""), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        await client.get("/secret?secret=secret")
    [error], [line] = logged.events("internal_error"), logged.events("request")
    assert error["error"] == "LookupError"
    assert error["stack"][-1].endswith("fails")
    assert error["request_id"] == line["request_id"]
    assert (line["status"], line["level"]) == (500, "warning")
    assert "secret" not in logged.getvalue()
