"""Histories that hypothesis makes up: all events of the vocabulary, in any order, about a few things."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from eventstore import (
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationForked,
    ConversationReactivated,
    ConversationRenamed,
    ConversationRewound,
    EventData,
    MessageAdded,
    MessageAnswered,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDeleted,
    TaskDescribed,
    TaskStatus,
    TaskStatusChanged,
    UnknownEvent,
    message_from_sent,
)
from eventstore.message_format import ROLES
from support.values import json_values, texts

CONVERSATIONS = [UUID(int=n, version=4) for n in range(1, 3)]
TASKS = [UUID(int=n, version=4) for n in range(11, 13)]

_objects = st.dictionaries(texts(max_size=5), json_values, max_size=2)
_parts = st.lists(st.fixed_dictionaries({"text": texts(max_size=10) | st.none()}) | json_values, max_size=3)
_histories = st.lists(_objects | json_values, max_size=2)
_task_extras = _objects | st.fixed_dictionaries({}, optional={"history": _histories | json_values, "x": json_values})
_tasks = st.sampled_from(TASKS)
_statuses = st.sampled_from(list(TaskStatus))

sent_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(list(ROLES))},
    optional={
        "content": texts() | st.none() | _parts | json_values,
        "parts": _parts | json_values,
        "metadata": _objects | json_values,
        "tool_calls": st.just([{"id": "call", "function": {"name": "f", "arguments": "{}"}}]),
        "name": texts(max_size=5),
        "messageId": texts(max_size=5),
    },
)
"""Messages in the shapes of all clients, and in none."""


def _some(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[EventData]:
    """Events of a kind: each optional field (``name_``) there or not, and sometimes members of a newer version."""
    given = {name: values for name, values in fields.items() if not name.endswith("_")}
    maybe = {name.removesuffix("_"): values for name, values in fields.items() if name.endswith("_")}
    members = {"name", "description", "status", "metadata", "given_id", "message", "later"}
    foreign = sorted(members - set(kind.model_fields))
    newer = st.dictionaries(st.sampled_from(foreign), json_values, max_size=1)
    known = st.fixed_dictionaries(given, optional=maybe)
    return st.builds(lambda values, more: kind(**values, **more), known, newer | st.just({}))


_artifact = {
    "task_id": _tasks, "artifact_id": st.sampled_from(["a", "b"]), "parts": _parts,
    "name_": texts(max_size=5), "description_": texts(max_size=5), "last_chunk_": st.booleans(),
    "extra_": _objects, "update_": _objects, "metadata_": _objects,
}  # fmt: skip

events_data: st.SearchStrategy[EventData] = st.one_of(
    _some(ConversationCreated, name_=texts(max_size=8), metadata_=_objects),
    _some(ConversationRenamed, name=texts(max_size=8)),
    _some(ConversationArchived),
    _some(ConversationReactivated),
    _some(ConversationDeleted),
    _some(ConversationRewound, to_version=st.integers(0, 9)),
    _some(
        ConversationForked,
        source_conversation_id=st.sampled_from(CONVERSATIONS),
        source_version=st.integers(1, 9),
        name_=texts(max_size=8),
        metadata_=_objects,
    ),
    sent_messages.map(message_from_sent),
    _some(
        MessageAdded,
        role=st.sampled_from(["user", "assistant", "system", "tool"]),
        content_=texts(),
        parts_=_parts,
        given_id_=texts(max_size=8),
        extra_=_objects,
        metadata_=_objects,
        awaits_answer_=st.booleans(),
    ),
    _some(
        MessageAnswered,
        message_id=st.uuids(),
        outcome=st.sampled_from(["answered", "failed", "abandoned"]),
        error_=texts(),
        task_id_=_tasks,
    ),
    _some(
        TaskCreated,
        task_id=_tasks,
        description_=texts(),
        status_=_statuses,
        given_id_=texts(max_size=8),
        extra_=_task_extras,
        metadata_=_objects,
    ),
    _some(
        TaskStatusChanged,
        task_id=_tasks,
        status=_statuses,
        message_=_objects,
        extra_=_objects,
        update_=_objects,
        metadata_=_objects,
    ),
    _some(
        TaskDescribed,
        task_id=_tasks,
        description_=texts(),
        extra_=_task_extras,
        history_=_histories,
        metadata_=_objects,
    ),
    _some(TaskDeleted, task_id=_tasks),
    _some(TaskArtifactAdded, **_artifact),
    _some(TaskArtifactExtended, **_artifact, continues_text_=st.booleans()),
    st.builds(ApplicationEvent, st.sampled_from(["order.placed", "x"]), json_values),
    st.builds(
        UnknownEvent,
        event_type=st.sampled_from(["conversation.merged", "message.edited", "task.paused"]),
        content=json_values | st.fixed_dictionaries({"task_id": _tasks.map(str), "name": texts()}),
        schema_version=st.integers(2, 9),
    ),
)
"""Any event that may stand in a log."""

_times = st.datetimes(
    min_value=datetime(1, 1, 2),
    max_value=datetime(9999, 12, 30),
    timezones=st.just(UTC),
)

new_events = st.builds(
    lambda data, actor, time: NewEvent(data, actor=actor, metadata=Metadata(occurred_at=time)),
    events_data,
    st.sampled_from(["", "ana", "agent"]),
    st.none() | _times,
)
"""Events on their way into the log, some of which happened at another time."""
