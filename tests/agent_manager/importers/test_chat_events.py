"""Each line becomes a conversation, each message a message, each tool call a task; nothing is lost."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.importers.chat_events import Conversation, conversation_of_chat
from agent_manager.importers.chats import MalformedChat, parse
from agent_manager.importers.formats import ChatReader
from eventstore import (
    ConversationCreated,
    MessageAdded,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatus,
    TaskStatusChanged,
    conversation_uuid,
    sent_message,
)
from eventstore.errors import InputError

UUID_TEXT = "0b7c1c7e-6f6d-4a39-9a53-2d1f4f3b5a10"


def conversation_from_line(line: bytes, tenant: str) -> Conversation:
    return conversation_of_chat(ChatReader().read(parse(line)), tenant)


def translated(messages: list[Any], **members: Any) -> Conversation:
    line = {"id": "c", "title": "t", **members, "messages": messages}
    return conversation_from_line(json.dumps(line).encode(), "default")


def created(**members: Any) -> ConversationCreated:
    data = translated([], **members).events[0].data
    assert isinstance(data, ConversationCreated)
    return data


def messages_of(conversation: Conversation) -> list[dict[str, Any]]:
    return [sent_message(event.data) for event in conversation.events if isinstance(event.data, MessageAdded)]


def message_ids(messages: list[Any]) -> list[UUID]:
    return [event.id for event in translated(messages).events if isinstance(event.data, MessageAdded)]


def tasks_of(conversation: Conversation) -> list[TaskCreated]:
    return [event.data for event in conversation.events if isinstance(event.data, TaskCreated)]


def user(text: str = "hello", **members: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **members}


def call(call_id: Any, name: str = "search", arguments: Any = '{"q": 1}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def result(call_id: Any, content: Any = "found", **members: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **members}


# Conversations


def test_a_conversation_keeps_its_id_title_and_further_members() -> None:
    conversation = translated([], reward=0.5, language="pt")
    assert conversation.id == conversation_uuid("default", "c")
    assert created(reward=0.5, language="pt") == ConversationCreated(
        name="t", given_id="c", metadata={"reward": 0.5, "language": "pt"}
    )
    assert created().metadata is None


def test_a_uuid_is_the_conversations_own_id() -> None:
    assert translated([], id=UUID_TEXT).id == UUID(UUID_TEXT)
    assert created(id=UUID_TEXT).given_id is None
    assert created(id=UUID_TEXT.upper()).given_id == UUID_TEXT.upper()


def test_a_number_is_the_same_id_as_its_text() -> None:
    assert translated([], id=17).id == translated([], id="17").id
    assert created(id=17).given_id == "17"


@pytest.mark.parametrize(
    ("title", "name", "metadata"),
    [
        ("x" * 255, "x" * 255, None),
        ("x" * 256, "x" * 255, {"title": "x" * 256}),
        ("é" * 300, "é" * 255, {"title": "é" * 300}),
        (None, "", None),
        (0, "", {"title": 0}),
        (["a"], "", {"title": ["a"]}),
    ],
)
def test_a_title_that_is_not_a_valid_name_is_kept_in_the_metadata(title: Any, name: str, metadata: Any) -> None:
    data = created(title=title)
    assert (data.name, data.metadata) == (name, metadata)


def test_a_conversation_needs_no_title_and_no_messages() -> None:
    conversation = conversation_from_line(b'{"id": "c", "messages": []}', "default")
    assert [event.data for event in conversation.events] == [ConversationCreated(given_id="c")]
    assert (conversation.messages, conversation.tasks) == (0, 0)


def test_conversations_of_two_tenants_have_different_ids() -> None:
    line = json.dumps({"id": "c", "messages": [user(), calling(call("a"))]}).encode()
    here, there = conversation_from_line(line, "here"), conversation_from_line(line, "there")
    assert not {event.id for event in here.events} & {event.id for event in there.events}


# Messages

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
roles = st.sampled_from(["user", "assistant", "system", "tool", "developer", "function", "agent"])
members = st.sampled_from(["content", "parts", "metadata", "extra", "given_id", "id", "name", "timestamp", "created"])
messages = st.builds(
    lambda role, known, further: {**further, **known, "role": role},
    roles,
    st.dictionaries(members, json_values, max_size=4),
    st.dictionaries(
        st.text().filter(lambda name: name not in ("tool_calls", "function_call")), json_values, max_size=3
    ),
)


@given(st.lists(messages, max_size=5))
def test_every_message_is_restored_as_it_was_sent(sent: list[dict[str, Any]]) -> None:
    conversation = translated(sent)
    assert messages_of(conversation) == sent
    assert conversation.messages == len(sent)


@given(st.lists(messages, max_size=5))
def test_ids_are_the_same_in_every_run_and_differ_within_a_conversation(sent: list[dict[str, Any]]) -> None:
    first, second = translated(sent), translated(sent)
    assert first.events == second.events
    assert len({event.id for event in first.events}) == len(first.events)


@given(st.lists(messages, max_size=3), st.lists(messages, max_size=3))
def test_further_messages_do_not_change_earlier_events(sent: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    short, long = translated(sent), translated(sent + more)
    assert [(e.id, e.data, e.actor) for e in long.events[: len(short.events)]] == [
        (e.id, e.data, e.actor) for e in short.events
    ]


def test_a_message_keeps_its_own_id() -> None:
    named, unnamed = translated([user(id="m1")]).events[1], translated([user(id=UUID_TEXT)]).events[1]
    assert isinstance(named.data, MessageAdded)
    assert isinstance(unnamed.data, MessageAdded)
    assert named.data.given_id == "m1"
    assert (unnamed.id, unnamed.data.given_id) == (UUID(UUID_TEXT), None)


def test_repeated_message_ids_name_different_messages() -> None:
    assert len(set(message_ids([user(id=UUID_TEXT), user(id=UUID_TEXT), user(id="m"), user(id="m")]))) == 4


def test_no_message_id_can_imitate_the_place_of_another_message() -> None:
    places = message_ids([user(), user()])
    names = ["0", "1", "messages[1]", "message", *(str(place) for place in places)]
    imitations = [user(id=name) for name in names]
    for before in (0, 1):
        ids = message_ids([user()] * before + imitations[:4] + [user()])
        assert len(set(ids)) == len(ids)


def test_the_actor_is_the_role_of_the_message() -> None:
    conversation = translated([user(), calling(call("a")), result("a"), {"role": "developer", "content": "be kind"}])
    assert [event.actor for event in conversation.events] == [
        "importer", "user", "assistant", "assistant", "tool", "tool", "tool", "system",
    ]  # fmt: skip


# Times


def test_a_messages_own_time_is_when_its_events_occurred() -> None:
    sent = [{**calling(call("a")), "timestamp": 10}, {**result("a"), "created_at": "1970-01-01T00:00:20"}, user()]
    seconds = [
        event.metadata.occurred_at and event.metadata.occurred_at.timestamp() for event in translated(sent).events
    ]
    assert seconds == [10, 10, 10, 20, 20, 20, None]
    assert messages_of(translated(sent)) == sent


def test_a_conversations_own_time_goes_before_that_of_its_messages() -> None:
    event = translated([user(timestamp=10)], created_at="2024-05-15").events[0]
    assert event.metadata.occurred_at == datetime(2024, 5, 15, tzinfo=UTC)
    assert isinstance(event.data, ConversationCreated)
    assert event.data.metadata == {"created_at": "2024-05-15"}


# Tasks


def test_a_call_becomes_a_task_that_its_result_completes() -> None:
    conversation = translated([user(), calling(call("a")), result("a", name="search")])
    task, artifact, status = (conversation.events[index].data for index in (3, 5, 6))
    assert isinstance(task, TaskCreated)
    assert (task.description, task.status, task.given_id) == ('search({"q": 1})', "in_progress", "a")
    assert task.metadata == {"message_id": str(conversation.events[2].id), "tool": "search"}
    assert artifact == TaskArtifactAdded(
        task_id=task.task_id, artifact_id="result", parts=[{"kind": "text", "text": "found"}], name="search"
    )
    assert status == TaskStatusChanged(task_id=task.task_id, status=TaskStatus.COMPLETED)
    assert conversation.tasks == 1


def test_a_result_closes_the_latest_open_call_of_its_id() -> None:
    conversation = translated(
        [calling(call("a", "first")), calling(call("a", "second")), result("a"), result("a"), result("a")]
    )
    first, second = (task.task_id for task in tasks_of(conversation))
    assert first != second
    assert [e.data.task_id for e in conversation.events if isinstance(e.data, TaskStatusChanged)] == [second, first]
    assert conversation.messages == 5


def test_call_ids_repeat_one_after_the_other() -> None:
    conversation = translated(
        [calling(call(UUID_TEXT)), result(UUID_TEXT), calling(call(UUID_TEXT)), result(UUID_TEXT)]
    )
    first, second = (task.task_id for task in tasks_of(conversation))
    assert [e.data.task_id for e in conversation.events if isinstance(e.data, TaskStatusChanged)] == [first, second]
    assert [task.given_id for task in tasks_of(conversation)] == [None, UUID_TEXT]


def test_a_result_without_its_call_is_only_a_message() -> None:
    sent = [result("nobody"), {"role": "tool", "content": "?"}, {"role": "user", "tool_call_id": "a"}, result(None)]
    conversation = translated([calling(call("a")), *sent])
    assert len(conversation.events) == 3 + len(sent)


def test_calls_in_one_message_follow_it_in_their_order() -> None:
    conversation = translated([calling(call("a", "one"), call("b", "two")), result("b"), result("a")])
    assert [task.description for task in tasks_of(conversation)] == ['one({"q": 1})', 'two({"q": 1})']
    assert [event.data.event_type.split(".")[0] for event in conversation.events] == [
        "conversation", "message", "task", "task", "message", "task", "task", "message", "task", "task",
    ]  # fmt: skip


def test_function_calls_of_the_first_format_are_answered_by_name() -> None:
    sent = [
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
        {"role": "function", "name": "weather", "content": "rain"},
    ]
    conversation = translated(sent)
    assert [task.description for task in tasks_of(conversation)] == ["weather({})"]
    assert tasks_of(conversation)[0].given_id is None
    assert isinstance(conversation.events[-1].data, TaskStatusChanged)
    assert messages_of(conversation) == sent


@pytest.mark.parametrize(
    ("sent", "description"),
    [
        (call("a", "f", {"city": "São Paulo", "n": [1]}), 'f({"city":"São Paulo","n":[1]})'),
        (call("a", "f", None), "f()"),
        ({"id": "a", "type": "custom", "custom": {"name": "shell", "input": "ls -l"}}, "shell(ls -l)"),
        ({"id": "a", "name": "flat", "arguments": "{}"}, "flat({})"),
        ({"id": "a", "type": "function", "function": {"name": 7, "arguments": "x"}}, "unnamed(x)"),
        ({"function": {"name": "anonymous", "arguments": ""}}, "anonymous()"),
        ({}, "unnamed()"),
    ],
)
def test_a_task_is_described_by_function_and_arguments(sent: dict[str, Any], description: str) -> None:
    assert [task.description for task in tasks_of(translated([calling(sent)]))] == [description]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", [{"kind": "text", "text": ""}]),
        (None, []),
        ({"a": 1}, [{"kind": "data", "data": {"a": 1}}]),
        (["a", {"b": 1}], [{"kind": "text", "text": "a"}, {"kind": "data", "data": {"b": 1}}]),
        ([{"type": "text", "text": "a"}], [{"kind": "text", "text": "a"}]),
        ([{"type": "text", "text": None}], [{"kind": "data", "data": {"type": "text", "text": None}}]),
        ([], []),
        (5, [{"kind": "data", "data": 5}]),
    ],
)  # fmt: skip
def test_a_result_is_the_artifact_of_its_task(content: Any, parts: list[Any]) -> None:
    artifact = translated([calling(call("a")), result("a", content)]).events[-2].data
    assert isinstance(artifact, TaskArtifactAdded)
    assert (artifact.parts, artifact.name) == (parts, "search")


@pytest.mark.parametrize("none", [{}, {"tool_calls": None}, {"tool_calls": []}, {"function_call": None}])
def test_a_message_may_have_an_empty_list_of_calls(none: dict[str, Any]) -> None:
    conversation = translated([user(**none)])
    assert (conversation.tasks, messages_of(conversation)) == (0, [user(**none)])


# What cannot go in


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "is not JSON: .* at character 2"),
        (b'{"id": "\xff"}', "is not UTF-8: .* at byte 9"),
        (b"[]", "^is an empty list"),
        (b"[[1]]", "^is a list whose first element is a list whose first element is a number"),
        (b'{"id": NaN}', "is not JSON: NaN is not a JSON number"),
        (b'{"id": -Infinity}', "is not JSON: -Infinity is not a JSON number"),
        (b'{"id": ' + b"1" * 5000 + b"}", "is not JSON: Exceeds the limit"),
        (b'{"id": true, "messages": []}', "^id: is true or false"),
        (b'{"id": 1.5, "messages": []}', "^id: is a number"),
        (b'{"id": "\\ud800", "messages": []}', "lone surrogate"),
        (b'{"id": "c"}', "^is an object with the members id$"),
        (b'{"id": "c", "messages": {}}', "^messages: is an object"),
        (b'{"id": "c", "messages": [{"role": "user"}, "x"]}', r"^messages\[1\]: is a text, expected an object"),
        (b'{"id": "c", "messages": [{"content": "x"}]}', r"^messages\[0\]\.role: is missing"),
        (b'{"id": "c", "messages": [{"role": "wizard"}]}', r"^messages\[0\]\.role: 'wizard' is not a known role"),
        (b'{"id": "c", "messages": [{"role": "user", "tool_calls": {}}]}', r"^messages\[0\]\.tool_calls: is an object"),
        (
            b'{"id": "c", "messages": [{"role": "user", "tool_calls": [{}, 1]}]}',
            r"^messages\[0\]\.tool_calls\[1\]: is a number",
        ),
        (
            b'{"id": "c", "messages": [{"role": "user", "function_call": "auto"}]}',
            r"^messages\[0\]\.function_call: is a text",
        ),
    ],
)
def test_the_error_of_a_malformed_line_names_place_and_value(line: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        conversation_from_line(line, "default")


@given(json_values)
def test_any_json_is_converted_or_rejected(value: Any) -> None:
    for line in (value, {"id": "c", "messages": value}, {"id": value, "messages": [value]}):
        with suppress(MalformedChat):
            conversation_from_line(json.dumps(line).encode(), "default")
