"""A conversation that was imported before goes on, whatever became of its title and further members."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent_manager.importing import ImportReport, import_files
from eventstore import EventStore, MessageAdded, TaskArtifactAdded, TaskCreated, conversation_uuid, sent_message
from projections import Reader, catch_up


async def take_in(store: EventStore, folder: Path, *lines: dict[str, Any]) -> ImportReport:
    path = folder / "chat.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return await import_files(store, [path])


def line(title: str | None, *texts: str, **members: Any) -> dict[str, Any]:
    return {"id": "c", "title": title, **members, "messages": [{"role": "user", "content": text} for text in texts]}


async def names_and_messages(store: EventStore) -> tuple[str, int]:
    await catch_up(store)
    row = await Reader(store).conversation("c")
    return row.name, row.message_count


async def test_a_further_member_that_changed_stops_nothing(store: EventStore, tmp_path: Path) -> None:
    await take_in(store, tmp_path, line("T", "one", updated_at="2025-01-01"))
    report = await take_in(store, tmp_path, line("T", "one", "two", updated_at="2025-01-02"))
    assert (report.problems, report.new_events, report.messages) == ([], 1, 2)
    assert await names_and_messages(store) == ("T", 2)


async def test_another_title_is_a_renaming(store: EventStore, tmp_path: Path) -> None:
    await take_in(store, tmp_path, line("before", "one"), line("before", "one"))
    for _ in range(2):
        report = await take_in(store, tmp_path, line("after", "one", "two"))
        assert report.problems == []
    assert await names_and_messages(store) == ("after", 2)
    assert report.new_events == 0


async def test_a_conversation_without_messages_may_change_too(store: EventStore, tmp_path: Path) -> None:
    await take_in(store, tmp_path, line("T", reward=0))
    report = await take_in(store, tmp_path, line("T", reward=1))
    assert (report.problems, report.new_events, report.conversations) == ([], 0, 1)


async def test_another_message_in_its_place_is_still_refused(store: EventStore, tmp_path: Path) -> None:
    await take_in(store, tmp_path, line("T", "one"))
    report = await take_in(store, tmp_path, line("other", "changed"))
    assert [problem.line for problem in report.problems] == [1]
    assert await names_and_messages(store) == ("T", 1)


async def test_a_message_within_the_limit_brings_its_tasks_however_large(store: EventStore, tmp_path: Path) -> None:
    # Both messages take just less than the limit; the call as a description and the result as an artifact take more.
    arguments = {f"member {number}": '"' for number in range(50_000)}
    call = {"id": "k", "type": "function", "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "k", "content": "x" * 1_048_500}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, result]
    report = await take_in(store, tmp_path, {"id": "c", "title": "T", "messages": messages})
    assert (report.problems, report.tasks) == ([], 1)
    events = [event async for event in store.read(conversation_uuid(store.tenant, "c"))]
    assert [sent_message(event.data) for event in events if isinstance(event.data, MessageAdded)] == messages
    [task] = [event.data for event in events if isinstance(event.data, TaskCreated)]
    [artifact] = [event.data for event in events if isinstance(event.data, TaskArtifactAdded)]
    assert task.description.startswith('f({"member 0":')
    assert task.description.endswith("…")
    assert artifact.parts == [{"kind": "data", "data": {"message_id": str(events[3].id)}}]
