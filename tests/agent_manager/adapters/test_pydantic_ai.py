"""pydantic-ai's conversations on the event store, compared with its own store in memory."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.environment import child_environment
from support.examples import examples
from support.waiting import until

from eventstore import EventStore, MessageAdded, conversation_uuid
from projections import Reader

pytest.importorskip("pydantic_ai.conversation_store", reason="conversations need pydantic-ai 2.68")

from pydantic_ai import Agent, DeferredToolRequests, messages
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import RequestUsage

from agent_manager.adapters.pydantic_ai import EventStoreConversationStore

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]

agent = Agent(TestModel())


@agent.tool_plain
def weather(city: str) -> dict[str, Any]:
    return {"city": city, "is_sunny": True}


async def talked(store: Any, name: str, *prompts: str, scope: str | None = None) -> Conversation:
    for prompt in prompts:
        conversation = await store.load(name) or Conversation(conversation_id=name)
        await store.save(await agent.run(prompt, conversation=conversation), scope=scope)
    loaded: Conversation = await store.load(name)
    return loaded


async def events_of(store: EventStore, name: str) -> list[Any]:
    return [event async for event in store.read(conversation_uuid(store.tenant, name))]


# What is stored


async def test_a_conversation_is_stored_in_the_vocabulary(store: EventStore, works: bool) -> None:
    await talked(EventStoreConversationStore(store), "trip", "Is it sunny?")
    stored = await events_of(store, "trip")
    assert [event.event_type for event in stored] == [
        "conversation.created", "message.added", "message.added", "task.created", "message.added",
        "task.artifact_added", "task.status_changed", "message.added", "pydantic_ai.record",
    ]  # fmt: skip
    assert sum("Is it sunny?" in str(event.content) for event in stored) == 1
    assert str(stored[1].content).count("Is it sunny?") == 1
    reader, at_least = Reader(store), stored[-1].position
    found = await reader.messages(conversation_uuid(store.tenant, "trip"), at_least=at_least)
    assert [(each.role, each.content[:12]) for each in found.items][:1] == [("user", "Is it sunny?")]
    [task] = (await reader.tasks(conversation_id=conversation_uuid(store.tenant, "trip"), at_least=at_least)).items
    assert (task.description, task.status) == ("weather", "completed")


async def test_a_save_appends_only_what_is_new(store: EventStore) -> None:
    conversations = EventStoreConversationStore(store)
    await talked(conversations, "trip", "one")
    before = len(await events_of(store, "trip"))
    await talked(conversations, "trip", "two")
    added = (await events_of(store, "trip"))[before:]
    assert [event.event_type for event in added] == ["message.added", "message.added", "pydantic_ai.record"]


# Messages read back equal

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)  # no negative zero
values = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | texts,
    lambda each: st.lists(each, max_size=2) | st.dictionaries(texts, each, max_size=2),
    max_leaves=4,
)
times = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
objects = st.dictionaries(texts, values, max_size=2)
images = st.binary(max_size=20).map(lambda data: messages.BinaryContent(data, media_type="image/png"))
contents = st.one_of(
    texts, images, texts.map(lambda text: messages.ImageUrl(f"https://example.org/{text}", media_type="image/png"))
)
results = st.recursive(
    values | images,
    lambda each: st.lists(each, max_size=2) | st.dictionaries(texts | st.just("data"), each, max_size=2),
    max_leaves=4,
)
request_parts = st.one_of(
    st.builds(messages.SystemPromptPart, texts, timestamp=times),
    st.builds(messages.UserPromptPart, texts | st.lists(contents, max_size=3), timestamp=times),
    st.builds(
        messages.ToolReturnPart, tool_name=texts, content=results, tool_call_id=texts,
        metadata=st.none() | objects, timestamp=times,
    ),
)  # fmt: skip
response_parts = st.one_of(
    st.builds(messages.TextPart, texts, id=st.none() | texts),
    st.builds(messages.ThinkingPart, texts, signature=st.none() | texts),
    st.builds(messages.ToolCallPart, tool_name=texts, args=st.none() | texts | objects, tool_call_id=texts),
    st.builds(messages.FilePart, images),
    st.builds(
        messages.SpeechPart, speaker=st.just("assistant"), transcript=st.none() | texts, audio=st.none() | images
    ),
)
requests = st.builds(
    messages.ModelRequest, st.lists(request_parts, max_size=4), instructions=st.none() | texts,
    metadata=st.none() | objects, timestamp=st.none() | times,
)  # fmt: skip
responses = st.builds(
    messages.ModelResponse, st.lists(response_parts, max_size=4), model_name=st.none() | texts, timestamp=times,
    usage=st.builds(RequestUsage, input_tokens=st.integers(0, 9), details=st.dictionaries(texts, st.integers(0, 9))),
    provider_details=st.none() | objects,
)  # fmt: skip


@given(history=st.lists(requests | responses, min_size=1, max_size=4))
@examples(40)
async def test_messages_read_back_equal(store: EventStore, history: list[Any]) -> None:
    adapter = messages.ModelMessagesTypeAdapter
    as_json = adapter.validate_json(adapter.dump_json(history))  # what pydantic-ai itself reads back
    conversation = Conversation(messages=history, conversation_id=str(uuid4()))
    await EventStoreConversationStore(store).save(conversation)
    loaded = await EventStoreConversationStore(store).load(conversation.conversation_id)
    assert loaded is not None
    assert loaded.messages == as_json
    assert adapter.dump_json(loaded.messages) == adapter.dump_json(as_json)


# The same as pydantic-ai's own store

steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 2), st.integers(0, 9)),
        st.tuples(st.just("rewrite"), st.integers(0, 2), st.integers(0, 9)),
        st.tuples(st.just("branch"), st.integers(0, 2), st.integers(0, 9)),
        st.tuples(st.just("fork"), st.integers(0, 2), st.integers(0, 9)),
        st.tuples(st.just("back"), st.integers(0, 2), st.integers(0, 9)),
        st.tuples(st.just("delete"), st.integers(0, 2), st.integers(0, 9)),
    ),
    min_size=3,
    max_size=14,
)


async def did(store: Any, names: list[str], step: tuple[str, int, int]) -> object:
    """Do a step; return what it tells, without random ids."""
    what, which, number = step
    name = names[which]
    try:
        loaded = await store.load(name)
        if what == "say":
            text = messages.ModelRequest(
                [messages.UserPromptPart(f"{number}", timestamp=datetime(2026, 1, 1, tzinfo=UTC))]
            )
            conversation = loaded or Conversation(conversation_id=name)
            conversation.messages.append(text)
            return len(await store.save(conversation))
        if loaded is None:
            return None
        if what == "rewrite":
            kept = loaded.messages[: number % (len(loaded.messages) + 1)]
            return len(await store.save(Conversation(messages=kept, conversation_id=name, revision=loaded.revision)))
        if what == "branch":
            at = number % (len(loaded.messages) + 1)
            return (await store.branch(name, at=at, expected_revision=loaded.revision)).messages
        if what == "fork":
            return (
                await store.fork(name, at=number % (len(loaded.messages) + 1), new_conversation_id=names[number % 3])
            ).messages
        if what == "back":
            [record] = [each for each in await store.list_conversations() if each.conversation_id == name]
            if not record.branches:
                return None
            tip = record.branches[number % len(record.branches)]
            return (await store.branch(name, from_entry=tip, expected_revision=loaded.revision)).messages
        return await store.delete(name)
    except (ConversationConflict, UserError) as error:
        return type(error).__name__


@given(steps=steps)
@examples(15)
async def test_every_step_has_the_result_of_the_store_in_memory(store: EventStore, works: bool, steps: Any) -> None:
    names, other = [str(uuid4()) for _ in range(3)], InMemoryConversationStore()
    own = EventStoreConversationStore(store)
    for step in steps:
        assert await did(own, names, step) == await did(other, names, step), step
        for name in names:
            mine, theirs = await own.load(name), await other.load(name)
            assert (mine and mine.messages) == (theirs and theirs.messages)
            limited = await own.load(name, limit=2)
            assert (limited and limited.messages) == (theirs and theirs.messages[-2:])
    fresh = EventStoreConversationStore(store)
    for name in names:
        mine, theirs = await fresh.read_record(name), await other.read_record(name)
        assert (mine and (len(mine.branches), mine.forked_from)) == (
            theirs and (len(theirs.branches), theirs.forked_from)
        )


async def test_large_files_are_stored_once_beside_the_log_and_read_back_equal(store: EventStore) -> None:
    picture = messages.BinaryContent(bytes(range(256)) * 200, media_type="image/png")
    history = [
        messages.ModelRequest([messages.UserPromptPart(["Look", picture])]),
        messages.ModelResponse([messages.ToolCallPart("see", {}, "c"), messages.FilePart(picture)]),
        messages.ModelRequest([messages.ToolReturnPart("see", {"seen": [picture, {"data": picture}]}, "c")]),
    ]
    await EventStoreConversationStore(store).save(Conversation(messages=history, conversation_id="trip"))
    loaded = await EventStoreConversationStore(store).load("trip")
    assert loaded is not None
    adapter = messages.ModelMessagesTypeAdapter
    assert loaded.messages == adapter.validate_json(adapter.dump_json(history))
    stored = await events_of(store, "trip")
    assert sum(event.size for event in stored) < len(picture.data)
    assert [part["kind"] for part in stored[1].content["parts"]] == ["text", "file"]
    [(blobs,)] = await store.tables(store.caller()).fetch("SELECT count(*) FROM blobs")
    assert blobs == 1


async def test_each_call_of_a_tool_is_a_task_with_its_result(store: EventStore, works: bool) -> None:
    conversations = EventStoreConversationStore(store)
    call = messages.ModelResponse([messages.ToolCallPart("buy", {"n": 1}, "same")])
    returned = messages.ModelRequest([messages.ToolReturnPart("buy", "bought", "same")])
    failed = messages.ModelRequest([messages.ToolReturnPart("buy", "no", "same", outcome="failed")])
    for history in ([call, returned, call], [call, returned, call, failed]):
        conversation = await conversations.load("trip") or Conversation(conversation_id="trip")
        conversation.messages[:] = history
        await EventStoreConversationStore(store).save(conversation)
    at_least = (await events_of(store, "trip"))[-1].position
    tasks = (
        await Reader(store).tasks(conversation_id=conversation_uuid(store.tenant, "trip"), at_least=at_least)
    ).items
    assert sorted((each.given_id, each.description, str(each.status)) for each in tasks) == [
        ("same", "buy", "completed"), ("same", "buy", "failed"),
    ]  # fmt: skip
    assert [len(each.artifacts) for each in tasks] == [1, 1]


# Revisions


async def test_of_two_writers_of_one_revision_one_is_refused(store: EventStore) -> None:
    first, second = EventStoreConversationStore(store), EventStoreConversationStore(store)
    await talked(first, "trip", "begins")
    runs = [await agent.run("goes on", conversation=await each.load("trip")) for each in (first, second)]
    results = await asyncio.gather(first.save(runs[0]), second.save(runs[1]), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ConversationConflict", "list"]


async def test_of_many_first_writers_one_succeeds(store: EventStore) -> None:
    run = await agent.run("begins", conversation=Conversation(conversation_id="trip"))
    copies = [Conversation(messages=run.conversation.messages, conversation_id="trip") for _ in range(8)]
    results = await asyncio.gather(*map(EventStoreConversationStore(store).save, copies), return_exceptions=True)
    assert sum(isinstance(result, list) for result in results) == 1
    assert all(isinstance(result, list | ConversationConflict) for result in results)


async def test_a_message_of_another_framework_is_no_conflict(store: EventStore) -> None:
    conversations = EventStoreConversationStore(store)
    loaded = await talked(conversations, "trip", "begins")
    await store.append(conversation_uuid(store.tenant, "trip"), [MessageAdded(role="user", content="from elsewhere")])
    await conversations.save(await agent.run("goes on", conversation=loaded))
    again = await conversations.load("trip")
    assert again is not None
    assert "from elsewhere" not in str(again.messages)


async def test_a_conversation_of_another_framework_is_continued_and_listed(store: EventStore, works: bool) -> None:
    from eventstore import ConversationCreated

    begin = ConversationCreated(name="Trip", metadata={"a2a": {"owner": ""}})
    await store.append("trip", [MessageAdded(role="user", content="hello")], begin=begin)
    await talked(EventStoreConversationStore(store), "trip", "begins", scope="ann")
    [record] = await EventStoreConversationStore(store).list_conversations(scope="ann")
    assert record.conversation_id == "trip"
    row = await Reader(store).conversation(conversation_uuid(store.tenant, "trip"))
    assert row is not None
    assert (row.name, row.metadata) == ("Trip", {"a2a": {"owner": ""}, "pydantic_ai": {"scope": "ann"}})


async def test_a_conversation_of_two_frameworks_has_the_messages_of_both(store: EventStore, works: bool) -> None:
    pytest.importorskip("a2a.server.cluster", reason="needs a2a-sdk 1.3")
    from a2a.types import a2a_pb2 as pb

    from agent_manager.adapters.a2a_sdk import EventStoreTaskStore

    tasks, conversations = EventStoreTaskStore(store), EventStoreConversationStore(store)
    question = pb.Message(message_id="m1", role=pb.ROLE_USER, parts=[pb.Part(text="by A2A")])
    task = pb.Task(id="t", context_id="trip", status=pb.TaskStatus(state=pb.TASK_STATE_WORKING), history=[question])
    await tasks.save(task)
    conversation = await talked(conversations, "trip", "by pydantic-ai")
    task.status.state = pb.TASK_STATE_COMPLETED
    await tasks.save(task)
    assert await EventStoreTaskStore(store).get("t") == task
    assert await conversations.load("trip") == conversation
    found = await Reader(store).messages(
        conversation_uuid(store.tenant, "trip"), at_least=(await events_of(store, "trip"))[-1].position
    )
    assert [each.content for each in found.items][:2] == ["by A2A", "by pydantic-ai"]


async def test_two_tenants_have_conversations_of_their_own(store: EventStore, settings: Any) -> None:
    other_settings = settings.model_copy(update={"tenant": "another"})
    async with EventStore(other_settings) as other:
        await talked(EventStoreConversationStore(store), "trip", "begins")
        assert await EventStoreConversationStore(other).load("trip") is None
        await talked(EventStoreConversationStore(other), "trip", "begins", "goes on")
    conversation = await EventStoreConversationStore(store).load("trip")
    assert conversation is not None
    assert "goes on" not in str(conversation.messages)


# Lists, deletion, users


async def test_lists_have_the_latest_first(store: EventStore, works: bool) -> None:
    conversations = EventStoreConversationStore(store)
    for number in range(4):
        await talked(conversations, f"c{number}", "begins", scope="even" if number % 2 == 0 else None)
    await talked(conversations, "c1", "goes on")
    names = [record.conversation_id for record in await conversations.list_conversations()]
    assert names == ["c1", "c3", "c2", "c0"]
    assert [each.conversation_id for each in await conversations.list_conversations(limit=2)] == ["c1", "c3"]
    assert [each.conversation_id for each in await conversations.list_conversations(scope="even")] == ["c2", "c0"]


async def test_a_deleted_conversation_is_hidden_at_once_and_its_forks_are_not(store: EventStore, works: bool) -> None:
    conversations, others = EventStoreConversationStore(store), EventStoreConversationStore(store)
    trip = await talked(conversations, "trip", "begins", "goes on")
    await conversations.fork("trip", new_conversation_id="fork")
    await conversations.delete("trip")
    for each in (conversations, others):
        assert await each.load("trip") is None
        assert [record.conversation_id for record in await each.list_conversations()] == ["fork"]
        fork = await each.load("fork")
        assert fork is not None
        assert fork.messages == trip.messages
    with pytest.raises(ConversationConflict):
        await others.save(await agent.run("late", conversation=trip))
    again = await talked(others, "trip", "again")
    assert len(again.messages) == len(trip.messages) - 2
    assert len(await conversations.list_conversations()) == 2


async def test_an_entry_is_read_by_its_id_alone(store: EventStore, works: bool) -> None:
    conversations = EventStoreConversationStore(store)
    request = messages.ModelRequest([messages.UserPromptPart("hello")])
    entries = [
        ConversationEntry(id="first", parent_id=None, message=request),
        ConversationEntry(id="second", parent_id="first", message=request),
    ]
    record = ConversationRecord(conversation_id="trip", head_id="second")
    await conversations.write_record(record, new_entries=entries, expected_revision=None)
    fresh = EventStoreConversationStore(store)
    assert await fresh.read_entry("second") == entries[1]
    assert await fresh.read_history("second") == entries
    assert await fresh.read_record("trip") == record
    with pytest.raises(KeyError, match="unknown"):
        await fresh.read_entry("unknown")
    elsewhere = ConversationRecord(conversation_id="elsewhere", head_id="unknown")
    with pytest.raises(ConversationConflict):
        await fresh.write_record(elsewhere, expected_revision=None)


async def test_a_user_sees_only_what_they_may(store: EventStore, works: bool) -> None:
    ann, bob = EventStoreConversationStore(store, "ann"), EventStoreConversationStore(store, "bob")
    await talked(ann, "trip", "begins")
    assert await bob.load("trip") is None
    assert await bob.list_conversations() == []
    run = await agent.run("mine", conversation=Conversation(conversation_id="trip"))
    with pytest.raises(ConversationConflict):
        await bob.save(run)
    assert len(await ann.list_conversations()) == 1


async def test_deferred_calls_of_tools_are_kept(store: EventStore) -> None:
    from pydantic_ai import ApprovalRequired

    careful = Agent(TestModel(), output_type=[str, DeferredToolRequests])

    @careful.tool_plain
    def buy(city: str) -> str:
        raise ApprovalRequired(metadata={"price": 10**20})

    conversations = EventStoreConversationStore(store)
    run = await careful.run("Buy", conversation=Conversation(conversation_id="trip"))
    await conversations.save(run)
    loaded = await EventStoreConversationStore(store).load("trip")
    assert loaded is not None
    assert loaded.deferred_tool_requests == run.conversation.deferred_tool_requests
    assert loaded.deferred_tool_requests is not None
    assert loaded.usage == run.conversation.usage


# A process that is killed

PROCESS = """
import asyncio, sys
from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.messages import ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import FunctionModel
from agent_manager.adapters.pydantic_ai import EventStoreConversationStore
from eventstore import EventStore

