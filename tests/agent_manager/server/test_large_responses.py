"""Responses of any size take little memory, whether their clients read them or not, and do not delay other requests."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from random import Random
from typing import Any
from uuid import UUID, uuid4

import httpx
import psutil
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.eventsource import EventSource
from support.longest import Longest
from support.processes import Commands
from support.scrapes import rejections
from support.serving import Served, served
from support.waiting import until_async

from agent_manager.server import middleware
from agent_manager.server.limits import WorkTurns
from agent_manager.server.problems import Busy, TooMany
from agent_manager.server.response_cache import LARGE_BYTES, PIECE_BYTES, BodyWriter, Spool
from eventstore import (
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationReactivated,
    ConversationShared,
    EventData,
    EventStore,
    MessageAdded,
    Settings,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatusChanged,
)
from eventstore.errors import InputError
from projections import select_projections
from projections.pages import PAGE_BYTES
from projections.read_your_writes import wait_for

DEMO_LISTS = ("/conversation/list", "/task/list", "/events/get")


@asynccontextmanager
async def limited(settings: Settings, **limits: Any) -> AsyncIterator[Served]:
    """A server with other limits."""
    async with EventStore(settings.model_copy(update=limits)) as store, served(store) as here:
        yield here


async def fill(store: EventStore, messages: int, size: int, conversation: UUID | None = None) -> UUID:
    """Append messages of so many characters to a conversation, and wait until the read tables hold them."""
    conversation = conversation or uuid4()
    for start in range(0, messages, 1000):
        texts = [f"{number} {'x' * size}" for number in range(start, min(messages, start + 1000))]
        result = await store.append(conversation, [MessageAdded(role="user", content=text) for text in texts])
    await wait_for(
        store, result.position, projections=select_projections(["conversations", "messages", "tasks"]), timeout=60
    )
    return conversation


@contextmanager
def unread(port: int, path: str) -> Iterator[socket.socket]:
    """A request whose answer has begun to come, on a connection that takes as little of it as possible."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert client.recv(13) == b"HTTP/1.1 200 "
        yield client


@pytest.mark.slow
async def test_responses_that_clients_do_not_read_take_no_memory(
    settings: Settings, store: EventStore, started: Commands
) -> None:
    """Many large responses, some of different versions, of a server process."""
    messages, clients, max_growth = 6_000, 60, 64 * 1024 * 1024
    up = started.start("up", "--port", "0", DATABASE_URL=settings.server_url() or "")
    up.until_printed("Ctrl-C")
    url = next(word for word in up.out.split() if word.startswith("http://")).rstrip(";")
    port = httpx.URL(url).port or 0
    process = psutil.Process(up.pid)
    conversation = await fill(store, messages, 900)
    path = f"/v1/conversations/{conversation}/state"
    async with httpx.AsyncClient(timeout=60) as client:
        assert len((await client.get(url + path)).content) > 2_000 * messages
    before = process.memory_info().rss
    with ExitStack() as open_clients:
        for number in range(clients):
            if number % 20 == 10:
                await store.append(conversation, [MessageAdded(role="user", content=f"another {number}")])
            reader = open_clients.enter_context(unread(port, path))
        assert process.memory_info().rss - before < max_growth
        rest = b""
        while not rest.endswith(b"]}"):
            rest += reader.recv(1 << 20)
        assert f'"content":"another {clients - 10}"'.encode() in rest


@pytest.mark.any_server
@given(st.lists(st.binary(max_size=3 * PIECE_BYTES), max_size=12), st.data())
async def test_a_body_is_read_as_it_was_written(pieces: list[bytes], data: st.DataObject) -> None:
    spool = Spool(2**30, lambda _: False, WorkTurns())
    out = BodyWriter(spool, "tenant")
    for piece in pieces:
        await out.write(piece)
    body = await out.finish()
    text = b"".join(pieces)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    read = [piece async for piece in body.pieces(start, end)]
    assert (b"".join(read), body.size) == (text[start:end], len(text))
    assert max(map(len, read), default=0) <= PIECE_BYTES
    assert body.is_in_file == (len(text) > LARGE_BYTES) or len(text) <= LARGE_BYTES + 3 * PIECE_BYTES
    assert spool.used == len(text)
    del body
    assert (spool.used, spool.in_memory) == (0, 0)


