"""Instances of an application's own classes become the JSON that they are on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from support.demoapp import Message

from agent_manager import default_classes
from agent_manager.importers.a2a_demo import to_plain
from agent_manager.importers.source import SourceUnreadable

pytestmark = pytest.mark.any_server


def test_models_use_their_aliases() -> None:
    wire = to_plain(Message(role="user", parts=[], message_id="m"))
    assert wire["messageId"] == "m"


@dataclass
class ListedConversation:
    """A conversation of an application without pydantic."""

    conversation_id: str
    messages: list[Any]


def test_other_classes_become_their_members() -> None:
    assert to_plain(ListedConversation("c", [SimpleNamespace(role="user", _hidden=1)])) == {
        "conversation_id": "c",
        "messages": [{"role": "user"}],
    }


def test_a_model_may_hold_values_that_are_not_models() -> None:
    conversation = default_classes.Conversation(
        conversation_id="c", is_active=True, messages=[SimpleNamespace(role="user")]
    )
    assert to_plain(conversation)["messages"] == [{"role": "user"}]


def test_protobuf_messages_become_protobuf_json() -> None:
    timestamp_pb2 = pytest.importorskip("google.protobuf.timestamp_pb2")
    conversation = default_classes.Conversation(
        conversation_id="c", is_active=True, messages=[timestamp_pb2.Timestamp(seconds=1)]
    )
    assert to_plain(conversation)["messages"] == ["1970-01-01T00:00:01Z"]


def test_a_value_without_a_json_form_is_an_error() -> None:
    with pytest.raises(SourceUnreadable, match="object has no JSON form"):
        to_plain({"a": object()})
