"""Whatever an application did between migrations, the store has what its memory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st
from support.demoapp import Manager, Task
from support.examples import examples

from agent_manager.importers import migrate
from agent_manager.importers.a2a_demo import ManagerSource
from eventstore import EventStore, conversation_uuid
from projections import Reader

NAMES = st.sampled_from(["a", "b", "6f0e1c1e-53c3-4d0c-9a43-0f6f1d0b7f2e"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text("aé\U0001f600", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
    max_leaves=4,
)
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "agent", "ROLE_USER"]),
        "messageId": st.sampled_from(["", "m", "n", "0d0c2c1e-53c3-4d0c-9a43-0f6f1d0b7f2e"]),
        "contextId": NAMES,
        "parts": st.lists(st.fixed_dictionaries({"data": st.dictionaries(st.sampled_from("pq"), VALUES)}), max_size=2),
    },
    optional={"metadata": st.dictionaries(st.sampled_from("uv"), VALUES), "extensions": st.just(["urn:x"])},
)
STATES = st.sampled_from(["submitted", "working", "completed", "odd", "TASK_STATE_FAILED"])
ARTIFACTS = st.lists(st.fixed_dictionaries({"artifactId": st.sampled_from("xy"), "parts": st.just([])}), max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), MESSAGES),
        st.tuples(st.just("rename"), st.tuples(NAMES, st.text("né", max_size=2))),
        st.tuples(st.just("archive"), st.tuples(NAMES, st.booleans())),
        st.tuples(st.just("begin"), st.tuples(NAMES, st.sampled_from(["", "t"]), STATES)),
        st.tuples(st.just("continue"), st.tuples(st.integers(0, 3), STATES, ARTIFACTS)),
        st.tuples(st.just("migrate"), st.none()),
    ),
    max_size=14,
)


def apply_step(manager: Manager, step: str, given: Any) -> None:
    """Do in memory what a step of an application does."""
    conversations = {conversation.conversation_id: conversation for conversation in manager.conversations}
    if step == "send":
        manager.add_message(given)
    elif step == "rename":
        conversations[given[0]].name = given[1]
    elif step == "archive":
        conversations[given[0]].is_active = given[1]
    elif step == "begin":
        manager.tasks.append(Task(id=given[1], context_id=given[0], status={"state": given[2]}))
    elif step == "continue" and given[0] < len(manager.tasks):
        task = manager.tasks[given[0]]
        task.status, task.artifacts = {"state": given[1], "timestamp": "2026-01-02T03:04:05Z"}, given[2]


@examples(25)
@given(steps=STEPS)
async def test_after_every_migration_the_store_holds_what_memory_holds(
    store: EventStore, backups: Path, steps: list[tuple[str, Any]]
) -> None:
    manager, tenant = Manager(), str(uuid4())
    for name in ("a", "b", "6f0e1c1e-53c3-4d0c-9a43-0f6f1d0b7f2e"):
        manager.create_conversation(name)
    for step, what in [*steps, ("migrate", None)]:
        if step != "migrate":
            apply_step(manager, step, what)
            continue
        report = await migrate(ManagerSource(manager), store, backups=backups, tenant=tenant)
        assert report.is_clean, list(report.lines())
    assert (await migrate(ManagerSource(manager), store, backups=backups, tenant=tenant)).new_events == 0
    reader = Reader(store, tenant)
    for conversation in manager.conversations:
        row = await reader.conversation(conversation.conversation_id)
        assert (row.name, row.is_active) == (conversation.name, conversation.is_active)
        messages = await reader.messages(conversation_uuid(tenant, conversation.conversation_id))
        wires = [
            message.model_dump(mode="json", by_alias=True, exclude_unset=True) for message in conversation.messages
        ]
        assert [message.sent | {"kind": "message"} for message in messages] == [
            wire | {"kind": "message"} for wire in wires
        ]
