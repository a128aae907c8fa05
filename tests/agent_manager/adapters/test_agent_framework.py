"""History, sessions and checkpoints of Microsoft's Agent Framework read back equal, also after a process was killed."""

from __future__ import annotations

import asyncio
import dataclasses
import json
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
from support.waiting import until

pytest.importorskip("agent_framework")

from agent_framework import (
    Agent,
    AgentSession,
    BaseChatClient,
    ChatResponse,
    Content,
    FileCheckpointStorage,
    FunctionInvocationLayer,
    Message,
    WorkflowBuilder,
    WorkflowCheckpoint,
    WorkflowCheckpointException,
    WorkflowContext,
    executor,
)

from agent_manager.adapters.agent_framework import (
    EventStoreCheckpointStorage,
    EventStoreHistoryProvider,
    EventStoreSessionStore,
)
from eventstore import ConversationDeleted, EventStore, MessageAdded, Settings, SyncEventStore, conversation_uuid
from eventstore.errors import EventTooLarge, Forbidden, InputError
from projections import Reader, Search, catch_up

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]


class Scripted(FunctionInvocationLayer[Any], BaseChatClient[Any]):
    """A client whose answers are given beforehand; it keeps the messages of each call."""

    def __init__(self, *answers: list[Any]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.calls: list[list[Message]] = []

    def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **kwargs: Any) -> Any:
        async def answer() -> ChatResponse[Any]:
            self.calls.append(list(messages))
            return ChatResponse(messages=Message("assistant", self.answers.pop(0)))

        return answer()


def weather(city: str) -> str:
    """Return the weather."""
    return f"sunny in {city}"


def forms(messages: Any) -> str:
    """Return messages in the framework's form, in which the order of members shows."""
    return json.dumps([message.to_dict() for message in messages])


MESSAGES = [
    Message(
        "user", ["Olá, Zoë 👋"], message_id="m1", author_name="Zoë", additional_properties={"z": 1, "a": [None, 2.5]}
    ),
    Message("system", ["be brief"]),
    Message(
        "user",
        [
            Content.from_text("what is this?"),
            Content.from_data(b"\x89PNG\r\n", "image/png"),
            Content.from_uri("https://example.com/a.png", media_type="image/png"),
        ],
    ),
    Message(
        "assistant",
        [
            Content.from_text_reasoning(text="hm", protected_data="secret"),
            Content.from_text("I look."),
            Content.from_function_call("c1", "weather", arguments={"city": "Porto"}),
            Content.from_function_call("c2", "weather", arguments='{"city": "Faro"}'),
        ],
    ),
    Message(
        "tool",
        [
            Content.from_function_result("c1", result="sunny"),
            Content.from_function_result("c2", result=None, exception="no such city"),
        ],
    ),
    Message("assistant", ["Sunny."], message_id="m2"),
    Message("critic", ["of a role that the vocabulary does not have"]),
    Message("assistant", []),
    Message("user", [""]),
    Message("user", ["a\0b"], message_id="m\0"),
]


async def history_of(store: EventStore, session_id: str = "s") -> list[Message]:
    return await EventStoreHistoryProvider(store).get_messages(session_id)


async def test_every_message_reads_back_equal_with_its_members_in_order(store: EventStore) -> None:
    history = EventStoreHistoryProvider(store)
    await history.save_messages("s", MESSAGES)
    found = await history.get_messages("s")
    assert forms(found) == forms(MESSAGES)
    assert [message.contents for message in found[:4]] == [message.contents for message in MESSAGES[:4]]


