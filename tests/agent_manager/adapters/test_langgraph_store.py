"""LangGraph's store: items, searches, namespaces and times to live, with their history in the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("langgraph.store.base")

from langgraph.config import get_store
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.base import GetOp, InvalidNamespaceError, PutOp, SearchOp
from support.waiting import until, until_async

from agent_manager.adapters.langgraph_search import TooManyVectors
from agent_manager.adapters.langgraph_store import ITEMS, EventStoreStore
from eventstore import EventStore, Settings, SyncEventStore, conversation_uuid
from eventstore.errors import ConnectionLost, InputError, InvalidEvent
from projections import catch_up, rebuild, verify

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]

USERS = ("users", "ana/1", "memories")


@pytest.fixture
async def items(store: EventStore) -> AsyncIterator[EventStoreStore]:
    async with EventStoreStore(store) as items:
        yield items


def keys(found: Any) -> list[str]:
    return [item.key for item in found]


async def test_an_item_reads_back_equal_as_soon_as_it_is_put(items: EventStoreStore) -> None:
    value = {"b": [1, 1.0, True, None, 2**60], "a": {"text": "ação 🚆", "": {}}}
    await items.aput(USERS, "one", value)
    first = await items.aget(USERS, "one")
    await items.aput(USERS, "one", {"other": 1})
    second = await items.aget(USERS, "one")

    assert first is not None
    assert second is not None
    assert (first.namespace, first.key, first.value) == (USERS, "one", value)
    assert second.value == {"other": 1}
    assert second.created_at == first.created_at < second.updated_at
    assert await items.aget(USERS, "two") is None
    assert await items.aget(USERS[:2], "one") is None


async def test_a_deleted_item_is_gone_and_begins_anew(items: EventStoreStore) -> None:
    await items.aput(USERS, "one", {"n": 1})
    before = await items.aget(USERS, "one")
    await items.adelete(USERS, "one")
    await items.adelete(USERS, "never put")
    assert await items.aget(USERS, "one") is None
    assert await items.asearch(USERS) == []
    assert await items.alist_namespaces() == []

    await items.aput(USERS, "one", {"n": 2})
    after = await items.aget(USERS, "one")
    assert before is not None
    assert after is not None
    assert after.created_at > before.updated_at


async def test_every_value_that_an_item_had_is_in_the_log(store: EventStore, items: EventStoreStore) -> None:
    for number in range(3):
        await items.aput(USERS, "one", {"n": number})
    await items.adelete(USERS, "one")

    conversation = conversation_uuid(store.tenant, "langgraph.store//users")
    history = [event async for event in store.read(conversation) if event.event_type.startswith("langgraph.")]
    assert [event.content.get("value") for event in history] == [{"n": 0}, {"n": 1}, {"n": 2}, None]


async def test_searches_filter_and_page(items: EventStoreStore) -> None:
    for number in range(12):
        await items.aput(("docs", f"{number % 2}"), f"{number}", {"n": number, "even": number % 2 == 0, "t": "x"})
    await items.aput(("docs2",), "other", {"n": 5})

    async def found(**wanted: Any) -> list[str]:
        return keys(await items.asearch(("docs",), limit=100, filter=wanted))

    assert keys(await items.asearch(("docs",), limit=3)) == ["11", "10", "9"]
    assert keys(await items.asearch(("docs",), limit=3, offset=10)) == ["1", "0"]
    assert keys(await items.asearch(("docs", "1"), limit=100)) == ["11", "9", "7", "5", "3", "1"]
    assert await found(n=5) == ["5"]
    assert await found(n={"$gte": 9, "$lt": 11}) == ["10", "9"]
    assert await found(n={"$gt": "9"}) == []
    assert await found(even={"$ne": True}) == ["11", "9", "7", "5", "3", "1"]
    assert await found(t={"$eq": "x"}, n={"$lte": 1}) == ["1", "0"]
    assert len(await items.asearch((), limit=100)) == 13
    with pytest.raises(ValueError, match=r"\$like"):
        await found(n={"$like": 1})


async def test_namespaces_match_labels_and_not_parts_of_them(items: EventStoreStore) -> None:
    for namespace in (("a", "b", "c"), ("a", "b", "d"), ("a", "bb"), ("a/b",), ("a%2Fb",), ("é", "x", "c")):
        await items.aput(namespace, "k", {})

    assert await items.alist_namespaces(prefix=("a", "b")) == [("a", "b", "c"), ("a", "b", "d")]
    assert await items.alist_namespaces(prefix=("a",), max_depth=2) == [("a", "b"), ("a", "bb")]
    assert await items.alist_namespaces(prefix=("*", "x")) == [("é", "x", "c")]
    assert await items.alist_namespaces(suffix=("c",)) == [("a", "b", "c"), ("é", "x", "c")]
    assert await items.alist_namespaces(prefix=("a/b",)) == [("a/b",)]
    assert len(await items.alist_namespaces(limit=2, offset=1)) == 2
    assert len(await items.asearch(("a", "b"))) == 2


async def test_expired_items_are_hidden_at_once_and_reads_extend_their_time(store: EventStore) -> None:
    seconds = 2.0
    async with EventStoreStore(store, ttl={"default_ttl": seconds / 60, "refresh_on_read": True}) as items:
        await items.aput(("cache",), "read", {})
        await items.aput(("cache",), "forgotten", {})
        await items.aput(("cache",), "kept", {}, ttl=None)
        end = asyncio.get_running_loop().time() + 2 * seconds
        while asyncio.get_running_loop().time() < end:
            assert await items.aget(("cache",), "read") is not None
        assert sorted(keys(await items.asearch(("cache",), refresh_ttl=False))) == ["kept", "read"]
        assert await items.asweep_ttl() == 1
        assert await items.asweep_ttl() == 0


async def deleted_keys(store: EventStore) -> list[str]:
    conversation = conversation_uuid(store.tenant, "langgraph.store//cache")
    return [event.content["key"] async for event in store.read(conversation, types=["langgraph.item_deleted"])]


async def test_a_sweeper_records_expired_items_as_deleted_until_it_is_stopped(store: EventStore) -> None:
    async def is_swept() -> bool:
        return await deleted_keys(store) == ["one"]

    ttl: Any = {"default_ttl": 0.001, "sweep_interval_minutes": 0.001}
    async with EventStoreStore(store, ttl=ttl) as items:
        sweeper = await items.astart_ttl_sweeper()
        assert items.start_ttl_sweeper() is items.start_ttl_sweeper()  # there is one
        await items.aput(("cache",), "one", {})
        await until_async(is_swept, "the item is swept")
        assert await items.astop_ttl_sweeper()
        assert sweeper.done()
        await items.aput(("cache",), "two", {})
        sweeper = await items.astart_ttl_sweeper(60)
        sweeper.cancel()
        assert await items.astop_ttl_sweeper()
        running = items.start_ttl_sweeper(60)
    assert running.done()  # leaving the context stops it
    assert await is_swept()


async def test_a_sweeper_goes_on_after_an_error(store: EventStore, caplog: pytest.LogCaptureFixture) -> None:
    class FailingOnce(EventStoreStore):
        sweeps = 0

        async def asweep_ttl(self) -> int:
            self.sweeps += 1
            if self.sweeps == 1:
                raise ConnectionLost
            return await super().asweep_ttl()

    async def is_swept() -> bool:
        return await deleted_keys(store) == ["one"]

    async with FailingOnce(store, ttl={"default_ttl": 0.001}) as items:
        items.start_ttl_sweeper(0.001)
        await items.aput(("cache",), "one", {})
        await until_async(is_swept, "the item is swept")
    assert "were not swept" in caplog.text


async def test_without_times_to_live_there_is_no_sweeper(items: EventStoreStore) -> None:
    assert items.start_ttl_sweeper().done()
    assert await items.astop_ttl_sweeper()


async def test_users_and_tenants_have_items_of_their_own(store: EventStore, items: EventStoreStore) -> None:
    async with EventStoreStore(store, user="ana") as ana, EventStoreStore(store, user="bruno") as bruno:
        for number, each in enumerate((items, ana, bruno)):
            await each.aput(("notes",), "one", {"n": number})
        await ana.adelete(("notes",), "one")
        assert await ana.aget(("notes",), "one") is None
        for number, each in ((0, items), (2, bruno)):
            assert [item.value for item in await each.asearch(())] == [{"n": number}]


async def test_the_table_is_rebuilt_and_verified_from_the_log(store: EventStore, items: EventStoreStore) -> None:
    for number in range(4):
        await items.aput(USERS, f"{number % 2}", {"n": number}, ttl=60 if number % 2 else None)
    await items.adelete(USERS, "0")
    await items.aput(USERS, "0", {"n": 5})
    before = await items.asearch(())

    await rebuild(store, [ITEMS])
    assert [item.dict() for item in await items.asearch(())] == [item.dict() for item in before]
    await items.aput(USERS, "2", {"n": 6})
    assert keys(await items.asearch(())) == ["2", "0", "1"]
    await catch_up(store, [ITEMS])
    assert all(not verified.differences for verified in await verify(store, [ITEMS]))


async def test_operations_of_a_batch_read_before_they_write(items: EventStoreStore) -> None:
    await items.aput(USERS, "one", {"n": 1})
    results = await items.abatch([
        PutOp(USERS, "one", {"n": 2}),
        PutOp(USERS, "one", {"n": 3}),
        PutOp(("others",), "two", {"n": 4}),
        GetOp(USERS, "one"),
        SearchOp(()),
    ])  # fmt: skip
    assert results[:3] == [None, None, None]
    assert results[3].value == {"n": 1}  # type: ignore[union-attr]
    assert len(results[4]) == 1  # type: ignore[arg-type]
    assert {item.key: item.value["n"] for item in await items.asearch(())} == {"one": 3, "two": 4}


async def test_what_cannot_be_stored_is_refused(items: EventStoreStore) -> None:
    with pytest.raises(InvalidNamespaceError):
        await items.aput(("a.b",), "k", {})
    with pytest.raises(InvalidEvent, match="NUL"):
        await items.aput(("a",), "k", {"text": "\0"})
    with pytest.raises(InvalidEvent, match="value"):
        await items.aput(("a",), "k", {"value": {1, 2}})
    with pytest.raises(InputError, match="asynchronous"):
        items.get(("a",), "k")


def remember(state: MessagesState) -> dict[str, Any]:
    get_store().put(("facts",), "count", {"messages": len(state["messages"])})
    return {}


@pytest.mark.own_database
def test_a_graph_remembers_items_with_a_synchronous_store(settings: Settings) -> None:
    with SyncEventStore(settings) as store, EventStoreStore(store, ttl={"default_ttl": 60}) as items:
        sweeper = items.start_ttl_sweeper(0.001)
        agent = StateGraph(MessagesState).add_node(remember).add_edge(START, "remember").compile(store=items)
        agent.invoke({"messages": [("user", "hello")]})
        item = items.get(("facts",), "count")
        assert item is not None
        assert item.value == {"messages": 1}
        items.put(("facts",), "gone", {}, ttl=0.001)
        conversation = conversation_uuid(store.asynchronous.tenant, "langgraph.store//facts")
        until(lambda: [*store.read(conversation, types=["langgraph.item_deleted"])], "the item is swept")
        assert items.sweep_ttl() == 0
        assert items.stop_ttl_sweeper()
        assert sweeper.done()


# Semantic search

WORDS = ("train", "boat", "sea", "rail")


def embed(texts: list[str]) -> list[list[float]]:
    """Return how often each word is in each text."""
    return [[float(text.count(word)) for word in WORDS] for text in texts]


INDEX: Any = {"dims": len(WORDS), "embed": embed, "fields": ["text", "notes[*].text"]}


async def test_a_search_finds_the_most_similar_items_first(store: EventStore) -> None:
    async with EventStoreStore(store, index=INDEX) as items:
        await items.aput(USERS, "a", {"text": "a train on the rail"})
        await items.aput(USERS, "b", {"text": "nothing", "notes": [{"text": "a boat"}, {"text": "a boat at sea"}]})
        await items.aput(USERS, "c", {"text": "train"})
        await items.aput(USERS, "none", {"text": "train"}, index=False)
        await items.aput(USERS, "other", {"text": "rail", "title": "sea"}, index=["title"])
        found = await items.asearch(USERS, query="the train")
        assert keys(found)[:2] == ["c", "a"]
        assert [round(item.score or 0, 4) for item in found[:2]] == [1.0, 0.7071]
        assert keys(await items.asearch(USERS, query="sea boat", limit=1)) == ["b"]
        assert keys(await items.asearch(USERS, query="sea boat", limit=1, offset=1)) == ["other"]
        assert keys(await items.asearch(USERS, query="train", filter={"text": "train"})) == ["c"]
        await items.aput(USERS, "c", {"text": "sea"})
        await items.adelete(USERS, "a")
        [best, *_] = await items.asearch(USERS, query="sea")
        assert (best.key, best.value) == ("c", {"text": "sea"})
        assert "a" not in keys(await items.asearch(USERS, query="train"))
        await catch_up(store)


@pytest.mark.parametrize(("distance", "expected"), [("l2", ["near", "far"]), ("inner_product", ["far", "near"])])
async def test_other_distances_can_be_chosen(store: EventStore, distance: str, expected: list[str]) -> None:
    async with EventStoreStore(store, index={**INDEX, "distance_type": distance}) as items:
        await items.aput(USERS, "far", {"text": "train train train boat"})
        await items.aput(USERS, "near", {"text": "train"})
        assert keys(await items.asearch(USERS, query="train")) == expected


async def test_a_search_of_too_many_items_is_refused(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_manager.adapters.langgraph_store.MAX_COMPARED", 2)
    async with EventStoreStore(store, index=INDEX) as items:
        for number in range(3):
            await items.aput(USERS, f"{number}", {"text": "train"})
        await items.aput((*USERS, "few"), "one", {"text": "train"})
        with pytest.raises(TooManyVectors, match="longer namespace"):
            await items.asearch(USERS, query="train")
        assert keys(await items.asearch((*USERS, "few"), query="train")) == ["one"]


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"dims": None}, "dims is missing"),
        ({"embed": None}, "embed is missing"),
        ({"fields": "text"}, "list of paths"),
        ({"distance_type": "hamming"}, "cosine"),
    ],
)
async def test_an_index_that_is_not_valid_is_refused(store: EventStore, members: Any, error: str) -> None:
    with pytest.raises(InputError, match=error):
        EventStoreStore(store, index=INDEX | members)


async def test_an_embedding_of_other_dimensions_is_refused(store: EventStore) -> None:
    async with EventStoreStore(store, index=INDEX | {"dims": 7}) as items:
        with pytest.raises(InputError, match="4 numbers, and dims is 7"):
            await items.aput(USERS, "one", {"text": "train"})


@pytest.mark.own_database
def test_synchronous_searches_embed_in_the_callers_thread(settings: Settings) -> None:
    with SyncEventStore(settings) as store, EventStoreStore(store, index=INDEX) as items:
        items.put(USERS, "one", {"text": "a train"})
        assert keys(items.search(USERS, query="train")) == ["one"]
