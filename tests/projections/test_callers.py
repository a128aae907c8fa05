"""Two tenants and their users through every read of the read side: each sees what is theirs and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import pytest
from support.scoped_queries import connected_as

from eventstore import (
    Caller,
    ConversationCreated,
    ConversationShared,
    ConversationUnshared,
    EventStore,
    MessageAdded,
    TaskArtifactAdded,
    TaskCreated,
)
from eventstore.errors import Forbidden, InputError, NotFound
from projections import ConversationCache, InlineAppender, Projection, Reader, Search, Statistics, all_items, catch_up
from projections.verify import verify_members

pytestmark = pytest.mark.shared_database

NAMES = {"shared": UUID(int=1), "ana's": UUID(int=2), "bob's": UUID(int=3), "the tenant's": UUID(int=4)}
TENANTS = ("acme", "globex")
SEEN = {
    None: {"shared", "ana's", "bob's", "the tenant's"},
    "ana": {"shared", "ana's"},
    "bob": {"shared", "bob's"},
    "eve": set[str](),
}
OWNERS = {"shared": "ana", "ana's": "ana", "bob's": "bob", "the tenant's": None}

every_caller = pytest.mark.parametrize(
    "caller", [Caller(tenant, user) for tenant in TENANTS for user in SEEN], ids=lambda c: f"{c.user} of {c.tenant}"
)


def seen_by(caller: Caller) -> set[str]:
    return {f"{name} in {caller.tenant}" for name in SEEN[caller.user]}


async def fill(store: EventStore) -> None:
    """Append the same conversations for both tenants; each row says in its text which it is."""
    for tenant in TENANTS:
        for name, conversation in NAMES.items():
            text = f"{name} in {tenant}"
            events: list[Any] = [
                ConversationCreated(name=text),
                MessageAdded(role="user", content=f"olive {text}"),
                MessageAdded(role="assistant", content=f"olive answer {text}"),
                TaskCreated(task_id=uuid5(conversation, tenant), description=f"olive task {text}"),
                TaskArtifactAdded(task_id=uuid5(conversation, tenant), artifact_id="a", parts=[{"text": text}]),
            ]
            owner = OWNERS[name]
            await store.append(conversation, events, tenant=tenant, user=owner, actor=owner or "service")
        shares = [ConversationShared(user="bob", access="read")]
        await store.append(NAMES["shared"], shares, tenant=tenant, user="ana")
    await catch_up(store)


@pytest.fixture(scope="module")
async def filled(module_store: EventStore) -> EventStore:
    """The store with these conversations, for tests that only read."""
    await fill(module_store)
    return module_store


@every_caller
@pytest.mark.parametrize("which", [{}, {"newest_first": True, "limit": 1}], ids=["whole", "in pages"])
async def test_lists_hold_what_the_caller_may_see(filled: EventStore, caller: Caller, which: dict[str, Any]) -> None:
    reader = Reader(filled, caller=caller)
    by_time = {"since": datetime(2000, 1, 1, tzinfo=UTC)}
    expected = seen_by(caller)
    for filters in ({}, {"by": "created"}, {"active": True}, {"deleted": True}, by_time):
        found = [row async for row in all_items(reader.conversations, **which, **filters)]
        assert {row.name for row in found} == expected
        assert len(found) == len(expected)
    of_ana = {row.name async for row in all_items(reader.conversations, **which, actor="ana")}
    assert of_ana == {name for name in expected if name.startswith(("shared", "ana's"))}
    for filters in ({}, by_time, {"role": "user"}):
        messages = [row async for row in all_items(reader.messages, **which, **filters)]  # type: ignore[arg-type]
        assert {row.content.removeprefix("olive ").removeprefix("answer ") for row in messages} == expected
    for filters in ({}, by_time, {"status": "pending"}):
        tasks = [row async for row in all_items(reader.tasks, **which, **filters)]  # type: ignore[arg-type]
        assert {(row.description or "").removeprefix("olive task ") for row in tasks} == expected
        assert {row.artifacts[0]["parts"][0]["text"] for row in tasks} == expected
    trail = [event async for event in all_items(reader.history, **which)]
    assert {event.tenant_id for event in trail} <= {caller.tenant}
    assert {event.conversation_id for event in trail} == {NAMES[name] for name in SEEN[caller.user]}


@every_caller
async def test_one_conversation_is_there_or_it_is_not(filled: EventStore, caller: Caller) -> None:
    reader, cache = Reader(filled, caller=caller), ConversationCache(Reader(filled, caller=caller))
    refusals = set()
    for name, conversation in NAMES.items():
        messages, tasks = await reader.messages(conversation), await reader.tasks(conversation)
        trail = await reader.history(conversation)
        if name in SEEN[caller.user]:
            text = f"{name} in {caller.tenant}"
            assert (await reader.conversation(conversation)).name == text
            assert (await reader.conversation_at(conversation, version=1)).conversation.name == text
            state = await cache.conversation(conversation)
            assert (state.conversation.name, list(state.messages), list(state.tasks)) == (text, messages, tasks)
            assert (len(messages), len(tasks), trail[0].tenant_id) == (2, 1, caller.tenant)
            continue
        assert (messages, tasks, trail) == ([], [], [])
        for read in (
            reader.conversation(conversation),
            reader.conversation_at(conversation, version=1),
            reader.conversation_at(conversation, version=1000),
            reader.conversation_at(conversation, position=1),
            cache.conversation(conversation),
        ):
            with pytest.raises(NotFound) as refused:
                await read
            refusals.add(str(refused.value).replace(str(conversation), ""))
    unknown = UUID(int=99)
    with pytest.raises(NotFound) as refused:
        await reader.conversation(unknown)
    assert refusals <= {str(refused.value).replace(str(unknown), "")}


@every_caller
async def test_a_search_finds_what_the_caller_may_see(filled: EventStore, caller: Caller) -> None:
    search = Search(filled, caller=caller)
    for query in ("olive", "oliv*", '"olive answer"', "-nothing", "olvie"):  # the last is misspelt
        for by in ("relevance", "time"):
            hits = (await search.page(query, by=by, limit=1000)).hits  # type: ignore[arg-type]
            assert {hit.conversation_id for hit in hits} == {NAMES[name] for name in SEEN[caller.user]}
            assert all(caller.tenant in hit.snippet for hit in hits if hit.kind == "message")
    for name, conversation in NAMES.items():
        found = (await search.page("olive", conversation=conversation)).hits
        assert bool(found) == (name in SEEN[caller.user])


@every_caller
async def test_statistics_count_what_the_caller_may_see(filled: EventStore, caller: Caller) -> None:
    statistics = Statistics(filled, caller=caller)
    conversations = len(SEEN[caller.user])
    days = await statistics.by_day()
    assert sum(day.messages for day in days) == 2 * conversations
    assert sum(day.conversations for day in days) == sum(day.tasks for day in days) == conversations
    assert {row.role: row.messages for row in await statistics.by_role()} == (
        {"user": conversations, "assistant": conversations} if conversations else {}
    )
    actors = {row.actor for row in await statistics.by_actor()} - {""}
    assert actors == {OWNERS[name] or "service" for name in SEEN[caller.user]}
    assert sum(row.conversations for row in await statistics.by_role() if row.role == "user") == conversations
    assert sum(row.tasks for row in await statistics.task_times()) == conversations


@pytest.mark.own_database
async def test_what_is_shared_is_read_at_once_and_no_longer_once_it_is_not(store: EventStore) -> None:
    await fill(store)
    conversation, bob = NAMES["ana's"], Reader(store, caller=Caller("acme", "bob"))
    cache, search = ConversationCache(bob), Search(store, caller=bob.caller)

    async def sees() -> set[bool]:
        found = [bool(await bob.messages(conversation)), bool(await bob.history(conversation))]
        found.append(bool((await search.page("olive", conversation=conversation)).hits))
        for read in (bob.conversation, cache.conversation):
            try:
                await read(conversation)
                found.append(True)
            except NotFound:
                found.append(False)
        return set(found)

    for _ in range(3):
        assert await sees() == {False}
        shares = [ConversationShared(user="bob", access="read")]
        await store.append(conversation, shares, tenant="acme", user="ana")
        assert await sees() == {True}
        await store.append(conversation, [ConversationUnshared(user="bob")], tenant="acme", user="ana")


LATEST = Projection(
    "newest",
    ("newest",),
    "INSERT INTO newest SELECT e.tenant_id, e.conversation_id, max(e.version) FROM batch e GROUP BY 1, 2"
    " ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET version = excluded.version",
    "CREATE TABLE newest (tenant_id text, conversation_id uuid, version integer,"
    " PRIMARY KEY (tenant_id, conversation_id))",
)


@pytest.mark.own_database
async def test_row_level_security_holds_for_an_inline_append_too(store: EventStore) -> None:
    await fill(store)
    conversation = NAMES["ana's"]
    async with InlineAppender(store, [LATEST]) as appender:
        said = [MessageAdded(role="user", content="more")]
        for tenant in TENANTS:
            await appender.append(conversation, said, tenant=tenant, user="ana")
            with pytest.raises(Forbidden):
                await appender.append(conversation, said, tenant=tenant, user="bob")
    for caller in (Caller(tenant, user) for tenant in TENANTS for user in SEEN):
        rows = await store.tables(caller).fetch("SELECT tenant_id, version FROM newest")
        assert rows == ([(caller.tenant, 6)] if "ana's" in SEEN[caller.user] else [])


@pytest.mark.own_database
async def test_members_that_the_log_does_not_give_are_named(store: EventStore, database_url: str) -> None:
    await fill(store)
    found = await verify_members(store)
    assert (found.differences, found.rows) == ([], [])
    with connected_as(database_url, "eventstore_owner") as owner:
        owner.execute("INSERT INTO conversation_members VALUES ('acme', %s, 'eve', 'read')", (NAMES["ana's"],))
        owner.execute("DELETE FROM conversation_members WHERE tenant_id = 'globex' AND user_id = 'bob'")
    found = await verify_members(store)
    assert {(d.tenant_id, d.conversation_id, d.rows, d.expected) for d in found.differences} == {
        ("acme", NAMES["ana's"], 1, 0), ("globex", NAMES["shared"], 0, 1), ("globex", NAMES["bob's"], 0, 1)
    }  # fmt: skip
    eve = "(acme,{},eve,read)".format(NAMES["ana's"])
    assert [row.row for row in found.rows if not row.is_expected] == [eve]


async def test_either_a_tenant_or_a_caller(store: EventStore) -> None:
    for kind in (Reader, Search, Statistics):
        with pytest.raises(InputError, match="leave out one of them"):
            kind(store, "acme", caller=Caller("globex"))
