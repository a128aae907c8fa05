"""LangGraph's graphs with their checkpoints in the log: state reads back equal, and only what changed is stored."""

from __future__ import annotations

import asyncio
import operator
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID

import pytest

pytest.importorskip("langgraph.graph")

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, RemoveMessage, SystemMessage, ToolMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from support.examples import examples
from support.langgraph_agent import CALLS, ScriptedModel, graph
from support.processes import commands
from support.tenants import TenantStore

from agent_manager.adapters.langgraph import EventStoreSaver
from eventstore import ConversationRewound, EventStore, MessageAdded, Settings, SyncEventStore, conversation_uuid
from eventstore.errors import InputError
from projections import Reader, catch_up

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]

WHEN = "when? ¿cuándo? 何時"
CHECKPOINTS = 3 + 2 * CALLS
"""The number of checkpoints of an answer to a question."""


def question() -> dict[str, Any]:
    return {"messages": [HumanMessage(WHEN)]}  # LangGraph gives the object an id


def config(thread: str = "t", **more: Any) -> Any:
    return {"configurable": {"thread_id": thread, **more}}


async def events(store: EventStore, thread: str = "t") -> list[Any]:
    return [event async for event in store.read(conversation_uuid(store.tenant, thread))]


async def state(agent: Any, thread: str = "t") -> dict[str, Any]:
    values: dict[str, Any] = (await agent.aget_state(config(thread))).values
    return values


async def history(agent: Any, thread: str = "t") -> list[tuple[Any, ...]]:
    """Return what LangGraph shows of each checkpoint, without ids and times."""
    return [
        (each.values, each.next, each.metadata["source"], each.metadata["step"], [task.result for task in each.tasks])
        async for each in agent.aget_state_history(config(thread))
    ]


async def test_a_conversation_goes_on_in_another_process(store: EventStore) -> None:
    await graph(EventStoreSaver(store)).ainvoke(question(), config())

    agent = graph(EventStoreSaver(store))
    await agent.ainvoke(question(), config())

    messages = (await state(agent))["messages"]
    assert len(messages) == 2 * (2 + 2 * CALLS)
    assert [message.content for message in messages if isinstance(message, HumanMessage)] == [WHEN] * 2
    assert messages[-1].content.startswith("Ανσwer")


async def test_every_checkpoint_is_that_of_langgraphs_saver_in_memory(store: EventStore) -> None:
    asked = {"messages": [HumanMessage("when?", id="q")]}
    ours, theirs = graph(EventStoreSaver(store)), graph(InMemorySaver())
    for agent in (ours, theirs):
        await agent.ainvoke(asked, config())

    stored, expected = await history(graph(EventStoreSaver(store))), await history(theirs)

    def without_ids(values: Any) -> Any:
        return [message.model_dump(exclude={"id"}) for message in values.get("messages", ())]

    assert [(without_ids(each[0]), *each[1:4]) for each in stored] == [
        (without_ids(each[0]), *each[1:4]) for each in expected
    ]
    assert [bool(each[4]) for each in stored] == [bool(each[4]) for each in expected]


async def test_a_message_is_stored_once_as_a_message_of_the_conversation(store: EventStore) -> None:
    agent = graph(EventStoreSaver(store))
    await agent.ainvoke(question(), config())
    await catch_up(store)

    messages = (await state(agent))["messages"]
    added = [event.data for event in await events(store) if isinstance(event.data, MessageAdded)]
    assert [message.content for message in added] == [message.content for message in messages]
    assert [str(message.role) for message in added] == ["user", *["assistant", "tool"] * CALLS, "assistant"]
    page = await Reader(store).messages(conversation_uuid(store.tenant, "t"))
    assert [row.content for row in page.items] == [message.content for message in messages]
    texts = [str(event.content) for event in await events(store)]
    assert sum("leaves at 1:00" in text for text in texts) == 1
    assert not [event for event in await events(store) if event.event_type == "langgraph.value"]


