"""A task is read as in its last snapshot, with the same order of members, however the snapshots were applied."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import user_message
from support.examples import examples
from support.serving import served
from support.waiting import until_async

from agent_manager.a2a import task_to_wire
from agent_manager.agents.agent import Context, Reply, Update
from agent_manager.agents.local import from_callable
from agent_manager.agents.updates import update_from_wire
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import ServerLog
from eventstore import EventStore, Settings, SyncEventStore, conversation_uuid
from projections import Reader, Task, catch_up, rebuild

Json = dict[str, Any]

NAMES = st.sampled_from(["b", "a", "long", "kind", "x y"])
VALUES = st.integers(0, 9) | st.dictionaries(NAMES, st.integers(0, 9) | st.dictionaries(NAMES, st.integers(0, 9)))
MESSAGES = st.builds(
    lambda number, more, first: (
        {"z": more, "role": "agent", "messageId": f"h{number}", "parts": [{"text": "t", "metadata": more}]}
        if first
        else {"messageId": f"h{number}", "parts": [{"metadata": more, "text": "t"}], "role": "agent"}
    ),
    st.integers(0, 3),
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.booleans(),
)
HISTORIES = st.lists(MESSAGES, max_size=3)
_TENANTS = count(1)


@st.composite
def snapshots(draw: st.DrawFn) -> list[Json]:
    """Snapshots of a task: each is the previous one with members extended, replaced, added or removed."""
    shown: list[Json] = []
    task: Json = {"id": "t", "contextId": "c"}
    for _ in range(draw(st.integers(1, 6))):
        task = dict(task)
        match draw(st.sampled_from(["grow", "grow", "grow", "replace", "leave out", "empty", "keep"])):
            case "grow":
                task["history"] = [*task.get("history", []), *draw(st.lists(MESSAGES, min_size=1, max_size=2))]
            case "replace":
                task["history"] = draw(HISTORIES)
            case "leave out":
                task.pop("history", None)
            case "empty":
                task["history"] = []
        if draw(st.booleans()):
            task["note"] = draw(VALUES)
        if draw(st.booleans()):
            task["metadata"] = draw(st.dictionaries(NAMES, VALUES, max_size=3))
        if draw(st.booleans()):
            task["artifacts"] = [*task.get("artifacts", []), {"parts": [{"data": draw(VALUES)}], "artifactId": "a"}][:1]
            part = {"metadata": draw(VALUES), "text": "more"}
            task["artifacts"] = [task["artifacts"][0] | {"parts": [*task["artifacts"][0]["parts"], part]}]
        task["status"] = {"timestamp": "2025-01-02T03:04:05Z", "state": draw(st.sampled_from(["working", "completed"]))}
        if draw(st.booleans()):
            task["status"]["message"] = draw(MESSAGES)
        names = draw(st.permutations(sorted(task)))
        shown.append({name: task[name] for name in names})
    return shown


def members(task: Json, names: Json) -> dict[str, Any]:
    """Return some members of a task as JSON text, with their order."""
    shown: dict[str, Any] = {name: json.dumps(task[name]) for name in names if name in task}
    shown["status"] = {name: json.dumps(value) for name, value in task["status"].items()}
    if "artifacts" in shown:
        shown["artifacts"] = [{n: json.dumps(value) for n, value in artifact.items()} for artifact in task["artifacts"]]
    return shown


@pytest.mark.slow
def test_a_task_is_read_as_in_its_last_snapshot(settings: Settings) -> None:
    with SyncEventStore(settings) as store:
        events = store.asynchronous

        async def run(shown: list[Json], pauses: list[bool]) -> None:
            tenant = f"tenant-{next(_TENANTS)}"
            log, versions = ServerLog(events, tenant), []

            async def show(message: Json, context: Context) -> AsyncIterator[Update]:
                for snapshot, pauses_after in zip(shown, pauses, strict=False):
                    yield update_from_wire(snapshot)
                    view = await Manager(log).get_conversation("c")
                    versions.append(view.version if view is not None else 0)
                    if pauses_after:
                        await catch_up(events)

            last, agent = shown[-1], from_callable(show)
            expected = members(last, last)
            await Manager(MemoryLog(tenant), agent).send_message("c", user_message("go"))
            versions.clear()
            answering = Manager(log, agent)
            await answering.send_message("c", user_message("go"))
            for manager in (answering, Manager(log)):
                assert [members(task, last) for task in await manager.tasks()] == [expected]
            await catch_up(events)
            reader = Reader(events, tenant)
            assert [as_read(row) for row in await reader.tasks(conversation_uuid(tenant, "c"))] == [expected]
            middle = len(shown) // 2
            then = await reader.conversation_at("c", version=versions[middle])
            assert [as_read(row) for row in then.tasks] == [members(shown[middle], shown[middle])]

        @given(snapshots(), st.lists(st.booleans(), min_size=6, max_size=6))
        @examples(15)
        def check(shown: list[Json], pauses: list[bool]) -> None:
            store.portal.call(run(shown, pauses))

        check()


@pytest.mark.slow
async def test_every_interface_returns_the_last_snapshot(store: EventStore) -> None:
    one = {"kind": "text", "metadata": {"b": 1, "a": 2}, "text": "one"}
    first = {"kind": "message", "role": "agent", "messageId": "h1", "parts": [one]}
    second = {"kind": "message", "parts": [{"kind": "text", "text": "two"}], "messageId": "h2", "role": "agent"}
    task: Json = {"kind": "task", "id": "t", "contextId": "c", "status": {"state": "working"}}
    shown = [
        task | {"history": [second, first]},
        task | {"history": [first], "zone": {"b": 1, "a": 2}},
        task | {"history": [first, second], "metadata": {"long": 1, "b": {"d": 1, "c": 2}}},
        task | {"history": [first, second, second], "zone": {"z": {"b": 1, "a": 2}, "a": 1}},
        task | {"status": {"state": "completed"}, "history": [first, second, second, first], "zone": {"z": 1, "a": 2}},
    ]

    async def show(message: Json, context: Context) -> AsyncIterator[Update]:
        for snapshot in shown:
            yield update_from_wire(snapshot)
            await catch_up(store)
            if snapshot is shown[2]:
                await rebuild(store)
        yield Reply({"kind": "message", "role": "agent", "messageId": "r", "parts": [one]})

    expected = members(shown[-1], shown[-1]) | {"metadata": json.dumps(shown[2]["metadata"])}
    async with served(store, answer=from_callable(show)) as here:
        http = here.client
        call = {"jsonrpc": "2.0", "id": "1", "params": user_message("go", context_id="c")}
        assert (await http.post("/message/send", json=call)).status_code == 200

        async def is_answered() -> bool:
            return bool((await http.post("/message/pending")).json()["result"] == [])

        await until_async(is_answered, "the message was answered")
        for _ in range(2):
            [listed] = (await http.post("/task/list")).json()["result"]
            assert members(listed, listed) == expected
            [found] = (await http.get("/v1/tasks")).json()["items"]
            [kept] = (await http.get("/v1/conversations/c/state")).json()["tasks"]
            for row in (found, kept):
                wire = {"id": row["given_id"], "status": {"state": row["status"]}, "metadata": row["metadata"]}
                assert members(wire | row["extra"], wire | row["extra"]) == expected
            await rebuild(store)


def as_read(row: Task) -> dict[str, Any]:
    """Return the members of a task of the read tables."""
    task = task_to_wire(row)
    return members(task, task)
