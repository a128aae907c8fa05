"""Tenants and their users see and change what a simple model allows, by every read of the log and the tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.examples import examples
from support.follow import Follower
from support.scoped_queries import open_as

from eventstore import (
    Caller,
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

SHARED, ANAS, BOBS, OPEN = CONVERSATIONS = [UUID(int=number) for number in range(1, 5)]
"""Used by both tenants."""
TENANTS = ("acme", "globex")
USERS = ("ana", "bob", "eve")
MESSAGES_PER_WRITE = 2


class Step(NamedTuple):
    """An append to a conversation; user None is the whole tenant.

    Attributes:
        shares_with: the member whom the event names; None appends messages and a task instead.
        access: None takes the member's access away.
    """

    tenant: str
    conversation: UUID
    user: str | None
    shares_with: str | None = None
    access: str | None = None


steps = st.builds(
    Step,
    st.sampled_from(TENANTS),
    st.sampled_from(CONVERSATIONS),
    st.sampled_from((None, *USERS)),
    st.none() | st.sampled_from(USERS),
    st.sampled_from(("read", "write", None)),
)
USUAL = [
    step
    for tenant in TENANTS
    for step in (
        Step(tenant, SHARED, "ana"),
        Step(tenant, SHARED, "ana", "bob", "read"),
        Step(tenant, ANAS, "ana"),
        Step(tenant, BOBS, "bob"),
        Step(tenant, OPEN, None),
    )
]
"""Conversations of each tenant: one of Ana that Bob may read, one of Ana, one of Bob, one without an owner."""


@dataclass
class Expected:
    """A conversation as the model has it."""

    members: dict[str, str]
    writers: list[str | None] = field(default_factory=list)


class Model:
    """The rights to all conversations: the owner, who began it, and the whole tenant may do anything."""

    def __init__(self) -> None:
        self._conversations: dict[tuple[str, UUID], Expected] = {}

    def apply(self, step: Step) -> bool:
        """Return whether the step is allowed; if so, it takes effect."""
        found = self._conversations.get((step.tenant, step.conversation))
        right = "own" if found is None or step.user is None else found.members.get(step.user)
        if right not in (("own",) if step.shares_with else ("own", "write")):
            return False
        if found is None:
            found = Expected({step.user: "own"} if step.user else {})
            self._conversations[step.tenant, step.conversation] = found
        if step.shares_with is None:
            found.writers.append(step.user)
        elif found.members.get(step.shares_with) != "own":
            found.members.pop(step.shares_with, None)
            found.members |= {step.shares_with: step.access} if step.access else {}
        return True

    def visible(self, tenant: str, user: str | None) -> dict[UUID, Expected]:
        """Return the conversations that a caller may see."""
        return {
            conversation: found
            for (owner, conversation), found in self._conversations.items()
            if owner == tenant and (user is None or user in found.members)
        }


class Scoped(NamedTuple):
    """A caller, and what they are to see.

    Attributes:
        label: of the tenant, in all its texts.
        written: the visible conversations that hold messages.
    """

    caller: Caller
    label: str
    visible: dict[UUID, Expected]

    @property
    def written(self) -> dict[UUID, int]:
        """The number of writes to each visible conversation that has any."""
        return {conversation: len(found.writers) for conversation, found in self.visible.items() if found.writers}


async def append(store: EventStore, tenant: str, step: Step) -> None:
    if step.shares_with is None:
        task, text = uuid4(), f"olive in {step.tenant}"
        events: list[Any] = [
            MessageAdded(role="user", content=text),
            MessageAdded(role="assistant", content=f"olive answer in {step.tenant}"),
            TaskCreated(task_id=task, description=text),
            TaskArtifactAdded(task_id=task, artifact_id="a", parts=[{"text": text}]),
        ]
    elif step.access is None:
        events = [ConversationUnshared(user=step.shares_with)]
    else:
        events = [ConversationShared(user=step.shares_with, access=step.access)]  # type: ignore[arg-type]
    await store.append(step.conversation, events, tenant=tenant, user=step.user, actor=step.user or "service")


@given(st.lists(steps, max_size=15))
@examples(8)
@example(USUAL)
async def test_callers_see_and_change_what_the_model_allows(store: EventStore, history: list[Step]) -> None:
    model, tenants = Model(), {label: f"{label} {uuid4()}" for label in TENANTS}
    for step in history:
        if model.apply(step):
            await append(store, tenants[step.tenant], step)
        else:
            with pytest.raises(Forbidden, match=f"{step.conversation} does not exist, or you lack permission"):
                await append(store, tenants[step.tenant], step)
        log = store.read(step.conversation, tenant=tenants[step.tenant], user="bob")
        is_visible = step.conversation in model.visible(step.tenant, "bob")
        assert (await anext(aiter(log), None) is not None) == is_visible, "a change of rights takes effect at once"
    await catch_up(store)
    for label, user in product(TENANTS, (None, *USERS)):
        scoped = Scoped(Caller(tenants[label], user), label, model.visible(label, user))
        for check in (
            check_log, check_tables, check_members, check_lists, check_single_conversations, check_search,
            check_statistics,
        ):  # fmt: skip
            await check(store, scoped)
    stranger = Scoped(Caller(f"initech {uuid4()}"), "initech", {})
    await check_log(store, stranger)
    await check_tables(store, stranger)
    assert (await verify_members(store)).differences == []


async def check_log(store: EventStore, scoped: Scoped) -> None:
    caller = scoped.caller
    forwards = [event async for event in store.read_log(tenant=caller.tenant, user=caller.user)]
    assert {event.tenant_id for event in forwards} <= {caller.tenant}
    assert {event.conversation_id for event in forwards} == set(scoped.visible)
    backwards = [event async for event in store.read_log(tenant=caller.tenant, user=caller.user, backwards=True)]
    assert backwards == forwards[::-1]
    for conversation in CONVERSATIONS:
        found = [event async for event in store.read(conversation, tenant=caller.tenant, user=caller.user)]
        assert found == [event for event in forwards if event.conversation_id == conversation]
    async with Follower(store.subscribe(tenant=caller.tenant, user=caller.user)) as follower:
        assert await follower.take(len(forwards)) == forwards
        assert follower.is_empty()


READABLE = """
SELECT c.relname
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'conversation_id'
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
   AND has_column_privilege('eventstore_reader', c.oid, a.attnum, 'SELECT')