async def test_a_step_is_stored_in_about_the_same_size_however_long_the_thread_is(store: EventStore) -> None:
    def talk(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("x" * 500)]}

    def more(state: MessagesState) -> str:
        return "talk" if len(state["messages"]) < 50 else END

    builder = StateGraph(MessagesState).add_node(talk).add_edge(START, "talk").add_conditional_edges("talk", more)
    await builder.compile(checkpointer=EventStoreSaver(store)).ainvoke(
        question(), {"recursion_limit": 100, **config()}, durability="sync"
    )

    stored = await events(store)
    sizes = [event.size for event in stored if event.event_type == "langgraph.checkpoint"]
    assert len(stored) < 2 * len(sizes) + 5
    assert max(sizes[5:]) < 150


class Documents(TypedDict):
    document: str
    documents: Annotated[list[str], operator.add]
    steps: int


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.uuids()
    | st.datetimes()
    | st.decimals(allow_nan=False)
)
objects = st.dictionaries(st.text(max_size=3), leaves, max_size=4) | st.dictionaries(
    st.integers(-5, 5) | st.sampled_from(["~copy", "~message", "\0"]), leaves, max_size=2
)
values = leaves | objects | st.lists(leaves | objects, max_size=4) | st.dictionaries(st.text(max_size=3), objects)
texts = st.text() | st.text(alphabet="a🚆\0\n", max_size=5)
base64s = st.binary(max_size=9).map(lambda data: b64encode(data).decode()) | texts
urls = base64s.map("data:image/png;base64,{}".format) | texts.map("https://example.org/{}".format) | texts
files = st.one_of(
    st.builds(lambda url, more: {"type": "image_url", "image_url": {**more, "url": url}}, urls, objects),
    st.builds(lambda url: {"type": "image_url", "image_url": url}, urls),
    st.builds(lambda data, more: {"type": "image", "base64": data, "mime_type": more}, base64s, texts),
    st.builds(lambda a, b: {"type": "file", "data": a, "file": {"file_data": b, "filename": "ä"}}, base64s, urls),
    st.builds(lambda data, more: {"type": "image", "source": {**more, "data": data}},
              base64s, objects),
    st.builds(lambda data, more: {"type": "audio", "more": more, "input_audio": {"data": data}}, base64s, objects),
)  # fmt: skip
blocks = st.lists(
    texts
    | files
    | st.builds(lambda text: {"type": "text", "text": text}, texts)
    | st.builds(lambda text, more: {"text": text, "type": "text", "annotations": more}, texts, values)
    | st.just({"type": "reasoning", "summary": [{"text": "because", "type": "summary_text"}]}),
    max_size=3,
)
ids = st.none() | st.text(max_size=5) | st.uuids().map(str)
members = st.dictionaries(st.text(max_size=4), values, max_size=2)
usages = st.none() | st.just({"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})
calls = st.lists(members.map(lambda args: {"name": "f", "args": args, "id": "1"}), max_size=2)
statuses = st.sampled_from(["success", "error"])


@st.composite
def messages(draw: st.DrawFn) -> Any:
    content, message_id = draw(texts | blocks), draw(ids)
    match draw(st.integers(0, 5)):
        case 0:
            return HumanMessage(content, id=message_id, name=draw(st.none() | texts), additional_kwargs=draw(members))
        case 1:
            return ToolMessage(content, tool_call_id=draw(texts), status=draw(statuses), artifact=draw(values))
        case 2:
            return SystemMessage(content, id=message_id)
        case 3:
            return RemoveMessage(id=draw(texts))
        case 4:
            return AIMessageChunk(content, id=message_id)
    metadata, tool_calls, usage = draw(members), draw(calls), draw(usages)
    return AIMessage(content, id=message_id, response_metadata=metadata, tool_calls=tool_calls, usage_metadata=usage)


def shown(value: Any) -> str:
    """A value with the types, and the order of the members, of all that is in it."""
    return repr([message.model_dump() if hasattr(message, "model_dump") else message for message in value])


@examples(30)
@given(written=st.lists(st.tuples(st.lists(messages(), max_size=4), values, values), min_size=1, max_size=4))
async def test_values_read_back_equal(store: EventStore, written: list[tuple[Any, Any, Any]]) -> None:
    thread = conversation_uuid(store.tenant, repr(written).encode(errors="replace").decode()).hex
    saver, parent = EventStoreSaver(store), config(thread, checkpoint_ns="")
    expected = InMemorySaver()
    kept: list[Any] = []
    for number, (added, note, other) in enumerate(written):
        kept = [*kept[number % 2 :], *added]
        checkpoint: Any = {
            "v": 4,
            "id": f"{number}",
            "ts": "2026",
            "channel_values": {"messages": kept, "note": note, "other": {"same": 1, "note": other}},
            "channel_versions": dict.fromkeys(("messages", "note", "other"), number + 1),
            "versions_seen": {"n": {"branch:to:n": number}} if number > 1 else {},
            "updated_channels": ["messages", "note"][: number + 1],
        }
        if number != 1:  # what a step leads to by itself, and something else
            checkpoint["channel_values"]["branch:to:n"] = None
            checkpoint["channel_versions"]["branch:to:n"] = max(1, number)
        for each in (saver, expected):
            await each.aput(parent, checkpoint, {"step": number}, checkpoint["channel_versions"])
        parent = await saver.aput(parent, checkpoint, {"step": number}, checkpoint["channel_versions"])
        for each in (saver, expected):
            await each.aput_writes(
                parent, [("messages", added), ("note", note), ("branch:to:n", None)], "task", "~__pregel_pull, n"
            )

    stored = [each async for each in EventStoreSaver(store).alist(config(thread))]
    wanted = [each async for each in expected.alist(config(thread))]
    assert len(stored) == len(wanted) == len(written)
    for ours, theirs in zip(stored, wanted, strict=True):
        for name, value in theirs.checkpoint["channel_values"].items():
            assert shown([ours.checkpoint["channel_values"][name]]) == shown([value])
        assert shown(ours.checkpoint["channel_values"]["messages"]) == shown(
            theirs.checkpoint["channel_values"]["messages"]
        )
        assert ours.pending_writes is not None
        assert theirs.pending_writes is not None
        assert [(task, name, shown([value])) for task, name, value in ours.pending_writes] == [
            (task, name, shown([value])) for task, name, value in theirs.pending_writes
        ]
        assert ours.metadata == theirs.metadata
        for name in ("channel_versions", "versions_seen", "updated_channels"):
            assert ours.checkpoint[name] == theirs.checkpoint[name]  # type: ignore[literal-required]


PICTURE = bytes(range(256)) * 200


class Pictures(MessagesState):
    picture: bytes
    address: str


async def test_large_files_are_stored_once_beside_the_log_and_read_back_equal(store: EventStore) -> None:
    url = f"data:image/png;base64,{b64encode(PICTURE).decode()}"

    def look(state: Pictures) -> dict[str, Any]:
        answer = AIMessage([{"type": "image", "base64": b64encode(PICTURE).decode(), "mime_type": "image/png"}])
        tool = ToolMessage("seen", tool_call_id="c", artifact={"picture": PICTURE})
        return {"messages": [answer, tool], "picture": PICTURE + b"!", "address": url}

    def agent(saver: EventStoreSaver) -> Any:
        return StateGraph(Pictures).add_node(look).add_edge(START, "look").compile(checkpointer=saver)

    shown = HumanMessage([{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": url}}])
    await agent(EventStoreSaver(store)).ainvoke({"messages": [shown], "picture": PICTURE}, config())
    await EventStoreSaver(store).acopy_thread("t", "copy")

    stored = [*await events(store), *await events(store, "copy")]
    assert sum(event.size for event in stored) < len(PICTURE)
    [(blobs,)] = await store.tables(store.caller()).fetch("SELECT count(*) FROM blobs")
    assert blobs == 4
    for thread in ("t", "copy"):
        values = await state(agent(EventStoreSaver(store)), thread)
        assert (values["picture"], values["address"]) == (PICTURE + b"!", url)
        assert values["messages"][0].content == shown.content
        assert values["messages"][1].content[0]["base64"] == b64encode(PICTURE).decode()
        assert values["messages"][2].artifact == {"picture": PICTURE}
    [first, *_] = [event.data for event in await events(store) if isinstance(event.data, MessageAdded)]
    assert [part["kind"] for part in first.parts or ()] == ["text", "file"]


async def test_what_a_serializer_encrypts_is_stored_beside_the_log_if_it_is_large(store: EventStore) -> None:
    serde = EncryptedSerializer(Reversing())
    saver, checkpoint = EventStoreSaver(store, serde=serde), empty_checkpoint()
    checkpoint["channel_values"] = {"picture": PICTURE}
    checkpoint["channel_versions"] = {"picture": 1}
    await saver.aput(config(checkpoint_ns=""), checkpoint, {}, {"picture": 1})

    assert max(event.size for event in await events(store)) < 1000
    found = await EventStoreSaver(store, serde=serde).aget_tuple(config())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"picture": PICTURE}


async def test_a_call_of_a_tool_is_a_task_with_its_result(store: EventStore) -> None:
    await graph(EventStoreSaver(store)).ainvoke(question(), config())
    await graph(EventStoreSaver(store)).ainvoke(question(), config())
    await EventStoreSaver(store).acopy_thread("t", "copy")
    await catch_up(store)

    for thread in ("t", "copy"):
        conversation_id = conversation_uuid(store.tenant, thread)
        tasks = (await Reader(store).tasks(conversation_id=conversation_id)).items
        assert sorted((each.given_id, each.description, str(each.status)) for each in tasks) == sorted(
            (f"call-{number}", "look_up", "completed") for number in [*range(CALLS), *range(CALLS + 1, 2 * CALLS + 1)]
        )
        results = {
            message.id: message.content
            for message in (await Reader(store).messages(conversation_id)).items
            if message.role == "tool"
        }
        [part] = tasks[0].artifacts[0]["parts"]
        assert results[UUID(part["data"]["message_id"])].startswith("train ")


async def test_a_tool_that_fails_is_a_task_that_failed(store: EventStore) -> None:
    saver, checkpoint = EventStoreSaver(store), empty_checkpoint()
    call = AIMessage("", tool_calls=[{"name": "buy", "args": {}, "id": "same"}] * 2, id="a")
    failed = ToolMessage("no", tool_call_id="same", status="error", id="b")
    stray = ToolMessage("?", tool_call_id="never called", id="c")
    checkpoint["channel_values"] = {"messages": [call, failed, stray]}
    checkpoint["channel_versions"] = {"messages": 1}
    await saver.aput(config(checkpoint_ns=""), checkpoint, {}, {"messages": 1})
    await catch_up(store)

    tasks = (await Reader(store).tasks(conversation_id=conversation_uuid(store.tenant, "t"))).items
    assert sorted((each.description, str(each.status)) for each in tasks) == [
        ("", "completed"), ("buy", "failed"), ("buy", "in_progress"),
    ]  # fmt: skip


async def test_a_large_value_is_stored_once_and_not_again_if_it_did_not_change(store: EventStore) -> None:
    def write(state: Documents) -> dict[str, Any]:
        return {"steps": state["steps"] + 1, "documents": [f"{state['steps']}" * 5000]}

    def more(state: Documents) -> str:
        return "write" if state["steps"] < 5 else END

    builder = StateGraph(Documents).add_node(write).add_edge(START, "write").add_conditional_edges("write", more)
    agent = builder.compile(checkpointer=EventStoreSaver(store))
    await agent.ainvoke({"document": "d" * 10_000, "documents": [], "steps": 0}, config())

    stored = await events(store)
    assert sum(event.size for event in stored) < 10_000 + 5 * 5000 + 15_000
    reread = await state(builder.compile(checkpointer=EventStoreSaver(store)))
    assert reread == {"document": "d" * 10_000, "documents": [f"{n}" * 5000 for n in range(5)], "steps": 5}


async def test_removed_and_edited_messages_are_gone_from_the_state_and_remain_in_the_log(store: EventStore) -> None:
    agent = graph(EventStoreSaver(store))
    await agent.ainvoke(question(), config())
    before = (await state(agent))["messages"]
    await agent.aupdate_state(
        config(), {"messages": [RemoveMessage(id=before[1].id), HumanMessage("edited", id=before[0].id)]}
    )

    after = (await state(graph(EventStoreSaver(store))))["messages"]
    assert after == [HumanMessage("edited", id=before[0].id), *before[2:]]
    contents = [event.data.content for event in await events(store) if isinstance(event.data, MessageAdded)]
    assert contents == [*(message.content for message in before), "edited"]


async def test_an_interrupted_graph_resumes_and_an_earlier_checkpoint_can_be_continued(store: EventStore) -> None:
    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"you said {interrupt('sure?')}")]}

    def agent() -> Any:
        builder = StateGraph(MessagesState).add_node(ask).add_edge(START, "ask").add_edge("ask", END)
        return builder.compile(checkpointer=EventStoreSaver(store))

    await agent().ainvoke(question(), config())
    waiting = await agent().aget_state(config())
    assert [each.value for each in waiting.tasks[0].interrupts] == ["sure?"]
    await agent().ainvoke(Command(resume="yes"), config())
    assert (await state(agent()))["messages"][-1].content == "you said yes"

    fork = await agent().aupdate_state(waiting.config, {"messages": [HumanMessage("wait")]}, as_node=START)
    await agent().ainvoke(None, fork)
    await agent().ainvoke(Command(resume="no"), config())
    assert [message.content for message in (await state(agent()))["messages"]] == [WHEN, "wait", "you said no"]
    assert len([each async for each in agent().aget_state_history(config())]) == 5


async def test_subgraphs_have_checkpoints_and_their_messages_are_stored_once(store: EventStore) -> None:
    inner = graph(True)
    builder = StateGraph(MessagesState).add_node("inner", inner).add_edge(START, "inner").add_edge("inner", END)
    agent = builder.compile(checkpointer=EventStoreSaver(store))
    await agent.ainvoke(question(), config())

    saver = EventStoreSaver(store)
    namespaces = {each.config["configurable"]["checkpoint_ns"] async for each in saver.alist(config())}
    assert len(namespaces) == 2
    messages = (await state(agent))["messages"]
    added = [event for event in await events(store) if isinstance(event.data, MessageAdded)]
    assert len(added) == len(messages) == 2 + 2 * CALLS


class Deltas(TypedDict):
    items: Annotated[list[str], DeltaChannel(lambda state, writes: [*state, *chain(*writes)], list)]


def deltas(saver: Any) -> Any:
    builder = StateGraph(Deltas).add_node("add", lambda state: {"items": [f"{len(state['items'])}"]})
    return builder.add_edge(START, "add").add_edge("add", END).compile(checkpointer=saver)


async def test_channels_of_deltas_are_computed_from_their_writes_also_after_pruning(store: EventStore) -> None:
    for number in range(3):
        await deltas(EventStoreSaver(store)).ainvoke({"items": [f"input {number}"]}, config())
    expected = ["input 0", "1", "input 1", "3", "input 2", "5"]
    assert await state(deltas(EventStoreSaver(store))) == {"items": expected}

    saver = EventStoreSaver(store)
    await saver.aprune(["t"])

    assert len([each async for each in EventStoreSaver(store).alist(config())]) == 1
    assert await state(deltas(EventStoreSaver(store))) == {"items": expected}
    await deltas(EventStoreSaver(store)).ainvoke({"items": ["input 3"]}, config())
    assert await state(deltas(EventStoreSaver(store))) == {"items": [*expected, "input 3", "7"]}


async def test_a_deleted_thread_is_hidden_at_once_and_begins_anew(store: EventStore) -> None:
    saver, other = EventStoreSaver(store), EventStoreSaver(store)
    await graph(saver).ainvoke(question(), config())
    assert await other.aget_tuple(config()) is not None
    await saver.adelete_thread("t")
    await saver.adelete_thread("t")
    await saver.adelete_thread("never used")

    for each in (saver, other, EventStoreSaver(store)):
        assert await each.aget_tuple(config()) is None
        assert [each async for each in each.alist(None)] == []
    assert await state(graph(other)) == {}

    await graph(other).ainvoke(question(), config())
    for each in (saver, other, EventStoreSaver(store)):
        assert len((await state(graph(each)))["messages"]) == 2 + 2 * CALLS


async def visible(store: EventStore, thread: str = "t") -> list[str | None]:
    """Return the messages that readers of the conversation see."""
    await catch_up(store)
    return [row.content for row in (await Reader(store).messages(conversation_uuid(store.tenant, thread))).items]


async def test_a_thread_that_begins_anew_shows_no_message_of_before(store: EventStore) -> None:
    agent, asked = graph(EventStoreSaver(store)), {"messages": [HumanMessage("when?", id="q")]}
    for number in range(3):
        await agent.ainvoke(asked, config())
        messages = (await state(graph(EventStoreSaver(store))))["messages"]
        assert len(messages) == 2 + 2 * CALLS
        assert await visible(store) == [message.content for message in messages]
        if number % 2:
            agent = graph(EventStoreSaver(store))  # has not seen the thread
        await EventStoreSaver(store).adelete_thread("t")


async def test_a_copy_to_a_thread_that_was_deleted_shows_its_messages(store: EventStore) -> None:
    agent, saver = graph(EventStoreSaver(store)), EventStoreSaver(store)
    for thread in ("t", "again"):
        await agent.ainvoke({"messages": [HumanMessage("when?" * 500, id="q")]}, config(thread))
    for source, copy in (("t", "copy"), ("t", "copy"), ("copy", "other"), ("copy", "again"), ("again", "t")):
        await saver.adelete_thread(copy)
        await saver.acopy_thread(source, copy)
        messages = (await state(graph(EventStoreSaver(store)), copy))["messages"]
        assert len(messages) == 2 + 2 * CALLS
        assert await visible(store, copy) == [message.content for message in messages]
        before = len([event for event in await events(store, copy) if event.event_type == "message.added"])
        await graph(EventStoreSaver(store)).ainvoke(question(), config(copy))
        assert len(await visible(store, copy)) == 2 * (2 + 2 * CALLS)
        after = len([event for event in await events(store, copy) if event.event_type == "message.added"])
        assert after - before == 2 + 2 * CALLS, "no message of the copy is stored again"
        await saver.adelete_thread(copy)
        await saver.acopy_thread(source, copy)


async def test_a_conversation_that_goes_back_takes_its_thread_along(store: EventStore) -> None:
    agent = graph(EventStoreSaver(store))
    await agent.ainvoke(question(), config())
    before, version = await state(agent), len(await events(store))
    await agent.ainvoke(question(), config())
    rewound = ConversationRewound(to_version=version, message_count=2 + 2 * CALLS)
    await store.append(conversation_uuid(store.tenant, "t"), [rewound])
    for each in (agent, graph(EventStoreSaver(store))):
        assert await state(each) == before
    await agent.ainvoke({"messages": [HumanMessage("and now?")]}, config())
    messages = (await state(graph(EventStoreSaver(store))))["messages"]
    assert len(messages) == 2 * (2 + 2 * CALLS)
    assert await visible(store) == [message.content for message in messages]


async def test_a_thread_goes_on_whichever_of_its_events_is_erased(store: EventStore) -> None:
    class Noted(MessagesState):
        note: str

    def note(state: Noted) -> dict[str, Any]:
        return {"note": "long " * 500, "messages": [AIMessage("noted")]}

    def agent_of(saver: EventStoreSaver) -> Any:
        return StateGraph(Noted).add_node(note).add_edge(START, "note").compile(checkpointer=saver)

    saver = EventStoreSaver(store)
    for _ in range(2):
        await agent_of(saver).ainvoke(question(), config())
    for number in range(1, len(await events(store)) - 1):  # if the last one is erased, the step is run again
        thread, copy = f"t{number}", f"copy {number}"
        await saver.acopy_thread("t", thread)
        erased = (await events(store, thread))[number]
        await store.erase(conversation_uuid(store.tenant, thread), [erased.id])
        written, fresh = await visible(store, thread), EventStoreSaver(store)
        messages = (await state(agent_of(fresh), thread))["messages"]
        # The place of an erased message is left. What was written in another erased event is not in the state.
        assert len(messages) >= 4 - (erased.event_type in ("langgraph.checkpoint", "langgraph.writes"))
        changed = [each.content for each in messages if each.content not in (WHEN, "noted")]
        assert changed == [""] * (erased.event_type == "message.added")
        await agent_of(fresh).ainvoke(question(), config(thread))
        assert len(await visible(store, thread)) == len(written) + 2, "nothing of before is written again"
        await fresh.acopy_thread(thread, copy)
        for each in (thread, copy):
            found = await state(agent_of(EventStoreSaver(store)), each)
            assert (len(found["messages"]), found["note"][:4]) == (len(messages) + 2, "long")
            assert [each async for each in fresh.alist(config(each))]


async def test_of_savers_that_begin_a_deleted_thread_anew_none_loses_its_checkpoint(store: EventStore) -> None:
    savers = [EventStoreSaver(store) for _ in range(3)]
    await graph(savers[0]).ainvoke(question(), config())
    await savers[0].adelete_thread("t")
    for saver in savers:
        assert await saver.aget_tuple(config()) is None
    await asyncio.gather(*(
        saver.aput(config(checkpoint_ns=""), {**empty_checkpoint(), "id": f"{number}"}, {"step": number}, {})
        for number, saver in enumerate(savers)
    ))  # fmt: skip

    for saver in (*savers, EventStoreSaver(store)):
        assert [each.checkpoint["id"] async for each in saver.alist(config())] == ["2", "1", "0"]


async def test_a_checkpoint_that_is_stored_again_with_other_contents_replaces_the_first(store: EventStore) -> None:
    saver, checkpoint = EventStoreSaver(store), empty_checkpoint()
    for step in (1, 2, 2):
        await saver.aput(config(checkpoint_ns=""), checkpoint, {"step": step}, {})

    for each in (saver, EventStoreSaver(store)):
        assert [found.metadata async for found in each.alist(config())] == [{"step": 2}]


async def test_the_same_checkpoint_is_stored_again_after_its_thread_was_deleted(store: EventStore) -> None:
    saver = EventStoreSaver(store)
    await graph(saver).ainvoke(question(), config())
    await saver.acopy_thread("t", "copy")
    await saver.adelete_thread("copy")
    await saver.acopy_thread("t", "copy")

    original = [each async for each in saver.alist(config())]
    for each in (saver, EventStoreSaver(store)):
        copied = [each async for each in each.alist(config("copy"))]
        assert [(each.checkpoint, each.metadata, each.pending_writes) for each in copied] == [
            (each.checkpoint, each.metadata, each.pending_writes) for each in original
        ]


async def test_a_copied_thread_is_independent_of_its_source(store: EventStore) -> None:
    saver = EventStoreSaver(store)
    await graph(saver).ainvoke(question(), config())
    await saver.acopy_thread("t", "copy")
    await saver.adelete_thread("t")
    await graph(saver).ainvoke(question(), config("copy"))

    assert len((await state(graph(EventStoreSaver(store)), "copy"))["messages"]) == 2 * (2 + 2 * CALLS)


async def test_savers_that_write_to_one_thread_in_turn_see_each_others_checkpoints(store: EventStore) -> None:
    agents = [graph(EventStoreSaver(store)) for _ in range(2)]
    for number in range(4):
        await agents[number % 2].ainvoke(question(), config())

    for agent in (*agents, graph(EventStoreSaver(store))):
        assert len((await state(agent))["messages"]) == 4 * (2 + 2 * CALLS)


async def test_messages_that_others_add_to_the_conversation_are_not_in_the_state(store: EventStore) -> None:
    agent = graph(EventStoreSaver(store))
    await agent.ainvoke(question(), config())
    await store.append(conversation_uuid(store.tenant, "t"), [MessageAdded(role="user", content="from elsewhere")])
    await agent.ainvoke(question(), config())

    for each in (agent, graph(EventStoreSaver(store))):
        assert len((await state(each))["messages"]) == 2 * (2 + 2 * CALLS)
    contents = [event.data.content for event in await events(store) if isinstance(event.data, MessageAdded)]
    assert contents.count("from elsewhere") == 1
    assert len(contents) == 2 * (2 + 2 * CALLS) + 1


async def test_threads_of_a_user_and_of_other_tenants_are_isolated(store: EventStore) -> None:
    ana, bruno = (EventStoreSaver(store, user=user) for user in ("ana", "bruno"))
    elsewhere = EventStoreSaver(TenantStore(store, f"{store.tenant}-2"))
    await graph(ana).ainvoke(question(), config())
    await graph(elsewhere).ainvoke(question(), config())
    await elsewhere.adelete_thread("t")

    assert await bruno.aget_tuple(config()) is None
    assert [each async for each in bruno.alist(None)] == []
    assert await elsewhere.aget_tuple(config()) is None
    assert len((await state(graph(ana)))["messages"]) == 2 + 2 * CALLS
    assert len([each async for each in EventStoreSaver(store).alist(None)]) == CHECKPOINTS


class Reversing:
    """A cipher that a test can read."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "reversed", plaintext[::-1]

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "reversed"
        return ciphertext[::-1]


async def test_what_a_serializer_encrypts_is_not_stored_as_text(store: EventStore) -> None:
    serde = EncryptedSerializer(Reversing())
    await graph(EventStoreSaver(store, serde=serde)).ainvoke(question(), config())

    assert len((await state(graph(EventStoreSaver(store, serde=serde))))["messages"]) == 2 + 2 * CALLS
    stored = await events(store)
    assert not any(isinstance(event.data, MessageAdded) for event in stored)
    assert not any("leaves" in str(event.content) or "when" in str(event.content) for event in stored)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[SyncEventStore]:
    with SyncEventStore(settings) as store:
        yield store


@pytest.mark.own_database
async def test_synchronous_and_asynchronous_graphs_share_a_synchronous_store(settings: Settings) -> None:
    async with opened(settings) as store:
        agent = graph(EventStoreSaver(store))
        agent.invoke(question(), config())
        await agent.ainvoke(question(), config())
        assert len(agent.get_state(config()).values["messages"]) == 2 * (2 + 2 * CALLS)
        assert len(list(agent.get_state_history(config()))) == 2 * CHECKPOINTS


async def test_a_synchronous_call_in_the_stores_own_loop_is_refused(store: EventStore) -> None:
    with pytest.raises(InputError, match="ainvoke"):
        EventStoreSaver(store).get_tuple(config())


@pytest.mark.own_database
def test_an_agent_that_is_killed_goes_on_from_its_checkpoint(database_url: str, tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).parents[2] / "support" / "langgraph_agent.py"), database_url, "t"]
    with commands(tmp_path / "output", program) as agents:
        first = agents.start("1")
        first.until_printed("looking up 1")
        first.kill()

        second = agents.start()
        assert second.wait() == 0, second.err

    assert second.out.splitlines() == ["looking up 1", "looking up 2", "done"]
    with EventStoreSaver.from_conn_string(database_url) as saver:
        messages: Sequence[Any] = graph(saver).get_state(config()).values["messages"]
    assert [message.content for message in messages if isinstance(message, ToolMessage)] == [
        f"train {number} leaves at {number}:00" for number in range(CALLS)
    ]
    assert ScriptedModel().invoke(messages[:-1]).content == messages[-1].content
