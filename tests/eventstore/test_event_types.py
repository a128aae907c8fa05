"""The vocabulary refuses what a read table could not hold, and reads without loss what a newer version wrote."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from support.scoped_queries import open_scoped
from support.values import json_values, texts

from eventstore import (
    AgentRegistered,
    AgentUnregistered,
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationForked,
    ConversationReactivated,
    ConversationRenamed,
    ConversationRewound,
    ConversationShared,
    ConversationUnshared,
    EventData,
    EventStore,
    MessageAdded,
    MessageAnswered,
    Metadata,
    NewEvent,
    Role,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCancelRequested,
    TaskCreated,
    TaskDeleted,
    TaskDescribed,
    TaskPushNotificationDeleted,
    TaskPushNotificationSet,
    TaskStatus,
    TaskStatusChanged,
    UnknownEvent,
    conversation_uuid,
)
from eventstore.errors import InvalidEvent
from eventstore.event_types import BUILT_IN, RECEIPTS, RESERVED_PREFIXES, SCHEMA_VERSION, parse

pytestmark = pytest.mark.shared_database

TASK = UUID("00000000-0000-4000-8000-0000000000aa")

EXAMPLES: list[EventData] = [
    MessageAnswered(message_id=TASK, outcome="failed", error="the agent broke off"),
    AgentRegistered(url="http://a", card={"name": "a"}),
    AgentUnregistered(url="http://a"),
    ConversationCreated(name="Trip", given_id="chat-1", metadata={"a": [1]}),
    ConversationCreated(),
    ConversationRenamed(name=""),
    ConversationArchived(),
    ConversationRewound(to_version=3),
    ConversationDeleted(),
    ConversationReactivated(),
    ConversationForked(source_conversation_id=TASK, source_version=3, name="Other way"),
    ConversationShared(user="bob", access="read"),
    ConversationUnshared(user="bob"),
    MessageAdded(role="user", content="hello"),
    MessageAdded(role=Role.TOOL, parts=[{"text": "x"}], given_id="m", extra={"k": None}, metadata={}),
    TaskCreated(task_id=TASK, description="f(x)", status="in_progress", given_id="c"),
    TaskStatusChanged(task_id=TASK, status=TaskStatus.INPUT_REQUIRED, message={"role": "agent"}),
    TaskDescribed(task_id=TASK, description=""),
    TaskArtifactAdded(task_id=TASK, artifact_id="a", parts=[{"text": "1"}], name="n", last_chunk=False),
    TaskArtifactExtended(task_id=TASK, artifact_id="a", parts=[], metadata={"k": 1}),
    TaskDeleted(task_id=TASK),
    TaskCancelRequested(task_id=TASK),
    TaskPushNotificationSet(task_id=TASK, config_id="c", config={"url": "https://hook"}),
    TaskPushNotificationDeleted(task_id=TASK, config_id="c"),
    ApplicationEvent("billing.charged", {"cents": 5}),
    ApplicationEvent("anything", None),
]


def test_the_examples_show_every_type() -> None:
    schema = BUILT_IN.json_schema()
    assert {event.event_type for event in EXAMPLES} | set(RECEIPTS) >= set(schema["discriminator"]["mapping"])


async def test_every_event_comes_back_equal_and_typed(store: EventStore) -> None:
    conversation = conversation_uuid(store.tenant, "chat-1")
    await store.append(conversation, EXAMPLES)
    found = [event.data async for event in store.read(conversation)]
    assert found == EXAMPLES
    assert [type(event) for event in found] == [type(event) for event in EXAMPLES]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.event_type)
def test_content_is_plain_json_and_leaves_out_what_is_absent(event: EventData) -> None:
    content = event.to_content()
    assert parse(event.event_type, SCHEMA_VERSION, content) == event
    if isinstance(content, dict) and not isinstance(event, ApplicationEvent):
        assert "event_type" not in content
        assert all(type(value) in (str, int, bool, list, dict) for value in content.values())


@pytest.mark.parametrize(
    ("kind", "values", "path"),
    [
        (MessageAdded, {"role": "robot", "content": "x"}, "MessageAdded.role"),
        (MessageAdded, {"content": "x"}, "MessageAdded.role"),
        (MessageAdded, {"role": "user", "content": 5}, "MessageAdded.content"),
        (MessageAdded, {"role": "user", "parts": "text"}, "MessageAdded.parts"),
        (TaskCreated, {"task_id": "no uuid"}, "TaskCreated.task_id"),
        (TaskCreated, {"task_id": TASK, "status": "busy"}, "TaskCreated.status"),
        (TaskStatusChanged, {"task_id": TASK, "status": "working"}, "TaskStatusChanged.status"),
        (TaskDescribed, {"task_id": TASK, "description": 5}, "TaskDescribed.description"),
        (TaskArtifactAdded, {"task_id": TASK, "artifact_id": "a"}, "TaskArtifactAdded.parts"),
        (ConversationCreated, {"name": "a" * 256}, "ConversationCreated.name"),
        (ConversationRenamed, {"name": "a" * 256}, "ConversationRenamed.name"),
        (ConversationRenamed, {}, "ConversationRenamed.name"),
        (ConversationForked, {"source_conversation_id": TASK, "source_version": -1},
         "ConversationForked.source_version"),
        (ConversationForked, {"source_conversation_id": "x", "source_version": 1},
         "ConversationForked.source_conversation_id"),
        (ConversationArchived, {"event_type": "conversation.deleted"}, "ConversationArchived.event_type"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_by_name(kind: type[EventData], values: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        kind(**values)
    assert refused.value.path == path


async def test_names_may_have_255_characters_of_any_kind(store: EventStore) -> None:
    name = "\U0001f600" * 255
    conversation = uuid4()
    await store.append(conversation, [ConversationCreated(name=name), ConversationRenamed(name=name)])
    assert [event.data.name async for event in store.read(conversation)] == [name, name]  # type: ignore[attr-defined]


@pytest.mark.parametrize("prefix", RESERVED_PREFIXES)
def test_application_events_cannot_take_names_of_the_vocabulary(prefix: str) -> None:
    with pytest.raises(InvalidEvent, match="begins with a prefix of the built-in events"):
        ApplicationEvent(prefix + "x")


@pytest.mark.parametrize("name", ["", "a" * 101, "a\0", "\ud800", None, 5])
def test_application_events_need_a_name(name: Any) -> None:
    with pytest.raises(InvalidEvent, match="event_type"):
        ApplicationEvent(name)


@given(name=texts(min_size=1, max_size=100).filter(lambda name: not name.startswith(RESERVED_PREFIXES)))
async def test_application_events_may_have_any_other_name(store: EventStore, name: str) -> None:
    conversation = uuid4()
    await store.append(conversation, [ApplicationEvent(name, {"event_type": "of the content"})])
    [event] = [event async for event in store.read(conversation)]
    assert event.data == ApplicationEvent(name, {"event_type": "of the content"})


@given(content=json_values, event_type=st.sampled_from([event.event_type for event in EXAMPLES] + ["task.x", "x"]))
def test_reading_never_fails_and_never_loses(content: Any, event_type: str) -> None:
    event = parse(event_type, 2, content)
    assert event.event_type == event_type
    if isinstance(event, ApplicationEvent | UnknownEvent):
        assert event.to_content() == content


async def test_members_and_types_of_a_newer_version_are_kept(store: EventStore, database_url: str) -> None:
    conversation = uuid4()
    newer = [
        ("message.added", {"role": "user", "content": "hi", "mood": {"happy": 0.5}}),
        ("message.retracted", {"of": 1}),
        ("message.added", {"role": "oracle", "content": "hi"}),
        ("conversation.split", "no object at all"),
    ]
    with open_scoped(database_url, store.tenant) as connection:
        for event_type, content in newer:
            connection.execute(
                "SELECT append_events(ARRAY[current_tenant()], ARRAY[%s::uuid], ARRAY[-2], ARRAY[1], ARRAY[%s::uuid],"
                " ARRAY[%s], ARRAY[2::smallint], ARRAY['future'], ARRAY[%s::jsonb], ARRAY['{\"k\": 1}'::jsonb])",
                (conversation, uuid4(), event_type, Jsonb(content)),
            )
    events = [event async for event in store.read(conversation)]
    assert [type(event.data) for event in events] == [MessageAdded, UnknownEvent, UnknownEvent, UnknownEvent]
    assert [event.data.to_content() for event in events] == [content for _, content in newer]
    assert events[0].data.model_extra == {"mood": {"happy": 0.5}}

    copy = uuid4()
    await store.append(copy, [NewEvent(event.data, metadata=event.metadata) for event in events])
    again = [event async for event in store.read(copy)]
    assert [(e.event_type, e.content, e.raw_metadata) for e in again] == [
        (e.event_type, e.content, e.raw_metadata) for e in events
    ]
    assert [event.schema_version for event in again[1:]] == [2, 2, 2]


@pytest.mark.parametrize(
    "event",
    [
        UnknownEvent(event_type="message.\0"),
        UnknownEvent(event_type="message.x", schema_version=2**15),
        UnknownEvent(event_type="message.x", schema_version=-(2**40)),
    ],
    ids=["NUL in its type", "version too high", "version too low"],
)
async def test_an_unknown_event_that_cannot_be_stored_is_refused(store: EventStore, event: UnknownEvent) -> None:
    with pytest.raises(InvalidEvent):
        await store.append(uuid4(), [event])


@pytest.mark.parametrize(
    "values",
    [
        {"occurred_at": "yesterday"},
        {"occurred_at": "2026-01-01T00:00:00"},
        {"occurred_at": "0001-01-01T00:00:00+14:00"},
        {"correlation_id": 5},
        {"traceparent": ["x"]},
    ],
    ids=str,
)
def test_metadata_that_does_not_fit_is_refused_by_name(values: dict[str, Any]) -> None:
    [name] = values
    with pytest.raises(InvalidEvent) as refused:
        Metadata(**values)
    assert refused.value.path == f"metadata.{name}"


@given(st.dictionaries(texts(max_size=8), json_values, max_size=4), st.datetimes(timezones=st.timezones()))
async def test_metadata_keep_members_of_the_application(
    store: EventStore, own: dict[str, Any], occurred_at: Any
) -> None:
    try:
        metadata = Metadata(**(own | {"occurred_at": occurred_at, "correlation_id": "c", "causation_id": "d"}))
    except InvalidEvent:
        return  # a time that UTC cannot express
    conversation = uuid4()
    await store.append(conversation, [NewEvent(ConversationArchived(), metadata=metadata)])
    [event] = [event async for event in store.read(conversation)]
    assert event.metadata == metadata
    assert event.occurred_at == metadata.occurred_at


@pytest.mark.parametrize("name", ["self", "values", "cls", "model_config", "model_extra", "event_type"])
def test_members_of_the_application_may_have_any_name(name: str) -> None:
    assert Metadata(**{name: 1}).to_content() == {name: 1}


@pytest.mark.parametrize("name", ["self", "values", "cls", "model_config", "model_extra", "schema_version"])
def test_members_of_a_newer_version_may_have_any_name(name: str) -> None:
    event = parse("message.added", 2, {"role": "user", name: 1})
    assert isinstance(event, MessageAdded)
    assert event.to_content() == {"role": "user", name: 1}
