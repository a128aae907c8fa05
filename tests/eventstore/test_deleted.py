"""A deleted conversation accepts no events until it is reactivated, by any way of appending, concurrent or not."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.raw import note
from support.waiting import until_async

from eventstore import (
    EXISTS,
    NO_STREAM,
    Append,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationForked,
    ConversationReactivated,
    ConversationRenamed,
    ConversationShared,
    ConversationUnshared,
    EventData,
    EventStore,
    MessageAdded,
    MessageAnswered,
    NewEvent,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatusChanged,
)
from eventstore.errors import ConversationIsDeleted, EventIdConflict

pytestmark = pytest.mark.shared_database

MESSAGE = MessageAdded(role="user", content="hello")
WAITING = """
SELECT count(*)
  FROM pg_locks
 WHERE locktype = 'advisory'
   AND NOT granted
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
APPEND = """
SELECT count(*)
  FROM set_config('eventstore.tenant', %s, true) AS scope (tenant),
       append_events(ARRAY[scope.tenant], ARRAY[%s::uuid], ARRAY[-2], ARRAY[1], ARRAY[gen_random_uuid()], ARRAY[%s],
                     ARRAY[1::smallint], ARRAY[''], ARRAY['{}'::jsonb], ARRAY['{}'::jsonb])
"""

REFUSED: list[EventData] = [
    note(),
    MESSAGE,
    ConversationCreated(),
    ConversationRenamed(name="x"),
    ConversationArchived(),
    ConversationDeleted(),
    ConversationForked(source_conversation_id=uuid4(), source_version=1),
    ConversationShared(user="bob", access="read"),
    TaskCreated(task_id=uuid4()),
    TaskStatusChanged(task_id=uuid4(), status="completed"),
    TaskArtifactAdded(task_id=uuid4(), artifact_id="a", parts=[]),
]
ACCEPTED: list[EventData] = [
    ConversationReactivated(),
    ConversationUnshared(user="bob"),
    MessageAnswered(message_id=uuid4(), outcome="abandoned"),
]


@pytest.fixture
async def deleted(store: EventStore) -> UUID:
    """A conversation that was deleted, at version 2."""
    conversation = uuid4()
    await store.append(conversation, [MESSAGE, ConversationDeleted()])
    return conversation


async def version_of(store: EventStore, conversation: UUID) -> int:
    return len([event async for event in store.read(conversation)])


@pytest.mark.parametrize("others", [False, True], ids=["alone", "with others"])
async def test_a_deleted_conversation_accepts_only_events_that_end_something(
    store: EventStore, deleted: UUID, others: bool
) -> None:
    async def append(event: EventData) -> None:
        appends = [Append(deleted, [event]), *([Append(uuid4(), [note()])] if others else [])]
        await store.append_all(appends)

    for event in REFUSED:
        with pytest.raises(ConversationIsDeleted, match=f"{deleted} exists and is deleted.*reactivate"):
            await append(event)
    assert await version_of(store, deleted) == 2
    for event in reversed(ACCEPTED):
        await append(event)
        if not isinstance(event, ConversationReactivated):  # whatever came last, it is still deleted
            with pytest.raises(ConversationIsDeleted):
                await append(MESSAGE)
    await append(MESSAGE)
    assert await version_of(store, deleted) == 2 + len(ACCEPTED) + 1


async def test_the_deletion_is_reported_before_a_version_conflict(store: EventStore, deleted: UUID) -> None:
    for expected in (NO_STREAM, EXISTS, 2, 7):
        with pytest.raises(ConversationIsDeleted):
            await store.append(deleted, [MESSAGE], expected=expected)


async def test_a_repeated_append_is_known_and_another_event_under_its_id_a_conflict(store: EventStore) -> None:
    conversation, first = uuid4(), NewEvent(MESSAGE)
    await store.append(conversation, [first])
    await store.append(conversation, [ConversationDeleted()])
    repeated = await store.append(conversation, [first], expected=NO_STREAM)
    assert [(one.version, one.is_new) for one in repeated.events] == [(1, False)]
    with pytest.raises(ConversationIsDeleted):
        await store.append(conversation, [first, NewEvent(MESSAGE)])
    with pytest.raises(EventIdConflict):
        await store.append(conversation, [NewEvent(note(), first.id)])


async def test_each_event_of_an_append_sees_the_effect_of_those_before_it(store: EventStore) -> None:
    conversation, deletion, back = uuid4(), NewEvent(ConversationDeleted()), NewEvent(ConversationReactivated())
    with pytest.raises(ConversationIsDeleted):
        await store.append(conversation, [deletion, MESSAGE])
    assert await version_of(store, conversation) == 0
    await store.append(conversation, [MESSAGE, deletion, back, MESSAGE, ConversationDeleted()])
    with pytest.raises(ConversationIsDeleted):
        await store.append(conversation, [MESSAGE, ConversationReactivated()])
    with pytest.raises(ConversationIsDeleted):
        await store.append(conversation, [back, MESSAGE])  # it was reactivated before, and deleted since
    await store.append(conversation, [ConversationReactivated(), MESSAGE])
    await store.append(conversation, [deletion, MESSAGE])  # it was deleted before, and reactivated since
    assert await version_of(store, conversation) == 8


async def test_concurrent_messages_never_follow_a_deletion(store: EventStore) -> None:
    for _ in range(20):
        conversation = uuid4()
        await store.append(conversation, [note()])
        results = await asyncio.gather(
            *(store.append(conversation, [MESSAGE]) for _ in range(5)),
            store.append(conversation, [ConversationDeleted()]),
            store.append(conversation, [ConversationDeleted()]),
            *(store.append(conversation, [MESSAGE]) for _ in range(5)),
            return_exceptions=True,
        )
        refused = [result for result in results if isinstance(result, BaseException)]
        assert all(isinstance(error, ConversationIsDeleted) for error in refused)
        types = [event.event_type async for event in store.read(conversation)]
        assert types.index("conversation.deleted") == len(types) - 1
        assert len(types) == 1 + len(results) - len(refused)


async def test_a_deletion_that_is_not_committed_yet_is_waited_for(store: EventStore, database_url: str) -> None:
    conversation = uuid4()
    await store.append(conversation, [note()])
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute(APPEND, (store.tenant, conversation, "conversation.deleted"))
        writing = asyncio.create_task(store.append(conversation, [MESSAGE]))

        async def waits() -> bool:
            found: Any = await store.log(store.caller()).fetch(WAITING)
            return bool(found[0][0])

        await until_async(waits, "the message waits for the conversation")
        await other.commit()
        with pytest.raises(ConversationIsDeleted):
            await writing


async def test_an_append_by_plain_sql_is_refused_too(deleted: UUID, own_tenant: str, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        with pytest.raises(psycopg.Error) as refused:
            await other.execute(APPEND, (own_tenant, deleted, "noted"))
        assert (refused.value.sqlstate, str(deleted) in str(refused.value)) == ("ES008", True)
