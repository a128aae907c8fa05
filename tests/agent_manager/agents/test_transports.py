"""Agents of A2A 0.3 and 1.x answer over JSON-RPC, HTTP+JSON and gRPC, streaming and not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from importlib import metadata
from typing import Any

import pytest
from support.official_agent import Recorded, official_agent
from support.waiting import until_async

from agent_manager.a2a import parts_text, status_of
from agent_manager.agents import a2a_client, access
from agent_manager.agents.agent import Context, Reply, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.cards import fetch_card
from agent_manager.agents.remote import remote
from agent_manager.errors import AgentStalled, AgentUnreachable, AgentUnsupported, InvalidUpdate, TaskUnknown

pytest.importorskip("a2a", reason="a2a-sdk is not installed")
pytest.importorskip("grpc", reason="grpcio is not installed")
pytestmark = [
    pytest.mark.any_server,
    pytest.mark.skipif(metadata.version("a2a-sdk").startswith("0."), reason="the agents are made with a2a-sdk 1.x"),
]

Json = dict[str, Any]
SERVED = [
    (version, transport, streams)
    for version in ("0.3", "1.0")
    for transport in ("JSONRPC", "HTTP+JSON", "GRPC")
    for streams in (True, False)
]


@pytest.fixture(scope="module", params=SERVED, ids=lambda each: f"{each[0]} {each[1]} {'streams' * each[2]}")
def served(request: pytest.FixtureRequest) -> Iterator[tuple[str, Recorded]]:
    version, transport, streams = request.param
    with official_agent(version=version, transport=transport, streams=streams) as agent:
        yield agent


MESSAGES: list[Json] = [
    {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": "hello"}]},
    {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hello"}]},
    {"role": "user", "content": "hello"},
    {"role": "user", "parts": [], "content": "hello"},
    {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    {"role": "system", "content": "hello"},
    {"message_id": "m1", "role": "ROLE_USER", "content": [{"text": "hello"}]},
    {"role": 1, "parts": [{"text": "hello"}]},
]
"""Messages of the formats that the store accepts, with the text hello."""


def user_message(text: str, **more: Any) -> Json:
    return {"role": "user", "parts": [{"text": text}], "contextId": "c", **more}


async def heard(url: str, message: Json, **limits: float) -> list[Update]:
    return [update async for update in remote(url, **limits)(message, Context())]


@pytest.mark.parametrize("message", MESSAGES, ids=str)
async def test_a_message_of_any_format_is_understood(served: tuple[str, Recorded], message: Json) -> None:
    url, recorded = served
    [reply] = await heard(url, message)
    assert isinstance(reply, Reply)
    assert parts_text(reply.message["parts"]) == "heard hello"
    received = recorded.messages[-1]
    assert received["messageId"]
    assert received["messageId"] == "m1" or not {"messageId", "message_id"} & message.keys()
    assert received["role"] == "ROLE_USER"
    assert [part["text"] for part in received["parts"]] == ["hello"]


async def test_files_data_and_unknown_parts_arrive(served: tuple[str, Recorded]) -> None:
    url, recorded = served
    image = {"type": "image_url", "image_url": {"url": "https://images.example/1"}}
    file = {"kind": "file", "file": {"uri": "https://files.example/1", "name": "ticket.pdf"}}
    parts = [{"kind": "text", "text": "look"}, file, {"kind": "data", "data": {"seats": 2}}]
    await heard(url, {"kind": "message", "role": "user", "messageId": "m", "parts": parts})
    text, received, data = recorded.messages[-1]["parts"]
    assert text["text"] == "look"
    assert (received["url"], received["filename"]) == ("https://files.example/1", "ticket.pdf")
    assert data["data"] == {"seats": 2}
    await heard(url, {"role": "user", "content": [{"type": "text", "text": "look"}, image]})
    assert recorded.messages[-1]["parts"][1]["data"] == image


def states(updates: list[Update]) -> list[str]:
    found = [u.task["status"] if isinstance(u, TaskSnapshot) else u.status for u in updates if with_status(u)]
    return [str(status_of(status["state"])) for status in found]


def with_status(update: Update) -> bool:
    return isinstance(update, TaskSnapshot | StatusUpdate)


async def test_a_task_asks_for_input_and_is_completed(served: tuple[str, Recorded]) -> None:
    url, recorded = served
    updates = await heard(url, user_message("ask"))
    assert states(updates)[-1] == "input-required"
    assert isinstance(updates[-1], Reply)
    assert parts_text(updates[-1].message["parts"]) == "which?"
    task, context = recorded.requests[-1][1], recorded.requests[-1][0]
    updates = await heard(url, user_message("this", taskId=task, contextId=context))
    assert recorded.requests[-1] == (context, task, True)
    assert states(updates)[-1] == "completed"
    assert isinstance(updates[-1], Reply)
    assert parts_text(updates[-1].message["parts"]) == "done"


async def working(updates: AsyncIterator[Update]) -> str:
    """The id of the task that the updates are about, once it is working."""
    async for update in updates:
        if isinstance(update, TaskSnapshot | StatusUpdate) and states([update]) == ["in_progress"]:
            return update.task["id"] if isinstance(update, TaskSnapshot) else update.task_id
    raise AssertionError("the agent does not work")


async def test_a_task_is_resumed_and_an_unknown_one_is_an_error(served: tuple[str, Recorded]) -> None:
    url, recorded = served
    if recorded.streams:
        agent = remote(url)
        updates = agent(user_message("work"), Context())
        task = await working(updates)
        await updates.aclose()
        resumed = agent.resume(task, Context())
        assert await working(resumed) == task
        await agent.cancel(task, Context())
        assert states([update async for update in resumed])[-1] == "canceled"
    with pytest.raises(TaskUnknown):
        await anext(remote(url).resume("00000000-0000-4000-8000-000000000000", Context()))


def first(interfaces: Json) -> Json:
    return {"name": "an agent", "capabilities": {"streaming": True}} | interfaces


async def test_the_first_interface_of_the_card_that_can_be_used_is_used() -> None:
    with official_agent(transport="GRPC") as (url, recorded):
        card = await fetch_card(url)
        [grpc] = card["supportedInterfaces"]
        others = [{"url": url, "protocolBinding": "SOAP", "protocolVersion": "1.0"}]
        jsonrpc = {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        for chosen, interfaces in (("grpc", [*others, grpc, jsonrpc]), ("httpx", [*others, jsonrpc, grpc])):
            assert [
                u async for u in remote(card | {"supportedInterfaces": interfaces})(user_message("hello"), Context())
            ]
            assert chosen in recorded.headers[-1]["user-agent"]
    with official_agent(version="0.3", transport="GRPC") as (url, recorded):
        card = await fetch_card(url)
        additional = {"additionalInterfaces": [{"url": url, "transport": "HTTP+JSON"}]}
        assert [
            u
            async for u in remote(card | {"preferredTransport": "SOAP"} | additional)(user_message("hello"), Context())
        ]
        assert recorded.headers[-1]["a2a-version"] == "0.3"


async def test_of_interfaces_with_one_transport_that_of_version_1_is_used() -> None:
    with official_agent() as (url, recorded):
        interfaces = [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": each} for each in ("0.3", "1.0")]
        card = await fetch_card(url) | {"supportedInterfaces": interfaces}
        assert [update async for update in remote(card)(user_message("hello"), Context())]
        assert recorded.headers[-1]["a2a-version"] == "1.0"


async def test_the_interface_of_0_3_is_used_if_no_newer_one_of_the_card_can_be() -> None:
    with official_agent() as (url, recorded):
        newer = [{"url": url, "protocolBinding": "SOAP", "protocolVersion": "1.0"}]
        card = await fetch_card(url) | {"supportedInterfaces": newer, "url": url, "protocolVersion": "0.3.0"}
        assert [update async for update in remote(card)(user_message("hello"), Context())]
        assert recorded.headers[-1]["a2a-version"] == "0.3"


async def test_a_card_that_offers_only_grpc_names_the_extra_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a2a_client, "find_spec", lambda name: None)
    interface = {"url": "h:1", "protocolBinding": "GRPC", "protocolVersion": "1.0"}
    with pytest.raises(AgentUnsupported, match=r"only gRPC, which takes pip install 'flowagents-eventstore\[grpc\]'"):
        assert [u async for u in remote(first({"supportedInterfaces": [interface]}))(user_message("hello"), Context())]


# gRPC has the rules and limits of HTTP


async def test_an_agent_that_sends_too_many_bytes_by_grpc_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_RESPONSE_BYTES", 100_000)
    for compression in (None, "Gzip"):
        with official_agent(transport="GRPC", grpc_compression=compression) as (url, _):
            assert await heard(url, user_message("a" * 40_000))
            with pytest.raises(InvalidUpdate, match=r"than max|longer than 100,000 bytes"):
                await heard(url, user_message("a" * 120_000))


async def test_no_grpc_to_a_private_address_unless_the_operator_has_configured_the_host() -> None:
    with official_agent(transport="GRPC") as (url, _):
        card = await fetch_card(url)
        with pytest.raises(AgentUnreachable, match="EVENTSTORE_AGENT_ALLOW_PRIVATE"):
            assert [update async for update in remote(card, allow_private=False)(user_message("hello"), Context())]
        assert [update async for update in remote(url, allow_private=False)(user_message("hello"), Context())]


async def test_grpc_to_a_closed_port_is_unreachable() -> None:
    with socket.socket() as taken:  # bound and not listening: no other process gets the port, and none answers
        taken.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{taken.getsockname()[1]}"
        interface = {"url": url, "protocolBinding": "GRPC", "protocolVersion": "1.0"}
        with pytest.raises(AgentUnreachable, match="an agent: cannot be reached"):
            assert [
                u async for u in remote(first({"supportedInterfaces": [interface]}))(user_message("hello"), Context())
            ]


@pytest.mark.parametrize("url", ["unix:/run/agent", "unix:///run/agent", "xds:///agent", "dns:///agent:1", "a@b:1", ""])
async def test_other_addresses_of_grpc_are_rejected(url: str) -> None:
    interface = {"url": url, "protocolBinding": "GRPC", "protocolVersion": "1.0"}
    with pytest.raises((AgentUnsupported, AgentUnreachable)):
        assert [u async for u in remote(first({"supportedInterfaces": [interface]}))(user_message("hello"), Context())]


async def test_grpc_works_in_the_event_loops_of_several_threads() -> None:
    with official_agent(transport="GRPC") as (url, _):
        answer = remote(url)

        def one() -> int:
            async def all_of_it() -> int:
                return len([update async for update in answer(user_message("hello"), Context())])

            return asyncio.run(all_of_it())

        assert await asyncio.gather(*(asyncio.to_thread(one) for _ in range(8))) == [1] * 8


@pytest.mark.slow
async def test_an_agent_that_sends_nothing_stalls_over_every_transport(served: tuple[str, Recorded]) -> None:
    with pytest.raises(AgentStalled, match=r"sent nothing for 0\.5 seconds"):
        await heard(served[0], user_message("work"), silence=0.5)


async def test_closing_the_iterator_closes_the_connection(served: tuple[str, Recorded]) -> None:
    url, recorded = served
    if not recorded.streams:
        return
    before = asyncio.all_tasks()
    updates = remote(url)(user_message("work"), Context())
    assert await working(updates)
    await updates.aclose()

    async def nobody_waits() -> bool:
        return asyncio.all_tasks() <= before

    await until_async(nobody_waits, "no task of the client's is left")
