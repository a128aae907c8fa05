"""No built-in event that can be appended fails in a projection, however extreme its values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples

from eventstore import (
    ConversationCreated,
    ConversationDeleted,
    ConversationForked,
    ConversationRenamed,
    ConversationShared,
    EventData,
    EventStore,
    MessageAdded,
    MessageAnswered,
    Metadata,
    NewEvent,
    Settings,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDescribed,
    TaskStatus,
    TaskStatusChanged,
)
from projections import PROJECTIONS, Reader, Search, Statistics, catch_up, read_parked, rebuild, wait_for
from projections.apply import Applier
from projections.projection import ALL_PARTITIONS

TASKS = [UUID(int=n, version=4) for n in (1, 2)]
WIDE = "\U0001f600\U00020000\U00020001é"
NAMES = st.sampled_from(
    ["", "x" * 255, "\U00020000" * 255, "e" + "\u0301" * 254, "\x01\x02\x03\x7f\ufffe", "a b-c/d.e"]
)
TEXTS = st.one_of(
    NAMES,
    st.sampled_from([
        "word " * 60_000, "x" * 300_000, "\U00020000" * 80_000, (WIDE + " ") * 15_000, "\\u0000" * 9,
        " ".join(f"{n:x}" for n in range(40_000)), " ".join(chr(0x20000 + n) for n in range(40_000)),
        '{"a": ' * 5000, "\\" * 50_000, "'" * 1000, "1e400 -1e400 9" + "9" * 5000, "\x03 \x01 \x02 " * 300,
    ]),
)  # fmt: skip


def deep(levels: int) -> Any:
    return {"text": deep(levels - 1), "data": [levels]} if levels else "bottom"


def wide(members: int) -> dict[str, Any]:
    return {f"{n:x}": n for n in range(members)}


VALUES = st.one_of(
    TEXTS,
    st.sampled_from([
        None, True, -0.0, 1e308, 5e-324, 10**4000, -(10**4000), [], {}, deep(90), wide(20_000), [[]] * 5000,
        [{"text": "a"}] * 3000, [{"z": 1, "a": 2}] * 3000,
    ]),
)  # fmt: skip
OBJECTS = st.dictionaries(
    st.sampled_from(
        ["language", "text", "parts", "content", "name", "role", "tool_calls", "function_call", "zz", "a", ""]
    ),
    VALUES | st.lists(VALUES, max_size=2) | st.fixed_dictionaries({"name": VALUES, "arguments": VALUES}),
    max_size=2,
)
PARTS = st.lists(
    st.dictionaries(
        st.sampled_from(["text", "data", "name", "file", "arguments", "content", "result"]), VALUES, max_size=1
    )
    | VALUES,
    max_size=2,
)
TASK, STATUS = st.sampled_from(TASKS), st.sampled_from(list(TaskStatus))
NONE = st.none()
ARTIFACT = {
    "task_id": TASK, "artifact_id": TEXTS, "parts": PARTS, "name": NONE | TEXTS, "description": NONE | TEXTS,
    "last_chunk": st.booleans(), "extra": NONE | OBJECTS, "update": NONE | OBJECTS, "metadata": NONE | OBJECTS,
}  # fmt: skip
DATA: st.SearchStrategy[EventData] = st.one_of(
    st.builds(ConversationCreated, name=NAMES, given_id=NONE, metadata=NONE | OBJECTS),
    st.builds(ConversationRenamed, name=NAMES),
    st.builds(ConversationDeleted),
    st.builds(
        ConversationForked,
        source_conversation_id=st.uuids(),
        source_version=st.sampled_from([1, 2**31, 2**63]),
        metadata=NONE | OBJECTS,
    ),
    st.builds(ConversationShared, user=NAMES.filter(bool), access=st.sampled_from(["read", "write"])),
    st.builds(
        MessageAdded,
        role=st.sampled_from(["user", "assistant", "system", "tool"]),
        content=NONE | TEXTS,
        parts=NONE | PARTS,
        given_id=NONE | TEXTS,
        extra=NONE | OBJECTS,
        metadata=NONE | OBJECTS,
        sent_order=NONE | st.lists(VALUES, max_size=2),
        awaits_answer=NONE | st.booleans(),
    ),
    st.builds(
        MessageAnswered, message_id=st.uuids(), outcome=st.just("failed"), error=NONE | TEXTS, task_id=NONE | TASK
    ),
    st.builds(
        TaskCreated,
        task_id=TASK,
        description=TEXTS,
        status=STATUS,
        given_id=NONE | TEXTS,
        extra=NONE | OBJECTS,
        metadata=NONE | OBJECTS,
    ),
    st.builds(
        TaskStatusChanged,
        task_id=TASK,
        status=STATUS,
        message=NONE | OBJECTS,
        extra=NONE | OBJECTS,
        update=NONE | OBJECTS,
        metadata=NONE | OBJECTS,
    ),
    st.builds(TaskDescribed, task_id=TASK, description=TEXTS, extra=NONE | OBJECTS, metadata=NONE | OBJECTS),
    st.builds(TaskArtifactAdded, **ARTIFACT),
    st.builds(TaskArtifactExtended, **ARTIFACT),
)
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
TIMES = NONE | st.sampled_from([FIRST, LAST, datetime(1969, 1, 1, tzinfo=UTC)])
EVENTS = st.builds(
    lambda data, actor, time, own: NewEvent(data, actor=actor, metadata=Metadata(occurred_at=time, **own)),
    DATA,
    NAMES,
    TIMES,
    st.dictionaries(st.sampled_from(["own", "a"]), OBJECTS, max_size=1),
)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[EventStore]:
    """A store that takes contents of 16 MiB."""
    async with EventStore(settings.model_copy(update={"max_content_bytes": 2**24})) as store:
        yield store


@pytest.mark.usefixtures("events_after_deletions")
@given(st.lists(EVENTS, min_size=1, max_size=6), st.sampled_from(["t", "\U00020000" * 200, "=a\\'"]), st.booleans())
@examples(40)
async def test_no_built_in_event_fails_in_a_projection(
    store: EventStore, events: list[NewEvent], tenant: str, quickly: bool
) -> None:
    tenant += uuid4().hex[:12]
    appended = await store.append(uuid4(), events, tenant=tenant)
    if quickly:
        applier = await Applier.open(store)
        try:
            for projection in PROJECTIONS:
                await applier.register(projection)
            await applier.apply_small_batches(PROJECTIONS, ALL_PARTITIONS)
        finally:
            await applier.close()
    else:
        await catch_up(store)
    await wait_for(store, appended.position, timeout=0)
    assert await read_parked(store) == []
    # What is stored can be read and searched.
    reader = Reader(store, tenant)
    await reader.conversations(limit=10)
    for message in await reader.messages():
        assert message.sent["role"] == (message.extra or {}).get("role", message.role)
    for task in await reader.tasks():
        assert isinstance(task.artifacts, list)
    for query in ("word", "bottom", "text a*", "\U00020000", "x" * 900):
        await Search(store, tenant).page(query)
        await Search(store, tenant).page(query, by="time")


@pytest.mark.slow
async def test_a_rebuild_takes_them_too(store: EventStore) -> None:
    for value in (deep(90), wide(20_000), "\U00020000 " * 50_000, -(10**4000)):
        task, extra = uuid4(), {"value": value, "language": value}
        parts = [{"text": value, "data": value}]
        await store.append(
            uuid4(),
            [
                ConversationCreated(name="\U00020000" * 255, metadata=extra),
                MessageAdded(role="tool", parts=parts, extra=extra, metadata=extra),
                TaskStatusChanged(task_id=task, status="failed", message={"parts": parts}, extra=extra),
                TaskArtifactAdded(task_id=task, artifact_id="\U00020000" * 50_000, parts=parts, metadata=extra),
            ],
        )
    enormous = TaskArtifactAdded(task_id=uuid4(), artifact_id="enormous", parts=[{"text": "bottom " * 2_000_000}])
    await store.append(uuid4(), [enormous])
    await catch_up(store)
    assert await read_parked(store) == []
    await rebuild(store)
    assert await read_parked(store) == []
    assert len((await Search(store).page("bottom")).items) > 0
    await Statistics(store).sizes()
