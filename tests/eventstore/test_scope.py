"""Each caller reads, follows and appends to what is theirs; what is another's is to them as if there were none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import product
from uuid import UUID, uuid4

import pytest
from support.follow import Follower
from support.raw import note

from eventstore import (
    Append,
    Caller,
    ConversationDeleted,
    ConversationShared,
    ConversationUnshared,
    Event,
    EventStore,
    NewEvent,
)
from eventstore.errors import Forbidden, InputError, InvalidEvent
from eventstore.scope import ALL_TENANTS

pytestmark = pytest.mark.shared_database

SHARED, ANAS, BOBS, OPEN = (UUID(int=number) for number in range(1, 5))
"""Conversations of the same ids in both tenants: Ana's, shared with Bob; Ana's; Bob's; nobody's."""
TENANTS = ("acme", "globex")
SEEN = {None: {SHARED, ANAS, BOBS, OPEN}, "ana": {SHARED, ANAS}, "bob": {SHARED, BOBS}, "eve": set[UUID]()}


@pytest.fixture
async def shared(store: EventStore) -> EventStore:
    """Two tenants with the same conversations, which hold who they are of."""
    for tenant in TENANTS:
        await store.append(SHARED, [note(tenant)], tenant=tenant, user="ana")
        await store.append(SHARED, [ConversationShared(user="bob", access="read")], tenant=tenant, user="ana")
        await store.append(ANAS, [note(tenant)], tenant=tenant, user="ana")
        await store.append(BOBS, [note(tenant)], tenant=tenant, user="bob")
        await store.append(OPEN, [note(tenant)], tenant=tenant)
    return store


async def conversations(events: AsyncIterator[Event], tenant: str) -> set[UUID]:
    found = [event async for event in events]
    assert {event.tenant_id for event in found} <= {tenant}
    return {event.conversation_id for event in found}


async def test_the_log_shows_what_the_caller_may_see(shared: EventStore) -> None:
    for tenant, user in product(TENANTS, SEEN):
        for backwards in (False, True):
            log = shared.read_log(tenant=tenant, user=user, backwards=backwards)
            assert await conversations(log, tenant) == SEEN[user], (tenant, user)
        for conversation in (SHARED, ANAS, BOBS, OPEN):
            read = shared.read(conversation, tenant=tenant, user=user)
            assert await conversations(read, tenant) == {conversation} & SEEN[user], (tenant, user)


@pytest.mark.parametrize("user", SEEN)
async def test_a_subscription_brings_what_the_caller_may_see(shared: EventStore, user: str | None) -> None:
    mine = [event.id async for event in shared.read_log(tenant="acme", user=user)]
    async with Follower(shared.subscribe(tenant="acme", user=user)) as follower:
        assert [event.id for event in await follower.take(len(mine))] == mine
        last = NewEvent(note("last"))
        for conversation, scope in ((ANAS, "ana"), (BOBS, "bob"), (OPEN, None)):
            await shared.append(conversation, [note("more")], tenant="globex", user=scope)
            await shared.append(conversation, [note("more")], tenant="acme", user=scope)
        await shared.append(uuid4(), [last], tenant="acme", user=user or "ana")
        expected = [event.id async for event in shared.read_log(tenant="acme", user=user)][len(mine) :]
        assert [event.id for event in await follower.take(len(expected))] == expected
        assert expected[-1] == last.id
        assert follower.is_empty()


async def test_followers_of_many_callers_sleep_on_one_connection(shared: EventStore) -> None:
    callers = [(tenant, user) for tenant in TENANTS for user in (None, "ana", "bob")]
    end = max([event.position async for event in shared.read_log(all_tenants=True)])
    followers = [Follower(shared.subscribe(after=end, tenant=tenant, user=user)) for tenant, user in callers]
    everybody = Follower(shared.subscribe(after=end, all_tenants=True))
    try:
        for number in range(20):
            sent = {
                tenant: [
                    (await shared.append(conversation, [note(number)], tenant=tenant)).events[0].event_id
                    for conversation in (SHARED, ANAS, BOBS, OPEN)
                ]
                for tenant in TENANTS
            }
            assert [event.id for event in await everybody.take(8)] == [*sent["acme"], *sent["globex"]]
            for (tenant, user), follower in zip(callers, followers, strict=True):
                mine = [e for e, c in zip(sent[tenant], (SHARED, ANAS, BOBS, OPEN), strict=True) if c in SEEN[user]]
                assert [event.id for event in await follower.take(len(mine))] == mine
        assert all(follower.is_empty() for follower in followers)
    finally:
        for follower in (*followers, everybody):
            await follower.__aexit__()


@pytest.mark.own_database
async def test_who_is_lent_a_session_in_which_somebody_took_another_role_sees_what_is_theirs(
    shared: EventStore,
) -> None:
    """As a pooler lends them that gives each transaction another session."""
    async with await shared.connect(None) as connection:
        cursor = await connection.execute("SELECT FROM pg_roles WHERE rolname = 'eventstore_projector'")
        if not await cursor.fetchall():
            pytest.skip("the login may not create roles, so there is no row-level security")
    settings = shared.settings.model_copy(update={"pool_size": 1})
    async with EventStore(settings) as store:
        for role, scope in (("eventstore_projector", Caller("acme", "bob")), ("eventstore_reader", ALL_TENANTS)):
            ways = {view.pool: view for view in (store.log(scope), store.tables(scope))}
            for pool, view in ways.items():
                await view.fetch("SELECT")
                async with pool.connection() as session:
                    await session.execute(f"SET ROLE {role}")
                assert await view.fetch("SELECT current_user") != [(role,)]
        log = {event.conversation_id async for event in store.read_log(tenant="acme", user="bob")}
        assert log == SEEN["bob"]
        assert {event.tenant_id async for event in store.read_log(all_tenants=True)} >= set(TENANTS)


async def test_row_level_security_holds_for_an_append_once_it_returns(shared: EventStore) -> None:
    async def sees(conversation: UUID, user: str) -> bool:
        return bool(await conversations(shared.read(conversation, tenant="acme", user=user), "acme"))

    for _ in range(30):
        conversation = uuid4()
        await shared.append(conversation, [note()], tenant="acme", user="ana")
        assert await sees(conversation, "ana")
        assert not await sees(conversation, "bob")
        for access in ("read", "write"):
            shares = [ConversationShared(user="bob", access=access)]  # type: ignore[arg-type]
            await shared.append(conversation, shares, tenant="acme", user="ana")
            assert await sees(conversation, "bob")
            if access == "write":
                await shared.append(conversation, [note()], tenant="acme", user="bob")
            else:
                with pytest.raises(Forbidden):
                    await shared.append(conversation, [note()], tenant="acme", user="bob")
        await shared.append(conversation, [ConversationUnshared(user="bob")], tenant="acme", user="ana")
        assert not await sees(conversation, "bob")
        with pytest.raises(Forbidden):
            await shared.append(conversation, [note()], tenant="acme", user="bob")


async def test_who_may_not_write_is_told_nothing_more(shared: EventStore) -> None:
    before = [event async for event in shared.read_log(all_tenants=True)]
    changes = ([note("mine")], [ConversationDeleted()], [ConversationShared(user="bob", access="write")])
    for conversation, events in product((SHARED, ANAS, OPEN), changes):
        with pytest.raises(Forbidden, match=f"{conversation} does not exist, or you lack permission") as refused:
            await shared.append(conversation, events, tenant="acme", user="bob")
        assert refused.value.conversation_id == conversation
        both = [Append(uuid4(), [note()]), Append(conversation, events)]
        with pytest.raises(Forbidden):
            await shared.append_all(both, tenant="acme", user="bob")
    assert [event async for event in shared.read_log(all_tenants=True)] == before


async def test_a_known_id_is_no_way_around(shared: EventStore) -> None:
    theirs = await anext(shared.read(ANAS, tenant="acme"))
    with pytest.raises(Forbidden):
        await shared.append(ANAS, [NewEvent(note("acme"), theirs.id)], tenant="acme", user="bob")


async def test_a_user_is_one_of_a_tenant(shared: EventStore) -> None:
    with pytest.raises(InputError, match="leave out either user or all_tenants"):
        await anext(shared.read_log(all_tenants=True, user="ana"))
    for name in ("", "x" * 256, "a\0b"):
        with pytest.raises(InvalidEvent, match=r"^user: "):
            Caller("acme", name)
        with pytest.raises(InvalidEvent, match=r"^tenant: "):
            Caller(name)
        with pytest.raises(InvalidEvent, match=r"^user: "):
            await shared.append(OPEN, [note()], user=name)
