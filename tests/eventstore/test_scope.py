"""Scopes of a store: live subscriptions of many callers, sessions left in another role, refused appends."""

from __future__ import annotations

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
    EventStore,
)
from eventstore.errors import Forbidden, InputError, InvalidEvent
from eventstore.scope import ALL_TENANTS

pytestmark = pytest.mark.shared_database

SHARED, ANAS, BOBS, OPEN = (UUID(int=number) for number in range(1, 5))
"""Ids that both tenants use: a conversation of Ana that Bob may read, one of Ana, one of Bob, one without an owner."""
TENANTS = ("acme", "globex")
SEEN = {None: {SHARED, ANAS, BOBS, OPEN}, "ana": {SHARED, ANAS}, "bob": {SHARED, BOBS}, "eve": set[UUID]()}


@pytest.fixture
async def shared(store: EventStore) -> EventStore:
    """A store in which two tenants have the same conversations."""
    for tenant in TENANTS:
        await store.append(SHARED, [note(tenant)], tenant=tenant, user="ana")
        await store.append(SHARED, [ConversationShared(user="bob", access="read")], tenant=tenant, user="ana")
        await store.append(ANAS, [note(tenant)], tenant=tenant, user="ana")
        await store.append(BOBS, [note(tenant)], tenant=tenant, user="bob")
        await store.append(OPEN, [note(tenant)], tenant=tenant)
    return store


async def test_live_subscriptions_of_many_callers_receive_only_visible_events(shared: EventStore) -> None:
    callers = [(tenant, user) for tenant in TENANTS for user in SEEN]
    end = max([event.position async for event in shared.read_log(all_tenants=True)])
    followers = [Follower(shared.subscribe(after=end, tenant=tenant, user=user)) for tenant, user in callers]
    follower_of_all = Follower(shared.subscribe(after=end, all_tenants=True))
    try:
        for number in range(20):
            sent = {
                tenant: [
                    (await shared.append(conversation, [note(number)], tenant=tenant)).events[0].event_id
                    for conversation in (SHARED, ANAS, BOBS, OPEN)
                ]
                for tenant in TENANTS
            }
            assert [event.id for event in await follower_of_all.take(8)] == [*sent["acme"], *sent["globex"]]
            for (tenant, user), follower in zip(callers, followers, strict=True):
                visible = [e for e, c in zip(sent[tenant], (SHARED, ANAS, BOBS, OPEN), strict=True) if c in SEEN[user]]
                assert [event.id for event in await follower.take(len(visible))] == visible
        assert all(follower.is_empty() for follower in followers)
    finally:
        for follower in (*followers, follower_of_all):
            await follower.__aexit__()


@pytest.mark.own_database
async def test_a_session_left_in_another_role_is_reset_before_its_next_caller(
    shared: EventStore,
) -> None:
    """A pooler that gives each transaction another session can hand out such a session."""
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


async def test_a_refused_append_discloses_nothing_and_writes_nothing(shared: EventStore) -> None:
    before = [event async for event in shared.read_log(all_tenants=True)]
    changes = ([note("by bob")], [ConversationDeleted()], [ConversationShared(user="bob", access="write")])
    for conversation, events in product((SHARED, ANAS, OPEN), changes):
        with pytest.raises(Forbidden, match=f"{conversation} does not exist, or you lack permission") as refused:
            await shared.append(conversation, events, tenant="acme", user="bob")
        assert refused.value.conversation_id == conversation
        both = [Append(uuid4(), [note()]), Append(conversation, events)]
        with pytest.raises(Forbidden):
            await shared.append_all(both, tenant="acme", user="bob")
    assert [event async for event in shared.read_log(all_tenants=True)] == before


async def test_a_user_name_is_valid_and_belongs_to_a_tenant(shared: EventStore) -> None:
    with pytest.raises(InputError, match="leave out either user or all_tenants"):
        await anext(shared.read_log(all_tenants=True, user="ana"))
    for name in ("", "x" * 256, "a\0b"):
        with pytest.raises(InvalidEvent, match=r"^user: "):
            Caller("acme", name)
        with pytest.raises(InvalidEvent, match=r"^tenant: "):
            Caller(name)
        with pytest.raises(InvalidEvent, match=r"^user: "):
            await shared.append(OPEN, [note()], user=name)
