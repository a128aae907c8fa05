"""Whatever a client sent as a message is shown: no shape of it makes a page fail."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_manager.console.chat import chat_messages, length_in_list, timeline
from agent_manager.console.rendering import markdown, pretty, preview
from agent_manager.server.schemas.conversations import TaskOut

pytestmark = pytest.mark.any_server

TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PART = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["text", "file", "data", "x"]) | JSON,
        "text": JSON,
        "file": st.fixed_dictionaries({}, optional={"bytes": TEXT, "uri": JSON, "name": JSON, "mimeType": JSON}) | JSON,
        "data": st.fixed_dictionaries({}, optional={"name": TEXT, "args": JSON, "response": JSON, "id": JSON}) | JSON,
        "raw": JSON,
        "url": JSON,
        "metadata": JSON,
    },
)
CALL = st.fixed_dictionaries(
    {}, optional={"id": JSON, "function": st.fixed_dictionaries({}, optional={"name": JSON, "arguments": JSON}) | JSON}
)
SENT = st.fixed_dictionaries(
    {"role": TEXT},
    optional={
        "content": st.lists(PART | JSON, max_size=3) | JSON,
        "parts": st.lists(PART | JSON, max_size=3) | JSON,
        "tool_calls": st.lists(CALL | JSON, max_size=3) | JSON,
        "tool_call_id": JSON,
        "name": JSON,
    },
)


def message(sent: dict[str, Any], role: str) -> Any:
    text = sent.get("content") if isinstance(sent.get("content"), str) else ""
    return SimpleNamespace(
        sent=sent, id=UUID(int=1), conversation_id=UUID(int=2), version=3, role=role, content=text, error=None,
        is_erased=False,
    )  # fmt: skip


@given(st.lists(SENT, max_size=3))
def test_a_message_of_any_shape_is_shown(messages: list[dict[str, Any]]) -> None:
    shown = [message(sent, "tool" if "tool_call_id" in sent else "user") for sent in messages]
    for each in chat_messages(shown):
        assert all(isinstance(block.text, str) for block in each.blocks)
    assert all(length_in_list(each) >= 500 for each in shown)


@given(st.lists(PART | JSON, max_size=3), JSON)
def test_a_task_of_any_shape_is_shown(parts: list[Any], status_message: Any) -> None:
    now = datetime.now(UTC)
    chunk = {
        "artifact_id": "a", "extends": False, "last_chunk": True, "continues_text": False, "name": None,
        "description": None, "parts": parts, "extra": None, "metadata": None,
    }  # fmt: skip
    task = TaskOut.model_construct(
        id=UUID(int=1), status="failed", created_at=now, updated_at=now, artifacts=[], status_message=status_message,
    )  # fmt: skip
    task = TaskOut.model_validate(
        task.__dict__
        | {"conversation_id": UUID(int=2), "given_id": None, "version": 1, "description": "", "metadata": None}
        | {"is_erased": False}
        | {"extra": None, "status_extra": None, "artifacts": [chunk]}
        | {"status_message": status_message if isinstance(status_message, dict) else {"parts": parts}}
    )
    [shown] = timeline([task])
    assert (shown.start, shown.width) == (0, 4)


@given(JSON)
def test_any_content_has_a_preview(content: Any) -> None:
    assert len(preview(content)) <= 120
    assert isinstance(pretty(content), str)


@given(st.text())
def test_markdown_of_any_text_has_no_other_elements(text: str) -> None:
    assert "<script" not in markdown(text).lower()
