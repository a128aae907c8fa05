"""Conversations of other programs are imported completely and read back as they were sent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent_manager.importers import import_files
from eventstore import EventStore, MessageAdded, TaskCreated, TaskStatusChanged, conversation_uuid, sent_message

ROOT = Path(__file__).parents[3]
VARIABLE = "EVENTSTORE_TEST_DATA"
FILES = {"tau_bench_airline": (200, 5308, 1164), "chatterbot_portuguese": (294, 719, 0)}


def data_file(name: str) -> Path:
    """The file, in the folder that ``EVENTSTORE_TEST_DATA`` names or in ``shared/data`` beside the source tree."""
    named = os.environ.get(VARIABLE)
    folders = [Path(named)] if named else [folder / "shared" / "data" for folder in (ROOT, *ROOT.parents)]
    for folder in folders:
        if (path := folder / f"{name}.jsonl").is_file():
            return path
    pytest.skip(f"{name}.jsonl is not here: name its folder in {VARIABLE}")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.slow
async def test_a_real_file_is_imported_completely_and_read_back_unchanged(name: str, store: EventStore) -> None:
    path = data_file(name)
    report = await import_files(store, [path])
    assert (report.conversations, report.messages, report.tasks) == FILES[name]
    assert report.problems == []

    sent: dict[Any, list[Any]] = {}
    for line in path.read_text("utf-8").splitlines():
        conversation = json.loads(line)
        sent[conversation_uuid(store.tenant, conversation["id"])] = conversation["messages"]
    found: dict[Any, list[Any]] = {conversation_id: [] for conversation_id in sent}
    started, completed = [], []
    async for event in store.read_log():
        match event.data:
            case MessageAdded():
                found[event.conversation_id].append(sent_message(event.data))
            case TaskCreated(task_id=task_id):
                started.append((event.conversation_id, task_id))
            case TaskStatusChanged(task_id=task_id, status="completed"):
                completed.append((event.conversation_id, task_id))
    assert found == sent
    assert len(set(started)) == FILES[name][2]
    assert sorted(started) == sorted(completed)

    again = await import_files(store, [path])
    assert (again.new_events, again.known_events) == (0, report.new_events)