TEXTS = st.text(max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
"""Numbers without a negative zero, which PostgreSQL's jsonb stores as zero: they are equal, and their texts are not."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
CONTENTS = st.one_of(
    TEXTS.map(Content.from_text),
    TEXTS.map(lambda text: Content.from_text_reasoning(text=text)),
    st.binary(max_size=8).map(lambda data: Content.from_data(data, "image/png")),
    st.builds(Content.from_function_call, st.sampled_from("ab"), TEXTS, arguments=st.dictionaries(TEXTS, VALUES)),
    st.builds(lambda call, result: Content.from_function_result(call, result=result), st.sampled_from("ab"), VALUES),
)
GENERATED = st.builds(
    Message,
    st.sampled_from(["user", "assistant", "system", "tool"]),
    st.lists(CONTENTS, max_size=3),
    author_name=st.none() | TEXTS,
    message_id=st.none() | st.uuids().map(str),
    additional_properties=st.dictionaries(TEXTS.filter(lambda name: name[:1] != "_"), VALUES, max_size=3),
)


@given(messages=st.lists(GENERATED, min_size=1, max_size=4))
async def test_any_message_reads_back_equal(store: EventStore, messages: list[Message]) -> None:
    history, session_id = EventStoreHistoryProvider(store), uuid4().hex
    await history.save_messages(session_id, messages)
    assert forms(await history.get_messages(session_id)) == forms(messages)


async def test_messages_are_messages_and_calls_tasks_for_all_other_readers(store: EventStore) -> None:
    await EventStoreHistoryProvider(store).save_messages("trip", MESSAGES[:6])
    await catch_up(store)
    conversation = await Reader(store).conversation("trip")
    messages = await Reader(store).messages(conversation.id)
    assert [message.role for message in messages] == ["user", "system", "user", "assistant", "tool", "assistant"]
    assert [message.content for message in messages] == [
        "Olá, Zoë 👋", "be brief", "what is this?", "I look.", "", "Sunny."
    ]  # fmt: skip
    assert [message.given_id for message in messages] == ["m1", None, None, None, None, "m2"]
    file = {"kind": "file", "file": {"mimeType": "image/png", "bytes": "iVBORw0K"}}
    assert messages[2].parts is not None
    assert messages[2].parts[1] == file
    tasks = {task.given_id: task for task in await Reader(store).tasks(conversation.id)}
    assert {name: (task.description, task.status) for name, task in tasks.items()} == {
        "c1": ('weather({"city": "Porto"})', "completed"),
        "c2": ('weather({"city": "Faro"})', "failed"),
    }
    assert tasks["c1"].metadata == {"agent_framework": {"message_id": str(messages[3].id), "number": 2}}
    assert [part for chunk in tasks["c1"].artifacts for part in chunk["parts"]] == [{"kind": "text", "text": "sunny"}]
    assert [str(hit.kind) for hit in (await Search(store).page("faro")).items] == ["task"]
    log = str([event.content async for event in store.read(conversation.id)])
    assert [log.count(words) for words in ("Porto", "Faro", "'sunny'")] == [1, 1, 1]


async def test_a_result_completes_the_call_of_an_earlier_append(store: EventStore) -> None:
    history = EventStoreHistoryProvider(store)
    for number in range(2):  # the ids of calls repeat
        await history.save_messages("s", [Message("assistant", [Content.from_function_call("c", f"f{number}")])])
        await history.save_messages("s", [Message("tool", [Content.from_function_result("c", result=number)])])
    await catch_up(store)
    tasks = await Reader(store).tasks(conversation_uuid(store.tenant, "s"))
    assert sorted((task.description, task.status) for task in tasks) == [("f0", "completed"), ("f1", "completed")]


async def test_a_call_whose_task_is_erased_loses_its_own_arguments_alone(store: EventStore) -> None:
    calls = [
        Content.from_function_call("c1", "weather", arguments='{"city": "Porto"}'),
        Content.from_function_call("c2", "weather", arguments='{"city": "Faro"}'),
        Content.from_function_call("c3", "weather", arguments={"city": "Beja"}),
    ]
    results = [Content.from_function_result(f"c{number}", result=f"sunny {number}") for number in (1, 2, 3)]
    await EventStoreHistoryProvider(store).save_messages("s", [Message("assistant", calls), Message("tool", results)])
    conversation = conversation_uuid(store.tenant, "s")
    for event_type in ("task.created", "task.artifact_added"):
        first, *_ = [event async for event in store.read(conversation, types=[event_type])]
        await store.erase(conversation, [first.id])
    called, answered = await history_of(store)
    assert [content.arguments for content in called.contents] == [None, '{"city": "Faro"}', {"city": "Beja"}]
    assert [content.result for content in answered.contents] == [None, "sunny 2", "sunny 3"]


async def test_messages_of_other_writers_are_read_as_plain_messages(store: EventStore) -> None:
    history = EventStoreHistoryProvider(store)
    await history.save_messages("s", MESSAGES[:1])
    parts = [{"kind": "text", "text": "from"}, {"kind": "text", "text": "another"}]
    await store.append(conversation_uuid(store.tenant, "s"), [MessageAdded(role="assistant", parts=parts)])
    assert [(message.role, message.text) for message in (await history.get_messages("s"))[1:]] == [
        ("assistant", "from\nanother")
    ]


async def test_of_a_whole_transcript_only_what_is_new_is_stored(store: EventStore) -> None:
    history = EventStoreHistoryProvider(store)
    transcript = [Message("user" if number % 2 else "assistant", [str(number)]) for number in range(100)]
    for end in range(10, 101, 10):
        await history.save_messages("replayed", transcript[:end])
        await history.save_messages("overlapping", transcript[max(0, end - 13) : end])
    assert forms(await history.get_messages("replayed")) == forms(transcript)
    assert forms(await history.get_messages("overlapping")) == forms(transcript)
    await history.save_messages("replayed", [])
    await history.save_messages("replayed", transcript)
    assert len(await history.get_messages("replayed")) == 100


async def test_concurrent_writers_keep_every_message(store: EventStore) -> None:
    groups = [[Message("user", [f"{writer} {number}"]) for number in range(3)] for writer in range(8)]
    await asyncio.gather(*(EventStoreHistoryProvider(store).save_messages("s", group) for group in groups))
    found = [message.text for message in await history_of(store)]
    assert sorted(found) == sorted(message.text for group in groups for message in group)


async def test_a_deleted_conversation_begins_anew(store: EventStore) -> None:
    history = EventStoreHistoryProvider(store)
    await history.save_messages("s", MESSAGES[:2])
    await store.append(conversation_uuid(store.tenant, "s"), [ConversationDeleted()])
    assert await history.get_messages("s") == []
    await history.save_messages("s", MESSAGES[:1])
    assert forms(await history.get_messages("s")) == forms(MESSAGES[:1])


async def test_excluded_messages_are_left_out_if_that_is_asked_for(store: EventStore) -> None:
    excluded = Message("user", ["old"], additional_properties={"_excluded": True})
    history = EventStoreHistoryProvider(store, skip_excluded=True)
    await history.save_messages(None, [excluded, MESSAGES[1]])
    assert forms(await history.get_messages(None)) == forms(MESSAGES[1:2])
    assert len(await EventStoreHistoryProvider(store).get_messages(None)) == 2


async def test_users_and_tenants_do_not_see_each_other(store: EventStore, module_store: EventStore) -> None:
    of_ana = EventStoreHistoryProvider(store, user="ana")
    of_bob = EventStoreHistoryProvider(store, user="bob")
    await of_ana.save_messages("s", MESSAGES[:1])
    assert await of_bob.get_messages("s") == []
    with pytest.raises(Forbidden):
        await of_bob.save_messages("s", MESSAGES[1:2])
    assert await history_of(module_store) == []
    assert len(await history_of(store)) == 1
    await EventStoreSessionStore(store, user="ana").set("s", AgentSession(session_id="s"))
    assert await EventStoreSessionStore(store, user="bob").get("s") is None
    checkpoint = WorkflowCheckpoint("w", "h")
    await EventStoreCheckpointStorage(store, user="ana").save(checkpoint)
    assert await EventStoreCheckpointStorage(store, user="bob").list_checkpoint_ids(workflow_name="w") == []


async def test_what_cannot_be_stored_is_named(store: EventStore) -> None:
    history = EventStoreHistoryProvider(store)
    with pytest.raises(EventTooLarge):
        await history.save_messages("s", [Message("user", ["x" * 13_000_000])])
    with pytest.raises(InputError, match="expected an EventStore or a SyncEventStore, got a dict"):
        EventStoreHistoryProvider({})  # type: ignore[arg-type]
    assert await history.get_messages("s") == []


async def test_an_agent_with_a_tool_remembers(store: EventStore) -> None:
    call = Content.from_function_call("c1", "weather", arguments={"city": "Porto"})
    client = Scripted([call], ["Sunny."], ["You are welcome."])
    agent = Agent(client, tools=[weather], context_providers=[EventStoreHistoryProvider(store)])
    session = agent.create_session(session_id="s")
    assert (await agent.run("Weather in Porto?", session=session)).text == "Sunny."
    await agent.run("Thanks", session=AgentSession(session_id="s"))
    assert [message.role for message in client.calls[-1]] == ["user", "assistant", "tool", "assistant", "user"]
    found = await history_of(store)
    assert [message.text for message in found][-3:] == ["Sunny.", "Thanks", "You are welcome."]
    assert found[2].contents[0].result == "sunny in Porto"
    await catch_up(store)
    [task] = await Reader(store).tasks(conversation_uuid(store.tenant, "s"))
    assert (task.description, task.status) == ('weather({"city": "Porto"})', "completed")


async def test_a_provider_opens_a_store_of_its_own_and_any_loop_may_use_a_synchronous_one(settings: Settings) -> None:
    async with EventStoreHistoryProvider.open(settings, source_id="own") as history:
        assert history.source_id == "own"
        await history.save_messages("s", MESSAGES[:1])

    def run() -> list[Message]:
        with SyncEventStore(settings) as store:
            history = EventStoreHistoryProvider(store)
            asyncio.run(history.save_messages("s", MESSAGES[1:2]))
            return asyncio.run(history.get_messages("s"))

    assert forms(await asyncio.to_thread(run)) == forms(MESSAGES[:2])


# Sessions


async def test_a_session_is_stored_read_replaced_and_deleted(store: EventStore) -> None:
    sessions = EventStoreSessionStore(store)
    assert await sessions.get("s") is None
    await sessions.delete("s")
    session = AgentSession(session_id="s", service_session_id={"id": "x"})
    session.state = {"message": MESSAGES[3], "n": 10**30, "nul": "a\0b", "list": [1, None, {"z": 1, "a": 2}]}
    await sessions.set("s", session)
    await EventStoreHistoryProvider(store).save_messages("s", MESSAGES)
    found = await sessions.get("s")
    assert found is not None
    assert json.dumps(found.to_dict()) == json.dumps(session.to_dict())
    assert isinstance(found.state["message"], Message)
    session.state["n"] = 1
    assert (await sessions.get("s")).state["n"] == 10**30  # type: ignore[union-attr]
    await sessions.set("s", session)
    assert (await sessions.get("s")).state["n"] == 1  # type: ignore[union-attr]
    await sessions.delete("s")
    assert await sessions.get("s") is None
    assert len(await history_of(store)) == len(MESSAGES)
    with pytest.raises(ValueError, match="non-empty"):
        await sessions.get("")


async def test_a_session_that_could_not_be_restored_is_refused(store: EventStore) -> None:
    class Own(AgentSession):
        pass

    with pytest.raises(TypeError, match="Own cannot be restored: give AgentSession instances only"):
        await EventStoreSessionStore(store).set("s", Own(session_id="s"))
    session = AgentSession(session_id="s")
    session.state = {"odd": object()}
    with pytest.warns(RuntimeWarning, match="unsupported type"), pytest.raises(TypeError, match=r"state\.odd"):
        await EventStoreSessionStore(store).set("s", session)


# Checkpoints


@dataclasses.dataclass
class Progress:
    """A value of a workflow that JSON does not have."""

    done: set[int]
    since: datetime


ALLOWED = [f"{__name__}:Progress"]


def checkpoint(name: str, workflow: str = "w", minute: int = 0, **state: Any) -> WorkflowCheckpoint:
    """Return a checkpoint."""
    time = datetime(2026, 1, 2, 3, minute, tzinfo=UTC).isoformat()
    return WorkflowCheckpoint(workflow, "hash", checkpoint_id=name, timestamp=time, state=state)


async def test_checkpoints_are_saved_loaded_listed_and_deleted(store: EventStore) -> None:
    storage = EventStoreCheckpointStorage(store, allowed_checkpoint_types=ALLOWED)
    progress = Progress({1, 2}, datetime(2026, 1, 2, tzinfo=UTC))
    saved = [
        checkpoint("a", minute=5, progress=progress, b=b"\0\xff", big=10**30, t=(1, 2)),
        checkpoint("b", minute=9, nul="\0"),
        checkpoint("c", minute=7),
        checkpoint("d", "other"),
    ]
    for each in saved:
        assert await storage.save(each) == each.checkpoint_id
    assert await storage.load("a") == saved[0]
    assert await storage.list_checkpoints(workflow_name="w") == saved[:3]
    assert await storage.list_checkpoint_ids(workflow_name="w") == ["a", "b", "c"]
    assert await storage.get_latest(workflow_name="w") == saved[1]
    assert await storage.get_latest(workflow_name="none") is None
    assert await storage.delete("b") is True
    assert await storage.delete("b") is False
    assert await storage.delete("none") is False
    assert await storage.get_latest(workflow_name="w") == saved[2]
    with pytest.raises(WorkflowCheckpointException, match="No checkpoint found with ID b"):
        await storage.load("b")
    await storage.save(saved[1])
    assert await storage.list_checkpoint_ids(workflow_name="w") == ["a", "c", "b"]
    for number in range(20):  # replaced where it is
        await storage.save(checkpoint("a", minute=number, number=number))
    assert (await storage.load("a")).state == {"number": 19}
    assert await storage.list_checkpoint_ids(workflow_name="w") == ["a", "c", "b"]
    before = [event.id async for event in store.read(conversation_uuid(store.tenant, storage.name))]
    await storage.save(checkpoint("a", minute=19, number=19))
    assert [event.id async for event in store.read(conversation_uuid(store.tenant, storage.name))] == before
    await store.append(conversation_uuid(store.tenant, storage.name), [ConversationDeleted()])
    assert await storage.list_checkpoints(workflow_name="w") == []
    assert await storage.delete("a") is False
    await storage.save(saved[0])
    assert await storage.load("a") == saved[0]


async def test_a_type_that_is_not_allowed_is_refused_when_it_is_saved(store: EventStore, tmp_path: Path) -> None:
    progress = checkpoint("a", progress=Progress(set(), datetime(2026, 1, 2, tzinfo=UTC)))
    for storage in (EventStoreCheckpointStorage(store), FileCheckpointStorage(tmp_path)):
        with pytest.raises(WorkflowCheckpointException, match="Progress"):
            await storage.save(progress)


async def test_a_workflow_goes_on_from_its_latest_checkpoint(store: EventStore) -> None:
    fails = True

    @executor(id="first")
    async def first(number: int, context: WorkflowContext[int]) -> None:
        await context.send_message(number + 1)

    @executor(id="second")
    async def second(number: int, context: WorkflowContext[Any, int]) -> None:
        if fails:
            raise RuntimeError("the power failed")
        await context.yield_output(number * 10)

    storage = EventStoreCheckpointStorage(store)

    def workflow() -> Any:
        built = WorkflowBuilder(start_executor=first, name="w", checkpoint_storage=storage, output_from=[second])
        return built.add_edge(first, second).build()

    with pytest.raises(RuntimeError, match="the power failed"):
        await workflow().run(4)
    fails = False
    latest = await storage.get_latest(workflow_name="w")
    assert latest is not None
    result = await workflow().run(checkpoint_id=latest.checkpoint_id)
    assert result.get_outputs() == [50]


# A process that is killed

PROCESS = """
import asyncio
from agent_framework import Agent, BaseChatClient, ChatResponse, Content, FunctionInvocationLayer, Message
from agent_manager.adapters.agent_framework import EventStoreHistoryProvider
from eventstore import EventStore

class Scripted(FunctionInvocationLayer, BaseChatClient):
    number = 0

    def _inner_get_response(self, *, messages, stream, options, **kwargs):
        async def answer():
            self.number += 1
            if self.number % 2:
                call = Content.from_function_call(f"c{self.number}", "look")
                return ChatResponse(messages=Message("assistant", [call]))
            return ChatResponse(messages=Message("assistant", [f"answer {self.number // 2 - 1}"]))
        return answer()

def look() -> str:
    return "seen"

async def main():
    async with EventStore() as store:
        agent = Agent(Scripted(), tools=[look], context_providers=[EventStoreHistoryProvider(store)])
        session = agent.create_session(session_id="killed")
        for turn in range(10**6):
            await agent.run(f"question {turn}", session=session)
            print("done", turn, flush=True)

asyncio.run(main())
"""


async def test_an_agent_that_is_killed_goes_on_with_all_that_was_done(
    store: EventStore, settings: Settings, database_url: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", PROCESS],
            stdout=file,
            env=child_environment(DATABASE_URL=database_url, EVENTSTORE_TENANT=settings.tenant),
            cwd=tmp_path,
        )
    try:
        until(lambda: out.read_text().count("\n") > 4 or process.poll() is not None, "some turns are done")
    finally:
        process.kill()
        process.wait(30)
    done = int(out.read_text().split()[-1])
    found = await history_of(store, "killed")
    answers = [message.text for message in found if message.text.startswith("answer")]
    assert answers[: done + 1] == [f"answer {turn}" for turn in range(done + 1)]
    client = Scripted(["goes on"])
    agent = Agent(client, context_providers=[EventStoreHistoryProvider(store)])
    assert (await agent.run("and now?", session=agent.create_session(session_id="killed"))).text == "goes on"
    assert [message.text for message in client.calls[0][:-1]] == [message.text for message in found]
    assert len(await history_of(store, "killed")) == len(found) + 2


async def test_two_frameworks_continue_one_conversation(store: EventStore) -> None:
    pytest.importorskip("agents")
    from agent_manager.adapters.openai_agents import EventStoreSession

    session, history = EventStoreSession("both", store), EventStoreHistoryProvider(store)
    item: Any = {"id": "m", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "one"}]}
    await session.add_items([item])
    await history.save_messages("both", [Message("user", ["two"], message_id="m2")])
    assert [message.text for message in await history.get_messages("both")] == ["one", "two"]
    assert await session.get_items() == [item, {"role": "user", "content": "two"}]
    await history.save_messages("both", [Message("user", ["two"], message_id="m2"), Message("user", ["three"])])
    await session.pop_item()
    assert await session.get_items() == [item, {"role": "user", "content": "two"}]
