"""A message comes back exactly as it was sent, in whatever shape the client sends messages."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.values import json_values, texts

from eventstore import EventStore, MessageAdded, Role, message_from_sent, sent_message
from eventstore.errors import InvalidEvent
from eventstore.message_format import ROLES

members = st.dictionaries(
    st.sampled_from(["content", "parts", "metadata", "name", "tool_calls", "given_id", "extra", "event_type", "id"])
    | texts(max_size=8).filter(lambda name: name != "role"),
    json_values | texts() | st.lists(json_values, max_size=3) | st.dictionaries(texts(max_size=5), json_values),
    max_size=6,
)
messages = st.builds(lambda role, rest: {"role": role, **rest}, st.sampled_from(list(ROLES)), members)

SHAPES: list[dict[str, Any]] = [
    {"role": "user", "content": "olá"},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "c", "name": "f", "content": '{"ok": true}'},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]},
    {"role": "developer", "content": "be kind"},
    {"role": "function", "name": "f", "content": "1"},
    {"kind": "message", "messageId": "m", "role": "agent", "parts": [{"kind": "text", "text": "hi"}], "metadata": {}},
    {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "hi"}], "contextId": "c", "extensions": []},
    {"role": "user", "parts": [], "content": "both"},
    {"role": "user", "parts": None, "metadata": "no object", "content": 5},
    {"role": "user"},
]


@given(messages)
def test_any_message_comes_back_as_sent(sent: dict[str, Any]) -> None:
    assert sent_message(message_from_sent(sent)) == sent


@given(messages)
async def test_any_message_comes_back_as_sent_through_the_log(store: EventStore, sent: dict[str, Any]) -> None:
    conversation = uuid4()
    await store.append(conversation, [message_from_sent(sent, given_id="free text")])
    [event] = [event async for event in store.read(conversation)]
    assert isinstance(event.data, MessageAdded)
    assert sent_message(event.data) == sent
    assert event.data.given_id == "free text"


@pytest.mark.parametrize("sent", SHAPES, ids=str)
def test_shapes_of_real_clients(sent: dict[str, Any]) -> None:
    event = message_from_sent(sent)
    assert sent_message(event) == sent
    assert event.role in Role


def test_text_and_parts_are_stored_separately() -> None:
    event = message_from_sent({"role": "agent", "content": "hi", "parts": [{"text": "hi"}], "metadata": {"a": 1}})
    assert (event.role, event.content, event.parts, event.metadata) == (
        Role.ASSISTANT, "hi", [{"text": "hi"}], {"a": 1},
    )  # fmt: skip
    assert event.extra == {"role": "agent"}


@pytest.mark.parametrize("role", ["", "robot", "USER", None, 5, ["user"], {"a": 1}])
def test_an_unknown_role_is_refused(role: object) -> None:
    with pytest.raises(InvalidEvent, match="is not a known role: one of user, assistant") as refused:
        message_from_sent({"role": role, "content": "x"})
    assert refused.value.path == "role"


def test_a_missing_role_is_refused() -> None:
    with pytest.raises(InvalidEvent, match=r"^role: is missing"):
        message_from_sent({"content": "x"})
