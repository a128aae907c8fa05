"""Members of JSON objects are read in the order in which they were sent."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scoped_queries import open_scoped
from support.values import json_values, texts

from eventstore import (
    AgentRegistered,
    ApplicationEvent,
    EventStore,
    MessageAdded,
    Metadata,
    NewEvent,
    TaskStatusChanged,
    message_from_sent,
    sent_message,
)
from eventstore.json_text import from_json, to_json
from eventstore.member_order import MEMBER, encode, restore

pytestmark = pytest.mark.shared_database

KEYS = st.sampled_from(["name", "date", "street", "zip", "é", "aa", "ä", "z", "", "漢", "\U0001f600", "b\U0001f600"])
OBJECTS = st.recursive(
    st.none() | st.integers(-5, 5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | texts(max_size=3), inner, max_size=5),
    max_leaves=30,
)
FORM = {"name": "Ana", "date": "2026-01-01", "street": "Rua", "zip": "1000"}


def same(one: Any, other: Any) -> bool:
    """Return whether they are equal, the order of members included."""
    return json.dumps(one) == json.dumps(other)


def as_stored(value: Any) -> Any:
    """The value as ``jsonb`` gives it back."""
    if isinstance(value, dict):
        ordered = sorted(value, key=lambda name: (len(name.encode()), name.encode()))
        return {name: as_stored(value[name]) for name in ordered}
    return [as_stored(item) for item in value] if isinstance(value, list) else value


@given(OBJECTS)
def test_an_order_restores_what_it_was_made_of(value: Any) -> None:
    stored = as_stored(value)
    order = encode(value)
    assert (order is None) == same(stored, value)
    restore(stored, from_json(to_json(order, "order")))
    assert same(stored, value)


@pytest.mark.parametrize(
    ("value", "order"),
    [
        (FORM, [[2, 1, 3, 0]]),
        ([FORM] * 1000, [[2, 1, 3, 0]]),
        ({"zip": 1, "date": 2, "name": {"b": 1, "a": 2}}, [0, [1, 0]]),
        ([{"a": 1, "b": 2}, {"b": 1, "a": 2}], [{"each": [0, [1, 0]]}]),
        ({"a": [{"only": 1}], "b": "text"}, None),
        ("text", None),
    ],
    ids=str,
)
def test_the_encoded_order_is_short(value: Any, order: Any) -> None:
    assert encode(value) == order


@given(OBJECTS, json_values)
def test_an_order_that_does_not_fit_is_ignored(value: Any, order: Any) -> None:
    stored = as_stored(value)
    restore(stored, order)
    assert stored == value


@given(OBJECTS, st.dictionaries(KEYS.filter(bool), OBJECTS, max_size=4))
async def test_the_order_of_members_survives_the_log(store: EventStore, value: Any, own: dict[str, Any]) -> None:
    sent = [
        ApplicationEvent("form.filled", value),
        MessageAdded(
            role="user", parts=[value, value], extra={"z": value, "a": value, "kind": 1}, metadata={"x": value}
        ),
        TaskStatusChanged(task_id=uuid4(), status="completed", message={"role": value, "kind": value}),
        AgentRegistered(url="http://agent", card={"url": value, "name": "x"}),
    ]
    about = Metadata(correlation_id="b", causation_id="a", **own)
    conversation = uuid4()
    await store.append(conversation, [NewEvent(one, metadata=about) for one in sent])
    events = [event async for event in store.read(conversation)]
    for one, event in zip(sent, events, strict=True):
        assert same(event.data.to_content(), one.to_content())
        assert event.content == one.to_content()
        if isinstance(one, ApplicationEvent):
            assert same(event.content, value)
        else:
            assert all(same(event.content[name], item) for name, item in one.to_content().items())
        assert same(event.metadata.to_content(), about.to_content())
    # Appended again from what was read, it is the same event.
    await store.append(conversation, [NewEvent(event.data, event.id, metadata=event.metadata) for event in events])
    assert len([event async for event in store.read(conversation)]) == len(events)


@given(
    st.permutations([("role", "agent"), ("kind", "message"), ("messageId", "m"), ("parts", [FORM]), ("metadata", {})])
)
async def test_a_message_comes_back_in_its_own_order(store: EventStore, members: list[tuple[str, Any]]) -> None:
    sent, conversation = dict(members), uuid4()
    await store.append(conversation, [message_from_sent(sent)])
    [event] = [event async for event in store.read(conversation)]
    assert isinstance(event.data, MessageAdded)
    assert same(sent_message(event.data), sent)


async def test_nothing_is_stored_if_members_are_in_the_order_of_jsonb(store: EventStore, database_url: str) -> None:
    plain = {"kind": "text", "text": "hello"}
    await store.append(
        uuid4(), [MessageAdded(role="user", content="x"), MessageAdded(role="user", parts=[plain], extra={"id": "m"})]
    )
    assert [event.raw_metadata async for event in store.read_log()] == [{}, {}]


async def test_events_appended_by_plain_sql_are_read(store: EventStore, database_url: str) -> None:
    conversation = uuid4()
    with open_scoped(database_url, store.tenant) as connection:
        for metadata in ("{}", f'{{"{MEMBER}": [1]}}', f'{{"{MEMBER}": {{"content": [[7, "x"], {{"each": 5}}]}}}}'):
            connection.execute(
                """
                SELECT append_events(ARRAY[current_tenant()], ARRAY[%s::uuid], ARRAY[-2], ARRAY[1],
                    ARRAY[gen_random_uuid()], ARRAY['form.filled'], ARRAY[1::smallint], ARRAY[''],
                    ARRAY[%s::jsonb], ARRAY[%s::jsonb])
                """,
                [conversation, json.dumps(FORM), metadata],
            )
    events = [event async for event in store.read(conversation)]
    assert [event.content for event in events] == [FORM] * 3
    assert [event.metadata for event in events] == [Metadata()] * 3


async def test_an_order_given_by_the_caller_is_ignored(store: EventStore) -> None:
    conversation = uuid4()
    about = Metadata(**{MEMBER: {"content": [[3, 2, 1, 0]]}, "note": 1})
    await store.append(conversation, [NewEvent(ApplicationEvent("form.filled", FORM), metadata=about)])
    [event] = [event async for event in store.read(conversation)]
    assert same(event.content, FORM)
    assert event.metadata.to_content() == {"note": 1}
