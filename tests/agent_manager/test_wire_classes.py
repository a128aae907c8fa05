"""The application's own classes: their instances are read back equal, in either version of a2a-sdk, or converted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import agent, text_of, user_message
from support.environment import child_environment

from agent_manager import default_classes
from agent_manager.factory import application_manager
from agent_manager.wire_classes import choose_classes, is_protobuf, to_wire
from eventstore.errors import InputError

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
OLD: dict[str, Any] = {
    "kind": "message", "role": "agent", "messageId": "m", "contextId": "c", "extensions": ["urn:x"],
    "referenceTaskIds": ["t"],
}  # fmt: skip


def a2a_sdk() -> Any:
    return pytest.importorskip("a2a.types", reason="a2a-sdk is not installed")


@given(text=TEXT, data=OBJECTS, metadata=OBJECTS)
def test_messages_of_a2a_sdk_are_read_back_equal(text: str, data: dict[str, Any], metadata: dict[str, Any]) -> None:
    types = a2a_sdk()
    classes = choose_classes(types)
    old = OLD | {
        "metadata": metadata,
        "parts": [
            {"kind": "text", "text": text},
            {"kind": "data", "data": data, "metadata": metadata},
            {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "text/plain", "name": text}},
            {"kind": "file", "file": {"uri": "http://a/b"}},
        ],
    }
    message = classes.to_message(old)
    assert isinstance(message, types.Message)
    with application_manager(storage="memory", types=types, answer=agent) as manager:
        stored = manager.sanitize_message(message)
        assert stored is message
        [kept] = manager.get_messages("c")
        assert kept == message
        assert to_wire(kept) == to_wire(message)
    if not is_protobuf(types.Message):
        assert to_wire(message) == old


def test_values_that_fit_no_class_do_not_fail_lists() -> None:
    with application_manager(storage="memory", types=SimpleNamespace(), answer=agent) as manager:
        manager.save_message({"role": "user", "parts": "a text"}, "c")
        manager.save_message(user_message("hello"), "c")
        manager.register_agent({"name": 5, "url": "http://a"})  # type: ignore[arg-type]
        assert [each.parts[0]["text"] for each in manager.get_messages("c")] == ["a text", "hello"]
        assert [each.conversation_id for each in manager.conversations] == ["c"]
        assert len(manager.events) == 2
        assert len(manager.agents) == 1


NEVER_IMPORTED = """
import sys
from agent_manager.agents.a2a_client import sdk_module
from agent_manager.factory import application_manager
from agent_manager import default_classes

before = application_manager(storage="memory")
sdk_module("a2a.client")
for manager in (before, application_manager(storage="memory")):
    conversation = manager.create_conversation()
    manager.save_message({"role": "user", "parts": [{"text": "a"}]}, conversation.conversation_id)
    [message] = manager.get_messages(conversation.conversation_id)
    assert type(message) is default_classes.Message, type(message)
    manager.close()
assert "a2a.types" in sys.modules
"""
IMPORTED_AFTERWARDS = """
from agent_manager.agents.a2a_client import sdk_module
from agent_manager.factory import application_manager

before = application_manager(storage="memory")
from a2a.types import Message
from agent_manager import default_classes
sdk_module("a2a.client")
for manager, kind in ((before, default_classes.Message), (application_manager(storage="memory"), Message)):
    manager.save_message({"role": "user", "messageId": "m", "parts": [{"text": "a"}]}, "c")
    [message] = manager.get_messages("c")
    assert type(message) is kind, type(message)
    manager.close()
