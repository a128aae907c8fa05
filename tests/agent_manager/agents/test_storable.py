"""A note replaces a value of an answer that cannot be stored; the rest is stored, and the answer continues."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.a2a import merge_texts
from agent_manager.agents.agent import ArtifactUpdate, Reply, StatusUpdate, TaskSnapshot, Update
from agent_manager.agents.local import from_callable
from agent_manager.agents.recorder import Recording, merged
from agent_manager.agents.storable import NOTE, split_event, storable, storable_text
from agent_manager.conversation_fold import ConversationFold
from agent_manager.factory import AsyncManager
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from agent_manager.storage import appended_event
from eventstore import Appended, EventStore, NewEvent, Settings, TaskCreated
from eventstore.json_text import to_json
from projections import Reader, catch_up

pytestmark = pytest.mark.any_server

Json = dict[str, Any]
USER = {"kind": "message", "role": "user", "messageId": "m", "parts": [{"kind": "text", "text": "go"}]}


def nested(depth: int) -> Any:
    value: Any = "core"
    for _ in range(depth):
        value = [value]
    return value


BAD = [
    ("a\0b", "a NUL character at offset 1"),
    ("a\ud800b", "a lone surrogate at offset 1"),
    (float("nan"), "the number nan"),
    (float("-inf"), "the number -inf"),
    (10**5000, "more digits"),
    (nested(250), "nested deeper"),
    (nested(100_000), "nested deeper"),
    (b"bytes", "a bytes, which JSON cannot express"),
    (datetime(2025, 1, 1), "a datetime, which JSON cannot express"),
    ({1: "a\0"}, "a NUL character"),
    ({"a\0": 1}, "a NUL character"),
    ({"a"}, "a set, which JSON cannot express"),
]


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[EventStore]:
    """A store that takes contents of 1 MiB."""
    async with EventStore(settings.model_copy(update={"max_content_bytes": 2**20})) as store:
        yield store


async def recorded_task(updates: list[Update], manager: Manager) -> Json:
    """Return the task after an answer of these updates, and the replies."""

    async def agent(message: Json) -> AsyncIterator[Update]:
        for update in updates:
            yield update

    manager.agent = from_callable(agent)
    await manager.send_message("c", USER)
    [task] = await manager.tasks("c")
    return task


@pytest.mark.parametrize(("bad", "reason"), BAD, ids=[reason for _, reason in BAD])
async def test_a_note_replaces_only_the_value_that_cannot_be_stored(bad: Any, reason: str) -> None:
    manager = Manager(MemoryLog())
    status = {"state": "working", "message": {"role": "agent", "parts": [{"data": {"x": bad}}, {"text": "kept"}]}}
    updates: list[Update] = [
        ArtifactUpdate("t", None, {"artifactId": "a", "parts": [{"data": {"n": n if n != 20 else bad}}]}, append=n > 0)
        for n in range(30)
    ]
    reply = {"role": "agent", "messageId": "r", "parts": [{"text": "done"}], "metadata": {"x": bad}}
    updates += [StatusUpdate("t", None, status), StatusUpdate("t", None, {"state": "completed"}), Reply(reply)]
    task = await recorded_task(updates, manager)
    assert task["status"]["state"] == "completed"
    parts = task["artifacts"][0]["parts"]
    assert [part["data"]["n"] for number, part in enumerate(parts) if number != 20] == [n for n in range(30) if n != 20]
    assert reason in json.dumps(parts[20])
    assert reason in json.dumps(task["history"])
    assert {"text": "kept"} in task["history"][-1]["parts"]
    [_, answer] = await manager.messages("c")
    assert answer["parts"] == [{"text": "done"}]
    assert reason in json.dumps(answer["metadata"])


@pytest.mark.parametrize("text", ["a\0b", "\udc00"])
async def test_ids_and_names_that_cannot_be_stored_do_not_fail_the_answer(text: str) -> None:
    async def agent(message: Json) -> AsyncIterator[Update]:
        yield ArtifactUpdate(text, text, {"artifactId": text, "name": text, "parts": []})
        yield StatusUpdate(text, text, {"state": "completed"})
        yield Reply({"role": "agent", "messageId": text, "contextId": text, "parts": [{"text": "done"}]})

    answer = from_callable(agent)
    answer.name = text
    manager = Manager(MemoryLog(), answer)
    assert await manager.send_message("c", USER)
    [task] = await manager.tasks("c")
    assert task["id"] == storable_text(text)
    assert task["status"]["state"] == "completed"
    assert len(await manager.messages("c")) == 2


def test_two_surrogates_of_one_character_are_combined() -> None:
    assert storable_text("\ud83d\ude00") == "\U0001f600"
    assert storable_text("as it was \ufffd\ufeff") == "as it was \ufffd\ufeff"


async def test_a_note_replaces_a_file_that_is_too_large(store: EventStore) -> None:
    caption, picture = {"kind": "text", "text": "look"}, "A" * 1_200_000
    file = {"kind": "file", "file": {"bytes": picture, "mimeType": "image/png", "name": "cat.png"}}
    updates: list[Update] = [
        ArtifactUpdate("t", None, {"artifactId": "a", "parts": [caption, file]}),
        StatusUpdate("t", None, {"state": "completed"}),
        Reply({"kind": "message", "role": "agent", "messageId": "r", "parts": [caption, file]}),
    ]
    async with AsyncManager(store) as manager:
        task = await recorded_task(updates, manager)
        messages = await manager.messages("c")
    await catch_up(store)
    assert task["status"]["state"] == "completed"
    for parts in (task["artifacts"][0]["parts"], messages[1]["parts"]):
        assert parts[0] == caption
        assert parts[1]["kind"] == "text"
        assert "a part (image/png, cat.png) of 900,000 bytes" in parts[1]["text"]
        assert "the limit of an event is 1,048,576 bytes: raise EVENTSTORE_MAX_CONTENT_BYTES" in parts[1]["text"]
        facts = {"mimeType": "image/png", "name": "cat.png", "bytes": 900_000}
        assert parts[1]["metadata"] == {"eventstore:not_stored": facts}
    [question, _] = await Reader(store).messages()
    assert (question.status, question.error) == ("answered", parts[1]["text"])
    [row] = await Reader(store).tasks()
    assert str(row.status) == "completed"


@pytest.mark.slow
async def test_an_update_of_many_parts_is_divided_and_stored_whole(store: EventStore) -> None:
    pieces = [{"text": str(number) + "é" * 300_000} for number in range(4)]
    history = [{"role": "agent", "messageId": str(n), "parts": [piece]} for n, piece in enumerate(pieces)]
    artifacts = [
        {"artifactId": "parts", "name": "n", "parts": pieces},
        {"artifactId": "text", "parts": [{"text": "ab\0c" * 700_000, "metadata": {"x": 1}}, {"text": "end"}]},
    ]
    shown = {"id": "t", "status": {"state": "completed"}, "history": history, "artifacts": artifacts}
    async with AsyncManager(store, runs_worker=False) as manager:
        task = await recorded_task(
            [TaskSnapshot(shown), Reply({"role": "agent", "parts": [{"text": "done"}]})], manager
        )
    expected = storable(TaskSnapshot(shown))
    assert isinstance(expected, TaskSnapshot)
    assert task["history"] == history
    assert task["artifacts"] == expected.task["artifacts"]
    await catch_up(store)
    [row] = await Reader(store).tasks()
    assert row.extra == {"history": history}


async def test_a_text_that_cannot_be_divided_is_shortened(store: EventStore) -> None:
    words = "é" * 3_000_000
    long_message = {"role": "agent", "messageId": "q", "parts": [{"text": words}, {"text": "short"}]}
    async with AsyncManager(store, runs_worker=False) as manager:
        status = {"state": "completed", "message": long_message}
        task = await recorded_task(
            [StatusUpdate("t", None, status, metadata={"x": words}), Reply(long_message)], manager
        )
        [_, reply] = await manager.messages("c")
    for message in (task["status"]["message"], reply):
        assert message["parts"][0]["text"].startswith("é" * 100_000)
        assert "[not stored: the rest of a text of 6,000," in message["parts"][0]["text"]
        assert message["parts"][1] == {"text": "short"}


LEAVES = st.integers(0, 9) | st.text('ab"\\é\x01', max_size=300) | st.booleans() | st.none()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text("xyz", max_size=3), inner, max_size=9)
)
PARTS = st.lists(
    st.fixed_dictionaries({"text": st.text('ab"é', max_size=3000)}) | st.fixed_dictionaries({"data": VALUES}),
    max_size=9,
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.just("agent"), "parts": PARTS}, optional={"metadata": st.dictionaries(st.text("xyz"), VALUES)}
)
LIMIT = 4096


@given(
    st.one_of(
        st.builds(lambda message: Reply(message), MESSAGES),
        st.builds(lambda message: StatusUpdate("t", None, {"state": "completed", "message": message}), MESSAGES),
        st.builds(lambda parts: ArtifactUpdate("t", None, {"artifactId": "a", "parts": parts}, last_chunk=True), PARTS),
        st.builds(
            lambda history, parts: TaskSnapshot(
                {"id": "t", "status": {"state": "working"}, "history": history,
                 "artifacts": [{"artifactId": "a", "parts": parts}]}
            ),
            st.lists(MESSAGES, max_size=9), PARTS,
        ),
    )
)  # fmt: skip
def test_events_fit_the_limit_and_divided_ones_lose_nothing(update: Update) -> None:
    conversation, version = UUID(int=1, version=4), 0
    fold = ConversationFold(conversation)
    small = True
    for event in Recording("default", conversation).events_of(update):
        made = split_event(event, LIMIT)
        small &= len(made) == 1 and made[0] == event
        for each in made:
            assert len(to_json(each.data.to_content(), "content")) <= LIMIT
            version += 1
            fold.apply(kept(each, conversation, version))
    if isinstance(update, Reply):
        [message] = fold.messages.values()
        assert (message == update.message) or not small
        return
    [task] = fold.tasks.values()
    shown = task.wire([])
    sizes = [len(to_json(part, "part")) for part in parts_of(update) if "text" not in part]
    if isinstance(update, ArtifactUpdate) and max(sizes, default=0) < LIMIT // 2:
        [artifact] = shown["artifacts"]
        assert merge_texts(artifact) == merge_texts(update.artifact)
    if isinstance(update, TaskSnapshot) and all(len(to_json(m, "m")) < LIMIT // 2 for m in update.task["history"]):
        assert shown["history"] == update.task["history"]


CHUNKS = st.builds(
    lambda name, parts, append, last, members, context: ArtifactUpdate(
        "t", context, {"artifactId": name, "parts": parts} | members, append, last
    ),
    st.sampled_from("ab"), PARTS, st.sampled_from([True, True, True, False]), st.none() | st.booleans(),
    st.sampled_from([{}, {}, {"name": "x"}, {"metadata": {"y": 1}}]), st.sampled_from([None, None, "c"]),
)  # fmt: skip


@given(st.lists(CHUNKS | st.just(StatusUpdate("t", None, {"state": "working"})), max_size=12))
def test_merged_chunks_make_up_the_same_artifacts(updates: list[Update]) -> None:
    conversation = UUID(int=1, version=4)
    recording = Recording("default", conversation)
    events = [event for update in updates for event in recording.events_of(update)]
    fewer = merged(events)
    assert len(fewer) <= len(events)
    shown = []
    for stored in (events, fewer):
        fold = ConversationFold(conversation)
        for version, event in enumerate(stored, 1):
            fold.apply(kept(event, conversation, version))
        shown.append([(task.wire([]), task.contexts) for task in fold.tasks.values()])
    assert shown[0] == shown[1]


def test_chunks_of_one_artifact_are_one_event() -> None:
    recording = Recording("default", UUID(int=1, version=4))
    chunks = [ArtifactUpdate("t", "c", {"artifactId": "a", "parts": [{"text": str(n)}]}, n > 0) for n in range(50)]
    events = merged(event for chunk in chunks for event in recording.events_of(chunk))
    assert [event.data.event_type for event in events] == ["task.created", "task.artifact_added"]


def parts_of(update: Update) -> list[Any]:
    return list(update.artifact["parts"]) if isinstance(update, ArtifactUpdate) else []


def kept(event: NewEvent, conversation: UUID, version: int) -> Any:
    place = Appended(conversation, event.id, version, version, datetime(2025, 1, 1), is_new=True)
    return appended_event("default", event, place)


async def test_of_many_small_values_only_those_beyond_the_limit_are_dropped() -> None:
    data = TaskCreated(task_id=uuid4(), metadata={f"a long name of {number}": 1 for number in range(20_000)})
    limit = len(json.dumps(data.to_content())) // 2
    [event] = split_event(NewEvent(data), limit)
    metadata = event.data.to_content()["metadata"]
    assert NOTE in metadata
    assert len(metadata) > 0.45 * 20_000
