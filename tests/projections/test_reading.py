"""The Reader returns typed rows of one tenant, by any id that the client knows."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from eventstore import (
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    EventStore,
    MessageAdded,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskStatusChanged,
    conversation_uuid,
)
from eventstore.errors import InputError, InvalidId, NotFound
from projections import Reader, Search, Statistics, SyncReader, catch_up

pytestmark = pytest.mark.shared_database


def at(minute: int) -> Metadata:
    return Metadata(occurred_at=datetime(2025, 1, 1, 12, minute, tzinfo=UTC))


@pytest.fixture
def reader(store: EventStore) -> Reader:
    return Reader(store)


async def test_a_conversation_by_any_form_of_its_id(store: EventStore, reader: Reader) -> None:
    conversation = UUID("5a5b0e6c-1f0e-4d0c-9a43-0f6f1d0b7f2e")
    await store.append(conversation, [ConversationCreated(name="mine")])
    await catch_up(store)
    text = str(conversation)
    for form in (conversation, text, text.upper(), f"{{{text}}}", text.replace("-", ""), f"urn:uuid:{text}"):
        assert (await reader.conversation(form)).id == conversation


async def test_a_conversation_by_the_id_that_its_client_gave_it(store: EventStore, reader: Reader) -> None:
    for given in ("trip 7", "5A5B0E6C-1F0E-4D0C-9A43-0F6F1D0B7F2E", "'; DROP TABLE events; --", "ção", "\0", ""):
        conversation = conversation_uuid(store.tenant, given)
        await store.append(conversation, [MessageAdded(role="user", content=given.replace("\0", ""))])
        await catch_up(store)
        assert (await reader.conversation(given)).id == conversation


@pytest.mark.parametrize("unknown", ["nonsense", str(uuid4()), uuid4()], ids=["text", "uuid text", "uuid"])
async def test_an_unknown_conversation_is_not_found(reader: Reader, unknown: UUID | str) -> None:
    with pytest.raises(NotFound, match=f"no conversation has the id '{unknown}'"):
        await reader.conversation(unknown)


async def test_a_text_that_is_not_valid_unicode_is_not_an_id(reader: Reader) -> None:
    with pytest.raises(InvalidId, match="lone surrogate"):
        await reader.conversation("\udcff")


async def test_messages_and_tasks_are_read_by_uuid(reader: Reader) -> None:
    assert await reader.messages(uuid4()) == []
    assert await reader.tasks(str(uuid4())) == []
    with pytest.raises(InvalidId, match="conversation_uuid"):
        await reader.messages("trip 7")


async def test_conversations_are_listed_latest_first_and_deleted_ones_on_request(
    store: EventStore, reader: Reader
) -> None:
    old, new, hidden, archived = (uuid4() for _ in range(4))
    await store.append(new, [NewEvent(ConversationCreated(name="new"), metadata=at(30))])
    await store.append(old, [NewEvent(ConversationCreated(name="old"), metadata=at(10))])
    await store.append(hidden, [NewEvent(ConversationCreated(name="hidden"), metadata=at(40))])
    await store.append(hidden, [NewEvent(ConversationDeleted(), metadata=at(41))])
    await store.append(archived, [NewEvent(ConversationCreated(name="archived"), metadata=at(20))])
    await store.append(archived, [NewEvent(ConversationArchived(), metadata=at(20))])
    await catch_up(store)

    async def names(**which: bool | int) -> list[str]:
        return [row.name for row in await reader.conversations(**which)]  # type: ignore[arg-type]

    assert await names() == ["new", "archived", "old"]
    assert await names(deleted=True) == ["hidden", "new", "archived", "old"]
    assert await names(active=True) == ["new", "old"]
    assert await names(active=False) == ["archived"]
    assert await names(limit=1) == ["new"]
    assert await names(limit=0) == []
    assert (await reader.conversation(hidden)).is_deleted


async def test_messages_are_listed_in_order_and_filtered_by_version_and_role(store: EventStore, reader: Reader) -> None:
    conversation = uuid4()
    roles = ["system", "user", "assistant", "tool", "assistant"]
    for minute, role in enumerate(roles):
        # When they happened does not decide: the order is that of the conversation.
        await store.append(
            conversation,
            [NewEvent(MessageAdded(role=role, content=role), actor="ana", metadata=at(59 - minute))],  # type: ignore[arg-type]
        )
    await catch_up(store)
    assert [row.role for row in await reader.messages(conversation)] == roles
    assert [row.version for row in await reader.messages(conversation, after_version=3)] == [4, 5]
    assert [row.version for row in await reader.messages(conversation, role="assistant")] == [3, 5]
    assert [row.version for row in await reader.messages(conversation, limit=2)] == [1, 2]
    [first, *_] = await reader.messages(conversation)
    assert (first.actor, first.created_at) == ("ana", at(59).occurred_at)


async def test_tasks_include_the_chunks_of_their_artifacts(store: EventStore, reader: Reader) -> None:
    conversation, task, other = uuid4(), uuid4(), uuid4()
    await store.append(
        conversation,
        [
            NewEvent(TaskCreated(task_id=task, description="look", given_id="call"), metadata=at(1)),
            NewEvent(TaskCreated(task_id=other, description="later"), metadata=at(2)),
            NewEvent(TaskArtifactAdded(task_id=task, artifact_id="a", parts=[{"text": "1"}], last_chunk=False)),
            NewEvent(TaskArtifactExtended(task_id=task, artifact_id="a", parts=[{"text": "2"}], name="n")),
            NewEvent(TaskStatusChanged(task_id=task, status="input-required", message={"text": "which?"})),  # type: ignore[arg-type]
        ],
    )
    await catch_up(store)
    first, second = await reader.tasks(conversation)
    assert (first.id, first.given_id, first.description) == (task, "call", "look")
    assert (first.status, first.status_message) == ("input-required", {"text": "which?"})
    assert [(a["parts"], a["extends"], a["last_chunk"], a["name"]) for a in first.artifacts] == [
        ([{"text": "1"}], False, False, None),
        ([{"text": "2"}], True, True, "n"),
    ]
    assert (second.id, second.status, second.artifacts) == (other, "pending", [])
    assert [row.id for row in await reader.tasks(conversation, status="pending")] == [other]
    assert [row.id for row in await reader.tasks(conversation, limit=1)] == [task]


async def test_unknown_values_are_refused(reader: Reader) -> None:
    with pytest.raises(InputError, match="role: 'agent' is unknown: choose among user, assistant, system, tool"):
        await reader.messages(uuid4(), role="agent")
    with pytest.raises(InputError, match="status: 'done' is unknown: choose among pending, in_progress"):
        await reader.tasks(uuid4(), status="done")


async def test_a_negative_limit_is_refused(reader: Reader) -> None:
    with pytest.raises(InputError):
        await reader.conversations(limit=-1)


async def test_tenants_see_nothing_of_each_other(store: EventStore) -> None:
    conversation, task = uuid4(), uuid4()
    for tenant in ("a", "b"):
        await store.append(
            conversation,
            [
                ConversationCreated(name=tenant),
                MessageAdded(role="user", content=tenant),
                TaskCreated(task_id=task, description=tenant),
                TaskArtifactAdded(task_id=task, artifact_id=tenant, parts=[]),
            ],
            tenant=tenant,
        )
    await catch_up(store)
    for tenant in ("a", "b"):
        reader = Reader(store, tenant)
        assert [row.name for row in await reader.conversations()] == [tenant]
        assert (await reader.conversation(conversation)).message_count == 1
        assert [row.content for row in await reader.messages(conversation)] == [tenant]
        [only] = await reader.tasks(conversation)
        assert (only.description, [a["artifact_id"] for a in only.artifacts]) == (tenant, [tenant])
    with pytest.raises(NotFound):
        await Reader(store).conversation(conversation)


async def test_the_query_of_a_conversations_messages_uses_its_index(store: EventStore) -> None:
    conversations = [uuid4() for _ in range(50)]
    for conversation in conversations:
        await store.append(conversation, [MessageAdded(role="user", content=os.urandom(8).hex()) for _ in range(40)])
    await catch_up(store)
    rows = await store.tables(store.caller()).fetch(
        "EXPLAIN SELECT FROM messages WHERE tenant_id = 'default' AND conversation_id = %s AND version > 0 "
        "ORDER BY version LIMIT 10",
        (conversations[7],),
    )
    plan = "\n".join(row[0] for row in rows)
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize("value", [None, 5, "x", [], b"x", object(), "\ud800", 2**70])
async def test_arguments_of_a_wrong_type_are_refused(store: EventStore, value: Any) -> None:
    reader, search = Reader(store), Search(store)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: reader.conversations(deleted=value),
        lambda: reader.conversations(newest_first=value),
        lambda: reader.messages(newest_first=value),
        lambda: reader.tasks(deleted=value),
        lambda: reader.history(newest_first=value),
        lambda: search.page("x", marks=value),
    ]
    if value is not None:
        calls.append(lambda: reader.conversations(active=value))
    if not isinstance(value, str):
        calls.append(lambda: search.page(value))
    for call in calls:
        with pytest.raises(InputError):
            await call()
    for make in (Reader, SyncReader, Search, Statistics):
        with pytest.raises(InputError, match="store: expected"):
            make(value)
    if not isinstance(value, int):
        with pytest.raises(InputError, match="timeout"):
            Reader(store, timeout=value)
