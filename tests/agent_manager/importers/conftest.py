"""An application in memory, and a store with the backups of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.demoapp import Manager, serving


def message(message_id: str, context_id: str, text: str) -> dict[str, Any]:
    """A message with a little of everything."""
    file = {"bytes": "//777w==", "mimeType": "image/png", "name": "a.png"}
    return {
        "role": "user",
        "messageId": message_id,
        "contextId": context_id,
        "parts": [
            {"kind": "text", "text": text},
            {"kind": "file", "file": file},
            {"kind": "data", "data": {"n": None}},
        ],
        "metadata": {"nothing": None, "one": 1.0, "yes": True},
        "extensions": ["urn:x"],
    }


@pytest.fixture
def manager() -> Manager:
    """A manager with two conversations, tasks without ids, files and a repeated message id."""
    manager = Manager()
    for name in ("first", "second"):
        manager.create_conversation(name)
        for number, text in enumerate(("Olá", "até já — 你好")):
            manager.reply_to(manager.add_message(message(f"m{number}", name, text)))
        manager.add_message({
            "role": "user", "messageId": "m0", "contextId": name, "parts": [{"kind": "text", "text": "again"}]
        })  # fmt: skip
    manager.conversations[1].is_active = False
    manager.conversations[1].name = "Second"
    return manager


@pytest.fixture
def url(manager: Manager) -> Iterator[str]:
    """The URL of the application of that manager."""
    with serving(manager) as url:
        yield url


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    """The folder of the backups."""
    return tmp_path / "backups"
