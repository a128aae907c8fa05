"""A run of a LangGraph graph, with its checkpoints in the log and in ``langgraph-checkpoint-postgres``'s tables."""

from __future__ import annotations

from time import perf_counter
from typing import Any
from uuid import uuid4

from eventstore import EventStore
from eventstore.database.queries import query
from projections import catch_up
from tools.benchmark.measurement import Benchmark, Figure, Target, no_collection
from tools.benchmark.messages import conversation
from tools.benchmark.peers import PEERS, opened_peer

STEPS = 50


async def graph_steps(bench: Benchmark) -> list[Figure]:
    """Compare the time of a run of 50 steps that each add a message, and the bytes on disk after it."""
    from agent_manager.adapters.langgraph import EventStoreSaver

    spec = next(peer for peer in PEERS if peer.name == "langgraph")
    seconds: tuple[list[float], list[float]] = [], []
    log: list[float] = []
    tables: list[float] = []
    other: list[float] = []
    with bench.workspace.migrated("steps") as settings:
        async with opened_peer(bench, spec, 1) as peer, EventStore(settings) as store:
            sides = (EventStoreSaver(store), peer.saver)
            for saver in sides:
                await _run(saver, "warm")
            begin = await _bytes(bench, settings.db_schema), await _bytes(bench, peer.schema)
            for run in range(bench.scale.runs):
                bench.report(f"a graph of {STEPS} steps, run {run + 1} of {bench.scale.runs}")
                for saver, values in zip(sides, seconds, strict=True):
                    values.append(await _run(saver, f"{run}"))
                await catch_up(store)
                ours, theirs = await _bytes(bench, settings.db_schema), await _bytes(bench, peer.schema)
                log.append((ours["events"] - begin[0]["events"]) / (run + 1))
                tables.append((sum(ours.values()) - sum(begin[0].values())) / (run + 1))
                other.append((sum(theirs.values()) - sum(begin[1].values())) / (run + 1))
    what = f"a graph of {STEPS} steps / with langgraph-checkpoint-postgres"
    tenth = Target(0.1, at_least=False)
    return [
        Figure("graph-steps", what, "s", *seconds, Target(1, at_least=False)),
        Figure("graph-steps", f"the log after {what}", "bytes", log, other, tenth),
        Figure("graph-steps", f"the log and all read tables after {what}", "bytes", tables, other),
    ]


async def _run(saver: Any, seed: str) -> float:
    """Run a graph to its end and prove that its state has all messages; return the seconds."""
    from langchain_core.messages import AIMessage
    from langgraph.graph import END, START, MessagesState, StateGraph

    texts = [message.text for message in conversation(f"steps/{seed}", STEPS)]

    def speak(state: Any) -> dict[str, Any]:
        return {"messages": [AIMessage(texts[len(state["messages"])])]}

    def route(state: Any) -> str:
        return "speak" if len(state["messages"]) < STEPS else END

    builder = StateGraph(MessagesState).add_node("speak", speak).add_edge(START, "speak")
    graph = builder.add_conditional_edges("speak", route, ["speak", END]).compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": str(uuid4())}, "recursion_limit": STEPS + 5}
    with no_collection():
        begin = perf_counter()
        await graph.ainvoke({"messages": []}, config)
        seconds = perf_counter() - begin
    state = await graph.aget_state(config)
    assert [message.content for message in state.values["messages"]] == texts
    return seconds


async def _bytes(bench: Benchmark, schema: str) -> dict[str, int]:
    """Return the bytes on disk of the tables of a schema, with their indexes."""
    await bench.workspace.vacuum_and_checkpoint(schema)
    async with bench.workspace.connections(1, schema) as (connection,):
        rows = await (await connection.execute(query("tools.benchmark", "table_bytes"), {"schema": schema})).fetchall()
    return dict(rows)
