"""HTTP reads from a hot standby (``EVENTSTORE_READ_URL``); its replay is paused, so its lag is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx
import pytest
from support.callers import People
from support.replica import Replica, replica_of
from support.servers import embedded_server, memory_folder, open_folder
from support.serving import Served, served
from support.waiting import until_async

from eventstore import ConversationUnshared, EventStore, MessageAdded, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from projections import wait_for

pytestmark = pytest.mark.slow

READS = (
    "/v1/conversations",
    "/v1/messages",
    "/v1/tasks",
    "/v1/search?q=words",
    "/v1/statistics",
)


@pytest.fixture(scope="module")
def primary() -> Iterator[EmbeddedServer]:
    with open_folder(memory_folder()) as folder, embedded_server(folder / "server") as own:
        Migrator(own.url(), Settings(database_url=own.url())).up()
        yield own


@pytest.fixture(scope="module")
def replica(primary: EmbeddedServer) -> Iterator[Replica]:
    with replica_of(primary) as replica:
        yield replica


@pytest.fixture
async def store(primary: EmbeddedServer, replica: Replica, clean_environment: None) -> AsyncIterator[EventStore]:
    """A store that reads from the standby, with a tenant of the test's own."""
    settings = Settings(database_url=primary.url(), read_url=replica.url, tenant=f"tenant {uuid4()}", connect_timeout=3)
    async with EventStore(settings) as store:
        yield store
    replica.resume()


@pytest.fixture
async def here(store: EventStore) -> AsyncIterator[Served]:
    async with served(store) as here:
        yield here


@pytest.fixture
async def elsewhere(primary: EmbeddedServer, store: EventStore) -> AsyncIterator[EventStore]:
    """Another process of the same tenant, on the primary."""
    async with EventStore(Settings(database_url=primary.url(), tenant=store.tenant)) as elsewhere:
        yield elsewhere


@asynccontextmanager
async def people_of(store: EventStore, url: str) -> AsyncIterator[People]:
    people = People(store, url)
    yield people
    await people.close()


async def get(client: httpx.AsyncClient, path: str, **headers: str) -> httpx.Response:
    response = await client.get(path, headers=headers)
    assert response.status_code in (200, 304), response.text
    return response


async def contents(client: httpx.AsyncClient, path: str) -> list[str]:
    return [item["content"] for item in (await get(client, path)).json()["items"]]


async def test_every_read_shows_the_state_of_the_standby_and_its_position(
    here: Served, elsewhere: EventStore, replica: Replica
) -> None:
    conversation = await here.begin(name="before")
    await here.say(conversation, "first words")
    paths = (*READS, f"/v1/conversations/{conversation}", f"/v1/conversations/{conversation}/messages")
    for path in paths:  # waits until the standby has what was written here
        await get(here.client, path)
    await replica.wait_for_replay_async()
    replica.pause()
    before = {path: await get(here.client, path) for path in paths}
    position = (await elsewhere.append(conversation, [MessageAdded(role="user", content="later words")])).position
    await wait_for(elsewhere, position)

    for path, response in before.items():
        again = await get(here.client, path, **{"If-None-Match": response.headers["ETag"]})
        assert again.status_code == 304, path
        assert int(again.headers["Eventstore-Position"]) == int(response.headers["Eventstore-Position"]) < position
    ready = (await get(here.client, "/ready")).json()
    assert ready["applied"] < position <= ready["horizon"]
    assert ready["lag_seconds"] > 0
    # The log and its history are those of the primary.
    assert len((await get(here.client, f"/v1/conversations/{conversation}/events")).json()["items"]) == 3

    replica.resume()
    await replica.wait_for_replay_async()
    for path, response in before.items():
        again = await get(here.client, path, **{"If-None-Match": response.headers["ETag"]})
        assert again.status_code == (304 if path == "/v1/tasks" else 200), path
        assert int(again.headers["Eventstore-Position"]) >= position
    assert await contents(here.client, "/v1/messages") == ["first words", "later words"]


