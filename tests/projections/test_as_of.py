"""A conversation as it was equals a plain fold of its events up to then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.histories import new_events
from support.scoped_queries import open_as
from support.states import modelled, plain

from eventstore import ConversationCreated, ConversationRenamed, EventStore, MessageAdded, conversation_uuid
from eventstore.errors import InputError, NotFound
from projections import Reader, catch_up
from projections.conversation_snapshot import MessagePage


@pytest.mark.usefixtures("events_after_deletions")
@given(st.lists(new_events, min_size=1, max_size=10), st.data())
@examples(25)
async def test_a_past_state_is_a_fold_of_the_events_until_then(
    store: EventStore, history: list[Any], data: st.DataObject
) -> None:
    tenant, conversation = str(uuid4()), uuid4()
    for event in history:
        await store.append(conversation, [event], tenant=tenant)
    await store.append(uuid4(), history, tenant=tenant)
    reader = Reader(store, tenant)
    events = [event async for event in store.read(conversation, tenant=tenant)]
    last = data.draw(st.sampled_from(events))
    until = [event for event in events if event.version <= last.version]
    seen = [event for event in events if event.timestamp <= last.timestamp]
    assert plain(await reader.conversation_at(conversation, version=last.version)) == modelled(until)
    assert plain(await reader.conversation_at(conversation, position=last.position)) == modelled(until)
    assert plain(await reader.conversation_at(conversation, time=last.timestamp)) == modelled(seen)
    page = MessagePage(data.draw(st.integers(0, 3)), data.draw(st.none() | st.integers(1, 10)))
    for limit in ({"version": last.version}, {"position": last.position}, {"time": last.timestamp}):
        whole = await reader.conversation_at(conversation, **limit)
        shown = [message for message in whole.messages if message.version >= (page.from_version or 1)]
        shown = shown[max(0, len(shown) - page.limit) :] if page.from_version is None else shown[: page.limit]
        async with reader.snapshot_at(conversation, **limit, page=page) as snapshot:
            state = await snapshot.read()
        assert (state.conversation, state.tasks) == (whole.conversation, whole.tasks)
        assert [message for message in state.messages if message.version > 1 or message in shown] == shown


async def test_the_latest_state_equals_the_read_tables(store: EventStore) -> None:
    conversation = uuid4()
    await store.append(conversation, [ConversationCreated(name="x"), *_messages(1100)])
    await catch_up(store)
    reader = Reader(store)
    now = await reader.conversation_at(conversation, version=1101)
    assert now.conversation == await reader.conversation(conversation)
    assert now.messages == tuple(await reader.messages(conversation))
    assert len(now.messages) == 1100
    assert now == await reader.conversation_at(conversation, time=datetime.now(UTC) + timedelta(days=1))


def _messages(number: int) -> list[MessageAdded]:
    return [MessageAdded(role="user", content=str(n)) for n in range(number)]


async def test_reading_the_past_needs_no_worker_and_leaves_nothing_behind(store: EventStore, database_url: str) -> None:
    conversation = conversation_uuid(store.tenant, "trip")
    await store.append(conversation, [ConversationCreated(name="first")])
    await store.append(conversation, [ConversationRenamed(name="second")])
    reader = Reader(store)
    assert (await reader.conversation_at("trip", version=1)).conversation.name == "first"
    assert (await reader.conversation_at(str(conversation), version=2)).conversation.name == "second"
    assert await reader.conversations() == []
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relpersistence = 't'").fetchone() == (0,)


async def test_a_state_that_never_existed_is_not_found(store: EventStore) -> None:
    conversation = uuid4()
    reader = Reader(store)
    with pytest.raises(NotFound, match="no conversation has the id"):
        await reader.conversation_at(conversation, version=1)
    before = datetime.now(UTC) - timedelta(minutes=1)
    result = await store.append(conversation, [ConversationCreated(name="x")])
    with pytest.raises(NotFound, match="is at version 1: it has no version 2 yet"):
        await reader.conversation_at(conversation, version=2)
    with pytest.raises(NotFound, match="had not begun at time"):
        await reader.conversation_at(conversation, time=before)
    with pytest.raises(NotFound, match="had not begun at position"):
        await reader.conversation_at(conversation, position=result.position - 1)
    with pytest.raises(NotFound, match="no conversation has the id"):
        await Reader(store, "other").conversation_at(conversation, version=1)


@pytest.mark.parametrize(
    "when", [{}, {"version": 1, "position": 1}, {"version": -1}, {"version": 2**31}, {"time": datetime(2026, 1, 1)}]
)
async def test_exactly_one_of_version_position_and_time_is_accepted(store: EventStore, when: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        await Reader(store).conversation_at(uuid4(), **when)


async def test_the_state_at_a_time_has_no_gap_after_the_clock_was_ahead(store: EventStore, database_url: str) -> None:
    conversation = uuid4()
    await store.append(conversation, [MessageAdded(role="user", content="before")])
    with open_as(database_url, "eventstore_owner") as connection:
        connection.execute(_AHEAD, {"tenant": store.tenant, "conversation": conversation})
    await store.append(conversation, [MessageAdded(role="user", content="after")])
    events = [event async for event in store.read(conversation)]
    state = await Reader(store).conversation_at(conversation, time=events[-1].timestamp)
    assert [message.content for message in state.messages] == ["before", "a day ahead", "after"]


_AHEAD = """
INSERT INTO events (position, timestamp, version, schema_version, conversation_id, id, tenant_id, event_type, content,
                    digest)
VALUES (nextval('events_position'), clock_timestamp() + interval '1 day', 2, 1, %(conversation)s, gen_random_uuid(),
        %(tenant)s, 'message.added', '{"role": "user", "content": "a day ahead"}', sha256(''))
"""