"""
FILLED_BY_WRITES = {"messages", "tasks", "task_artifacts", "statistics_tasks"}


async def check_tables(store: EventStore, scoped: Scoped) -> None:
    """Plain SQL under the readers' role shows only rows of the visible conversations."""
    tables, tenant = store.tables(scoped.caller), scoped.caller.tenant
    rows = await tables.fetch("SELECT tenant_id, id FROM conversations")
    assert set(rows) == {(tenant, conversation) for conversation in scoped.visible}
    readable = {table for (table,) in await tables.fetch(READABLE)}
    assert readable > FILLED_BY_WRITES
    for table in readable:
        found = set(await tables.fetch(f"SELECT tenant_id, conversation_id FROM {table}"))
        assert found <= {(tenant, conversation) for conversation in scoped.visible}, table
        if table in FILLED_BY_WRITES:
            assert found == {(tenant, conversation) for conversation in scoped.written}, table


async def check_members(store: EventStore, scoped: Scoped) -> None:
    for conversation in CONVERSATIONS:
        rows = await store.tables(scoped.caller).fetch(
            "SELECT user_id, access FROM members_of(%(conversation)s)", {"conversation": conversation}
        )
        assert dict(rows) == (scoped.visible[conversation].members if conversation in scoped.visible else {})


