"""Validation of messages: every client of A2A reads a valid one, and an invalid member is named."""

from __future__ import annotations

from typing import Any

import pytest

from agent_manager.a2a import Version, invalid_member

pytestmark = pytest.mark.any_server

_FILE = {"kind": "file", "file": {"uri": "u"}}


@pytest.mark.parametrize(
    ("version", "members"),
    [
        ("0.3", {"parts": [{"kind": "text", "text": ""}, {"kind": "data", "data": {}}, _FILE]}),
        ("0.3", {"parts": [{"text": "a"}, {"kind": "text", "text": "a", "more": 1, "metadata": None}]}),
        ("0.3", {"parts": [], "kind": "message", "metadata": None, "extensions": ["e"], "more": 1}),
        ("1.0", {"parts": [{"text": ""}, {"data": None}, {"data": [1]}, {"url": "u", "filename": "f"}, {}]}),
    ],
)
def test_valid_messages_of_either_version_pass(version: Version, members: dict[str, Any]) -> None:
    assert invalid_member({"role": "user", **members}, version) is None


@pytest.mark.parametrize(
    ("version", "members", "place"),
    [
        ("0.3", {}, "parts"),
        ("0.3", {"parts": ["a"]}, "parts[0]"),
        ("0.3", {"parts": [{"text": "a"}, {}]}, "parts[1].kind"),
        ("0.3", {"parts": [{"kind": "song"}]}, "parts[0].kind"),
        ("0.3", {"parts": [{"kind": "text", "text": None}]}, "parts[0].text"),
        ("0.3", {"parts": [{"kind": "data", "data": [1]}]}, "parts[0].data"),
        ("0.3", {"parts": [{"kind": "file", "file": {"bytes": 5}}]}, "parts[0].file"),
        ("0.3", {"parts": [{"kind": "file", "file": {"uri": "u", "name": 5}}]}, "parts[0].file.name"),
        ("0.3", {"parts": [{"text": "a", "metadata": 5}]}, "parts[0].metadata"),
        ("0.3", {"parts": [], "kind": "task"}, "kind"),
        ("0.3", {"parts": [], "referenceTaskIds": "t"}, "referenceTaskIds"),
        ("1.0", {"parts": [], "extensions": [5]}, "extensions"),
        ("1.0", {"parts": [{"url": 5}]}, "parts[0].url"),
        ("1.0", {"parts": [{"text": "a", "data": None}]}, "parts[0]"),
    ],
)
def test_an_invalid_member_is_named_by_its_path(version: Version, members: dict[str, Any], place: str) -> None:
    invalid = invalid_member({"role": "user", **members}, version)
    assert invalid is not None
    assert invalid.path == place
