"""Exports are imported once, grow, and what is wrong with a file is reported in few lines."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_manager.importers import ImportReport, ImportStopped, import_files
from eventstore import EventStore, MessageAdded, conversation_uuid, sent_message
from eventstore.errors import InputError
from projections import Reader, catch_up

pytestmark = pytest.mark.shared_database

CHAT = "6a8f7a3e-52c1-4d0a-9f6e-2f1f0f3f8b01"


def tree(*messages: tuple[str, str, str, str], **members: Any) -> dict[str, Any]:
    """A conversation of ChatGPT of messages, each an id, its parent, a role and a text; the last one is current."""
    mapping: dict[str, Any] = {"root": {"id": "root", "parent": None, "message": None}}
    for number, (name, parent, role, text) in enumerate(messages):
        content = {"content_type": "text", "parts": [text]}
        message = {"id": name, "author": {"role": role}, "create_time": 1704067200.0 + number, "content": content}
        mapping[name] = {"id": name, "parent": parent, "message": message}
    return {"id": CHAT, "title": "T", "mapping": mapping, "current_node": messages[-1][0], **members}


FIRST = ("m1", "root", "user", "hello"), ("m2", "m1", "assistant", "hi")


async def import_value(store: EventStore, folder: Path, value: Any, **options: Any) -> ImportReport:
    path = folder / "conversations.json"
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False))
    return await import_files(store, [path], **options)


async def texts(store: EventStore, given_id: str) -> list[Any]:
    events = store.read(conversation_uuid(store.tenant, given_id))
    return [sent_message(event.data)["content"] async for event in events if isinstance(event.data, MessageAdded)]


async def test_an_export_is_imported_once_and_a_grown_one_adds_only_what_is_new(
    store: EventStore, tmp_path: Path
) -> None:
    first = await import_value(store, tmp_path, [tree(*FIRST, update_time=1)])
    again = await import_value(store, tmp_path, [tree(*FIRST, update_time=1)])
    assert (first.new_events, again.new_events, again.known_events, again.rejected) == (3, 0, 3, 0)
    grown = tree(*FIRST, ("m3", "m2", "user", "bye"), update_time=2, title="Other")
    report = await import_value(store, tmp_path, [grown, {**tree(*FIRST), "id": "new"}])
    assert (report.new_events, report.problems) == (5, [])
    assert await texts(store, CHAT) == ["hello", "hi", "bye"]
    await catch_up(store)
    row = await Reader(store).conversation(CHAT)
    assert (row.name, row.created_at) == ("Other", datetime(2024, 1, 1, tzinfo=UTC))


async def test_what_an_export_says_about_a_message_may_change(store: EventStore, tmp_path: Path) -> None:
    await import_value(store, tmp_path, [tree(*FIRST)])
    changed = tree(*FIRST, ("m3", "m2", "user", "bye"))
    changed["mapping"]["m2"]["message"]["metadata"] = {"is_new": True}
    report = await import_value(store, tmp_path, [changed])
    assert (report.new_events, report.known_events, report.problems) == (1, 3 - 1, [])
    assert await texts(store, CHAT) == ["hello", "hi", "bye"]


async def test_another_text_of_a_known_message_is_a_conflict_that_names_the_ids_of_the_file(
    store: EventStore, tmp_path: Path
) -> None:
    await import_value(store, tmp_path, [tree(*FIRST)])
    changed = tree(FIRST[0], ("m2", "m1", "assistant", "changed"))
    report = await import_value(store, tmp_path, [{**changed, "id": "other"}, changed])
    [problem] = report.problems
    assert (problem.line, problem.place) == (json.dumps([{**changed, "id": "other"}], indent=2).count("\n") + 1, "[1]")
    assert f"conversation '{CHAT}' already holds another event for mapping.m2.message (id m2)" in problem.reason
    assert await texts(store, CHAT) == ["hello", "hi"]


async def test_an_edited_first_message_is_another_branch_of_the_same_conversation(
    store: EventStore, tmp_path: Path
) -> None:
    await import_value(store, tmp_path, [tree(*FIRST)])
    report = await import_value(store, tmp_path, [tree(*FIRST, ("e1", "root", "user", "edited"))])
    assert (report.problems, report.new_events) == ([], 1)
    assert report.left_out == {"messages of other branches": 2}
    assert await texts(store, CHAT) == ["hello", "hi", "edited"]


def block(text: str) -> list[dict[str, Any]]:
    """A text as Anthropic's content blocks, which show the format."""
    return [{"type": "text", "text": text}, {"type": "thinking", "thinking": "x"}]


