"""A conversation that was imported before is continued, even if its title or other members have changed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from agent_manager.importers import ImportReport, import_files
from eventstore import (
    ConversationCreated,
    EventStore,
    MessageAdded,
    Settings,
    TaskArtifactAdded,
    TaskCreated,
    conversation_uuid,
    sent_message,
)
from projections import Reader, catch_up

pytestmark = pytest.mark.shared_database


async def import_lines(store: EventStore, folder: Path, *lines: dict[str, Any]) -> ImportReport:
    path = folder / "chat.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return await import_files(store, [path])


def line(title: str | None, *texts: str, **members: Any) -> dict[str, Any]:
    return {"id": "c", "title": title, **members, "messages": [{"role": "user", "content": text} for text in texts]}


async def names_and_messages(store: EventStore) -> tuple[str, int]:
    await catch_up(store)
    row = await Reader(store).conversation("c")
    return row.name, row.message_count


async def test_a_changed_member_of_the_line_does_not_prevent_the_import(store: EventStore, tmp_path: Path) -> None:
    await import_lines(store, tmp_path, line("T", "one", updated_at="2025-01-01"))
    report = await import_lines(store, tmp_path, line("T", "one", "two", updated_at="2025-01-02"))
    assert (report.problems, report.new_events, report.messages) == ([], 1, 2)
    assert await names_and_messages(store) == ("T", 2)


async def test_another_title_is_a_renaming(store: EventStore, tmp_path: Path) -> None:
    await import_lines(store, tmp_path, line("before", "one"), line("before", "one"))
    for _ in range(2):
        report = await import_lines(store, tmp_path, line("after", "one", "two"))
        assert report.problems == []
    assert await names_and_messages(store) == ("after", 2)
    assert report.new_events == 0


async def test_a_title_may_be_given_again_after_another_one(store: EventStore, tmp_path: Path) -> None:
    for title in ("A", "B", "A", "B", "A"):
        for _ in range(2):
            report = await import_lines(store, tmp_path, line(title, "one"))
            assert report.problems == []
        assert await names_and_messages(store) == (title, 1)


async def test_a_conversation_without_messages_may_change_too(store: EventStore, tmp_path: Path) -> None:
    await import_lines(store, tmp_path, line("T", reward=0))
    report = await import_lines(store, tmp_path, line("T", reward=1))
    assert (report.problems, report.new_events, report.conversations) == ([], 0, 1)


async def test_a_changed_message_is_rejected(store: EventStore, tmp_path: Path) -> None:
    await import_lines(store, tmp_path, line("T", "one"))
    report = await import_lines(store, tmp_path, line("other", "changed"))
    assert [problem.line for problem in report.problems] == [1]
    assert await names_and_messages(store) == ("T", 1)


async def test_tasks_of_a_message_within_the_limit_are_cut_to_it(settings: Settings, tmp_path: Path) -> None:
    # Both messages take just less than the limit; the call as a description and the result as an artifact take more.
    arguments = {f"member {number}": '"' for number in range(50_000)}
    call = {"id": "k", "type": "function", "function": {"name": "f", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "k", "content": "x" * 1_048_495}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, result]
    async with EventStore(settings.model_copy(update={"max_content_bytes": 2**20})) as store:
        report = await import_lines(store, tmp_path, {"id": "c", "title": "T", "messages": messages})
        events = [event async for event in store.read(conversation_uuid(store.tenant, "c"))]
    assert (report.problems, report.tasks) == ([], 1)
    assert [sent_message(event.data) for event in events if isinstance(event.data, MessageAdded)] == messages
    [task] = [event.data for event in events if isinstance(event.data, TaskCreated)]
    [artifact] = [event.data for event in events if isinstance(event.data, TaskArtifactAdded)]
    assert task.description.startswith('f({"member 0":')
    assert task.description.endswith("…")
    assert artifact.parts == [{"kind": "data", "data": {"message_id": str(events[3].id)}}]


async def event_count(store: EventStore) -> int:
    """Return the number of events in the log."""
    return sum([1 async for _ in store.read_log()])


def with_ids(*ids: str) -> dict[str, Any]:
    return {
        "id": "c",
        "title": "T",
        "messages": [{"role": "user", "content": message_id, "id": message_id} for message_id in ids],
    }


async def test_a_conversation_that_was_not_imported_is_not_continued_by_a_line(
    store: EventStore, tmp_path: Path
) -> None:
    local = [ConversationCreated(given_id="c"), MessageAdded(role="user", content="of the application")]
    await store.append(conversation_uuid(store.tenant, "c"), local)
    report = await import_lines(store, tmp_path, line("T", "one"), {"id": "d", "messages": []})
    assert ["was not imported from a chat log" in problem.reason for problem in report.problems] == [True]
    assert (await event_count(store), report.conversations) == (3, 1)


async def test_a_line_that_begins_with_another_message_is_rejected(store: EventStore, tmp_path: Path) -> None:
    await import_lines(store, tmp_path, with_ids("a", "b"))
    report = await import_lines(store, tmp_path, with_ids("x", "y"))
    assert ["begins with another message" in problem.reason for problem in report.problems] == [True]
    assert await event_count(store) == 3


async def test_a_line_without_its_oldest_messages_is_continued(store: EventStore, tmp_path: Path) -> None:
    await import_lines(store, tmp_path, with_ids("a", "b"))
    report = await import_lines(store, tmp_path, with_ids("b", "c"))
    assert (report.problems, report.new_events) == ([], 1)
    report = await import_lines(store, tmp_path, with_ids())
    assert (report.problems, report.new_events) == ([], 0)


async def test_a_uuid_and_the_text_that_it_is_made_from_are_two_conversations(
    store: EventStore, tmp_path: Path
) -> None:
    as_uuid = line("T", "one") | {"id": str(conversation_uuid(store.tenant, "c"))}
    for lines in ([line("T", "one"), as_uuid], [as_uuid]):
        report = await import_lines(store, tmp_path, *lines)
        assert ["its UUID is that of" in problem.reason for problem in report.problems] == [True]
        assert await event_count(store) == 2


async def test_times_without_an_offset_are_in_the_given_zone(store: EventStore, tmp_path: Path) -> None:
    message = {"role": "user", "content": "hi", "created_at": "2026-01-02T00:04:00"}
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"id": "c", "messages": [message]}))
    await import_files(store, [path], zone=ZoneInfo("America/Sao_Paulo"))
    occurred = [event.occurred_at async for event in store.read(conversation_uuid(store.tenant, "c"))]
    assert set(occurred) == {datetime(2026, 1, 2, 3, 4, tzinfo=UTC)}


async def test_a_time_that_the_zone_skips_is_rejected(store: EventStore, tmp_path: Path) -> None:
    message = {"role": "user", "content": "hi", "created_at": "2025-03-30T02:30:00"}
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"id": "c", "messages": [message]}))
    report = await import_files(store, [path], zone=ZoneInfo("Europe/Berlin"))
    assert ["does not exist in Europe/Berlin" in problem.reason for problem in report.problems] == [True]