@pytest.mark.any_server
async def test_bodies_together_take_no_more_than_their_budget() -> None:
    spool = Spool(1000, lambda _: False, WorkTurns())

    async def body(tenant: str, size: int) -> Any:
        out = BodyWriter(spool, tenant)
        try:
            await out.write(b"x" * size)
            return await out.finish()
        except BaseException:
            out.discard()
            raise

    with pytest.raises(InputError, match="EVENTSTORE_RESPONSE_BYTES"):
        await body("one", 501)
    kept = [await body("one", 400)]
    with pytest.raises(TooMany, match="EVENTSTORE_RESPONSE_BYTES"):
        await body("one", 101)
    kept += [await body("two", 400)]
    with pytest.raises(Busy, match="EVENTSTORE_RESPONSE_BYTES"):
        await body("three", 201)
    assert spool.used == 800
    kept.clear()
    assert spool.used == 0
    await body("three", 500)


async def test_a_response_beyond_the_budget_is_rejected_with_advice(settings: Settings) -> None:
    async with limited(settings, response_bytes=1024 * 1024) as here:
        trip = await fill(here.store, 800, 1000)
        for _ in range(2):
            refused = await here.client.get(f"/v1/conversations/{trip}/state")
            assert (refused.status_code, refused.json()["title"]) == (422, "InputError")
            assert "in pages" in refused.json()["detail"]
        assert (await here.client.get(f"/v1/conversations/{trip}/messages")).status_code == 200
        assert here.server_context.response_cache.spool.used < 200_000


async def test_a_list_that_is_not_paged_counts_against_the_budget(settings: Settings) -> None:
    async with limited(settings, response_bytes=200_000) as here:
        members = [ConversationShared(user=f"{number} {'x' * 200}", access="read") for number in range(600)]
        few, many = uuid4(), uuid4()
        await here.store.append(few, [ConversationCreated(name=""), *members[:200]])
        await here.store.append(many, [ConversationCreated(name=""), *members])
        listed = await here.client.get(f"/v1/conversations/{few}/members")
        assert {item["user"] for item in listed.json()["items"]} == {member.user for member in members[:200]}
        refused = await here.client.get(f"/v1/conversations/{many}/members")
        assert (refused.status_code, refused.json()["title"]) == (422, "InputError"), refused.text


async def test_unknown_parameters_do_not_make_another_body(here: Served) -> None:
    trip = await here.begin()
    await here.say(trip, "hello")
    for paths in (
        *(("POST", path, f"{path}?x=1", f"{path}?x=2&y") for path in (*DEMO_LISTS, "/message/pending", "/agent/list")),
        ("GET", "/v1/agents", "/v1/agents?x=1", "/v1/agents?x=2"),
        ("GET", "/v1/pending", "/v1/pending?x=1", "/v1/pending?x=2"),
        ("GET", f"/v1/conversations/{trip}", f"/v1/conversations/{trip}?x=1", f"/v1/conversations/{trip}?x=2"),
        ("GET", "/v1/messages", "/v1/messages?limit=50", "/v1/messages?newest_first=false&limit=050"),
    ):
        method, *addresses = paths
        made = here.server_context.response_cache.made
        answers = [await here.client.request(method, address) for address in addresses]
        assert {answer.status_code for answer in answers} == {200}, answers[1].text
        assert len({answer.content for answer in answers}) == 1
        assert here.server_context.response_cache.made == made + 1, addresses


async def test_while_others_write_a_list_is_built_once_at_a_time(here: Served) -> None:
    """Each request has another change token; those that arrive while the list is made share the next."""
    trip = await fill(here.store, 3000, 100)
    made = here.server_context.response_cache.made
    asked = []
    for number in range(20):
        asked.append(asyncio.create_task(here.client.post("/conversation/list")))
        await here.store.append(trip, [MessageAdded(role="user", content=f"number {number}")])
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert here.server_context.response_cache.made - made < 10
    assert "number 19" in (await here.client.post("/conversation/list")).text


