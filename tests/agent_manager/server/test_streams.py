"""Server-sent events: each event once and in order, across cuts; quiet streams stay alive; slow ones block nobody."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from support.eventsource import EventSource
from support.serving import Served, served
from support.waiting import until_async

from agent_manager.server import streams
from eventstore import ApplicationEvent, EventStore, MessageAdded
from eventstore.json_text import LINE_SEPARATORS

pytestmark = pytest.mark.shared_database


@asynccontextmanager
async def listening(here: Served, path: str) -> AsyncIterator[EventSource]:
    """A client of a stream."""
    source = await EventSource(here.address, path).open()
    try:
        yield source
    finally:
        source.cut()


async def test_the_log_is_streamed_from_its_beginning_and_as_it_grows(here: Served) -> None:
    trip = await here.begin(name="Trip")
    async with listening(here, "/v1/log/stream?after=0") as source:
        first = await source.next()
        assert (first.name, first.data["content"]) == ("conversation.created", {"name": "Trip"})
        appended = await here.say(trip, "hello")
        second = await source.next()
        assert (second.id, second.data["position"], second.name) == (
            appended["position"],
            appended["position"],
            "message.added",
        )
        log = (await here.client.get("/v1/log")).json()["items"]
        assert [first.data, second.data] == log


async def test_a_stream_without_a_position_starts_at_the_end_of_the_log(here: Served) -> None:
    trip = await here.begin()
    for path in ("/v1/log/stream", f"/v1/conversations/{trip}/stream"):
        async with listening(here, path) as source:
            appended = await here.say(trip, "now")
            assert (await source.next()).id == appended["position"]


@pytest.mark.parametrize("of", ["log", "conversation"])
async def test_a_stream_that_is_resumed_repeatedly_sends_every_event_once(here: Served, of: str) -> None:
    """The client sends the last id that it saw, as browsers do; cuts come while events are on their way."""
    dice = random.Random(of)
    trip, other = await here.begin(), await here.begin()
    path = "/v1/log/stream?after=0" if of == "log" else f"/v1/conversations/{trip}/stream?after=0"
    source = await EventSource(here.address, path).open()
    events, cuts = 300, 0

    async def write() -> None:
        for number in range(events):
            await here.store.append(
                other if number % 3 == 0 else trip, [MessageAdded(role="user", content=f"{number}")]
            )

    writing = asyncio.create_task(write())
    seen: list[str] = []
    wanted = [f"{n}" for n in range(events) if of == "log" or n % 3]
    while len(seen) < len(wanted):
        for _ in range(dice.randrange(1, 25)):
            event = await source.next()
            if event.name == "message.added":
                seen.append(event.data["content"]["content"])
            if len(seen) == len(wanted):
                break
        source.cut()
        cuts += 1
        await source.open()
    await writing
    source.cut()
    assert seen == wanted
    assert cuts > 5


async def test_a_client_that_was_disconnected_before_the_first_event_misses_none(here: Served) -> None:
    trip = await here.begin()
    source = await EventSource(here.address, "/v1/log/stream").open()
    while source.last_id is None:  # the stream tells at once where it began
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(source.next(), 0.2)
    source.cut()
    appended = await here.say(trip, "meanwhile")
    await source.open()
    assert (await source.next()).id == appended["position"]
    source.cut()


async def test_a_stream_is_filtered_by_type_and_actor(here: Served) -> None:
    trip = await here.begin()
    async with (
        listening(here, "/v1/log/stream?type=a&type=b") as of_types,
        listening(here, "/v1/log/stream?actor=ana") as of_ana,
    ):
        await here.store.append(trip, [ApplicationEvent("c"), ApplicationEvent("b")])
        await here.store.append(trip, [ApplicationEvent("c"), ApplicationEvent("a")], actor="ana")
        assert [(await of_types.next()).name for _ in range(2)] == ["b", "a"]
        assert [(await of_ana.next()).name for _ in range(2)] == ["c", "a"]


async def test_a_name_with_line_breaks_cannot_forge_events(here: Served) -> None:
    trip = await here.begin()
    async with listening(here, f"/v1/conversations/{trip}/stream") as source:
        await here.store.append(trip, [ApplicationEvent("a\n\nid: 999\rdata: no", {"x": "\n\ndata: no\r\n"})])
        event = await source.next()
        assert (event.name, event.data["content"]) == ("a  id: 999 data: no", {"x": "\n\ndata: no\r\n"})
        assert event.id == event.data["position"]


async def test_line_separators_in_texts_and_names_divide_no_event_for_line_based_clients(here: Served) -> None:
    text = "".join(f"{number}{separator}" for number, separator in enumerate(LINE_SEPARATORS))
    trip = await here.begin()
    name = text.replace("\n", "").replace("\r", "")
    await here.store.append(trip, [MessageAdded(role="user", content=text), ApplicationEvent(name, {text: [text]})])
    for path in (f"/v1/conversations/{trip}/stream?after=0", "/v1/log/stream?after=0"):
        lines: list[str] = []
        chunks: list[str] = []
        async with here.client.stream("GET", path) as response:
            async for chunk in response.aiter_text():
                chunks.append(chunk)
                lines = "".join(chunks).splitlines()
                if sum(line.startswith("data: ") for line in lines) == 3 and lines[-1] == "":
                    break
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        assert [event["content"] for event in events[1:]] == [{"role": "user", "content": text}, {text: [text]}]
        assert events[2]["event_type"] == name
        assert all(line == "" or line.partition(": ")[0] in ("id", "event", "data", "retry") for line in lines)
        async with here.client.stream("GET", path) as response:
            by_httpx = response.aiter_lines()
            assert [await anext(by_httpx) for _ in range(len(lines) - 1)] == lines[:-1]


async def test_an_idle_stream_sends_keep_alive_comments(here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.05)
    trip = await here.begin()
    async with listening(here, "/v1/log/stream") as source:
        waiting = asyncio.create_task(source.next())

        async def has_heard() -> bool:
            return len(source.comments) >= 3

        await until_async(has_heard, "three comments came")
        appended = await here.say(trip, "at last")
        assert (await waiting).id == appended["position"]


@pytest.mark.slow
async def test_a_slow_client_misses_no_event(here: Served) -> None:
    """The server reads on only while the client takes what comes: what lies between them is what sockets hold."""
    trip = str(uuid4())
    for _ in range(30):
        await here.store.append(trip, [ApplicationEvent("big", "x" * 100_000) for _ in range(10)])
    taken = 0
    read_log = here.store.read_log

    async def counted(**asked: object) -> AsyncIterator[object]:
        nonlocal taken
        async for event in read_log(**asked):  # type: ignore[arg-type]
            taken += 1
            yield event

    here.store.read_log = counted  # type: ignore[method-assign, assignment]
    async with listening(here, "/v1/log/stream?after=0") as source:
        first = await source.next()
        before = -1
        while taken != before:  # it has come to rest
            before = taken
            await asyncio.gather(*(here.client.get("/health") for _ in range(20)))
        assert taken < 200, "the server read on for a client that takes nothing"
        ids = [first.id, *[(await source.next()).id for _ in range(299)]]
        assert ids == sorted(set(ids))
        assert taken >= 300


@pytest.mark.parametrize("of", ["/v1/log", "/v1/conversations/{}"])
@pytest.mark.slow
async def test_streams_of_the_same_events_share_a_reader_and_a_slow_one_reads_dropped_events(
    here: Served, of: str
) -> None:
    trip = await here.begin()
    encoded = []
    event_out = streams.event_out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "event_out", lambda event: encoded.append(event.position) or event_out(event))
        path = of.format(trip) + "/stream"
        async with listening(here, path) as one, listening(here, path) as other, listening(here, path) as slow:
            position = (await here.say(trip, "to all three"))["position"]
            assert [(await source.next()).id for source in (one, other, slow)] == [position] * 3
            assert encoded == [position], "the three streams share a reader"
            for number in range(100):
                result = await here.store.append(trip, [ApplicationEvent("big", "x" * 100_000)])
                assert (await one.next()).id == (await other.next()).id == result.position, number
            missed = [(await slow.next()).id for _ in range(100)]
            assert missed == sorted(set(missed))
            assert missed[-1] == result.position


@pytest.mark.parametrize("last_event_id", ["-1", "1.5", "x", str(2**63), "9" * 5000])
async def test_a_last_event_id_that_is_not_a_position_is_rejected(here: Served, last_event_id: str) -> None:
    refused = await here.client.get("/v1/log/stream", headers={"Last-Event-ID": last_event_id})
    assert (refused.status_code, "Last-Event-ID" in refused.json()["detail"]) == (422, True)


async def test_a_stream_of_an_unknown_conversation_is_not_found(here: Served) -> None:
    assert (await here.client.get("/v1/conversations/nowhere/stream")).status_code == 404


async def test_streams_end_when_the_server_closes_and_leave_no_task(store: EventStore) -> None:
    async with served(store) as here:
        trip = await here.begin()
        sources = [
            await EventSource(here.address, path).open()
            for path in ("/v1/log/stream", f"/v1/conversations/{trip}/stream") * 3
        ]
        endings = [asyncio.create_task(source.next()) for source in sources]
    for ending in endings:
        with pytest.raises(EOFError):
            await asyncio.wait_for(ending, 10)
    for source in sources:
        source.cut()


async def test_a_stream_continues_after_another_client_has_disconnected(here: Served) -> None:
    trip = await here.begin()
    async with listening(here, f"/v1/conversations/{trip}/stream") as stays:
        async with listening(here, f"/v1/conversations/{trip}/stream"):
            pass
        appended = await here.say(trip, "still")
        assert (await stays.next()).id == appended["position"]