"""


@pytest.mark.parametrize("program", [NEVER_IMPORTED, IMPORTED_AFTERWARDS], ids=["never imported", "imported later"])
@pytest.mark.slow
def test_classes_are_chosen_once_per_manager_by_the_applications_imports(program: str) -> None:
    a2a_sdk()
    subprocess.run([sys.executable, "-c", program], env=child_environment(), check=True, timeout=60)


def test_messages_of_the_other_version_are_converted() -> None:
    types = a2a_sdk()
    classes = choose_classes(types)
    new = {"role": "ROLE_USER", "messageId": "m", "contextId": "c", "parts": [{"text": "a"}, {"data": {"b": 1}}]}
    old = user_message("a", "m", "c") | {"parts": [{"kind": "text", "text": "a"}, {"kind": "data", "data": {"b": 1}}]}
    assert classes.to_message(new) == classes.to_message(old)
    task = {"id": "t", "contextId": "c", "kind": "task", "status": {"state": "input-required"}, "history": [old]}
    assert classes.to_task(task).id == "t"


def test_tasks_and_cards_are_instances_of_the_applications_classes() -> None:
    types = a2a_sdk()
    with application_manager(storage="memory", types=types, answer=agent) as manager:
        message = choose_classes(types).to_message(user_message("task T", "m1", "c"))
        asyncio.run(manager.process_message(manager.sanitize_message(message)))
        [task] = manager.tasks
        assert isinstance(task, types.Task)
        assert (task.id, len(task.history), len(task.artifacts[0].parts)) == ("T", 3, 2)
        assert len(manager.events) == 7


def test_a_message_that_is_not_valid_in_a2a_is_returned_as_the_nearest_valid_one() -> None:
    types = a2a_sdk()
    classes = choose_classes(types)
    chat = {"role": "assistant", "content": None, "tool_calls": [{"id": "call"}]}
    for sent in (chat, {"role": "tool", "content": "42"}, {"role": "user", "content": [{"type": "text", "text": "a"}]}):
        assert classes.to_message(sent, "id").message_id == "id"


def test_an_invalid_message_does_not_fail_the_list() -> None:
    classes = choose_classes(a2a_sdk())
    for wrong in ({"parts": [{"text": 5}]}, {"metadata": "x"}, {"parts": [{"kind": "song"}]}, {"extensions": 5}):
        sent = {"role": "ROLE_AGENT", "messageId": "m", "parts": [{"text": "a"}]} | wrong
        assert classes.to_message(sent).message_id == "m"


def test_an_invalid_task_does_not_fail_the_list() -> None:
    classes = choose_classes(a2a_sdk())
    task = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}
    message = {"role": "ROLE_USER", "messageId": "m", "parts": [{"text": "a"}]}
    kept = classes.to_task(task | {"history": [message, message | {"metadata": 5}, "x"]})
    assert [each.message_id for each in kept.history] == ["m", "m"]
    wrong_status = task["status"] | {"message": 5}
    for wrong in ({"metadata": 5}, {"artifacts": [5]}, {"history": 5}, {"status": wrong_status}, {"contextId": 5}):
        assert classes.to_task(task | wrong).id == "t"


@pytest.mark.parametrize(
    "card",
    [
        {"name": "n", "url": "http://a", "protocolVersion": "0.3.0", "skills": [{"id": "s"}]},
        {"name": "n", "supportedInterfaces": [{"url": "http://a", "protocolBinding": "JSONRPC"}], "capabilities": {}},
        {"name": "n", "url": "http://a", "description": 5, "capabilities": {"streaming": "x"}, "provider": 5},
        {"name": "n", "url": "http://a", "securitySchemes": {"k": {"apiKeySecurityScheme": {"name": "k"}}}},
    ],
    ids=["of 0.3", "of 1.x", "a wrong one", "secured"],
)
def test_a_card_is_read_by_the_classes_of_either_version(card: dict[str, Any]) -> None:
    read = choose_classes(a2a_sdk()).to_card(card)
    assert read.name == "n"
    assert "http://a" in (getattr(read, "url", ""), *(each.url for each in getattr(read, "supported_interfaces", ())))


def test_an_application_without_classes_gets_the_defaults() -> None:
    assert choose_classes(SimpleNamespace()).message is default_classes.Message
    with application_manager(storage="memory", types=SimpleNamespace(), answer=agent) as manager:
        given = user_message("hello", "m1", "c") | {"of-tomorrow": [1, None]}
        stored = manager.sanitize_message(given)
        assert stored is given
        asyncio.run(manager.process_message(stored))
        first, reply = manager.get_messages("c")
        assert to_wire(first) == given
        assert text_of(reply.model_dump()) == "echo: hello"
        with pytest.raises(InputError, match="is not a message"):
            manager.sanitize_message("hello")