async def test_a_response_that_does_not_begin_in_time_is_cancelled(settings: Settings, superuser_url: str) -> None:
    async with limited(settings, request_seconds=2) as here:
        trip = await here.begin()
        async with EventSource(here.address, f"/v1/conversations/{trip}/stream") as stream:
            with psycopg.connect(superuser_url) as blocking:
                blocking.execute("LOCK TABLE conversations")
                late = await here.client.get("/v1/conversations")
            assert (late.status_code, late.json()["title"]) == (503, "Service Unavailable"), late.text
            assert "EVENTSTORE_REQUEST_SECONDS" in late.json()["detail"]
            assert await rejections(here.server_context.metrics, "slow_request") == 1
            assert (await here.client.get("/v1/conversations")).status_code == 200
            appended = await here.say(trip, "still here")
            assert (await stream.next()).id == appended["position"]


@pytest.mark.slow
async def test_a_client_that_reads_too_slowly_is_disconnected(here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "SEND_SECONDS", 0.2)
    monkeypatch.setattr(middleware, "MIN_BYTES_PER_SECOND", 2**40)
    trip = await fill(here.store, 800, 10_000)

    def take_slowly() -> int:
        taken = 0
        with unread(here.address[1], f"/v1/conversations/{trip}/state") as client:
            while piece := client.recv(2000):
                taken += len(piece)
                time.sleep(0.001)
        return taken

    try:
        taken = await asyncio.to_thread(take_slowly)
    except ConnectionResetError:
        taken = 0
    assert taken < 8_000_000

    async def is_let_go() -> bool:
        return await rejections(here.server_context.metrics, "slow_reader") == 1

    await until_async(is_let_go, "the server has given up")
    assert here.server_context.limits.requests.taken == 0


@pytest.mark.slow
async def test_a_page_ends_before_its_limit_if_it_is_large(here: Served) -> None:
    trip = uuid4()
    for number in range(24):
        result = await here.store.append(trip, [MessageAdded(role="user", content=f"{number} {'x' * 900_000}")])
    await wait_for(here.store, result.position, projections=select_projections(["messages"]), timeout=60)
    for path in (f"/v1/conversations/{trip}/messages", "/v1/messages", f"/v1/conversations/{trip}/events", "/v1/log"):
        seen: list[str] = []
        asked: dict[str, Any] = {"limit": 1000}
        while True:
            page = await here.client.get(path, params=asked)
            assert len(page.content) < 3 * PAGE_BYTES
            items = page.json()["items"]
            contents = [item["content"] for item in items]
            texts = [content["content"] if isinstance(content, dict) else content for content in contents]
            seen += [text.split()[0] for text in texts]
            following = page.json()["next"]
            if following is None or following == asked.get("after"):
                break
            asked["after"] = following
        assert seen == [str(number) for number in range(24)], path


@pytest.mark.slow
async def test_making_a_large_response_does_not_block_other_requests(here: Served) -> None:
    trip = await fill(here.store, 6000, 300)
    for number in range(300):
        task = uuid4()
        await here.store.append(
            trip,
            [
                TaskCreated(task_id=task, given_id=f"t{number}"),
                TaskArtifactAdded(task_id=task, artifact_id="a", parts=[{"kind": "text", "text": "x" * 1000}]),
            ],
        )
    await here.client.get("/v1/conversations")
    gc.collect()
    gc.freeze()  # what the tests have loaded is no part of a server; to look through it takes a tenth of a second
    for path in ("/conversation/list", "/events/get", "/task/list", "state", "messages?limit=1000"):
        longest = Longest()
        watching = asyncio.create_task(longest.watch())
        if path.startswith("/"):
            answer = await here.client.post(path)
        else:
            answer = await here.client.get(f"/v1/conversations/{trip}/{path}")
        watching.cancel()
        assert answer.status_code == 200, answer.text
        assert len(answer.content) > 100_000
        assert longest.seconds < 0.1, path
    gc.unfreeze()


