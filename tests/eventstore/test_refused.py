"""The append function refuses, in plain SQL too, everything that could fail in a projection later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from support.scoped_queries import open_scoped

from eventstore import ConversationCreated, EventStore, MessageAdded, NewEvent, UnknownEvent, conversation_uuid
from eventstore.errors import InputError, InvalidEvent

pytestmark = pytest.mark.shared_database

TASK = "00000000-0000-4000-8000-00000000000b"
ARTIFACT = {"task_id": TASK, "artifact_id": "a", "parts": [], "last_chunk": True}

CONTENTS: list[tuple[str, Any, str]] = [
    ("message.added", None, "content is not an object"),
    ("message.added", {}, "role is not a string"),
    ("message.added", {"role": ""}, "role is not a string"),
    ("message.added", {"role": "x" * 51}, "role is not a string"),
    ("message.added", {"role": "user", "content": 5}, "content is not a string"),
    ("message.added", {"role": "user", "parts": {}}, "parts is not an array"),
    ("message.added", {"role": "user", "given_id": 1}, "given_id is not a string"),
    ("message.added", {"role": "user", "metadata": []}, "metadata is not an object"),
    ("message.added", {"role": "user", "extra": [1]}, "extra is not an object"),
    ("conversation.created", {"name": None}, "name is not a string"),
    ("conversation.created", {"given_id": "another"}, "given_id is the name of another conversation"),
    ("conversation.created", {"given_id": TASK}, "given_id is the name of another conversation"),
    ("conversation.renamed", {}, "name is not a string"),
    ("conversation.renamed", {"name": "x" * 256}, "name is not a string"),
    ("conversation.forked", {"source_conversation_id": "x", "source_version": 1}, "is not a UUID"),
    ("conversation.forked", {"source_conversation_id": TASK, "source_version": "1"}, "source_version is not a number"),
    ("task.created", {"task_id": "nope", "status": "pending", "description": ""}, "task_id is not a UUID"),
    ("task.created", {"task_id": f"{{{TASK}}}", "status": "pending", "description": ""}, "task_id is not a UUID"),
    ("task.created", {"task_id": TASK, "description": ""}, "status is not a string"),
    ("task.created", {"task_id": TASK, "status": "pending"}, "description is not a string"),
    ("task.status_changed", {"task_id": TASK, "status": "x" * 51}, "status is not a string"),
    ("task.status_changed", {"task_id": TASK, "status": "failed", "message": "m"}, "message is not an object"),
    ("task.described", {"task_id": TASK, "description": "", "history": {}}, "history is not an array"),
    ("task.described", {"task_id": TASK, "description": "", "extra": 5}, "extra is not an object"),
    ("task.artifact_added", ARTIFACT | {"last_chunk": "yes"}, "last_chunk is not a boolean"),
    ("task.artifact_added", ARTIFACT | {"parts": None}, "parts is not an array"),
    ("task.artifact_extended", ARTIFACT | {"artifact_id": 1}, "artifact_id"),
    ("task.artifact_extended", ARTIFACT | {"name": 1}, "name"),
]

METADATA: list[tuple[Any, str]] = [
    ([], "metadata is not an object"),
    ({"correlation_id": 1}, "an id in it is not a string"),
    ({"occurred_at": "rubbish"}, "is not an ISO 8601 time"),
    ({"occurred_at": 5}, "is not an ISO 8601 time"),
    ({"occurred_at": "infinity"}, "is not an ISO 8601 time"),
    ({"occurred_at": "2026-01-01T00:00:00"}, "is not an ISO 8601 time"),
    ({"occurred_at": "2026-02-30T00:00:00Z"}, "out of range"),
    ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "outside the years"),
]

ARRAYS = {
    "tenant_ids": ["acme"],
    "conversation_ids": [uuid4()],
    "expected_versions": [-2],
    "conversation_nos": [1],
    "event_ids": [uuid4()],
    "event_types": ["noted"],
    "schema_versions": [1],
    "actors": [""],
    "contents": [Jsonb(1)],
    "metadatas": [Jsonb({})],
}
TYPES = dict(
    zip(
        ARRAYS,
        ["text", "uuid", "integer", "integer", "uuid", "text", "smallint", "text", "jsonb", "jsonb"],
        strict=True,
    )
)


@pytest.fixture
def app(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of an application that calls the function itself, in a transaction that is rolled back."""
    with open_scoped(database_url, "acme") as connection, connection.transaction(force_rollback=True):
        yield connection


