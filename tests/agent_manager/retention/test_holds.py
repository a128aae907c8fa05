"""Legal holds: nothing that they cover is erased, by any role, until they are released."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import psycopg
import pytest
from support.retention import recorded
from support.waiting import until_async

from agent_manager.retention import Holds
from eventstore import ConversationShared, EventStore, MessageAdded, NewEvent
from eventstore.errors import ConflictError, InputError, InvalidEvent, NotFound, OnLegalHold, PermissionDenied
from projections import catch_up

pytestmark = pytest.mark.shared_database


def say(text: str, actor: str = "") -> NewEvent:
    return NewEvent(MessageAdded(role="user", content=text), actor=actor)


async def begin(store: EventStore, *events: NewEvent, user: str | None = None) -> UUID:
    """Begin a conversation, and return its id."""
    conversation = uuid4()
    await store.append(conversation, events or [say("hello")], user=user)
    return conversation


async def texts(store: EventStore, conversation: UUID) -> list[str]:
    """Return the texts of the messages that the log has of a conversation."""
    events = [event async for event in store.read(conversation, types=["message.added"])]
    return [event.content.get("content") or "" for event in events]


async def test_a_conversation_on_hold_is_erased_only_after_its_release(store: EventStore) -> None:
    held, other = await begin(store, say("keep me")), await begin(store)
    hold = await Holds(store).place(conversation_id=held, reason="case 4711", actor="counsel")
    with pytest.raises(OnLegalHold, match="case 4711") as refused:
        await store.erase(held)
    assert isinstance(refused.value, ConflictError)
    assert (refused.value.hold_id, refused.value.conversation_id, refused.value.user) == (hold.id, held, None)
    assert await texts(store, held) == ["keep me"]
    assert (await store.erase(other)).events == 1
    await Holds(store).release(hold.id, reason="closed", actor="counsel")
    await store.erase(held)
    assert await texts(store, held) == [""]


async def test_a_single_event_on_hold_is_not_erased(store: EventStore) -> None:
    event = say("keep me")
    held = await begin(store, event)
    await Holds(store).place(conversation_id=held, reason="case 4711")
    with pytest.raises(OnLegalHold):
        await store.erase(held, [event.id])
    with pytest.raises(OnLegalHold):
        await store.erase(held, dry_run=True)


async def test_a_hold_on_a_user_covers_what_they_own_and_what_they_wrote(store: EventStore) -> None:
    own = await begin(store, say("of ana", "ana"), user="ana")
    shared = await begin(
        store, say("of bob", "bob"), NewEvent(ConversationShared(user="ana", access="write")), user="bob"
    )
    await store.append(shared, [say("ana writes to bob", "ana")], user="ana")
    without = await begin(store, say("bob alone", "bob"), user="bob")
    await Holds(store).place(user="ana", reason="case 4711")
    for conversation in (own, shared):
        with pytest.raises(OnLegalHold, match="user ana"):
            await store.erase(conversation)
    assert (await store.erase(without)).events
    of_bob = await anext(store.read(shared))
    await store.erase(shared, [of_bob.id])  # which ana has not written
    with pytest.raises(OnLegalHold):
        [each async for each in store.erase_user("ana")]
    assert await texts(store, own) == ["of ana"]


async def test_a_user_on_hold_stays_in_the_directory(store: EventStore) -> None:
    await Holds(store).place(user="nobody", reason="case 4711")
    with pytest.raises(OnLegalHold):
        [each async for each in store.erase_user("nobody")]
    with pytest.raises(OnLegalHold):
        [each async for each in store.erase_user("nobody", dry_run=True)]


async def test_a_hold_on_the_tenant_covers_everything_of_it_alone(store: EventStore, module_store: EventStore) -> None:
    conversation = await begin(store)
    await Holds(store).place(reason="investigation")
    with pytest.raises(OnLegalHold, match="the tenant"):
        await store.erase(conversation)
    another = f"{store.tenant}-other"
    await module_store.append(conversation, [say("of another tenant")], tenant=another)
    assert (await module_store.erase(conversation, tenant=another)).events == 1


async def test_a_hold_on_a_fork_covers_what_it_shares_and_not_what_follows(store: EventStore) -> None:
    grandparent = await begin(store, say("shared by all"), say("only of the grandparent"))
    parent = (await store.fork(grandparent, 1, events=[say("shared")])).events[0].conversation_id
    fork = (await store.fork(parent, 2, events=[say("own")])).events[0].conversation_id
    later = (await store.append(parent, [say("later")])).events[0].event_id
    await Holds(store).place(conversation_id=fork, reason="case 4711")
    for conversation in (grandparent, parent, fork):
        with pytest.raises(OnLegalHold):
            await store.erase(conversation)
    await store.erase(parent, [later])
    second = [event async for event in store.read(grandparent)][1]
    await store.erase(grandparent, [second.id])
    assert await texts(store, grandparent) == ["shared by all", ""]


async def test_a_hold_on_the_owner_of_a_fork_covers_what_it_shares(store: EventStore) -> None:
    source = await begin(store, say("shared"), NewEvent(ConversationShared(user="ana", access="read")), user="bob")
    await store.fork(source, 1, user="ana")
    await Holds(store).place(user="ana", reason="case 4711")
    with pytest.raises(OnLegalHold):
        await store.erase(source)


async def test_a_hold_waits_for_an_erasure_in_progress_and_stops_the_next(
    store: EventStore, superuser_url: str
) -> None:
    conversation = await begin(store, say("first"))
    await catch_up(store)
    async with await store.connect("eventstore_eraser") as connection, connection.transaction():
        await connection.execute("SELECT set_config('eventstore.tenant', %s, true)", [store.tenant])
        statement = "SELECT * FROM erase_events(%s, %s, NULL, NULL, false, 5000)"
        await connection.execute(statement, [store.tenant, conversation])
        placing = asyncio.create_task(Holds(store).place(conversation_id=conversation, reason="case 4711"))
        async with await psycopg.AsyncConnection.connect(superuser_url, autocommit=True) as superuser:

            async def waits() -> bool:
                statement = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                return await (await superuser.execute(statement)).fetchone() != (0,)

            await until_async(waits, "the hold waits")
        assert not placing.done()
        statement = "SELECT append_erasure(%s, %s, gen_random_uuid(), '{[1,1]}', now(), true, false, '', '')"
        await connection.execute(statement, [store.tenant, conversation])
    await placing
    await store.append(conversation, [say("second")])
    with pytest.raises(OnLegalHold):
        await store.erase(conversation)


async def test_changes_of_holds_are_administrative_acts(store: EventStore) -> None:
    conversation = await begin(store)
    hold = await Holds(store).place(conversation_id=conversation, reason="case 4711", actor="counsel")
    assert [each.id for each in await Holds(store).list()] == [hold.id]
    await Holds(store).release(hold.id, reason="closed", actor="judge")
    assert await Holds(store).list() == []
    about = {"hold": str(hold.id), "conversation_id": str(conversation)}
    assert await recorded(store) == [
        ("hold_added", about | {"reason": "case 4711"}, "counsel"),
        ("hold_released", about | {"reason": "closed"}, "judge"),
    ]
    await catch_up(store)
    [(listed,)] = await store.tables(store.caller()).fetch("SELECT count(*) FROM conversations")
    assert listed == 1, "the record is not a conversation that anybody lists"


async def test_wrong_values_are_refused(store: EventStore) -> None:
    holds = Holds(store)
    with pytest.raises(InputError, match="place two holds"):
        await holds.place(conversation_id=uuid4(), user="ana", reason="case")
    with pytest.raises(InputError, match="reason: is empty"):
        await holds.place(reason=" ")
    with pytest.raises(InvalidEvent, match="user"):
        await holds.place(user="", reason="case")
    with pytest.raises(NotFound, match="does not exist"):
        await holds.place(conversation_id=uuid4(), reason="case")
    with pytest.raises(NotFound, match="hold list"):
        await holds.release(uuid4())
    assert await holds.list() == []


async def test_no_role_of_the_service_changes_holds_beside_the_functions(store: EventStore) -> None:
    for role in ("eventstore_app", "eventstore_writer", "eventstore_projector", "eventstore_eraser"):
        async with await store.connect(role) as connection:
            for statement in ("DELETE FROM legal_holds", "UPDATE retention_rules SET age = '1 s'"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(statement)


async def test_another_tenant_releases_nothing(store: EventStore, module_store: EventStore) -> None:
    hold = await Holds(store).place(reason="investigation")
    with pytest.raises(NotFound):
        await Holds(module_store, f"{store.tenant}-other").release(hold.id)
    with pytest.raises(PermissionDenied):
        await store.pool.fetch(
            "SELECT release_hold(%s, %s, '', '')", [store.tenant, hold.id], caller=module_store.caller("another")
        )
    assert [each.id for each in await Holds(store).list()] == [hold.id]
