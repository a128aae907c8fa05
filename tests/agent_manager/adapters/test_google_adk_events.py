"""Events of google-adk as messages of the store, and back: equal, whatever they hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("google.adk", reason="google-adk is not installed (extra: adk)")

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai import types
from support.values import json_values
from support.values import texts as any_texts

from agent_manager.adapters.google_adk_events import conversation_name, event_of, message_of, task_events
from eventstore import Event as StoredEvent
from eventstore import message_from_sent

pytestmark = pytest.mark.slow

texts = any_texts(max_size=20)
objects = st.dictionaries(texts, json_values, max_size=3)
blobs = st.builds(types.Blob, data=st.binary(max_size=30), mime_type=texts, display_name=st.none() | texts)
nested_files = st.builds(
    types.FunctionResponsePart,
    inline_data=st.builds(types.FunctionResponseBlob, data=st.binary(max_size=9), mime_type=st.just("image/png")),
)
accompaniments = st.fixed_dictionaries(
    {},
    optional={
        "thought": st.booleans(),
        "thought_signature": st.binary(max_size=9),
        "video_metadata": st.builds(types.VideoMetadata, start_offset=st.just("1s")),
    },
)
contents = st.one_of(
    st.fixed_dictionaries({"text": texts}),
    st.fixed_dictionaries({"inline_data": blobs}),
    st.fixed_dictionaries({"file_data": st.builds(types.FileData, file_uri=texts, mime_type=st.none() | texts)}),
    st.fixed_dictionaries({"function_call": st.builds(types.FunctionCall, id=texts, name=texts, args=objects)}),
    st.fixed_dictionaries(
        {
            "function_response": st.builds(
                types.FunctionResponse,
                name=texts,
                response=objects,
                parts=st.none() | st.lists(nested_files, max_size=2),
            )
        }
    ),
    st.fixed_dictionaries({"executable_code": st.builds(types.ExecutableCode, code=texts, language=st.just("PYTHON"))}),
    st.just({}),
)
parts = st.builds(lambda content, rest: types.Part(**(content | rest)), contents, accompaniments)
actions = st.builds(
    EventActions,
    state_delta=objects,
    artifact_delta=st.dictionaries(texts, st.integers(0, 9), max_size=2),
    transfer_to_agent=st.none() | texts,
    escalate=st.none() | st.booleans(),
    agent_state=st.none() | objects,
    requested_tool_confirmations=st.dictionaries(texts, st.builds(ToolConfirmation, hint=texts), max_size=1),
    rewind_before_invocation_id=st.none() | texts,
)
events = st.builds(
    Event,
    id=texts,
    invocation_id=texts,
    author=st.sampled_from(["user", "agent", ""]),
    branch=st.none() | texts,
    timestamp=st.floats(0, 4e9),
    partial=st.none() | st.just(False),
    actions=actions,
    content=st.none() | st.builds(types.Content, role=st.none() | st.just("model"), parts=st.none() | st.lists(parts)),
    custom_metadata=st.none() | objects,
    long_running_tool_ids=st.none() | st.sets(texts, max_size=3),
    usage_metadata=st.none() | st.builds(types.GenerateContentResponseUsageMetadata, prompt_token_count=st.integers(0)),
)


def stored(content: Any, actor: str = "agent") -> StoredEvent:
    """Return the event of a message as the log returns it."""
    time = datetime.fromtimestamp(7, UTC)
    return StoredEvent(
        1, time, 1, 1, UUID(int=1), UUID(int=2), "default", "message.added", actor, content, {}, None, b""
    )


def through_the_store(dumped: Any) -> Any:
    """Return an event's JSON after it was a message, if it can be one."""
    message = message_of(json.loads(json.dumps(dumped)), "app/ana/s1")
    if message is None:
        return dumped
    tasks = task_events(message, UUID(int=2), {})
    moved = {str(event_id): json.loads(json.dumps(data.to_content())) for event_id, data in tasks}
    data = message_from_sent(message, given_id=message["messageId"] or None)
    return event_of(stored(json.loads(json.dumps(data.to_content()))), moved)


@given(events)
def test_every_event_reads_back_equal(event: Event) -> None:
    dumped = event.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    assert Event.model_validate(through_the_store(dumped)) == event


@given(events)
def test_a_message_holds_each_text_and_file_once(event: Event) -> None:
    dumped = event.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    message = message_of(dumped, "app/ana/s1")
    if message is not None:
        texts_of_parts = [part["text"] for part in message["parts"] if part["kind"] == "text"]
        assert event.content is not None
        assert texts_of_parts == [part.text for part in event.content.parts or () if part.text is not None]
        assert "parts" not in message["metadata"]["adk"]
        assert "content" not in message["metadata"]["adk"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({"role": "user", "content": "hello"}, {"text": "hello"}),
        ({"role": "assistant", "parts": [{"kind": "text", "text": "hi"}]}, {"text": "hi"}),
        ({"role": "assistant", "parts": [{"type": "text", "text": "hi"}]}, {"text": "hi"}),
        (
            {"role": "tool", "parts": [{"kind": "data", "data": {"a": 1}}]},
            {"text": '{"kind": "data", "data": {"a": 1}}'},
        ),
        ({"role": "tool", "parts": ["plain"]}, {"text": "plain"}),
        (
            {"role": "user", "parts": [{"kind": "file", "file": {"bytes": "+/8=", "mimeType": "image/png"}}]},
            {"inline_data": {"data": "-_8=", "mime_type": "image/png"}},
        ),
    ],
)
def test_a_message_of_another_framework_is_an_event(content: Any, part: Any) -> None:
    event = event_of(stored(content, "helper"), {})
    is_user = content["role"] == "user"
    assert event["content"] == {"parts": [part], "role": "user" if is_user else "model"}
    assert (event["author"], event["timestamp"]) == ("user" if is_user else "helper", 7.0)
    assert event["id"] == str(UUID(int=2))
    Event.model_validate(event)


def test_generations_of_a_session_have_names_of_their_own() -> None:
    names = [
        conversation_name("a", "b", "c"),
        conversation_name("a", "b", "c", 2),
        conversation_name("a", "b", "c/2"),
        conversation_name("a/b", "c", "2"),
    ]
    assert len(set(names)) == len(names)
