"""Importing files from the command line: exports, archives, standard input and what is reported about them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.commandline import Eventstore, rows_of


def node(parent: str | None, role: str, text: str) -> dict[str, Any]:
    message = {"author": {"role": role}, "create_time": 1704067200.0, "content": {"parts": [text]}}
    return {"parent": parent, "children": [], "message": message}


@pytest.fixture
def export(clean_environment: None) -> Path:
    """An export of ChatGPT with two branches, in an archive."""
    mapping = {"a": node(None, "user", "hello"), "b": node("a", "assistant", "old"), "c": node("a", "assistant", "new")}
    path = Path("export.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("user.json", "{}")
        archive.writestr(
            "conversations.json", json.dumps([{"id": "t-1", "title": "T", "mapping": mapping, "current_node": "c"}])
        )
    return path


def test_an_export_is_imported_with_a_remark_on_what_is_left_out(empty: Eventstore, export: Path) -> None:
    result = empty("import", str(export))
    assert (result.code, result.out) == (0, "1 conversations, 2 messages, 0 tasks: 3 new events, 0 known already\n")
    assert result.err == "left out of these conversations: messages of other branches (1)\n"
    sent = rows_of(empty, "messages", "t-1")
    assert [message["content"] for message in sent] == ["hello", "new"]


def test_a_file_that_is_not_recognised_is_one_line(empty: Eventstore, export: Path) -> None:
    Path("package.json").write_text(json.dumps({"name": "x", "files": [{"a": n} for n in range(99)]}, indent=2))
    result = empty("import", "package.json")
    assert (result.code, len(result.err.splitlines())) == (1, 1)
    assert "package.json: is an object with the members name, files; recognised are OpenAI chat" in result.err
    assert result.out.endswith("1 not imported\n")


def test_a_given_format_is_used_or_refused(empty: Eventstore, export: Path) -> None:
    result = empty("import", "--format", "claude", str(export))
    assert "conversations.json:1: [0]: chat_messages: is missing" in result.err
    result = empty("import", "--format", "word", str(export))
    assert (result.code, "give one of openai, anthropic" in " ".join(result.err.split())) == (1, True)
    assert empty("import", "--format", "claude", "--from-adk", "sqlite:///x").code == 2
