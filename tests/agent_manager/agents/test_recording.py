"""What an agent says is recorded as it arrives: nothing is lost, and the read tables hold what it amounts to."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.updates import folded, tokens_of, updates

from agent_manager.agents.answering import ArtifactUpdate, Reply, StatusUpdate, TaskSeen, Update
from agent_manager.agents.errors import InvalidUpdate
from agent_manager.agents.local import echo
from agent_manager.agents.recording import Recording, task_uuid
from agent_manager.agents.tasks import task_to_wire
from eventstore import EventStore, NewEvent
from eventstore.sent import sent_message
from eventstore.vocabulary import MessageAdded, TaskCreated, TaskDescribed, TaskStatusChanged
from projections import Reader, catch_up

CONVERSATION = UUID(int=7, version=4)


def recorded(seen: list[Update], **given: Any) -> list[NewEvent]:
    recording = Recording("default", CONVERSATION, **given)
    return [event for update in seen for event in recording.events_of(update)]


def types(events: list[NewEvent]) -> list[str]:
    return [event.data.event_type for event in events]


@given(st.lists(updates, max_size=8))
@settings(max_examples=150)
def test_whatever_an_update_held_is_in_the_log_once_it_is_recorded(seen: list[Update]) -> None:
    recording = Recording("default", CONVERSATION)
    log: set[str] = set()
    for update in seen:
        for event in recording.events_of(update):
            log |= tokens_of(event.data.to_content())
        assert tokens_of([getattr(update, field.name) for field in fields(update)]) <= log


@given(st.lists(updates, min_size=1, max_size=8))
@settings(max_examples=40)
async def test_the_read_tables_hold_what_the_updates_amount_to(store: EventStore, seen: list[Update]) -> None:
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
    said = [update.message for update in seen if isinstance(update, Reply)]
    assert replies == [{"role": "agent"} | message for message in said]


async def test_tasks_are_shown_in_the_shape_that_is_asked_for(store: EventStore) -> None:
    part = {"kind": "text", "text": "out"}
    message = {"kind": "message", "messageId": "m", "role": "agent", "parts": [part]}
    status = {"state": "input-required", "message": message, "timestamp": "2025-01-02T03:04:05Z"}
    task = {
        "kind": "task", "id": "t", "status": status, "history": [message],
        "artifacts": [{"artifactId": "a", "parts": [part]}], "metadata": {"cost": 1},
    }  # fmt: skip
    await store.append(CONVERSATION, recorded([TaskSeen(task)]))
    await catch_up(store)
    [row] = await Reader(store).tasks(CONVERSATION)
    assert task_to_wire(row) == task_to_wire(row, "0.3") == task
    new = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "out"}]}
    assert task_to_wire(row, "1.0", context_id="c") == {
        "id": "t", "contextId": "c", "history": [new], "metadata": {"cost": 1},
        "status": {"state": "TASK_STATE_INPUT_REQUIRED", "message": new, "timestamp": "2025-01-02T03:04:05Z"},
        "artifacts": [{"artifactId": "a", "parts": [{"text": "out"}]}],
    }  # fmt: skip


def test_a_task_that_is_shown_again_unchanged_is_no_news() -> None:
    task = {"id": "t", "status": {"state": "working"}, "artifacts": [{"artifactId": "a", "parts": []}], "metadata": {}}
    recording = Recording("default", CONVERSATION)
    assert types(recording.events_of(TaskSeen(task))) == ["task.created", "task.artifact_added"]
    assert recording.events_of(TaskSeen(task)) == []
    assert types(recording.events_of(TaskSeen(task | {"status": {"state": "completed"}}))) == ["task.status_changed"]
    assert types(recording.events_of(TaskSeen(task | {"status": {"state": "completed"}, "cost": 1}))) == [
        "task.described"
    ]


def test_a_streamed_artifact_that_the_task_then_shows_whole_is_no_news() -> None:
    chunks = [
        ArtifactUpdate("t", "c", {"artifactId": "a", "parts": [{"text": str(n)}]}, n > 0, n == 2) for n in range(3)
    ]
    whole = {"artifactId": "a", "parts": [{"text": str(n)} for n in range(3)]}
    task = {"id": "t", "contextId": "c", "status": {"state": "completed"}, "artifacts": [whole]}
    assert types(recorded([*chunks, TaskSeen(task)])) == [
        "task.created", "task.artifact_added", "task.artifact_extended", "task.artifact_extended",
        "task.status_changed",
    ]  # fmt: skip


def test_a_task_of_an_earlier_answer_does_not_begin_again() -> None:
    status = StatusUpdate("t", "c", {"state": "working"})
    assert types(recorded([status], known_tasks={"t": "buy milk"})) == ["task.status_changed"]
    shown = TaskSeen({"id": "t", "contextId": "c", "status": {"state": "working"}})
    described, changed = recorded([shown], known_tasks={"t": "buy milk"})
    assert isinstance(described.data, TaskDescribed)
    assert described.data.description == "buy milk"
    assert isinstance(changed.data, TaskStatusChanged)


def test_a_task_begins_with_the_message_that_it_answers() -> None:
    [created] = recorded([TaskSeen({"id": "t", "status": {"state": "working"}})], description="buy milk")
    assert isinstance(created.data, TaskCreated)
    assert (created.data.description, str(created.data.status), created.data.given_id) == (
        "buy milk",
        "in_progress",
        "t",
    )
    assert created.data.task_id == task_uuid("default", CONVERSATION, "t")


def test_events_name_the_agent_and_what_caused_them() -> None:
    [event] = recorded([Reply({"role": "agent", "parts": []})], answer=echo(), causation_id="the message")
    assert event.actor == "echo"
    assert event.metadata.causation_id == "the message"


def test_a_reply_has_the_id_that_its_conversation_gives_it() -> None:
    reply = Reply({"role": "agent", "parts": [], "messageId": "r"})
    assert [event.id for event in recorded([reply], message_id=lambda text: UUID(int=len(text)))] == [UUID(int=1)]
    first, second = recorded([reply, reply])
    assert first.id != second.id


@pytest.mark.parametrize("role", ["boss", 5, None, ["agent"]])
def test_a_reply_in_no_known_role_is_the_agents_and_read_back_as_sent(role: Any) -> None:
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
def test_a_task_that_had_ended_stays_as_it_was(state: str) -> None:
    recording = Recording("default", CONVERSATION)
    recording.events_of(TaskSeen({"id": "t", "status": {"state": state}}))
    assert recording.failed("the connection broke") == []


@pytest.mark.parametrize("task", [{}, {"id": 5}, {"id": None, "status": {"state": "working"}}])
def test_a_task_without_an_id_is_refused(task: dict[str, Any]) -> None:
    with pytest.raises(InvalidUpdate, match="expected a text"):
        recorded([TaskSeen(task)])


def test_what_is_no_task_inside_a_task_is_kept_as_it_came() -> None:
    odd = {"id": "t", "status": "fine", "artifacts": "none", "metadata": [1], "history": 5}
    [created] = recorded([TaskSeen(odd)])
    assert isinstance(created.data, TaskCreated)
    assert created.data.extra == {name: value for name, value in odd.items() if name != "id"}
    _, artifact = recorded([ArtifactUpdate("t", None, {"artifactId": 5, "parts": "all", "name": None})])
    assert artifact.data.to_content()["extra"] == {"artifactId": 5, "parts": "all", "name": None}