async def check_lists(store: EventStore, scoped: Scoped) -> None:
    reader, tenant = Reader(store, caller=scoped.caller), scoped.caller.tenant
    by_time = {"since": datetime(2000, 1, 1, tzinfo=UTC)}
    for pages in ({}, {"newest_first": True, "limit": 1}):
        for filters in ({}, {"by": "created"}, {"active": True}, {"deleted": True}, by_time):
            ids = [row.id async for row in all_items(reader.conversations, **pages, **filters)]
            assert sorted(ids) == sorted(scoped.visible)
        of_ana = {row.id async for row in all_items(reader.conversations, **pages, actor="ana")}
        assert of_ana >= {conversation for conversation, found in scoped.visible.items() if "ana" in found.writers}
        assert of_ana <= set(scoped.visible)
        for filters, per_write in (({}, MESSAGES_PER_WRITE), (by_time, MESSAGES_PER_WRITE), ({"role": "user"}, 1)):
            messages = [row async for row in all_items(reader.messages, **pages, **filters)]  # type: ignore[arg-type]
            assert len(messages) == per_write * sum(scoped.written.values())
            assert all(row.content.endswith(scoped.label) for row in messages)
        for filters in ({}, by_time, {"status": "pending"}):
            tasks = [row async for row in all_items(reader.tasks, **pages, **filters)]  # type: ignore[arg-type]
            assert len(tasks) == sum(scoped.written.values())
            assert all(row.artifacts[0]["parts"][0]["text"] == f"olive in {scoped.label}" for row in tasks)
        history = [event async for event in all_items(reader.history, **pages)]
        assert {event.tenant_id for event in history} <= {tenant}
        assert {event.conversation_id for event in history} == set(scoped.visible)


async def check_single_conversations(store: EventStore, scoped: Scoped) -> None:
    reader, cache = Reader(store, caller=scoped.caller), ConversationCache(Reader(store, caller=scoped.caller))
    errors = set()
    for conversation in (*CONVERSATIONS, UUID(int=99)):  # the last does not exist
        messages, tasks = await reader.messages(conversation), await reader.tasks(conversation)
        history = await reader.history(conversation)
        if conversation in scoped.visible:
            writes = scoped.written.get(conversation, 0)
            assert (len(messages), len(tasks)) == (MESSAGES_PER_WRITE * writes, writes)
            assert history[0].tenant_id == scoped.caller.tenant
            assert (await reader.conversation(conversation)).id == conversation
            assert (await reader.conversation_at(conversation, version=1)).conversation.id == conversation
            state = await cache.conversation(conversation)
            assert (list(state.messages), list(state.tasks)) == (messages, tasks)
            continue
        assert (messages, tasks, history) == ([], [], [])
        for read in (
            reader.conversation(conversation),
            reader.conversation_at(conversation, version=1),
            reader.conversation_at(conversation, version=1000),
            reader.conversation_at(conversation, position=1),
            cache.conversation(conversation),
        ):
            with pytest.raises(NotFound) as refused:
                await read
            errors.add(str(refused.value).replace(str(conversation), ""))
    assert len(errors) == 1, "a hidden conversation and one that does not exist give the same error"


async def check_search(store: EventStore, scoped: Scoped) -> None:
    search = Search(store, caller=scoped.caller)
    for query in ("olive", "oliv*", '"olive answer"', "olive -nothing", "olvie"):  # the last is misspelt
        for by in ("relevance", "time"):
            hits = (await search.page(query, by=by, limit=1000)).items  # type: ignore[arg-type]
            assert {hit.conversation_id for hit in hits} == set(scoped.written), query
            assert all(scoped.label in hit.snippet for hit in hits if hit.kind == "message")
    for conversation in CONVERSATIONS:
        found = (await search.page("olive", conversation=conversation)).items
        assert bool(found) == (conversation in scoped.written)


async def check_statistics(store: EventStore, scoped: Scoped) -> None:
    statistics = Statistics(store, caller=scoped.caller)
    conversations, writes = len(scoped.written), sum(scoped.written.values())
    days = await statistics.by_day()
    assert sum(day.messages for day in days) == MESSAGES_PER_WRITE * writes
    assert sum(day.tasks for day in days) == writes
    assert sum(day.conversations for day in days) == len(scoped.visible)
    roles = await statistics.by_role()
    assert {row.role: (row.messages, row.conversations) for row in roles if row.role} == (
        {"user": (writes, conversations), "assistant": (writes, conversations)} if writes else {}
    )
    writers = {writer or "service" for found in scoped.visible.values() for writer in found.writers}
    assert {row.actor for row in await statistics.by_actor() if row.messages} == writers
    assert sum(row.tasks for row in await statistics.task_times()) == writes


