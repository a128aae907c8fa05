"""Sessions of the OpenAI Agents SDK: every item reads back equal, and is a message or a task for other readers."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.environment import child_environment
from support.waiting import until

pytest.importorskip("agents")

from agents import Agent, RunConfig, Runner, SessionSettings, function_tool, set_tracing_disabled
from agents.memory import OpenAIResponsesCompactionSession, Session, is_openai_responses_compaction_aware_session
from agents.testing import ScriptedModel
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from agent_manager.adapters.openai_agents import EventStoreSession
from eventstore import EventStore, MessageAdded, Settings, SyncEventStore, conversation_uuid
from eventstore.errors import EventTooLarge, Forbidden, InputError, InvalidEvent
from projections import Reader, Search, catch_up

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]

set_tracing_disabled(disabled=True)

PNG = base64.b64encode(bytes(range(256))).decode()
ITEMS: list[Any] = [
    {"role": "user", "content": "Olá, Zoë 👋 𐍈"},
    {"content": "reversed", "role": "user"},
    {"role": "developer", "content": [{"type": "input_text", "text": "be brief"}], "type": "message"},
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "what is this?"},
            {"detail": "auto", "type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
            {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
            {"type": "input_image", "image_url": None, "file_id": "file-1", "detail": "low"},
            {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PNG}"},
            {"type": "input_file", "filename": "b.pdf", "file_data": PNG},
            {"type": "input_file", "file_url": "https://example.com/c.pdf"},
            {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
        ],
    },
    {"id": "rs_1", "summary": [{"text": "hm", "type": "summary_text"}], "type": "reasoning", "encrypted_content": "x"},
    {"arguments": '{"city": "Lisboa"}', "call_id": "call_1", "name": "weather", "type": "function_call", "id": "fc_1"},
    {"call_id": "call_1", "output": "sunny, 23 °C", "type": "function_call_output"},
    {"call_id": "call_2", "input": "ls -l", "name": "run", "type": "custom_tool_call"},
    {"call_id": "call_2", "output": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "x"}],
     "type": "custom_tool_call_output"},
    {"call_id": "call_3", "arguments": None, "input": "x", "name": "odd", "type": "function_call"},
    {"call_id": "call_3", "output": {"a": [1, 2.5, 10**30]}, "type": "function_call_output", "status": "incomplete"},
    {"call_id": "call_4", "output": "", "type": "function_call_output"},
    {"id": "ws_1", "action": {"query": "q", "type": "search"}, "status": "completed", "type": "web_search_call"},
    {"id": "mcp_1", "arguments": "{}", "name": "f", "server_label": "s", "type": "mcp_call", "output": "o"},
    {"id": "mcp_2", "arguments": "{}", "name": "f", "server_label": "s", "type": "mcp_call", "error": "e"},
    {"id": "ig_1", "result": PNG, "status": "completed", "type": "image_generation_call"},
    {"type": "item_reference", "id": "msg_0"},
    {"id": "msg_1", "content": [{"annotations": [], "text": "It is sunny.", "type": "output_text", "logprobs": []}],
     "role": "assistant", "status": "completed", "type": "message"},
    {"id": "msg_2", "content": [{"refusal": "No.", "type": "refusal"}], "role": "assistant", "type": "message"},
    {"role": "assistant", "content": None},
    {"role": "assistant", "content": ""},
    {"role": "assistant", "content": []},
    {"role": "critic", "content": "of a role that the vocabulary does not have"},
    {"id": "cmp_1", "encrypted_content": "zzz", "type": "compaction"},
    {"role": "user", "content": "a\0b"},
    {"role": "user", "content": [{"type": "input_text", "text": "\ud800"}]},
    {"call_id": "call_1", "output": "\0", "type": "function_call_output"},
    {"call_id": "c\0", "arguments": "\0", "name": "weather", "type": "function_call"},
    {"role": "user", "content": "x", "number": float("inf")},
]  # fmt: skip
"""Items of every kind; the numbers, texts and orders in them are odd on purpose."""


def text_message(text: str, number: int = 1) -> ResponseOutputMessage:
    """Return a message of the model."""
    part = ResponseOutputText(text=text, type="output_text", annotations=[])
    return ResponseOutputMessage(
        id=f"msg_{number}", type="message", role="assistant", status="completed", content=[part]
    )


def tool_call(name: str, arguments: str = "{}") -> ResponseFunctionToolCall:
    """Return a call of the model."""
    return ResponseFunctionToolCall(type="function_call", name=name, arguments=arguments, call_id="call_1", id="fc_1")


def in_order(items: Any) -> str:
    """Return items as JSON, in which the order of members shows."""
    return json.dumps(items)


async def test_a_large_file_is_stored_once_beside_the_events(store: EventStore) -> None:
    image = f"data:image/png;base64,{base64.b64encode(bytes(range(256)) * 1000).decode()}"
    asked = {"role": "user", "content": [{"type": "input_image", "image_url": image, "detail": "auto"}]}
    output = [{"type": "input_image", "image_url": image}]
    items: list[Any] = [asked, {"call_id": "c", "output": output, "type": "function_call_output"}, asked]
    session = EventStoreSession("large files", store)
    await session.add_items(items)
    assert in_order(await session.get_items()) == in_order(items)
    events = [event async for event in store.read(conversation_uuid(store.tenant, "large files"))]
    assert sum(event.size for event in events) < 3000
    size = "SELECT sum(octet_length(content)) FROM blob_chunks"
    assert await store.tables(store.caller()).fetch(size) == [(256_000,)]


async def test_every_item_reads_back_equal_with_its_members_in_order(store: EventStore) -> None:
    session = EventStoreSession("every item", store)
    await session.add_items(ITEMS)
    assert in_order(await session.get_items()) == in_order(ITEMS)
    alone = EventStoreSession("one at a time", store)
    for item in ITEMS:
        await alone.add_items([item])
    assert in_order(await alone.get_items()) == in_order(ITEMS)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "refusal", "input_image", "input_file", "other"])},
    optional={
        name: st.text(max_size=5) | JSON_VALUES
        for name in ("text", "refusal", "image_url", "file_data", "file_url", "filename", "file_id")
    },
)
TYPES = ["message", "function_call", "function_call_output", "custom_tool_call", "mcp_call", "reasoning", "x_output"]
GENERATED = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(TYPES) | JSON_VALUES,
        "role": st.sampled_from(["user", "assistant", "system", "tool"]) | JSON_VALUES,
        "content": st.text() | st.lists(PARTS, max_size=3) | JSON_VALUES,
        "output": st.text() | st.lists(PARTS, max_size=3) | JSON_VALUES,
        "call_id": st.sampled_from(["a", "b"]) | JSON_VALUES,
        "name": st.text(max_size=5) | JSON_VALUES,
        "arguments": st.text(max_size=5) | JSON_VALUES,
        "input": st.text(max_size=5) | JSON_VALUES,
        "status": st.sampled_from(["completed", "failed"]) | JSON_VALUES,
        "odd": JSON_VALUES,
    },
).flatmap(lambda item: st.permutations(list(item.items())).map(dict))


@given(items=st.lists(GENERATED | JSON_VALUES, min_size=1, max_size=5))
async def test_any_json_value_reads_back_equal(store: EventStore, items: list[Any]) -> None:
    session = EventStoreSession(uuid4().hex, store)
    await session.add_items(items)
    assert await session.get_items() == items
    assert [await session.pop_item() for _ in items] == items[::-1]
    assert await session.get_items() == []


async def test_items_are_messages_and_tasks_for_all_other_readers(store: EventStore) -> None:
    await EventStoreSession("trip 7", store).add_items(ITEMS[:9])
    await catch_up(store)
    conversation = await Reader(store).conversation("trip 7")
    assert conversation.given_id == "trip 7"
    messages = await Reader(store).messages(conversation.id)
    assert [message.role for message in messages] == ["user", "user", "system", "user"]
    assert [message.content for message in messages] == ["Olá, Zoë 👋 𐍈", "reversed", "be brief", "what is this?"]
    files = [part["file"] for part in messages[3].parts or [] if part["kind"] == "file"]
    assert files[0] == {"mimeType": "image/png", "bytes": PNG}
    assert files[1] == {"uri": "https://example.com/a.png"}
    tasks = sorted(await Reader(store).tasks(conversation.id), key=lambda task: str(task.given_id))
    assert [task.description for task in tasks] == ['weather({"city": "Lisboa"})', "run(ls -l)"]
    assert [task.status for task in tasks] == ["completed", "completed"]
    assert [task.given_id for task in tasks] == ["call_1", "call_2"]


async def test_no_text_is_stored_twice(store: EventStore) -> None:
    await EventStoreSession("once", store).add_items(ITEMS[:9])
    events = [event async for event in store.read(conversation_uuid(store.tenant, "once"))]
    stored = json.dumps([event.content for event in events])
    for text in ("reversed", "be brief", "what is this?", "Lisboa", "sunny", "ls -l", "https://example.com/a.png"):
        assert stored.count(text) == 1, text
    assert stored.count(PNG) == 4  # in an image, two files and a recording


async def test_messages_of_other_writers_are_read_as_plain_messages(store: EventStore) -> None:
    session = EventStoreSession("shared", store)
    await session.add_items([ITEMS[0]])
    parts = [{"kind": "text", "text": "from"}, {"kind": "text", "text": "another"}]
    written = [
        MessageAdded(role="assistant", parts=parts, extra={"adk": {"author": "bot"}}),
        MessageAdded(role="tool", content="a result"),
        MessageAdded(role="user", parts=[{"kind": "data", "data": {}}]),
    ]
    await store.append(conversation_uuid(store.tenant, "shared"), written)
    assert await session.get_items() == [
        ITEMS[0],
        {"role": "assistant", "content": "from\nanother"},
        {"role": "assistant", "content": "a result"},
    ]


async def test_a_limit_returns_the_latest_items(store: EventStore) -> None:
    session = EventStoreSession("limit", store, session_settings={"limit": 2})
    assert session.session_settings == SessionSettings(limit=2)
    items: list[Any] = [{"role": "user", "content": str(number)} for number in range(100)]
    await session.add_items(items)
    for _ in range(30):  # more removals than a first read fetches
        await session.pop_item()
    assert await session.get_items() == items[68:70]
    assert await session.get_items(limit=30) == items[40:70]
    assert await session.get_items(limit=1000) == items[:70]
    assert await session.get_items(limit=0) == []
    with pytest.raises(InputError, match="limit: -1 is negative"):
        await session.get_items(limit=-1)


async def test_an_item_is_popped_once_however_many_callers_pop(store: EventStore) -> None:
    items: list[Any] = [{"role": "user", "content": str(number)} for number in range(12)]
    sessions = [EventStoreSession("pops", store) for _ in range(4)]
    await sessions[0].add_items(items)
    popped = await asyncio.gather(*(sessions[number % 4].pop_item() for number in range(14)))
    assert sorted(int(item["content"]) for item in popped if item is not None) == list(range(12))
    assert await sessions[0].pop_item() is None
    assert await EventStoreSession("never begun", store).pop_item() is None


async def shown(store: EventStore, session_id: str) -> tuple[int, list[str], list[tuple[str, str, int]]]:
    """Return what other readers see of a session: the number of its messages, these, and its tasks."""
    await catch_up(store)
    reader = Reader(store)
    conversation = await reader.conversation(session_id)
    messages, tasks = await reader.messages(conversation.id), await reader.tasks(conversation.id)
    assert len(messages) == conversation.message_count
    return (
        conversation.message_count,
        [message.content for message in messages],
        [(task.description, str(task.status), len(task.artifacts or ())) for task in tasks],
    )


async def found(store: EventStore, words: str) -> int:
    return len((await Search(store).page(words)).items)


async def test_popped_items_are_hidden_from_every_read(store: EventStore) -> None:
    session = EventStoreSession("popped", store)
    await session.add_items([ITEMS[0], ITEMS[5], ITEMS[6], {"role": "user", "content": "heliotrope"}])
    call = 'weather({"city": "Lisboa"})'
    assert await shown(store, "popped") == (2, ["Olá, Zoë 👋 𐍈", "heliotrope"], [(call, "completed", 1)])
    assert (await found(store, "heliotrope"), await found(store, "sunny"), await found(store, "weather")) == (1, 1, 1)
    await session.pop_item()
    assert await shown(store, "popped") == (1, ["Olá, Zoë 👋 𐍈"], [(call, "completed", 1)])
    assert await found(store, "heliotrope") == 0
    assert await session.pop_item() == ITEMS[6]
    assert await shown(store, "popped") == (1, ["Olá, Zoë 👋 𐍈"], [(call, "in_progress", 0)])
    assert (await found(store, "sunny"), await found(store, "weather")) == (0, 1)
    await session.add_items([ITEMS[6]])
    assert await shown(store, "popped") == (1, ["Olá, Zoë 👋 𐍈"], [(call, "completed", 1)])
    for item in (ITEMS[6], ITEMS[5], ITEMS[0], None):
        assert await session.pop_item() == item
    assert await shown(store, "popped") == (0, [], [])
    await session.add_items([ITEMS[6], ITEMS[1]])
    assert await shown(store, "popped") == (1, ["reversed"], [("", "completed", 1)])


async def test_a_replaced_history_is_hidden_from_every_read(store: EventStore) -> None:
    class Shortened:
        """A client of OpenAI that shortens every history to one message."""

        responses = property(lambda client: client)

        async def compact(self, **_: Any) -> Any:
            return SimpleNamespace(output=[{"role": "assistant", "content": "all about the wisteria"}])

    session = EventStoreSession("compacted", store)
    await session.add_items([ITEMS[0], ITEMS[5], ITEMS[6], {"role": "user", "content": "heliotrope"}])
    compaction = OpenAIResponsesCompactionSession(
        "compacted", session, model="gpt-4.1", client=Shortened(), compaction_mode="input"
    )
    await compaction.run_compaction({"force": True})
    assert await session.get_items() == [{"role": "assistant", "content": "all about the wisteria"}]
    assert await shown(store, "compacted") == (1, ["all about the wisteria"], [])
    assert (await found(store, "heliotrope"), await found(store, "wisteria")) == (0, 1)


async def test_a_session_that_was_cleared_and_goes_on_shows_nothing_of_before(store: EventStore) -> None:
    session = EventStoreSession("begun anew", store)
    for number in range(3):
        word = ("heliotrope", "wisteria", "oleander")[number]
        await session.add_items([{"role": "user", "content": word}, ITEMS[5]])
        assert await shown(store, "begun anew") == (1, [word], [('weather({"city": "Lisboa"})', "in_progress", 0)])
        assert [await found(store, each) for each in ("heliotrope", "wisteria", "oleander")] == [
            int(each == number) for each in range(3)
        ]
        await session.clear_session()
        await catch_up(store)
        assert await Reader(store).conversations() == []
        assert await found(store, word) == 0


async def test_an_output_does_not_answer_a_call_that_was_popped(store: EventStore) -> None:
    session = EventStoreSession("later output", store)
    await session.add_items([ITEMS[0], ITEMS[5]])
    await session.pop_item()
    await session.add_items([ITEMS[6]])
    assert await shown(store, "later output") == (1, ["Olá, Zoë 👋 𐍈"], [("", "completed", 1)])


async def test_an_output_completes_the_call_of_an_earlier_append(store: EventStore) -> None:
    session = EventStoreSession("later", store)
    for _ in range(2):  # the ids of calls repeat
        await session.add_items([ITEMS[5]])
        await session.add_items([ITEMS[6]])
    await catch_up(store)
    tasks = await Reader(store).tasks(conversation_uuid(store.tenant, "later"))
    assert [task.status for task in tasks] == ["completed", "completed"]


async def test_clearing_hides_the_conversation_and_further_items_begin_anew(store: EventStore) -> None:
    session = EventStoreSession("cleared", store)
    await session.clear_session()
    assert await session.get_items() == []
    await session.add_items(ITEMS[:3])
    await session.clear_session()
    await session.clear_session()
    assert await session.get_items() == []
    assert await session.pop_item() is None
    stored = [event.event_type async for event in store.read(conversation_uuid(store.tenant, "cleared"))]
    assert stored == ["conversation.created", *["message.added"] * 3, "conversation.deleted"]
    await catch_up(store)
    assert [each.given_id for each in await Reader(store).conversations()] == []
    await asyncio.gather(*(session.add_items([item]) for item in ITEMS[3:6]))
    assert sorted(map(in_order, await session.get_items())) == sorted(map(in_order, ITEMS[3:6]))
    assert (await shown(store, "cleared"))[0] == 1
    assert [each.given_id for each in await Reader(store).conversations()] == ["cleared"]


async def test_writers_that_begin_a_cleared_session_anew_at_the_same_time_keep_every_item(store: EventStore) -> None:
    session = EventStoreSession("anew", store)
    items: list[Any] = [{"role": "user", "content": str(number)} for number in range(30)]
    await session.add_items(items[:1])
    await session.clear_session()
    await asyncio.gather(*(EventStoreSession("anew", store).add_items([item]) for item in items))
    assert sorted(map(in_order, await session.get_items())) == sorted(map(in_order, items))


async def test_concurrent_appends_keep_every_item(store: EventStore) -> None:
    items: list[Any] = [
        [{"role": "user", "content": f"{writer} {number}"} for number in range(3)] for writer in range(20)
    ]
    await asyncio.gather(*(EventStoreSession("many", store).add_items(each) for each in items))
    found = await EventStoreSession("many", store).get_items()
    assert sorted(found[start]["content"] for start in range(0, 60, 3)) == sorted(each[0]["content"] for each in items)
    assert all(found[start : start + 3] in items for start in range(0, 60, 3))


async def test_a_cancelled_caller_learns_of_it_when_the_outcome_is_certain(store: EventStore) -> None:
    session = EventStoreSession("cancelled", store)
    task = asyncio.create_task(session.add_items(ITEMS[:1]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await session.get_items() in ([], ITEMS[:1])
    await session.add_items(ITEMS[1:2])
    assert (await session.get_items())[-1] == ITEMS[1]


async def test_users_and_tenants_do_not_see_each_other(store: EventStore, module_store: EventStore) -> None:
    of_ana = EventStoreSession("s", store, user="ana")
    await of_ana.add_items(ITEMS[:1])
    of_bob = EventStoreSession("s", store, user="bob")
    assert await of_bob.get_items() == []
    with pytest.raises(Forbidden):
        await of_bob.add_items(ITEMS[:1])
    assert await EventStoreSession("s", module_store).get_items() == []
    assert await of_ana.get_items() == await EventStoreSession("s", store).get_items() == ITEMS[:1]


class SessionOfContext(EventStoreSession):
    """A session of the user that the context of a run names."""

    def user_of(self, wrapper: Any) -> str | None:
        return None if wrapper is None else str(wrapper.context)


async def test_the_context_of_a_run_may_name_the_user(store: EventStore) -> None:
    agent = Agent(name="a", model=ScriptedModel(steps=[[text_message("hi")]]))
    await Runner.run(agent, "hello", session=SessionOfContext("s", store), context="ana")
    assert len(await EventStoreSession("s", store, user="ana").get_items()) == 2
    assert await EventStoreSession("s", store, user="bob").get_items() == []


async def test_what_cannot_be_stored_is_named(store: EventStore) -> None:
    session: Any = EventStoreSession("wrong", store)
    for kind in (InvalidEvent, TypeError):  # which the SDK's own sessions raise
        with pytest.raises(kind, match=r"item\.content: is a object"):
            await session.add_items([{"role": "user", "content": object()}])
    with pytest.raises(EventTooLarge):
        await session.add_items([{"role": "user", "content": "x" * 13_000_000}])
    with pytest.raises(InputError, match="expected an EventStore or a SyncEventStore, got a str"):
        EventStoreSession("wrong", "store")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="give a text"):
        EventStoreSession(7, store)  # type: ignore[arg-type]
    assert await session.get_items() == []


@pytest.mark.parametrize("levels", [250, 800])
async def test_values_that_json_changes_are_read_as_json_has_them(store: EventStore, levels: int) -> None:
    session: Any = EventStoreSession("changed", store)
    deep: Any = []
    for _ in range(levels):
        deep = [deep]
    items = [
        {"role": "user", "content": ("a", "b")},
        {1: "x", "type": "message", "role": "user"},
        {"type": "x", "d": deep},
    ]
    await session.add_items(items)
    assert await session.get_items() == json.loads(json.dumps(items))


async def test_an_agent_with_a_tool_remembers(store: EventStore) -> None:
    def weather(city: str) -> str:
        """Return the weather."""
        return f"sunny in {city}"

    session = EventStoreSession("agent", store)
    assert isinstance(session, Session)
    steps = [
        [tool_call("weather", '{"city": "Porto"}')],
        [text_message("Sunny.")],
        [text_message("You are welcome.", 2)],
    ]
    model = ScriptedModel(steps=steps)
    agent = Agent(name="a", model=model, tools=[function_tool(weather)])
    result = await Runner.run(agent, "Weather in Porto?", session=session)
    assert result.final_output == "Sunny."
    await Runner.run(agent, "Thanks", session=session, run_config=RunConfig(session_settings=SessionSettings(limit=1)))
    assert len(model.calls[-1].input) == 2
    kinds = [item.get("type", item.get("role")) for item in await session.get_items()]
    assert kinds == ["user", "function_call", "function_call_output", "message", "user", "message"]
    await catch_up(store)
    [task] = await Reader(store).tasks(conversation_uuid(store.tenant, "agent"))
    assert (task.description, task.status) == ('weather({"city": "Porto"})', "completed")


async def test_any_thread_and_loop_may_use_a_store_with_a_loop_of_its_own(settings: Settings) -> None:
    agent = Agent(name="a", model=ScriptedModel(steps=[[text_message("hi")], [text_message("again", 2)]]))

    def run() -> None:
        with SyncEventStore(settings) as store:
            session = EventStoreSession("sync", store)
            assert asyncio.run(Runner.run(agent, "hello", session=session)).final_output == "hi"
            asyncio.set_event_loop(loop := asyncio.new_event_loop())
            assert Runner.run_sync(agent, "hello", session=session).final_output == "again"
            assert len(loop.run_until_complete(session.get_items())) == 4
            loop.close()

    await asyncio.to_thread(run)


async def test_a_session_opens_a_store_of_its_own(settings: Settings) -> None:
    async with EventStoreSession.open("own", settings, session_settings=SessionSettings(limit=1)) as session:
        await session.add_items(ITEMS[:2])
        assert await session.get_items() == ITEMS[1:2]


# Compaction


class Compacting:
    """A client of OpenAI that shortens any history to one item."""

    def __init__(self) -> None:
        self.responses = self
        self.calls: list[Any] = []

    async def compact(self, **arguments: Any) -> Any:
        """Return the short history."""
        self.calls.append(arguments)
        return SimpleNamespace(output=[{"type": "compaction", "id": "cmp", "encrypted_content": "zip"}], usage=None)


SHORT = [{"type": "compaction", "id": "cmp", "encrypted_content": "zip"}]


async def test_a_session_without_a_compaction_model_keeps_its_history(store: EventStore) -> None:
    session = EventStoreSession("kept", store)
    assert is_openai_responses_compaction_aware_session(session)
    await session.add_items(ITEMS[:3])
    await session.run_compaction({"force": True})
    assert await session.get_items() == ITEMS[:3]


async def test_a_compaction_replaces_the_history_in_one_append(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Compacting()
    monkeypatch.setattr("agents.memory.openai_responses_compaction_session.get_default_openai_client", lambda: client)
    session = EventStoreSession("compacted", store, compaction_model="gpt-4.1")
    await session.add_items(ITEMS[:2])
    await session.run_compaction()  # too few items
    assert not client.calls
    await session.run_compaction({"force": True, "compaction_mode": "input"})
    assert client.calls[0]["input"] == ITEMS[:2]
    assert await session.get_items() == SHORT
    await session.add_items(ITEMS[2:3])
    assert await session.get_items() == [*SHORT, ITEMS[2]]
    stored = [event.event_type async for event in store.read(conversation_uuid(store.tenant, "compacted"))]
    assert "conversation.deleted" not in stored


@pytest.mark.parametrize("another", [False, True], ids=["alone", "with another writer"])
async def test_a_runner_compacts_what_the_model_has_seen(store: EventStore, another: bool) -> None:
    class Interrupted(Compacting):
        async def compact(self, **arguments: Any) -> Any:
            if another:
                await inner.add_items([{"role": "user", "content": "meanwhile"}])
            return await super().compact(**arguments)

    inner = EventStoreSession("automatic", store, session_settings=SessionSettings(limit=2))
    old = [{"role": "user", "content": "old"}, {"role": "assistant", "content": "older"}]
    await inner.add_items([old[0], old[1], {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])
    session = OpenAIResponsesCompactionSession(
        "automatic", inner, client=Interrupted(), compaction_mode="input",  # type: ignore[arg-type]
        should_trigger_compaction=lambda _: True,
    )  # fmt: skip
    model = ScriptedModel(steps=[[text_message("done")]])
    await Runner.run(Agent(name="a", model=model), "next", session=session)
    items = await inner.get_items(limit=100)
    if another:
        assert len(items) == 7
        assert items[-1] == {"role": "user", "content": "meanwhile"}
    else:
        assert items == [*old, *SHORT]


# A process that is killed

PROCESS = """
import asyncio, sys
from agents import Agent, Runner, function_tool, set_tracing_disabled
from agents.testing import ScriptedModel
from agent_manager.adapters.openai_agents import EventStoreSession
from eventstore import EventStore
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

