"""Whoever asks for too much, too fast or too slowly gets an answer that says so, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median
from string import ascii_lowercase
from time import perf_counter
from typing import Any

import httpx
import psycopg
import pytest
from support.callers import People, Person
from support.eventsource import EventSource
from support.scrapes import rejections
from support.serving import Served, served
from support.waiting import until_async

from agent_manager.server import protocol
from agent_manager.server.limits import SharedLimit, WorkTurns
from agent_manager.server.problems import Busy, TooMany
from agent_manager.server.tenant_contexts import TenantContext
from eventstore import ApplicationEvent, EventStore, Settings

pytestmark = pytest.mark.shared_database


@asynccontextmanager
async def limited(settings: Settings, *, requires_tokens: bool = False, **limits: Any) -> AsyncIterator[Served]:
    """A server with other limits."""
    async with (
        EventStore(settings.model_copy(update=limits)) as store,
        served(store, works=False, requires_tokens=requires_tokens) as here,
    ):
        yield here


@asynccontextmanager
async def connected(here: Served, text: str = "") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which something was sent."""
    reader, writer = await asyncio.open_connection(*here.address)
    writer.write(text.encode())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


HALF = (
    "POST /v1/conversations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "Content-Length: 100\r\n{}\r\n{{"
)
"""A request whose body does not come."""


def is_rejected(answer: httpx.Response, status: int, title: str) -> None:
    """Fail unless an answer is the rejection, as a problem document."""
    assert (answer.status_code, answer.json()["title"]) == (status, title), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_key_above_its_rate_gets_a_retry_after(settings: Settings) -> None:
    async with limited(settings, rate_per_second=0.01, requires_tokens=True) as here:
        people = People(here.store, here.url)
        ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
        assert (await ana.get("/v1/conversations")).status_code == 200
        refused = await ana.get("/v1/conversations")
        is_rejected(refused, 429, "Too Many Requests")
        assert 90 <= int(refused.headers["retry-after"]) <= 100
        listed = await ana.post("/conversation/list")
        assert (listed.status_code, listed.json()["error"]["data"]["type"]) == (429, "Too Many Requests")
        assert (await bob.get("/v1/conversations")).status_code == 200
        assert await rejections(here.server_context.metrics, "requests_per_second") == 2
        await people.close()


async def test_requests_above_the_concurrency_limit_are_rejected(settings: Settings) -> None:
    async with limited(settings, max_requests=1) as here, connected(here, HALF.format("")):

        async def is_taken() -> bool:
            return here.server_context.limits.requests.taken == 1

        await until_async(is_taken, "the request is under way")
        busy = await here.client.get("/v1/conversations")
        is_rejected(busy, 503, "Service Unavailable")
        assert busy.headers["retry-after"] == "1"
        assert (await here.client.get("/health")).status_code == 200
        assert await rejections(here.server_context.metrics, "concurrent_requests") == 1


async def test_neither_a_key_nor_a_tenant_uses_up_the_concurrency_limit(settings: Settings) -> None:
    async with limited(settings, max_requests=4, requires_tokens=True) as here, AsyncExitStack() as stack:
        people = People(here.store, here.url)
        ana, bob, cid = [await people.person("acme", name) for name in ("ana", "bob", "cid")]
        eve = await people.person("globex", "eve")

        async def hold(token: str, number: int) -> None:
            await stack.enter_async_context(connected(here, HALF.format(f"Authorization: Bearer {token}\r\n")))

            async def is_taken() -> bool:
                return here.server_context.limits.requests.taken == number

            await until_async(is_taken, "the request is under way")

        await hold(ana.token, 1)
        is_rejected(await ana.get("/v1/conversations"), 429, "Too Many Requests")
        assert (await bob.get("/v1/conversations")).status_code == 200
        await hold(bob.token, 2)
        is_rejected(await cid.get("/v1/conversations"), 429, "Too Many Requests")
        assert (await eve.get("/v1/conversations")).status_code == 200
        await people.close()


async def test_events_and_bytes_are_counted_by_tenant(settings: Settings) -> None:
    async with limited(settings, events_per_second=2, bytes_per_second=100_000, requires_tokens=True) as here:
        people = People(here.store, here.url)
        tenants = {"ana": "acme", "bob": "acme", "cid": "globex", "dan": "globex", "eve": "initech"}
        ana, bob, cid, dan, eve = [await people.person(tenant, name) for name, tenant in tenants.items()]
        made = {person: (await person.post("/v1/conversations", {})).json()["id"] for person in (ana, cid, eve)}

        async def append(person: Person, number: int, size: int = 1) -> httpx.Response:
            events = [{"event_type": "note", "content": "x" * size}] * number
            return await person.post(f"/v1/conversations/{made[person]}/events", {"events": events})

        assert (await append(ana, 1000)).status_code == 201  # what is left may be overdrawn, once
        refused = await append(ana, 1)
        is_rejected(refused, 429, "Too Many Requests")
        assert int(refused.headers["retry-after"]) > 100
        is_rejected(await bob.post("/v1/conversations", {}), 429, "Too Many Requests")
        assert (await append(cid, 1, 900_000)).status_code == 201
        for person in (cid, dan):
            is_rejected(await person.get("/v1/conversations"), 429, "Too Many Requests")
        assert (await append(eve, 1)).status_code == 201
        await people.close()


async def test_incomplete_heads_of_one_address_do_not_block_others(settings: Settings) -> None:
    async with limited(settings, max_connections=20) as here, AsyncExitStack() as stack:
        (host, port), opened = here.address, list[asyncio.StreamWriter]()

        async def from_address(address: str, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(host, port, local_addr=(address, 0))
            stack.callback(writer.transport.abort)
            writer.write(text.encode())
            opened.append(writer)
            return reader, writer

        whole = "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        trip = await here.begin()
        source = await EventSource(here.address, f"/v1/conversations/{trip}/stream").open()
        for _ in range(60):
            await from_address("127.0.0.1", whole[:20])
        for _ in range(5):
            reader, _ = await from_address("127.0.0.2", whole)
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
        appended = await here.store.append(trip, [ApplicationEvent("note", "still there")])
        assert (await source.next()).id == appended.position, "what is being answered is not displaced"
        source.cut()
        assert await rejections(here.server_context.metrics, "connections") >= 40


async def test_a_body_that_does_not_arrive_is_timed_out(settings: Settings) -> None:
    async with limited(settings, body_seconds=0.3) as here:
        async with connected(here, HALF.format("")) as (reader, writer):
            # Not until the end of the connection: it may be reset, as the server does not read what comes after the
            # answer.
            reading = asyncio.create_task(reader.readuntil(b"EVENTSTORE_BODY_SECONDS"))
            while not reading.done():  # what trickles in does not lengthen the time
                writer.write(b" ")
                await asyncio.wait([reading], timeout=0.05)
        assert reading.result().startswith(b"HTTP/1.1 408 ")
        assert await rejections(here.server_context.metrics, "slow_body") == 1

        async def has_ended() -> bool:
            return here.server_context.limits.requests.taken == 0

        await until_async(has_ended, "the request has ended")
        assert (await here.client.get("/v1/conversations")).json()["items"] == []


@pytest.mark.parametrize("sent", ["", "GET / HTTP/1.1\r\nHost: 127", "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
@pytest.mark.slow
async def test_a_connection_without_a_complete_head_is_closed(settings: Settings, sent: str) -> None:
    """This holds after a first request too: bytes that begin another do not keep the connection."""
    async with limited(settings, body_seconds=0.3) as here, connected(here, sent) as (reader, writer):
        if sent.endswith("\r\n\r\n"):
            await reader.readuntil(b'"}')
            writer.write(b"G")
        received = await asyncio.wait_for(reader.read(), 10)
        assert received.startswith(b"HTTP/1.1 408 ")
        assert await rejections(here.server_context.metrics, "slow_head") == 1


@pytest.mark.parametrize("sent", ["no HTTP\r\n\r\n", "GET /v1/search?q=" + "x" * 70_000])
async def test_invalid_http_and_a_head_that_is_too_long_are_a_bad_request(here: Served, sent: str) -> None:
    async with connected(here, sent) as (reader, _):
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["status"] == 400
    assert await rejections(here.server_context.metrics, "no_http") == 1


async def test_a_request_that_takes_long_is_not_closed_as_a_slow_head(settings: Settings) -> None:
    async with limited(settings, body_seconds=0.2) as here:
        trip = await here.begin()
        source = await EventSource(here.address, f"/v1/conversations/{trip}/stream").open()
        with pytest.raises(TimeoutError):  # longer than a head may take
            await asyncio.wait_for(source.next(), 0.5)
        appended = await here.say(trip, "still there")
        assert (await source.next()).id == appended["position"]
        source.cut()


@pytest.mark.slow
async def test_above_the_limit_the_oldest_idle_connection_is_closed_with_a_response(
    settings: Settings,
) -> None:
    request = "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with limited(settings, max_connections=3) as here, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connected(here)) for _ in range(3)]
        async with connected(here, request) as (reader, _):
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
            ended = await asyncio.wait_for(silent[0][0].read(), 10)
        assert ended.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in ended

        answering = []
        for number in range(3):  # one by one: a connection whose request was not read yet may be displaced
            answering.append(await stack.enter_async_context(connected(here, HALF.format(""))))

            async def is_taken(taken: int = number + 1) -> bool:
                return here.server_context.limits.requests.taken == taken

            await until_async(is_taken, "the connection is being answered")
        async with connected(here, request) as (reader, _):
            assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 503 ")
        answering[0][1].transport.abort()

        async def is_let_in() -> bool:
            async with connected(here, request) as (reader, _):
                return b" 200 " in await asyncio.wait_for(reader.readline(), 10)

        await until_async(is_let_in, "the place is free again")


async def test_open_streams_are_limited_by_key_tenant_and_server(settings: Settings) -> None:
    async with limited(settings, max_streams=4, requires_tokens=True) as here:
        people = People(here.store, here.url)
        tenants = {"ana": "acme", "bob": "acme", "cid": "globex", "dan": "globex", "eve": "initech", "fay": "acme"}
        persons = [await people.person(tenant, name) for name, tenant in tenants.items()]
        sources = []
        for person in persons[:4]:
            sources.append(await EventSource(here.address, "/v1/log/stream", token=person.token).open())
            assert sources[-1].status == 200
            if len(sources) == 1:
                refused = await person.get("/v1/log/stream")
                is_rejected(refused, 429, "Too Many Requests")
                assert refused.headers["retry-after"] == "1"
        is_rejected(await persons[4].get("/v1/log/stream"), 503, "Service Unavailable")
        is_rejected(await persons[5].get("/v1/log/stream"), 429, "Too Many Requests")
        assert here.server_context.limits.requests.taken == 0, "a stream is no request under way"
        for source in sources:
            source.cut()

        async def is_free() -> bool:
            return here.server_context.limits.streams.taken == 0

        await until_async(is_free, "the places are given back")
        again = await EventSource(here.address, "/v1/log/stream", token=persons[4].token).open()
        assert again.status == 200
        again.cut()
        assert await rejections(here.server_context.metrics, "open_streams") == 3
        await people.close()


@pytest.mark.slow
async def test_a_client_that_reads_nothing_is_disconnected(here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "WRITE_TIMEOUT_SECONDS", 0.3)
    trip = await here.begin()
    for _ in range(20):
        await here.store.append(trip, [ApplicationEvent("big", "x" * 900_000)])
    async with connected(here, f"GET /v1/conversations/{trip}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"):

        async def is_let_go() -> bool:
            return await rejections(here.server_context.metrics, "slow_reader") == 1

        await until_async(is_let_go, "the server has given up")
    assert (await here.client.get("/health")).status_code == 200


async def test_a_statement_that_takes_too_long_is_cancelled(settings: Settings, superuser_url: str) -> None:
    async with limited(settings, statement_seconds=0.2) as here:
        trip = await here.begin()
        with psycopg.connect(superuser_url) as blocking:
            blocking.execute("LOCK TABLE conversations")
            late = await here.client.get("/v1/conversations")
            is_rejected(late, 503, "StatementTimeout")
            assert late.headers["retry-after"] == "5"
            assert "EVENTSTORE_STATEMENT_SECONDS" in late.json()["detail"]
        assert (await here.client.get("/v1/conversations")).json()["items"][0]["id"] == trip


async def test_a_shorter_statement_timeout_of_postgresql_is_kept(settings: Settings, superuser_url: str) -> None:
    login = psycopg.conninfo.conninfo_to_dict(settings.server_url() or "")["user"]
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        database = superuser.info.dbname
        superuser.execute(f'ALTER ROLE "{login}" IN DATABASE "{database}" SET statement_timeout = 1234')
    for seconds, shown in ((30.0, "1234ms"), (0.5, "500ms")):
        async with EventStore(settings.model_copy(update={"statement_seconds": seconds})) as store:
            assert (await store.tables(store.caller()).fetch("SHOW statement_timeout"))[0][0] == shown


async def test_a_body_with_two_lengths_hides_no_second_request(here: Served) -> None:
    hidden = "GET /v1/conversations HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    head = f"Host: 127.0.0.1\r\nContent-Length: {5 + len(hidden)}\r\nTransfer-Encoding: chunked\r\n"
    async with connected(here, f"POST /v1/conversations HTTP/1.1\r\n{head}\r\n0\r\n\r\n{hidden}") as (reader, _):
        received = await reader.read()
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1
    assert (await here.client.get("/v1/conversations")).json()["items"] == []


@pytest.mark.slow
async def test_expensive_searches_of_one_tenant_do_not_delay_another(settings: Settings) -> None:
    async with limited(settings, requires_tokens=True, rate_per_second=10_000) as here:
        people = People(here.store, here.url)
        ana, bob = await people.person("acme", None), await people.person("globex", "bob")
        path = f"/v1/conversations/{(await bob.post('/v1/conversations')).json()['id']}/messages"
        source = random.Random(1)

        async def search_on(stop: asyncio.Event) -> None:
            while not stop.is_set():
                words = "+".join("".join(source.choices(ascii_lowercase, k=24)) for _ in range(40))
                assert (await ana.get(f"/v1/search?q={words}")).status_code == 200

        async def work() -> list[float]:
            taken = []
            for _ in range(10):
                began = perf_counter()
                posted = await bob.post(path, {"role": "user", "content": "the train"})
                page, search = await bob.get(path), await bob.get("/v1/search?q=train")
                taken.append(perf_counter() - began)
                assert (posted.status_code, page.status_code, search.status_code) == (201, 200, 200)
            return taken

        await work()
        pairs = []
        for _ in range(3):
            at_rest = median(await work())
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as searches:
                for _ in range(8):
                    searches.create_task(search_on(stop))
                beside = median(await work())
                stop.set()
            pairs.append((at_rest, beside))
            # The client, the server and PostgreSQL share the cores of the machine that runs the tests.
            if beside < 3 * at_rest + 0.2:
                break
        else:
            pytest.fail(f"seconds at rest and beside searches, three times: {pairs}")
        await people.close()


@pytest.mark.parametrize("limit", ["300", "0000000000300", "%2B300", "300.0", "3_00", "%20300"])
async def test_a_large_page_waits_for_its_turn_however_its_limit_is_written(
    here: Served, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    are_large: list[bool] = []
    turn_for = TenantContext.turn_for

    def noted(context: TenantContext, size: int, *, reads_large_page: bool, appends: bool) -> Any:
        are_large.append(reads_large_page)
        return turn_for(context, size, reads_large_page=reads_large_page, appends=appends)

    monkeypatch.setattr(TenantContext, "turn_for", noted)
    assert (await here.client.get(f"/v1/messages?limit={limit}")).status_code == 200
    assert are_large == [True]


async def test_request_bodies_beyond_a_tenants_part_of_the_budget_are_rejected(here: Served) -> None:
    here.server_context.limits.bodies = SharedLimit("bytes of request bodies", 4000, [2000], "send less")
    answer = await here.client.post("/v1/conversations", json={"name": "x" * 2000})
    is_rejected(answer, 429, "Too Many Requests")
    assert "bodies" in answer.json()["detail"]
    answer = await here.client.post("/message/list", json={"id": 7, "params": "x" * 2000})
    assert (answer.status_code, answer.json()["error"]["data"]["type"]) == (429, "Too Many Requests"), "of JSON-RPC"
    assert (await here.client.post("/v1/conversations", json={"name": "small"})).status_code == 201
    assert here.server_context.limits.bodies.taken == 0
    assert await rejections(here.server_context.metrics, "bytes_of_request_bodies") == 2


def test_bytes_are_limited_for_a_tenant_and_for_the_server() -> None:
    bodies = SharedLimit("bytes", 100, [50], "send less")
    with bodies.holding("acme") as acme, bodies.holding("globex") as globex, bodies.holding("initech") as initech:
        acme(20)
        acme(30)
        with pytest.raises(TooMany, match="your limit of 50 bytes"):
            acme(1)
        globex(50)
        with pytest.raises(Busy, match="the server's limit of 100 bytes"):
            initech(1)
        assert bodies.taken == 100
    assert bodies.taken == 0


async def test_one_time_slice_runs_in_each_iteration_of_the_event_loop_and_tenants_take_turns() -> None:
    turns = WorkTurns()
    done: list[tuple[str, int]] = []
    iteration = 0

    async def work(tenant: str) -> None:
        await turns.wait(tenant)
        done.append((tenant, iteration))

    tasks = [asyncio.create_task(work(tenant)) for tenant in ("acme", "acme", "acme", "globex", "acme")]
    cancelled = asyncio.create_task(work("globex"))
    await asyncio.sleep(0)
    cancelled.cancel()
    while not all(task.done() for task in tasks):
        iteration += 1
        await asyncio.sleep(0)
    assert [tenant for tenant, _ in done] == ["acme", "globex", "acme", "acme", "acme"]
    assert len({number for _, number in done}) == len(done)
