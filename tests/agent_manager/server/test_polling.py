"""Polling is cheap: unchanged bodies are neither sent nor made again; and no outdated body is ever served."""

from __future__ import annotations

import asyncio
import socket
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.raw import append_raw_async
from support.serving import Served, served

from agent_manager.server.serve import listen
from eventstore import EventStore, MessageAdded, TaskCreated, TaskPushNotificationSet
from projections import rebuild, select_projections

pytestmark = pytest.mark.shared_database

DEMO_LISTS = ("/conversation/list", "/task/list", "/events/get", "/message/pending", "/agent/list")
READS = (
    "/v1/conversations", "/v1/conversations/trip", "/v1/conversations/trip/messages", "/v1/conversations/trip/tasks",
    "/v1/conversations/trip/state", "/v1/conversations/trip/state?version=1", "/v1/conversations/trip/events",
    "/v1/conversations/trip/members",
    "/v1/messages", "/v1/tasks", "/v1/log", "/v1/search?q=hello", "/v1/statistics", "/v1/agents", "/v1/pending",
)  # fmt: skip


async def ask(here: Served, path: str, tag: str | None = None) -> Any:
    """Reads a path of either kind."""
    headers = {} if tag is None else {"If-None-Match": tag}
    if path.startswith("/v1"):
        return await here.client.get(path, headers=headers)
    params = {"params": "trip"} if path == "/message/list" else {}
    return await here.client.post(path, json={"jsonrpc": "2.0", "id": "1", **params}, headers=headers)


@pytest.mark.parametrize("path", [*READS, *DEMO_LISTS, "/message/list"])
async def test_an_unchanged_body_is_neither_sent_nor_made_again(here: Served, path: str) -> None:
    await here.begin(id="trip")
    appended = await here.say("trip", "hello")
    await here.client.get("/v1/search", params={"q": "x", "at_least": appended["position"]})
    await here.client.get("/v1/statistics", params={"at_least": appended["position"]})

    first = await ask(here, path)
    assert (first.status_code, first.headers["etag"][:3]) == (200, 'W/"')
    made = here.server_context.response_cache.made
    again = await ask(here, path)
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    unchanged = await ask(here, path, f'"else", {first.headers["etag"]}')
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert here.server_context.response_cache.made == made


@pytest.mark.parametrize(
    "path", ["/v1/conversations/trip/messages", "/v1/messages", "/message/list", "/conversation/list"]
)
async def test_a_changed_body_is_sent(here: Served, path: str) -> None:
    await here.begin(id="trip")
    first = await ask(here, path)
    for number in range(20):
        await here.say("trip", f"text {number}.")
        changed = await ask(here, path, first.headers["etag"])
        assert (changed.status_code, f"text {number}." in changed.text) == (200, True)
        first = changed


async def test_simultaneous_requests_share_one_body(here: Served) -> None:
    await here.begin(id="trip")
    await here.say("trip", "hello")
    made = here.server_context.response_cache.made
    answers = await asyncio.gather(*(ask(here, "/conversation/list") for _ in range(50)))
    assert {answer.content for answer in answers} == {answers[0].content}
    assert here.server_context.response_cache.made == made + 1


async def test_an_etag_is_valid_for_one_path_and_its_parameters_only(here: Served) -> None:
    await here.begin(id="trip")
    await here.begin(id="tour")
    for path, other in (
        ("/v1/conversations/trip/messages", "/v1/conversations/tour/messages"),
        ("/v1/conversations/trip/messages", "/v1/conversations/trip/messages?limit=1"),
    ):
        tag = (await here.client.get(path)).headers["etag"]
        assert (await here.client.get(other, headers={"If-None-Match": tag})).status_code == 200
    tag = (await ask(here, "/message/list")).headers["etag"]
    other = await here.client.post("/message/list", json={"params": "tour"}, headers={"If-None-Match": tag})
    assert other.status_code == 200


async def test_each_task_has_its_own_list_of_push_notifications(here: Served) -> None:
    await here.begin(id="trip")
    trip = (await here.client.get("/v1/conversations/trip")).json()["id"]
    for name in ("first", "second"):
        task, config = uuid4(), {"id": name, "url": f"https://client.example/{name}"}
        created = TaskCreated(task_id=task, given_id=name, description="")
        await here.store.append(trip, [created, TaskPushNotificationSet(task_id=task, config_id=name, config=config)])
    for name in ("first", "second"):
        listed = await here.client.get(f"/v1/conversations/trip/tasks/{name}/push-notifications")
        assert [each["id"] for each in listed.json()["items"]] == [name]