async def test_a_client_reads_its_own_writes_once_they_are_replayed(here: Served, replica: Replica) -> None:
    conversation = await here.begin()
    await here.say(conversation, "one")
    path = f"/v1/conversations/{conversation}/messages"
    assert await contents(here.client, path) == ["one"]
    replica.pause()
    await here.say(conversation, "two")  # an append, and its response, do not wait for the standby
    assert (await here.client.patch(f"/v1/conversations/{conversation}", json={"name": "new"})).json()["name"] == "new"
    here.server_context.reader.timeout = 0.1
    late = await here.client.get(path)
    assert late.status_code == 503
    assert "has not replayed it" in late.json()["detail"]
    assert "Retry-After" in late.headers

    here.server_context.reader.timeout = 30
    reading = [asyncio.create_task(contents(here.client, each)) for each in (path, "/v1/messages")]
    done, _ = await asyncio.wait(reading, timeout=0.2)
    assert not done
    replica.resume()
    assert await asyncio.gather(*reading) == [["one", "two"], ["one", "two"]]
    assert (await get(here.client, f"/v1/conversations/{conversation}")).json()["name"] == "new"


async def test_at_least_waits_for_what_another_process_has_written(
    here: Served, elsewhere: EventStore, replica: Replica
) -> None:
    conversation = await here.begin()
    replica.pause()
    position = (await elsewhere.append(conversation, [MessageAdded(role="user", content="words")])).position
    await wait_for(elsewhere, position)
    paths = [f"{path}{'&' if '?' in path else '?'}at_least={position}" for path in READS if "tasks" not in path]
    reading = [asyncio.create_task(get(here.client, path)) for path in paths]
    done, _ = await asyncio.wait(reading, timeout=0.2)
    assert not done
    replica.resume()
    for response in await asyncio.gather(*reading):
        assert int(response.headers["Eventstore-Position"]) >= position


async def test_a_permission_that_is_taken_back_ends_access_to_its_conversation_at_once(
    store: EventStore, elsewhere: EventStore, replica: Replica
) -> None:
    async with served(store, requires_tokens=True) as here, people_of(store, here.url) as people:
        ana, bob = await people.person("acme", "ana"), await people.person("acme", "bob")
        made = (await ana.post("/v1/conversations", {"name": "Trip"})).json()["id"]
        path = f"/v1/conversations/{made}"
        await ana.post(f"{path}/members", {"user": "bob", "access": "read"})
        assert [each["id"] for each in (await bob.get("/v1/conversations")).json()["items"]] == [made]
        await replica.wait_for_replay_async()
        replica.pause()
        await elsewhere.append(made, [ConversationUnshared(user="bob")], tenant=ana.tenant)
        for each in ("/messages", "/state", "/members", "/events", "/tasks"):
            assert (await bob.get(f"{path}{each}")).status_code == 404, each
        assert [each["user"] for each in (await ana.get(f"{path}/members")).json()["items"]] == ["ana"]
        # Lists are as old as the standby's data, and so is who may see what in them.
        assert len((await bob.get("/v1/conversations")).json()["items"]) == 1
        replica.resume()
        await replica.wait_for_replay_async()
        assert (await bob.get("/v1/conversations")).json()["items"] == []
        # One that is taken back through this server holds for its lists, too.
        await ana.post(f"{path}/members", {"user": "bob", "access": "read"})
        assert len((await bob.get("/v1/conversations")).json()["items"]) == 1
        await ana.client.delete(f"{path}/members/bob")
        assert (await bob.get("/v1/conversations")).json()["items"] == []


async def test_without_the_standby_writes_go_on_and_reads_are_503(here: Served, replica: Replica) -> None:
    conversation = await here.begin()
    await get(here.client, "/v1/conversations")
    replica.stop()
    try:
        await here.say(conversation, "meanwhile")
        assert (await here.client.post("/v1/conversations", json={"name": "another"})).status_code == 201
        failed = await here.client.get("/v1/messages")
        assert failed.status_code == 503
        assert "prefer-standby" in failed.json()["detail"]
        ready = await get(here.client, "/ready")
        assert ready.json()["applied"] is None
        assert ready.json()["horizon"] > 0
    finally:
        replica.start()

    async def is_back() -> bool:
        return (await here.client.get("/v1/messages")).status_code == 200

    await until_async(is_back, "the standby is read again")
    assert await contents(here.client, "/v1/messages") == ["meanwhile"]
