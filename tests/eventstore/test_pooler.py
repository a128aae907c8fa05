"""Behind a pooler in transaction mode, sessions that other clients left in another role do not matter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import capabilities
from support.pooler import Pooler, pooler_to
from support.raw import note

from eventstore import Append, Caller, EventStore, MessageAdded, Settings
from eventstore.database.scoped_connection import MAX_PREPARED, USES_TO_PREPARE
from eventstore.errors import Forbidden, PermissionDenied
from projections import InlineAppender, Projection, Reader

STORES, SESSIONS, ROUNDS = 4, 3, 30
TENANTS = ("acme", "globex", "initech")
NOTED = Projection(
    "noted",
    ("noted",),
    "INSERT INTO noted SELECT tenant_id, conversation_id, version FROM batch",
    "CREATE TABLE noted (tenant_id text, conversation_id uuid, version int)",
)


@pytest.fixture
async def pooler(database_url: str) -> AsyncIterator[Pooler]:
    """A pooler with one session, which all connections of a store share."""
    async with pooler_to(database_url, 1) as pooler:
        yield pooler


@pytest.fixture
async def store(pooler: Pooler, database_url: str, clean_environment: None) -> AsyncIterator[EventStore]:
    """A store behind the pooler, whose listening connections go past it; each of its parts has one connection."""
    async with EventStore(Settings(database_url=pooler.url, listen_url=database_url, pool_size=1)) as store:
        yield store


@pytest.fixture
def has_rls(database_url: str) -> None:
    """Skips the test where the login may not make roles."""
    with psycopg.connect(database_url) as connection:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = 'eventstore_writer'").fetchall():
            pytest.skip("the login may not create roles, so there is no row-level security")


async def set_role(pooler: Pooler, role: str) -> None:
    """Leave a role set in a session of the pooler, as another client can."""
    async with await psycopg.AsyncConnection.connect(pooler.url, autocommit=True) as connection:
        await connection.execute(f"SET ROLE {role}")


async def rounds_of_an_append(store: EventStore, pooler: Pooler) -> int:
    before = pooler.rounds
    await store.append(uuid4(), [note()])
    return pooler.rounds - before


async def test_appends_set_their_role_once_one_was_refused_under_another(
    store: EventStore, pooler: Pooler, has_rls: None
) -> None:
    await store.append(uuid4(), [note()])
    assert await rounds_of_an_append(store, pooler) == 1
    for role in ("eventstore_reader", "eventstore_projector", "eventstore_auditor"):
        await set_role(pooler, role)
        assert await rounds_of_an_append(store, pooler) == (2 if role == "eventstore_reader" else 1)
    several = [Append(uuid4(), [note(), note()]), Append(uuid4(), [note()])]
    assert len((await store.append_all(several)).events) == 3
    assert len([event async for event in store.read_log()]) == 8


async def test_appends_in_flight_when_the_role_was_wrong_are_stored_once(
    store: EventStore, pooler: Pooler, has_rls: None
) -> None:
    await store.append(uuid4(), [note()])
    await set_role(pooler, "eventstore_projector")
    conversations = [uuid4() for _ in range(50)]
    await asyncio.gather(*(store.append(conversation, [note()]) for conversation in conversations * 3))
    for conversation in conversations:
        assert [event.version async for event in store.read(conversation)] == [1, 2, 3]


async def test_a_login_that_may_not_append_gets_an_error(
    store: EventStore, pooler: Pooler, superuser_url: str, has_rls: None
) -> None:
    await store.append(uuid4(), [note()])
    functions = "ALL FUNCTIONS IN SCHEMA public"
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        superuser.execute(f"REVOKE EXECUTE ON {functions} FROM eventstore_writer")
        refused = await asyncio.gather(*(store.append(uuid4(), [note()]) for _ in range(5)), return_exceptions=True)
        assert {type(outcome) for outcome in refused} == {PermissionDenied}
        superuser.execute(f"GRANT EXECUTE ON {functions} TO eventstore_writer")
    assert await rounds_of_an_append(store, pooler) == 1


async def test_a_rejection_by_the_store_does_not_count_as_a_missing_role(store: EventStore, pooler: Pooler) -> None:
    theirs = uuid4()
    await store.append(theirs, [note()], user="ana")
    before = pooler.rounds
    with pytest.raises(Forbidden):
        await store.append(theirs, [note()], user="bob")
    assert pooler.rounds == before + 1


async def test_prepared_statements_of_many_queries_are_deallocated(store: EventStore) -> None:
    if not capabilities.has_send_close_prepared():
        pytest.skip("this libpq cannot close a prepared statement")
    view = store.tables(store.caller())
    for number in range(MAX_PREPARED + 20):
        for _ in range(USES_TO_PREPARE + 1):
            assert await view.fetch(f"SELECT {number}") == [(number,)]


async def test_an_inline_append_sets_its_roles_in_its_transaction(store: EventStore, pooler: Pooler) -> None:
    async with InlineAppender(store, [NOTED], connections=2) as appender:
        for version in range(1, 9):
            conversation = uuid4()
            await appender.append(conversation, [note()] * version, tenant="acme", user="ana")
            assert [event.version async for event in store.read_log(all_tenants=True)][-1] == version
            await store.append(conversation, [note()], tenant="acme", user="ana")
    everything = store.connections.projector
    assert await everything.fetch("SELECT count(*) FROM noted WHERE tenant_id = 'acme'") == [(36,)]


async def test_a_past_state_of_a_conversation_can_be_read_in_any_session(store: EventStore, pooler: Pooler) -> None:
    conversation = uuid4()
    messages = [MessageAdded(role="user", content=text) for text in ("one", "two", "three")]
    async with InlineAppender(store, [NOTED], connections=1) as appender:
        await appender.append(conversation, messages)
        for version in (1, 2, 3):
            state = await Reader(store).conversation_at(conversation, version=version)
            assert [message.content for message in state.messages] == ["one", "two", "three"][:version]
            await appender.append(conversation, messages)
    assert await store.connections.projector.fetch("SELECT count(*) FROM messages") == [(0,)]


async def work(stores: list[EventStore], caller: Caller, number: int) -> list[UUID]:
    """Append and read as one caller, now by one store and now by another, beside those of all others."""
    mine: list[UUID] = []
    scope: dict[str, Any] = {"tenant": caller.tenant, "user": caller.user}
    for turn in range(ROUNDS):
        store, other = stores[(number + turn) % len(stores)], stores[turn % len(stores)]
        mine.append(conversation := uuid4())
        text = f"{caller.tenant} {caller.user}"
        added = MessageAdded(role="user", content=text)
        await store.append(conversation, [added], expected=0, **scope)
        await store.append_all([Append(conversation, [added, added], 1)], **scope)
        seen = [event async for event in other.read_log(**scope)]
        assert {event.conversation_id for event in seen} <= set(mine)  # others' appends may hold the horizon back
        assert {(event.tenant_id, event.content["content"]) for event in seen} <= {(caller.tenant, text)}
        assert [event.version async for event in other.read(conversation, **scope)] == [1, 2, 3]
        state = await Reader(other, caller=caller).conversation_at(conversation, version=2)
        assert [message.content for message in state.messages] == [text, text]
        if turn % 3 == 0:
            assert {event.tenant_id async for event in other.read_log(all_tenants=True)} <= set(TENANTS)
    return mine


@pytest.mark.slow
async def test_many_stores_of_many_callers_share_a_few_sessions(
    database_url: str, clean_environment: None, has_rls: None
) -> None:
    callers = [Caller(tenant, user) for tenant in TENANTS for user in ("ana", "bob")]
    async with pooler_to(database_url, SESSIONS) as pooler, AsyncExitStack() as stack:
        settings = Settings(database_url=pooler.url, listen_url=database_url)
        stores = [await stack.enter_async_context(EventStore(settings)) for _ in range(STORES)]
        done = await asyncio.gather(*(work(stores, caller, number) for number, caller in enumerate(callers)))
        log = [event async for event in stores[0].read_log(all_tenants=True)]
        assert len(log) == 3 * sum(map(len, done))
        assert {event.conversation_id for event in log} == {conversation for mine in done for conversation in mine}
        for caller, mine in zip(callers, done, strict=True):
            theirs = [event async for event in stores[1].read_log(tenant=caller.tenant, user=caller.user)]
            assert {event.tenant_id for event in theirs} == {caller.tenant}
            assert {event.conversation_id for event in theirs} == set(mine)
            assert len(theirs) == 3 * len(mine)