set_tracing_disabled(True)

def text(words):
    part = ResponseOutputText(text=words, type="output_text", annotations=[])
    return ResponseOutputMessage(id="m", type="message", role="assistant", status="completed", content=[part])

@function_tool
def look() -> str:
    return "seen"

async def main():
    async with EventStore() as store:
        session = EventStoreSession("killed", store)
        for turn in range(10**6):
            call = ResponseFunctionToolCall(type="function_call", name="look", arguments="{}", call_id=f"call {turn}")
            agent = Agent(name="a", model=ScriptedModel(steps=[[call], [text(f"answer {turn}")]]), tools=[look])
            await Runner.run(agent, f"question {turn}", session=session)
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
    session = EventStoreSession("killed", store)
    items: list[Any] = await session.get_items()
    complete = [item["content"][0]["text"] for item in items if item.get("type") == "message"]
    assert complete[: done + 1] == [f"answer {turn}" for turn in range(done + 1)]
    model = ScriptedModel(steps=[[text_message("goes on")]])
    result = await Runner.run(Agent(name="a", model=model), "and now?", session=session)
    assert result.final_output == "goes on"
    assert model.calls[0].input[: 4 * (done + 1)] == items[: 4 * (done + 1)]
    assert len(await session.get_items()) == len(items) + 2