@pytest.mark.parametrize("given", [str, block])
async def test_conversations_without_ids_grow_and_stay_apart(
    given: Callable[[str], Any], store: EventStore, tmp_path: Path
) -> None:
    def chat(*contents: str) -> dict[str, Any]:
        roles = ["user", "assistant"] * 3
        return {
            "messages": [{"role": role, "content": given(text)} for role, text in zip(roles, contents, strict=False)]
        }

    report = await import_value(store, tmp_path, [chat("q", "a"), chat("q", "a", "r", "b"), chat("q", "a", "other")])
    assert (report.problems, report.conversations, report.new_events) == ([], 3, 3 + 2 + 4)
    again = await import_value(store, tmp_path, [chat("q", "a", "r", "b", "s"), chat("q", "a", "other")])
    assert (again.problems, again.new_events) == ([], 1)


async def test_a_file_in_no_known_format_is_one_problem(store: EventStore, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"event": "x", "level": 1}\n' * 500)
    (tmp_path / "array").write_text(json.dumps([{"event": n, "deep": [{"a": n}]} for n in range(500)], indent=2))
    (tmp_path / "object").write_text(json.dumps({"event": [{"a": n} for n in range(500)]}, indent=2))
    (tmp_path / "text").write_text("hello\nworld\n" * 500)
    report = await import_files(store, [tmp_path])
    assert report.rejected == 4
    assert [str(problem).removeprefix(f"{tmp_path}/").partition(";")[0] for problem in report.problems] == [
        "array: [0]: is an object with the members event, deep (500 such values)",
        "lines: is an object with the members event, level (500 such values)",
        "object: is an object with the members event",
        "text: is not JSON: it begins with 'hello'",
    ]
    assert all("recognised are OpenAI chat messages" in problem.reason for problem in report.problems)


async def test_of_many_problems_the_first_ones_are_reported_and_all_are_counted(
    store: EventStore, tmp_path: Path
) -> None:
    lines = [{"id": n, "messages": [{"role": "cat"}]} for n in range(500)]
    lines += [{"what": n} for n in range(300)] + [{"id": "good", "messages": [{"role": "user", "time": "never"}] * 40}]
    (tmp_path / "log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = await import_files(store, [tmp_path / "log"])
    assert (report.rejected, report.conversations) == (800, 1)
    assert [problem.line for problem in report.problems] == [*range(1, 11), None]
    assert str(report.problems[-1]) == f"{tmp_path / 'log'}: and 790 more"
    assert [problem.reason for problem in report.unread_times[10:]] == ["and 30 more"]


async def test_values_before_the_first_recognised_one_are_reported_by_line(store: EventStore, tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"a": 1}\n{"b": 1}\n{"id": "x", "messages": []}\n')
    report = await import_files(store, [tmp_path / "log"])
    assert [(problem.line, problem.reason) for problem in report.problems] == [
        (1, "is an object with the members a"),
        (2, "is an object with the members b"),
    ]
    with pytest.raises(ImportStopped, match="log:1: is an object with the members a; recognised are"):
        await import_files(store, [tmp_path / "log"], strict=True)


async def test_a_file_that_is_cut_off_is_imported_up_to_there(store: EventStore, tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps([tree(*FIRST), {**tree(*FIRST), "id": "b"}])[:-30])
    (tmp_path / "next.json").write_text(json.dumps([{**tree(*FIRST), "id": "c"}]))
    report = await import_files(store, [tmp_path])
    assert [str(problem).partition(":")[2] for problem in report.problems] == [
        " is cut off or damaged: the text ends within the JSON value that begins in line 1"
    ]
    assert (report.conversations, report.rejected) == (2, 1)


async def test_a_given_format_is_not_guessed(store: EventStore, tmp_path: Path) -> None:
    report = await import_value(store, tmp_path, [tree(*FIRST)], format_name="claude")
    assert [problem.reason for problem in report.problems] == ["chat_messages: is missing, expected a list of messages"]
    with pytest.raises(InputError, match="format 'x' is not known: give one of openai, anthropic"):
        await import_value(store, tmp_path, [], format_name="x")


async def test_stored_responses_that_follow_each_other_are_one_conversation(store: EventStore, tmp_path: Path) -> None:
    def response(number: int, *output: dict[str, Any], **members: Any) -> dict[str, Any]:
        return {
            "id": f"resp_{number}",
            "object": "response",
            "input": f"in {number}",
            "output": list(output),
            **members,
        }

    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c", "output": "done"}
    values = [
        response(1, call),
        response(2, previous_response_id="resp_1", input=[result]),
        response(3, previous_response_id="resp_2"),
    ]
    for expected in (8, 0):
        report = await import_value(store, tmp_path, {"object": "list", "data": copy.deepcopy(values)})
        assert (report.problems, report.new_events) == ([], expected)
    await catch_up(store)
    reader = Reader(store)
    assert (await reader.conversation("resp_1")).message_count == 4
    [task] = await reader.tasks(conversation_uuid(store.tenant, "resp_1"))
    assert str(task.status) == "completed"
