"""Inline projections: the row exists the instant an append returns, in its transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from support.scoped_queries import open_as

from eventstore import (
    NO_STREAM,
    ConversationCreated,
    ConversationRenamed,
    EventStore,
    MessageAdded,
    NewEvent,
    conversation_uuid,
)
from eventstore.errors import (
    EventIdConflict,
    EventStoreError,
    Forbidden,
    InvalidEvent,
    StoreClosed,
    WrongExpectedVersion,
)
from projections import InlineAppender, Projection

Sync = psycopg.Connection[tuple[object, ...]]

LATEST = Projection(
    "latest",
    ("latest",),
    "INSERT INTO latest AS l SELECT DISTINCT ON (conversation_id) tenant_id, conversation_id, version,"
    " content ->> 'content' FROM batch WHERE event_type = 'message.added' ORDER BY conversation_id, version DESC"
    " ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET version = excluded.version, content = excluded.content",
    "CREATE TABLE latest (tenant_id text, conversation_id uuid, version int, content text CHECK (content <> 'poison'),"
    " PRIMARY KEY (tenant_id, conversation_id))",
)


def message(text: str) -> MessageAdded:
    return MessageAdded(role="user", content=text)


@pytest.fixture
def owner(database_url: str) -> Iterator[Sync]:
    with open_as(database_url, "eventstore_owner") as connection:
        yield connection


async def test_the_row_is_there_when_append_returns(store: EventStore, owner: Sync) -> None:
    conversation = uuid4()
    async with InlineAppender(store, [LATEST]) as appender:
        first = await appender.append(conversation, [message("a"), message("b")], expected=NO_STREAM, actor="ana")
        assert owner.execute("SELECT version, content FROM latest").fetchall() == [(2, "b")]
        same = NewEvent(message("c"))
        done = await appender.append(conversation, [same], expected=2)
        again = await appender.append(conversation, [same], expected=2)
    assert owner.execute("SELECT version, content FROM latest").fetchall() == [(3, "c")]
    events = [event async for event in store.read(conversation)]
    assert [(event.position, event.version, event.id) for event in events[:2]] == [
        (entry.position, entry.version, entry.event_id) for entry in first.events
    ]
    assert [event.actor for event in events] == ["ana", "ana", ""]
    assert (done.events[0].is_new, again.events[0].is_new) == (True, False)
    assert (done.events[0].position, done.events[0].timestamp) == (again.events[0].position, events[2].timestamp)


async def test_an_append_that_cannot_be_projected_is_not_written(store: EventStore, owner: Sync) -> None:
    conversation = uuid4()
    async with InlineAppender(store, [LATEST]) as appender:
        await appender.append(conversation, [message("fine")])
        with pytest.raises(EventStoreError, match="latest_content_check"):
            await appender.append(conversation, [message("poison")])
    assert [event.version async for event in store.read(conversation)] == [1]


async def test_an_inline_append_is_refused_like_any_other(store: EventStore) -> None:
    conversation = uuid4()
    event = NewEvent(message("a"))
    async with InlineAppender(store, [LATEST]) as appender:
        await appender.append(conversation, [event])
        with pytest.raises(WrongExpectedVersion) as wrong:
            await appender.append(conversation, [message("b")], expected=7)
        assert (wrong.value.actual, wrong.value.expected) == (1, 7)
        with pytest.raises(EventIdConflict) as other:
            await appender.append(conversation, [NewEvent(message("other"), event.id, "ana")])
        assert other.value.differences == "actor, content"
        with pytest.raises(InvalidEvent):
            await appender.append(conversation, [message("\0")])
    with pytest.raises(StoreClosed):
        await appender.append(conversation, [message("late")])


async def test_an_inline_append_begins_a_new_conversation(store: EventStore, owner: Sync) -> None:
    begin = ConversationCreated(name="Trip")
    async with InlineAppender(store, [LATEST]) as appender:
        await asyncio.gather(*(appender.append("trip", [message(f"{n}")], begin=begin) for n in range(8)))
    created, *messages = [event async for event in store.read(conversation_uuid(store.tenant, "trip"))]
    assert created.content == {"name": "Trip", "given_id": "trip"}
    assert sorted(event.content["content"] for event in messages) == [f"{n}" for n in range(8)]
    assert owner.execute("SELECT version, content FROM latest").fetchall() == [(9, messages[-1].content["content"])]


async def test_concurrent_inline_appends_leave_the_latest_row(store: EventStore, owner: Sync) -> None:
    conversations = [uuid4() for _ in range(3)]
    async with InlineAppender(store, [LATEST]) as appender:
        await asyncio.gather(
            *(appender.append(conversations[n % 3], [message(str(n))]) for n in range(60)),
            *(store.append(conversations[n % 3], [message("past it")]) for n in range(30)),
        )
    rows = owner.execute(
        "SELECT l.version, max(e.version) FROM latest l JOIN events e USING (conversation_id)"
        " WHERE e.content ->> 'content' <> 'past it' GROUP BY l.conversation_id, l.version"
    ).fetchall()
    assert len(rows) == 3
    assert all(kept == last for kept, last in rows)


async def test_a_forbidden_append_names_the_conversation(store: EventStore) -> None:
    conversation = uuid4()
    await store.append(conversation, [ConversationCreated()], user="ana")
    async with InlineAppender(store, ()) as inline:
        with pytest.raises(Forbidden) as refused:
            await inline.append(conversation, [ConversationRenamed(name="mine")], user="eve")
    assert refused.value.conversation_id == conversation
