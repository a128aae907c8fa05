"""A2A 0.3 and 1.x as plain JSON: conversion between the versions without loss."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.values import json_values, texts

from agent_manager.a2a import (
    STATE_NAMES,
    Version,
    message_in_version,
    part_in_version,
    parts_text,
    role_in_version,
    state_in_version,
    state_name,
    status_of,
    task_in_version,
    text_part,
    version_of,
)
from eventstore.event_types import TaskStatus

pytestmark = pytest.mark.any_server

_objects = st.dictionaries(texts(max_size=5), json_values, max_size=2)
_more = {"metadata": st.dictionaries(texts(max_size=5), json_values, min_size=1, max_size=2)}
_files = st.fixed_dictionaries({"uri": texts()}, optional={"mimeType": texts(), "name": texts()}) | (
    st.fixed_dictionaries({"bytes": st.just("aGk=")}, optional={"mimeType": texts(), "name": texts()})
)
old_parts = st.one_of(
    st.fixed_dictionaries({"kind": st.just("text"), "text": texts()}, optional=_more),
    st.fixed_dictionaries({"kind": st.just("data"), "data": _objects}, optional=_more),
    st.fixed_dictionaries({"kind": st.just("file"), "file": _files}, optional=_more),
)
new_parts = st.one_of(
    st.fixed_dictionaries({"text": texts()}, optional=_more),
    st.fixed_dictionaries({"data": json_values}, optional=_more),
    st.fixed_dictionaries({"url": texts()}, optional={"mediaType": texts(), "filename": texts(), **_more}),
    st.fixed_dictionaries({"raw": st.just("aGk=")}, optional={"mediaType": texts(), "filename": texts(), **_more}),
)


def messages(version: Version) -> st.SearchStrategy[dict[str, Any]]:
    parts, roles = (old_parts, ["user", "agent"]) if version == "0.3" else (new_parts, ["ROLE_USER", "ROLE_AGENT"])
    head = {"kind": st.just("message")} if version == "0.3" else {}
    return st.fixed_dictionaries(
        {"messageId": texts(), "role": st.sampled_from(roles), "parts": st.lists(parts, max_size=3), **head},
        optional={"contextId": texts(), "taskId": texts(), "metadata": _objects, "extensions": st.just(["e"])},
    )


def tasks(version: Version) -> st.SearchStrategy[dict[str, Any]]:
    head = {"kind": st.just("task")} if version == "0.3" else {}
    parts = old_parts if version == "0.3" else new_parts
    states = [words[version] for words in STATE_NAMES.values()]
    status = st.fixed_dictionaries({"state": st.sampled_from(states)}, optional={"message": messages(version)})
    artifact = st.fixed_dictionaries({"artifactId": texts(), "parts": st.lists(parts, max_size=2)})
    return st.fixed_dictionaries(
        {"id": texts(), "contextId": texts(), "status": status, **head},
        optional={"history": st.lists(messages(version), max_size=2), "artifacts": st.lists(artifact, max_size=2)},
    )


@given(messages("0.3"), messages("1.0"))
@examples(30)
def test_a_message_survives_conversion_to_the_other_version_and_back(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert message_in_version(message_in_version(old, "1.0"), "0.3") == old
    assert message_in_version(message_in_version(new, "0.3"), "1.0") == new
    assert (version_of(old), version_of(new)) == ("0.3", "1.0")


@given(tasks("0.3"), tasks("1.0"))
@examples(30)
def test_a_task_survives_conversion_to_the_other_version_and_back(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert task_in_version(task_in_version(old, "1.0"), "0.3") == old
    assert task_in_version(task_in_version(new, "0.3"), "1.0") == new
    assert (version_of(old), version_of(new)) == ("0.3", "1.0")


@given(messages("0.3"), messages("1.0"), tasks("0.3"), tasks("1.0"))
@examples(20)
def test_conversion_to_the_same_version_changes_nothing(
    old: dict[str, Any], new: dict[str, Any], old_task: dict[str, Any], new_task: dict[str, Any]
) -> None:
    assert message_in_version(old, "0.3") == old
    assert message_in_version(new, "1.0") == new
    assert task_in_version(old_task, "0.3") == old_task
    assert task_in_version(new_task, "1.0") == new_task


@given(json_values)
def test_a_value_that_is_not_a_part_is_not_converted(value: Any) -> None:
    if not (isinstance(value, dict) and value.keys() & {"kind", "text", "data", "raw", "url"}):
        assert part_in_version(value, "0.3") == value
        assert part_in_version(value, "1.0") == value


@pytest.mark.parametrize("status", list(TaskStatus))
@pytest.mark.parametrize("version", ["0.3", "1.0"])
def test_every_state_is_stored_and_returned(status: TaskStatus, version: Version) -> None:
    assert status_of(state_name(status, version)) is status
    other: Version = "1.0" if version == "0.3" else "0.3"
    assert state_in_version(state_name(status, other), version) == state_name(status, version)


@pytest.mark.parametrize("value", ["invented", 50, None, True, 3.0, ["working"]])
def test_a_name_of_neither_version_is_not_converted(value: Any) -> None:
    assert status_of(value) is TaskStatus.UNKNOWN
    assert state_in_version(value, "1.0") == value
    assert role_in_version(value, "0.3") == value


def test_text_of_parts() -> None:
    parts = [text_part("a", "0.3"), {"kind": "data", "data": {}}, text_part("b", "1.0"), "c", {"text": 5}]
    assert parts_text(parts) == "a\nb"
    assert parts_text("text") == parts_text(None) == ""


@pytest.mark.skipif(
    not any(d.name == "a2a-sdk" and not d.version.startswith("0.") for d in metadata.distributions()),
    reason="needs a2a-sdk 1.x",
)
@given(messages("0.3"), messages("1.0"))
def test_the_sdk_reads_converted_messages(old: dict[str, Any], new: dict[str, Any]) -> None:
    from a2a.compat.v0_3.types import Message as OldMessage
    from a2a.types import Message
    from google.protobuf.json_format import ParseDict

    OldMessage.model_validate(message_in_version(new, "0.3"))
    assert ParseDict(message_in_version(old | {"metadata": {}}, "1.0"), Message()).message_id == old["messageId"]
