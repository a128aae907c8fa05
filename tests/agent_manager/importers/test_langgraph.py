"""Threads from the tables of langgraph-checkpoint-postgres: equal, again without effect, and continued."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import psycopg
import pytest

pytest.importorskip("langgraph.checkpoint.postgres")

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt
from support.commandline import Eventstore
from support.langgraph_agent import CALLS, graph

from agent_manager.adapters.langgraph import EventStoreSaver
from agent_manager.importers.langgraph import import_langgraph
from agent_manager.importers.source import SourceUnreadable
from eventstore import EventStore, MessageAdded, conversation_uuid

pytestmark = [pytest.mark.slow, pytest.mark.shared_database]


class Counted(TypedDict):
    total: Annotated[int, operator.add]
    files: dict[str, bytes]
    sure: Any


def counting(saver: Any) -> Any:
    """A graph with plain values, tasks that it sends to a node, and a question."""

    def send(state: Counted) -> list[Send]:
        return [Send("add", {"number": number}) for number in (1, 2)]

    builder = StateGraph(Counted)
    builder.add_node("begin", lambda state: {"total": 0, "files": {"a": b"\0\xff"}})
    builder.add_node("add", lambda state: {"total": state["number"]})
    builder.add_node("ask", lambda state: {"sure": interrupt("sure?")})
    builder.add_edge(START, "begin").add_conditional_edges("begin", send, ["add"])
    return builder.add_edge("add", "ask").add_edge("ask", END).compile(checkpointer=saver)


def config(thread: str) -> Any:
    return {"configurable": {"thread_id": thread, "user": "ana"}}


async def fill(url: str) -> None:
    async with AsyncPostgresSaver.from_conn_string(url) as saver:
        await saver.setup()
        await graph(saver).ainvoke({"messages": [HumanMessage("when? 何時")]}, config("talk"))
        await counting(saver).ainvoke({"total": 5}, config("count/1"))


async def shown(saver: Any, thread: str) -> list[Any]:
    """Return each checkpoint as a saver reads it."""
    return [
        (each.checkpoint, each.metadata, each.pending_writes, (each.parent_config or {}).get("configurable"))
        async for each in saver.alist(config(thread))
    ]


async def test_threads_are_taken_over_as_they_are_and_continued(store: EventStore, empty_database_url: str) -> None:
    await fill(empty_database_url)

    report = await import_langgraph(empty_database_url, store)
    again = await import_langgraph(empty_database_url, store)

    assert report.is_clean, report.differences
    assert report.threads == again.threads == 2
    assert report.new_checkpoints == report.checkpoints == again.checkpoints
    assert report.new_writes > 0
    assert (again.is_clean, again.new_checkpoints, again.new_writes) == (True, 0, 0)
    ours = EventStoreSaver(store)
    async with AsyncPostgresSaver.from_conn_string(empty_database_url) as theirs:
        for thread in ("talk", "count/1"):
            assert await shown(ours, thread) == await shown(theirs, thread)

    await graph(ours).ainvoke({"messages": [HumanMessage("and?")]}, config("talk"))
    assert len((await graph(ours).aget_state(config("talk"))).values["messages"]) == 2 * (2 + 2 * CALLS)
    await counting(ours).ainvoke(Command(resume="yes"), config("count/1"))
    state = (await counting(ours).aget_state(config("count/1"))).values
    assert state == {"total": 8, "files": {"a": b"\0\xff"}, "sure": "yes"}
    continued = await import_langgraph(empty_database_url, store)
    assert (continued.is_clean, continued.new_checkpoints) == (True, 0)


async def test_only_what_is_new_is_imported_again_and_messages_have_their_times(
    store: EventStore, empty_database_url: str
) -> None:
    await fill(empty_database_url)
    await import_langgraph(empty_database_url, store)
    async with AsyncPostgresSaver.from_conn_string(empty_database_url) as saver:
        await graph(saver).ainvoke({"messages": [HumanMessage("and?")]}, config("talk"))
        latest = await saver.aget_tuple(config("talk"))

    report = await import_langgraph(empty_database_url, store)

    assert report.is_clean
    assert report.new_checkpoints == 2 * CALLS + 3
    messages = [event async for event in store.read(conversation_uuid(store.tenant, "talk"), types=["message.added"])]
    assert len(messages) == 2 * (2 + 2 * CALLS)
    assert all(isinstance(event.data, MessageAdded) for event in messages)
    assert latest is not None
    assert messages[-1].occurred_at.isoformat() <= latest.checkpoint["ts"]


async def test_a_thread_that_was_deleted_since_is_left_alone(store: EventStore, empty_database_url: str) -> None:
    await fill(empty_database_url)
    await import_langgraph(empty_database_url, store)
    await EventStoreSaver(store).adelete_thread("talk")

    report = await import_langgraph(empty_database_url, store)

    assert (report.is_clean, report.deleted, report.new_checkpoints) == (True, ["talk"], 0)
    assert await EventStoreSaver(store).aget_tuple(config("talk")) is None


async def test_what_differs_is_reported(store: EventStore, empty_database_url: str) -> None:
    await fill(empty_database_url)
    await import_langgraph(empty_database_url, store)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("UPDATE checkpoints SET metadata = metadata || '{\"step\": 77}' WHERE thread_id = 'talk'")

    report = await import_langgraph(empty_database_url, store)

    assert not report.is_clean
    assert {difference.conversation for difference in report.differences} == {"talk"}
    assert "77" in str(report.differences[0])


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/none", "sqlite:///x"])
async def test_a_database_that_cannot_be_read_is_named(store: EventStore, url: str) -> None:
    with pytest.raises((SourceUnreadable, ValueError), match=r"URL|--from-langgraph"):
        await import_langgraph(url, store)


async def test_a_database_without_the_tables_is_refused(store: EventStore, empty_database_url: str) -> None:
    with pytest.raises(SourceUnreadable, match="the table checkpoints"):
        await import_langgraph(empty_database_url, store)


def test_the_command_imports_and_reports(empty: Eventstore, empty_database_url: str) -> None:
    asyncio.run(fill(empty_database_url))
    result = empty("import", "--from-langgraph", empty_database_url)
    assert result.code == 0, result.err
    assert "2 threads" in result.out
    assert "all are in the store as they were" in result.out
    assert "«train» 1 leaves at 1:00" in empty("search", "train").out