async def append_usual(store: EventStore) -> None:
    """Append the usual conversations for both tenants."""
    for step in USUAL:
        await append(store, step.tenant, step)
    await catch_up(store)


@pytest.mark.own_database
async def test_a_shared_conversation_is_visible_at_once_and_no_longer_once_it_is_unshared(store: EventStore) -> None:
    await append_usual(store)
    bob = Reader(store, caller=Caller("acme", "bob"))
    cache, search = ConversationCache(bob), Search(store, caller=bob.caller)

    async def outcomes() -> set[bool]:
        found = [bool(await bob.messages(ANAS)), bool(await bob.history(ANAS))]
        found.append(bool((await search.page("olive", conversation=ANAS)).items))
        for read in (bob.conversation, cache.conversation):
            try:
                await read(ANAS)
                found.append(True)
            except NotFound:
                found.append(False)
        return set(found)

    for _ in range(3):
        assert await outcomes() == {False}
        await append(store, "acme", Step("acme", ANAS, "ana", "bob", "read"))
        assert await outcomes() == {True}
        await append(store, "acme", Step("acme", ANAS, "ana", "bob", None))


LATEST = Projection(
    "newest",
    ("newest",),
    "INSERT INTO newest SELECT e.tenant_id, e.conversation_id, max(e.version) FROM batch e GROUP BY 1, 2"
    " ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET version = excluded.version",
    "CREATE TABLE newest (tenant_id text, conversation_id uuid, version integer,"
    " PRIMARY KEY (tenant_id, conversation_id))",
)


@pytest.mark.own_database
async def test_an_inline_append_needs_the_same_rights_and_its_table_shows_visible_conversations(
    store: EventStore,
) -> None:
    await append_usual(store)
    async with InlineAppender(store, [LATEST]) as appender:
        message = [MessageAdded(role="user", content="more")]
        for tenant in TENANTS:
            await appender.append(ANAS, message, tenant=tenant, user="ana")
            with pytest.raises(Forbidden):
                await appender.append(ANAS, message, tenant=tenant, user="bob")
    for tenant, (user, sees) in product(TENANTS, {None: True, "ana": True, "bob": False, "eve": False}.items()):
        rows = await store.tables(Caller(tenant, user)).fetch("SELECT tenant_id, version FROM newest")
        assert rows == ([(tenant, 5)] if sees else [])


@pytest.mark.own_database
async def test_members_that_do_not_follow_from_the_log_are_named(store: EventStore, database_url: str) -> None:
    await append_usual(store)
    found = await verify_members(store)
    assert (found.differences, found.rows) == ([], [])
    with open_as(database_url, "eventstore_owner") as owner:
        owner.execute("INSERT INTO conversation_members VALUES ('acme', %s, 'eve', 'read')", (ANAS,))
        owner.execute("DELETE FROM conversation_members WHERE tenant_id = 'globex' AND user_id = 'bob'")
        owner.execute(
            "UPDATE conversation_members SET access = 'write' WHERE (tenant_id, conversation_id) = ('acme', %s)"
            " AND user_id = 'bob'",
            (BOBS,),
        )
    found = await verify_members(store)
    assert {(d.tenant_id, d.conversation_id, d.rows, d.expected) for d in found.differences} == {
        ("acme", ANAS, 1, 0), ("acme", BOBS, 1, 1), ("globex", SHARED, 0, 1), ("globex", BOBS, 0, 1)
    }  # fmt: skip
    unexpected = {row.row for row in found.rows if not row.is_expected}
    assert unexpected == {f"(acme,{ANAS},eve,read)", f"(acme,{BOBS},bob,write)"}


async def test_a_reader_takes_a_tenant_or_a_caller_but_not_both(store: EventStore) -> None:
    for kind in (Reader, Search, Statistics):
        with pytest.raises(InputError, match="leave out one of them"):
            kind(store, "acme", caller=Caller("globex"))