def some_events(random: Random, tasks: list[UUID], is_deleted: bool, number: int) -> list[EventData]:
    """One or two events that may follow in a conversation."""
    if is_deleted:
        return [ConversationReactivated()]
    kind = random.randrange(8)
    if kind == 0:
        tasks.append(task := uuid4())
        return [TaskCreated(task_id=task, given_id=f"task {number}")]
    if kind == 1 and tasks:
        task = random.choice(tasks)
        return [TaskStatusChanged(task_id=task, status=random.choice(["in_progress", "completed"]))]
    if kind == 2 and tasks:
        return [TaskArtifactAdded(task_id=random.choice(tasks), artifact_id="a", parts=[{"text": f"part {number}"}])]
    if kind == 3:
        return [ConversationDeleted()]
    if kind == 4:
        return [ConversationArchived()]
    if random.random() < 0.5:
        extra = {"messageId": f"m{number}", "kind": "message"}
        parts: list[Any] = [{"kind": "text", "text": f"old {number}"}]
    else:
        extra, parts = {"messageId": f"m{number}", "role": "ROLE_USER"}, [{"text": f"new {number}"}]
    return [MessageAdded(role="user", content=f"text {number}", parts=parts, extra=extra)]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
@pytest.mark.slow
async def test_a_list_made_out_of_the_one_before_equals_a_new_one(here: Served, store: EventStore, seed: int) -> None:
    random = Random(seed)
    conversations: dict[UUID, list[UUID]] = {}
    deleted: set[UUID] = set()
    for number in range(40):
        conversation = random.choice([*conversations, uuid4()])
        tasks = conversations.setdefault(conversation, [])
        events = some_events(random, tasks, conversation in deleted, number)
        if not tasks and not await known(store, conversation):
            events.insert(0, ConversationCreated(name=random.choice(["", f"name {number}"])))
        await store.append(conversation, events, actor="user")
        if isinstance(events[-1], ConversationDeleted):
            deleted.add(conversation)
        deleted -= {conversation} if isinstance(events[-1], ConversationReactivated) else set()
        if random.random() < 0.5:
            await is_as_made_anew(here, conversation, random.choice([None, "0.3", "1.0"]))


async def known(store: EventStore, conversation: UUID) -> bool:
    """Return whether a conversation has any events."""
    return bool([event async for event in store.read(conversation, limit=1)])


async def is_as_made_anew(here: Served, conversation: UUID, version: str | None) -> None:
    """Fails unless each list is the one that a server gives which has made none before."""
    headers = {} if version is None else {"A2A-Version": version}
    async with served(here.store, works=False) as fresh:
        for path in (*DEMO_LISTS, "/message/list"):
            call = {"params": str(conversation)} if path == "/message/list" else {}
            one, other = [
                await each.client.post(path, json={"id": 1, **call}, headers=headers) for each in (here, fresh)
            ]
            assert (one.status_code, one.content) == (200, other.content), path
            assert one.json()["id"] == 1


async def test_a_large_event_is_sent_on_a_stream_in_pieces(here: Served) -> None:
    trip = await here.begin()
    async with EventSource(here.address, f"/v1/conversations/{trip}/stream") as stream:
        await here.store.append(UUID(trip), [ApplicationEvent("big", "x" * 900_000)])
        assert len((await stream.next()).data["content"]) == 900_000


async def test_streams_read_a_log_of_small_and_large_events_in_small_batches(here: Served) -> None:
    random = Random(7)
    trip = UUID(await here.begin())
    sizes = [random.choice([1, 50, 20_000, 70_000, 200_000]) for _ in range(60)]
    result = await here.store.append(trip, [ApplicationEvent("sized", "x" * size) for size in sizes])
    for path in (f"/v1/conversations/{trip}/stream?after=0", "/v1/log/stream?after=0&type=sized"):
        async with EventSource(here.address, path) as stream:
            seen = []
            while not seen or seen[-1].id < result.position:
                seen.append(await stream.next())
        assert [len(one.data["content"]) for one in seen if one.name == "sized"] == sizes