LAST = int(sys.argv[1])

async def answer(messages, info):
    turns = sum(isinstance(part, UserPromptPart) for message in messages for part in message.parts)
    if turns > LAST:
        print("stuck", flush=True)
        await asyncio.Event().wait()
    return ModelResponse([TextPart(f"answer {turns}")])

async def main():
    agent = Agent(FunctionModel(answer))
    async with EventStore() as store:
        conversations = EventStoreConversationStore(store)
        for turn in range(6):
            conversation = await conversations.load("trip") or Conversation(conversation_id="trip")
            turn = len(conversation.messages) // 2 + 1
            await conversations.save(await agent.run(f"prompt {turn}", conversation=conversation))
            print("saved", turn, flush=True)
            if turn == 6:
                break

asyncio.run(main())
"""


@pytest.mark.own_database
async def test_an_agent_that_is_killed_goes_on_where_it_was(
    store: EventStore, database_url: str, tmp_path: Path
) -> None:
    def started(last: int, out: Path) -> subprocess.Popen[bytes]:
        with out.open("wb") as file:
            command = [sys.executable, "-c", PROCESS, str(last)]
            return subprocess.Popen(command, stdout=file, env=child_environment(DATABASE_URL=database_url))

    first_out, second_out = tmp_path / "first", tmp_path / "second"
    first = started(3, first_out)
    try:
        until(lambda: "stuck" in first_out.read_text() or first.poll() is not None, "it answers its fourth prompt")
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait(30)
    assert first_out.read_text().split()[:6] == ["saved", "1", "saved", "2", "saved", "3"]
    second = started(6, second_out)
    assert await asyncio.to_thread(second.wait, 60) == 0
    conversation = await EventStoreConversationStore(store).load("trip")
    assert conversation is not None
    texts = [part.content for message in conversation.messages for part in message.parts]
    assert texts == [text for turn in range(1, 7) for text in (f"prompt {turn}", f"answer {turn}")]