def append(connection: psycopg.Connection[Any], **arrays: Any) -> None:
    given = ARRAYS | arrays
    names = ", ".join(f"{name} => %({name})s::{TYPES[name]}[]" for name in given)
    with connection.transaction():
        connection.execute(f"SELECT append_events({names})", given)  # type: ignore[arg-type]


def events(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM events").fetchone()
    return int(row[0]) if row else -1


@pytest.mark.parametrize(("event_type", "content", "reason"), CONTENTS, ids=str)
def test_invalid_contents_are_rejected_by_the_append_function(
    app: psycopg.Connection[Any], event_type: str, content: Any, reason: str
) -> None:
    with pytest.raises(psycopg.Error, match=reason):
        append(app, event_types=[event_type], contents=[Jsonb(content)])
    assert events(app) == 0


@pytest.mark.parametrize(("metadata", "reason"), METADATA, ids=str)
def test_invalid_metadata_are_rejected_by_the_append_function(
    app: psycopg.Connection[Any], metadata: Any, reason: str
) -> None:
    with pytest.raises(psycopg.Error, match=reason):
        append(app, metadatas=[Jsonb(metadata)])
    assert events(app) == 0


@pytest.mark.parametrize(
    "arrays",
    [
        {"conversation_nos": [0]},
        {"conversation_nos": [2]},
        {"conversation_nos": [None]},
        {"conversation_nos": []},
        {"expected_versions": [None]},
        {"expected_versions": []},
        {"event_ids": []},
        {"actors": ["", ""]},
        {"tenant_ids": []},
        {"tenant_ids": [""]},
        {"tenant_ids": [None]},
        {"event_types": [""]},
        {"event_types": ["x" * 101]},
        {"schema_versions": [0]},
        {"contents": [None]},
        {"event_ids": [None]},
    ],
    ids=str,
)
def test_arrays_of_different_lengths_are_rejected(app: psycopg.Connection[Any], arrays: dict[str, Any]) -> None:
    with pytest.raises(psycopg.Error):
        append(app, **arrays)
    assert events(app) == 0


def test_valid_events_are_appended(app: psycopg.Connection[Any]) -> None:
    append(app)
    assert events(app) == 1


@pytest.mark.parametrize(
    "data",
    [
        MessageAdded(role="user", content="x").model_copy(update={"role": "x" * 60}),
        MessageAdded.model_construct(role="user", content=5),
        UnknownEvent(event_type="message.added", content={}, schema_version=2),
        ConversationCreated.model_construct(name="", given_id=5),
        UnknownEvent(event_type="conversation.created", content={"given_id": "another"}, schema_version=2),
    ],
    ids=["copied", "constructed", "newer", "an id that is not a text", "newer, an id of another conversation"],
)
async def test_models_built_without_validation_are_rejected(store: EventStore, data: Any) -> None:
    with pytest.raises(InputError, match="cannot be stored"):
        await store.append(uuid4(), [NewEvent(data)])


@pytest.mark.parametrize("given_id", ["another", TASK, ""])
async def test_a_conversation_cannot_take_the_id_of_another(store: EventStore, given_id: str) -> None:
    conversation = conversation_uuid(store.tenant, "its own")
    own, foreign = ConversationCreated(given_id="its own"), ConversationCreated(given_id=given_id)
    for events in ([foreign], [own, foreign]):
        with pytest.raises(InvalidEvent, match=r"given_id: .* is the name of another conversation"):
            await store.append(conversation, events)
    with pytest.raises(InvalidEvent):
        await store.append(conversation_uuid("another tenant", "its own"), [own])
    await store.append(conversation, [own, ConversationCreated(given_id=str(conversation)), ConversationCreated()])
    assert len([event async for event in store.read_log()]) == 3


async def test_an_unknown_event_with_a_known_name_is_rejected(store: EventStore) -> None:
    with pytest.raises(InvalidEvent, match="use the class of that event"):
        await store.append(uuid4(), [UnknownEvent(event_type="message.added", content={"role": "user"})])