async def test_during_an_open_append_no_outdated_body_is_served(here: Served, database_url: str) -> None:
    """The open append holds the horizon back; later appends are visible all the same, and must be read."""
    await here.begin(id="trip")
    with psycopg.connect(database_url) as foreign:
        foreign.execute("SELECT register_append()")
        foreign.execute("SELECT nextval('events_position')")
        for path in ("/conversation/list", "/message/list", "/v1/conversations/trip/events"):
            before = await ask(here, path)
            await here.store.append(
                (await here.client.get("/v1/conversations/trip")).json()["id"],
                [MessageAdded(role="user", content=f"meanwhile {path}", extra={"messageId": "m"})],
            )
            after = await ask(here, path, before.headers["etag"])
            assert (after.status_code, f"meanwhile {path}" in after.text) == (200, True)


async def test_a_rebuilt_table_is_read_anew_and_an_equal_body_keeps_its_etag(here: Served, store: EventStore) -> None:
    await here.begin(id="trip")
    first = await here.client.get("/v1/conversations")
    made = here.server_context.response_cache.made
    await rebuild(store, select_projections(["conversations"]))
    again = await here.client.get("/v1/conversations", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, here.server_context.response_cache.made) == (304, made + 1)


async def test_an_etag_does_not_tell_that_others_write(here: Served, store: EventStore) -> None:
    await here.begin(id="trip")
    tags = {path: (await ask(here, path)).headers["etag"] for path in ("/v1/conversations", "/conversation/list")}
    await store.append(uuid4(), [MessageAdded(role="user", content="psst")], tenant="another")
    for path, tag in tags.items():
        assert (await ask(here, path, tag)).status_code == 304


async def test_concurrent_pollers_find_what_they_wrote_themselves(here: Served) -> None:
    await asyncio.gather(*(here.begin(id=f"c{number}") for number in range(8)))

    async def live(number: int) -> None:
        tag = None
        for step in range(10):
            await here.say(f"c{number}", f"{number}:{step}.")
            path = "/conversation/list" if step % 2 else f"/v1/conversations/c{number}/messages?limit=1000"
            answer = await ask(here, path, tag if not step % 2 else None)
            assert answer.status_code == 200
            assert f"{number}:{step}." in answer.text
            tag = answer.headers["etag"] if not step % 2 else tag

    await asyncio.gather(*(live(number) for number in range(8)))


@pytest.mark.own_database
async def test_a_read_waits_only_for_what_its_tenant_wrote(store: EventStore, superuser_url: str) -> None:
    async with served(store, works=False) as here:
        await here.begin(id="trip")
        await here.client.get("/v1/messages")
        [trip] = (await here.client.get("/v1/conversations")).json()["items"]
        with psycopg.connect(superuser_url) as worker:  # which is busy with all partitions but that of the conversation
            worker.execute("SELECT FROM checkpoints WHERE partition <> partition_of(%s) FOR UPDATE", [trip["id"]])
            for number in range(8):
                await store.append(uuid4(), [MessageAdded(role="user", content=f"{number}")], tenant="another")
            await here.say("trip", "hello")
            for path in ("/v1/messages", "/v1/conversations/trip/messages", "/v1/conversations/trip/state"):
                read = await here.client.get(path)
                assert (read.status_code, "hello" in read.text) == (200, True), path


@pytest.mark.own_database
async def test_a_read_does_not_wait_for_an_append_to_another_partition(store: EventStore) -> None:
    async with served(store, works=False) as here, await store.connect() as connection:
        await here.begin(id="trip")
        [trip] = (await here.client.get("/v1/conversations")).json()["items"]
        other = await conversation_of_another_partition(store, trip["id"])
        async with connection.transaction():
            await append_raw_async(connection, "in flight", conversation=other, tenant="another")
            await here.say("trip", "hello")
            for path in ("/v1/messages", "/v1/conversations/trip/messages", "/v1/conversations/trip/state"):
                read = await here.client.get(path)
                assert (read.status_code, "hello" in read.text) == (200, True), path


async def conversation_of_another_partition(store: EventStore, conversation: str) -> UUID:
    text = """
        SELECT n.id
          FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 1000)) AS n
         WHERE partition_of(n.id) <> partition_of(%(conversation)s::uuid)
         LIMIT 1
    """
    [[other]] = await store.connections.reader.fetch(text, {"conversation": conversation})
    return UUID(str(other))


async def test_small_responses_are_sent_without_delay() -> None:
    connected = asyncio.get_running_loop().create_future()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listening = listen("127.0.0.1", 0)
    async with await asyncio.start_server(accept, sock=listening):
        _, writer = await asyncio.open_connection(*listening.getsockname())
        assert await connected != 0
        writer.close()
