"""An agent's updates are recorded as they arrive: nothing is lost, and the read tables contain the result."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.updates import folded, growing_snapshots, tokens_of, updates

from agent_manager.a2a import merge_texts, task_to_wire
from agent_manager.agents.agent import ArtifactUpdate, Reply, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.local import echo, from_callable
from agent_manager.agents.recorder import RecordedTask, Recording, task_uuid
from agent_manager.conversation_cache import ConversationFoldCache
from agent_manager.conversation_fold import ConversationFold
from agent_manager.errors import AnswerFailed, InvalidUpdate
from agent_manager.factory import AsyncManager
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import ServerLog
from eventstore import EventStore, NewEvent, conversation_uuid
from eventstore.event_types import (
    MessageAdded,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDescribed,
    TaskStatusChanged,
)
from eventstore.json_text import to_json
from eventstore.message_format import sent_message
from projections import Reader, catch_up

CONVERSATION = UUID(int=7, version=4)


def recorded(seen: list[Update], **given: Any) -> list[NewEvent]:
    recording = Recording("default", CONVERSATION, **given)
    return [event for update in seen for event in recording.events_of(update)]


def types(events: list[NewEvent]) -> list[str]:
    return [event.data.event_type for event in events]


@given(st.lists(updates, max_size=8))
@examples(150)
def test_every_value_of_an_update_is_in_the_log_after_it_is_recorded(seen: list[Update]) -> None:
    recording = Recording("default", CONVERSATION)
    log: set[str] = set()
    for update in seen:
        for event in recording.events_of(update):
            log |= tokens_of(event.data.to_content())
        assert tokens_of([getattr(update, field.name) for field in fields(update)]) <= log


@given(st.lists(updates, min_size=1, max_size=8))
@examples(40)
async def test_the_read_tables_contain_the_result_of_the_updates(store: EventStore, seen: list[Update]) -> None:
    conversation = uuid4()
    recording = Recording("default", conversation)
    for update in seen:
        if events := recording.events_of(update):
            await store.append(conversation, events)
    await catch_up(store)
    rows = await Reader(store).tasks(conversation, limit=100)
    tasks = [task_to_wire(row) for row in rows]
    assert {task["id"]: task for task in tasks} == folded(seen)
    replies = [message.sent for message in await Reader(store).messages(conversation, limit=100)]
    replied = [update.message for update in seen if isinstance(update, Reply)]
    assert replies == [{"role": "agent"} | message for message in replied]


async def test_tasks_are_returned_in_the_requested_version(store: EventStore) -> None:
    part = {"kind": "text", "text": "out"}
    message = {"kind": "message", "messageId": "m", "role": "agent", "parts": [part]}
    status = {"state": "input-required", "message": message, "timestamp": "2025-01-02T03:04:05Z"}
    task = {
        "kind": "task", "id": "t", "status": status, "history": [message],
        "artifacts": [{"artifactId": "a", "parts": [part]}], "metadata": {"cost": 1},
    }  # fmt: skip
    await store.append(CONVERSATION, recorded([TaskSnapshot(task)]))
    await catch_up(store)
    [row] = await Reader(store).tasks(CONVERSATION)
    assert task_to_wire(row) == task_to_wire(row, "0.3") == task
    new = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "out"}]}
    assert task_to_wire(row, "1.0", context_id="c") == {
        "id": "t", "contextId": "c", "history": [new], "metadata": {"cost": 1},
        "status": {"state": "TASK_STATE_INPUT_REQUIRED", "message": new, "timestamp": "2025-01-02T03:04:05Z"},
        "artifacts": [{"artifactId": "a", "parts": [{"text": "out"}]}],
    }  # fmt: skip


def test_an_unchanged_snapshot_adds_no_event() -> None:
    task = {"id": "t", "status": {"state": "working"}, "artifacts": [{"artifactId": "a", "parts": []}], "metadata": {}}
    recording = Recording("default", CONVERSATION)
    assert types(recording.events_of(TaskSnapshot(task))) == ["task.created", "task.artifact_added"]
    assert recording.events_of(TaskSnapshot(task)) == []
    assert types(recording.events_of(TaskSnapshot(task | {"status": {"state": "completed"}}))) == [
        "task.status_changed"
    ]
    assert types(recording.events_of(TaskSnapshot(task | {"status": {"state": "completed"}, "cost": 1}))) == [
        "task.described"
    ]


def test_a_snapshot_of_a_streamed_artifact_adds_no_event() -> None:
    chunks = [
        ArtifactUpdate("t", "c", {"artifactId": "a", "parts": [{"text": str(n)}]}, n > 0, n == 2) for n in range(3)
    ]
    whole = {"artifactId": "a", "parts": [{"text": str(n)} for n in range(3)]}
    task = {"id": "t", "contextId": "c", "status": {"state": "completed"}, "artifacts": [whole]}
    assert types(recorded([*chunks, TaskSnapshot(task)])) == [
        "task.created", "task.artifact_added", "task.artifact_extended", "task.artifact_extended",
        "task.status_changed",
    ]  # fmt: skip


def whole(task: dict[str, Any]) -> dict[str, Any]:
    """Return the task with consecutive texts merged, and without empty members."""
    put = task | {"artifacts": [merge_texts(artifact) for artifact in task.get("artifacts", [])]}
    return {name: value for name, value in put.items() if value != []}


@given(growing_snapshots(), st.data())
@examples(15)
@pytest.mark.slow
async def test_after_many_snapshots_a_task_is_read_as_in_the_last(
    store: EventStore, shown: list[dict[str, Any]], data: st.DataObject
) -> None:
    conversation = uuid4()
    manager = AsyncManager(store, runs_worker=False)
    folds = ConversationFoldCache(ServerLog(store))
    fold = ConversationFold(conversation)
    recording = Recording("default", conversation)
    for task in shown:
        if data.draw(st.booleans(), label="another answer"):
            fold = await folds.get(conversation) or fold
            recording = Recording("default", conversation, known_task=fold.recorded_task)
        if events := recording.events_of(TaskSnapshot(task)):
            await store.append(conversation, events)
        if data.draw(st.booleans(), label="projected"):
            await catch_up(store)
    await catch_up(store)
    [row] = await Reader(store).tasks(conversation)
    read = task_to_wire(row)
    assert whole(read) == whole(shown[-1])
    assert read["artifacts"] == shown[-1]["artifacts"] if "artifacts" in read else not shown[-1]["artifacts"]
    [folded_here] = await manager.tasks(str(conversation))
    assert folded_here == read


def text(size: int) -> str:
    return "".join(f"{number:09d} " for number in range(size // 10))


def content_bytes(events: list[NewEvent]) -> int:
    return sum(len(to_json(event.data.to_content(), "content")) for event in events)


@pytest.mark.parametrize("grows", ["history", "parts", "text", "artifacts"])
async def test_a_growing_member_is_stored_once(grows: str) -> None:
    shown: list[Update] = []
    piece = text(30_000)
    for number in range(100):
        message = {"messageId": f"m{number}", "role": "agent", "parts": [{"text": piece}]}
        history = shown[-1].task["history"] if shown and isinstance(shown[-1], TaskSnapshot) else []
        parts = [{"text": piece}] * (number + 1) if grows == "parts" else [{"text": piece * (number + 1)}]
        task: dict[str, Any] = {"id": "t", "status": {"state": "working", "timestamp": str(number)}, "history": []}
        if grows == "history":
            task["history"] = [*history, message]
        elif grows == "artifacts":
            task["artifacts"] = [{"artifactId": str(n), "parts": [{"text": piece}]} for n in range(number + 1)]
        else:
            task["artifacts"] = [{"artifactId": "a", "parts": parts}]
        shown.append(TaskSnapshot(task))

    async def agent(message: dict[str, Any]) -> AsyncIterator[Update]:
        for update in shown:
            yield update
        yield StatusUpdate("t", None, {"state": "completed"})
        yield Reply({"role": "agent", "parts": []})

    assert content_bytes(recorded(shown)) < 1.05 * 100 * 30_000
    assert content_bytes(recorded(shown[:25])) < 1.05 * 750_000
    manager = Manager(MemoryLog(), from_callable(agent))
    assert await manager.send_message("c", {"role": "user", "parts": []})
    [task] = await manager.tasks("c")
    assert isinstance(shown[-1], TaskSnapshot)
    last = {name: value for name, value in shown[-1].task.items() if value}
    assert {name: value for name, value in task.items() if value} == last | {"status": {"state": "completed"}}


def test_an_artifact_that_is_sent_again_with_more_text_is_stored_once() -> None:
    """An agent may send the whole artifact each time instead of appending."""
    pieces = [
        ArtifactUpdate("t", None, {"artifactId": "a", "parts": [{"text": text(30_000) * n}]}) for n in range(1, 26)
    ]
    assert content_bytes(recorded(pieces)) < 1.05 * 750_000
    shrunk = ArtifactUpdate("t", None, {"artifactId": "a", "parts": [{"text": "short"}]})
    assert types(recorded([*pieces[:2], shrunk])) == [
        "task.created", "task.artifact_added", "task.artifact_extended", "task.artifact_added",
    ]  # fmt: skip


async def test_a_final_snapshot_that_merges_the_streamed_chunks_adds_no_event() -> None:
    chunks = [
        ArtifactUpdate("t", "c", {"artifactId": "a", "parts": [{"text": text(100_000)}]}, n > 0, None)
        for n in range(20)
    ]
    one = {"artifactId": "a", "parts": [{"text": text(100_000) * 20}]}
    task = {"id": "t", "contextId": "c", "status": {"state": "completed"}, "artifacts": [one]}
    more = {"artifactId": "a", "parts": [{"text": text(100_000) * 20 + "more"}, {"data": {}}]}
    assert types(recorded([*chunks, TaskSnapshot(task)]))[21:] == ["task.status_changed"]
    assert content_bytes(recorded([*chunks, TaskSnapshot(task | {"artifacts": [more]})])) < 2_100_000

    async def agent(message: dict[str, Any]) -> AsyncIterator[Update]:
        for update in [*chunks, TaskSnapshot(task)]:
            yield update
        yield Reply({"role": "agent", "parts": []})

    manager = Manager(MemoryLog(), from_callable(agent))
    await manager.send_message("c", {"role": "user", "parts": []})
    [read] = await manager.tasks("c")
    assert read["status"] == {"state": "completed"}
    assert [merge_texts(artifact) for artifact in read["artifacts"]] == [one]


@pytest.mark.parametrize(
    ("updates", "marks"),
    [
        ([ArtifactUpdate("t", None, {"artifactId": "a", "parts": []})], [False]),
        ([ArtifactUpdate("t", None, {"artifactId": "a", "parts": []}, append=True)], [False]),
        ([ArtifactUpdate("t", None, {"artifactId": "a", "parts": []}, last_chunk=False)], [False]),
        ([ArtifactUpdate("t", None, {"artifactId": "a", "parts": []}, last_chunk=True)], [True]),
        ([ArtifactUpdate("t", None, {"artifactId": "a", "parts": []}, append=True, last_chunk=True)], [True]),
        ([TaskSnapshot({"id": "t", "status": {"state": "working"}, "artifacts": [{"artifactId": "a"}]})], [False]),
        ([TaskSnapshot({"id": "t", "status": {"state": "completed"}, "artifacts": [{"artifactId": "a"}]})], [True]),
        ([TaskSnapshot({"id": "t", "status": {"state": "failed"}, "artifacts": [{"artifactId": "a"}]})], [False]),
        (
            [TaskSnapshot({"id": "t", "status": {"state": "input-required"}, "artifacts": [{"artifactId": "a"}]})],
            [False],
        ),
    ],
)
def test_a_chunk_is_the_last_only_if_its_agent_says_so(updates: list[Update], marks: list[bool]) -> None:
    events = [event.data for event in recorded(updates)]
    kinds = (TaskArtifactAdded, TaskArtifactExtended)
    assert [event.last_chunk for event in events if isinstance(event, kinds)] == marks


async def test_an_artifact_of_an_agent_that_failed_is_incomplete() -> None:
    async def agent(message: dict[str, Any]) -> AsyncIterator[Update]:
        yield ArtifactUpdate("t", None, {"artifactId": "a", "parts": [{"text": "half"}]})
        raise ConnectionResetError

    log = MemoryLog()
    manager = Manager(log, from_callable(agent))
    with pytest.raises(AnswerFailed):
        await manager.send_message("c", {"role": "user", "parts": []})
    events = await log.events_of({conversation_uuid("default", "c"): 0})
    [artifact] = [event.data for event in events if isinstance(event.data, TaskArtifactAdded)]
    assert not artifact.last_chunk
    [task] = await manager.tasks("c")
    assert task["status"]["state"] == "failed"


def test_a_task_of_an_earlier_answer_is_not_created_again() -> None:
    status = StatusUpdate("t", "c", {"state": "working"})
    assert types(recorded([status], known_task={"t": RecordedTask()}.get)) == ["task.status_changed"]
    shown = TaskSnapshot({"id": "t", "contextId": "c", "status": {"state": "working"}})
    described, changed = recorded([shown], known_task={"t": RecordedTask()}.get)
    assert isinstance(described.data, TaskDescribed)
    assert described.data.description is None
    assert isinstance(changed.data, TaskStatusChanged)


def test_a_new_task_is_described_by_the_message_that_it_answers() -> None:
    [created] = recorded([TaskSnapshot({"id": "t", "status": {"state": "working"}})], description="buy milk")
    assert isinstance(created.data, TaskCreated)
    assert (created.data.description, str(created.data.status), created.data.given_id) == (
        "buy milk",
        "in_progress",
        "t",
    )
    assert created.data.task_id == task_uuid("default", CONVERSATION, "t")


def test_events_contain_the_agent_and_their_cause() -> None:
    [event] = recorded([Reply({"role": "agent", "parts": []})], answer=echo(), causation_id="the message")
    assert event.actor == "echo"
    assert event.metadata.causation_id == "the message"


def test_equal_replies_have_different_ids() -> None:
    reply = Reply({"role": "agent", "parts": [], "messageId": "r"})
    first, second = recorded([reply, reply])
    assert first.id != second.id


@pytest.mark.parametrize("role", ["boss", 5, None, ["agent"]])
def test_a_reply_with_an_unknown_role_is_the_agents_and_is_read_as_sent(role: Any) -> None:
    message = {"role": role, "parts": [{"text": "x"}], "messageId": "r"}
    [event] = recorded([Reply(message)])
    assert isinstance(event.data, MessageAdded)
    assert str(event.data.role) == "assistant"
    assert sent_message(event.data) == message


def test_a_failed_answer_leaves_no_task_open() -> None:
    recording = Recording("default", CONVERSATION)
    assert recording.failed("the connection broke") == []
    assert recording.task_id is None
    recording.events_of(StatusUpdate("t", None, {"state": "working"}))
    [event] = recording.failed("the connection broke")
    assert isinstance(event.data, TaskStatusChanged)
    assert (str(event.data.status), event.data.metadata) == ("failed", {"error": "the connection broke"})
    assert event.data.task_id == recording.task_id == task_uuid("default", CONVERSATION, "t")
    assert recording.failed("again") == []


@pytest.mark.parametrize("state", ["completed", "canceled", "failed", "rejected", "TASK_STATE_COMPLETED"])
def test_a_failure_does_not_change_a_task_in_a_final_state(state: str) -> None:
    recording = Recording("default", CONVERSATION)
    recording.events_of(TaskSnapshot({"id": "t", "status": {"state": state}}))
    assert recording.failed("the connection broke") == []


@pytest.mark.parametrize("task", [{}, {"id": 5}, {"id": None, "status": {"state": "working"}}])
def test_a_task_without_an_id_is_rejected(task: dict[str, Any]) -> None:
    with pytest.raises(InvalidUpdate, match="expected a text"):
        recorded([TaskSnapshot(task)])


def test_malformed_members_of_a_task_are_stored_as_sent() -> None:
    odd = {"id": "t", "status": "fine", "artifacts": "none", "metadata": [1], "history": 5}
    [created] = recorded([TaskSnapshot(odd)])
    assert isinstance(created.data, TaskCreated)
    assert created.data.extra == {name: value for name, value in odd.items() if name != "id"}
    _, artifact = recorded([ArtifactUpdate("t", None, {"artifactId": 5, "parts": "all", "name": None})])
    assert artifact.data.to_content()["extra"] == {"artifactId": 5, "parts": "all", "name": None}
