"""Every command that shows data prints a table for people, JSON for programs, and no control characters."""

from __future__ import annotations

import asyncio
import json
import re
from uuid import UUID, uuid4

import psycopg
import pytest
from support.commandline import EVERYTHING, STRANGE, TASK, Eventstore, rows_of

from eventstore import EventStore, MessageAdded, Settings, __version__, conversation_uuid
from projections import PROJECTIONS, catch_up

SHOWN = "\\x1b[31mred\\x07 [bold]no markup[/bold] \\x9b31m\\x7f :smile: [/] end"
ID = str(conversation_uuid("default", EVERYTHING))

LISTS = {
    "conversations": ("conversations",),
    "messages": ("messages", EVERYTHING),
    "tasks": ("tasks", EVERYTHING),
    "history": ("history", EVERYTHING),
    "tail": ("tail", "--limit", "50"),
}


def columns_of(url: str, table: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND table_schema = 'public'",
            (table,),
        ).fetchall()
    return {name for (name,) in rows}


HIDDEN = {"member_order", "added_history", "first_version", "erased_count"}
"""Columns that are not shown: they are applied to what the others hold, decide what a fork shares, or tell caches that
something was erased."""


@pytest.mark.parametrize(
    ("command", "table", "more"),
    [
        ("conversations", "conversations", set()),
        ("messages", "messages", {"sent"}),
        ("tasks", "tasks", {"artifacts"}),
    ],
)
def test_json_objects_have_the_columns_of_the_read_tables(
    library: Eventstore, library_url: str, command: str, table: str, more: set[str]
) -> None:
    rows = rows_of(library, *LISTS[command])
    assert rows
    for row in rows:
        assert set(row) == columns_of(library_url, table) - HIDDEN | more


@pytest.mark.parametrize("command", ["history", "tail"])
def test_json_events_have_the_columns_of_the_log_and_what_changed(
    library: Eventstore, library_url: str, command: str
) -> None:
    for row in rows_of(library, *LISTS[command]):
        assert set(row) == columns_of(library_url, "events") | {"occurred_at", "what_changed"}


def test_conversations_as_json(library: Eventstore) -> None:
    everything, other = sorted(rows_of(library, "conversations"), key=lambda row: row["name"])
    assert (everything["id"], everything["given_id"], everything["message_count"]) == (ID, EVERYTHING, 4)
    assert (everything["is_active"], everything["is_deleted"]) == (True, False)
    assert everything["metadata"] == {"language": "português"}
    assert (other["name"], other["is_active"]) == ("Other", False)


def test_messages_as_json_hold_the_message_as_sent(library: Eventstore) -> None:
    rows = rows_of(library, "messages", EVERYTHING)
    assert [row["sent"] for row in rows] == [
        {"role": "user", "content": "Olá, até já — 你好"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
        {"role": "tool", "content": STRANGE},
        {"role": "assistant", "parts": [{"text": "one"}, {"text": "two"}]},
    ]
    assert [row["content"] for row in rows] == ["Olá, até já — 你好", "", STRANGE, "one\ntwo"]
    assert {row["conversation_id"] for row in rows} == {ID}


def test_tasks_as_json_hold_their_artifacts(library: Eventstore) -> None:
    [task] = rows_of(library, "tasks", EVERYTHING)
    assert (task["id"], task["status"], task["description"]) == (str(TASK), "completed", "looked it up")
    assert task["status_message"] == {"text": "done"}
    assert [(a["parts"], a["extends"]) for a in task["artifacts"]] == [
        ([{"text": "1"}], False),
        ([{"text": "2"}], True),
    ]


def test_history_is_the_audit_trail(library: Eventstore) -> None:
    rows = rows_of(library, "history", EVERYTHING)
    assert [row["version"] for row in rows] == list(range(1, 17))
    assert [row["position"] for row in rows] == sorted(row["position"] for row in rows)
    assert all(re.fullmatch("[0-9a-f]{64}", row["digest"]) for row in rows)
    changes = [row["what_changed"] for row in rows]
    assert changes[0] == "created as 'Trip'"
    assert changes[1] == "user: Olá, até já — 你好"
    assert changes[7] == f"task {TASK} is completed"
    assert changes[11:13] == ["archived", "reactivated"]
    assert changes[15] == '{"later": true}'
    assert [row["version"] for row in rows_of(library, "history", EVERYTHING, "--limit", "2")] == [1, 2]


def test_status_as_json(library: Eventstore, library_url: str) -> None:
    result = library("status", "--json")
    status = json.loads(result.out)
    assert status["events"] == status["last_position"] == status["horizon"] == 21
    assert status["conversations"] == 4
    assert status["version"] == __version__
    assert status["database_url"].startswith("postgresql://")
    assert [p["name"] for p in status["projections"]] == sorted(projection.name for projection in PROJECTIONS)
    assert all(p["position"] == 21 and p["lag_events"] == 0 and p["is_current"] for p in status["projections"])
    assert status["appends_in_flight"] == []


def test_status_for_people(library: Eventstore) -> None:
    result = library("status")
    assert result.code == 0
    assert "21 events in 4 conversations" in result.out
    assert "final up to 21" in result.out
    assert re.search(r"^messages +21 +0 +0\.0 .* yes$", "\n".join(result.lines), re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "heading", "row"),
    [
        ("conversations", r"id +name +messages +active +updated +uuid", rf"{EVERYTHING}  Journey .* 4  yes .* {ID}"),
        ("messages", r"created +role +content", r"user +Olá, até já — 你好"),
        ("tasks", r"id +status +artifacts +updated +uuid +description", rf"{TASK}  completed +2 .* looked it up"),
        ("history", r"position +version +time +actor +type +what changed", r"conversation\.created +created as 'Trip'"),
        (
            "tail",
            r"position +version +time +actor +type +conversation +what changed",
            rf"conversation\.created +{EVERYTHING} +created as",
        ),
    ],
)
def test_tables_for_people(library: Eventstore, command: str, heading: str, row: str) -> None:
    result = library(*LISTS[command])
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(heading, result.lines[0])
    assert re.search(row, result.out)


@pytest.mark.parametrize("arguments", [*LISTS.values(), ("status",)], ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_no_command_prints_control_characters(
    library: Eventstore, arguments: tuple[str, ...], form: tuple[str, ...]
) -> None:
    out = library(*arguments, *form).out
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", out)


@pytest.mark.parametrize("command", ["conversations", "messages", "history", "tail"])
def test_strange_text_is_shown_literally(library: Eventstore, command: str) -> None:
    assert SHOWN in library(*LISTS[command]).out


@pytest.mark.parametrize("given", [EVERYTHING, ID, ID.upper(), ID.replace("-", "")])
@pytest.mark.parametrize("command", ["messages", "tasks", "history"])
def test_a_conversation_is_found_by_each_of_its_ids(library: Eventstore, command: str, given: str) -> None:
    assert rows_of(library, command, given) == rows_of(library, command, EVERYTHING)


def test_tail_shows_the_latest_events_in_order(library: Eventstore) -> None:
    assert [row["position"] for row in rows_of(library, "tail", "--limit", "2")] == [19, 20]
    assert len(rows_of(library, "tail")) == 10
    none = library("tail", "--limit", "0")
    assert (none.code, none.out) == (0, "")
    assert "the log is empty" not in none.err


def test_an_empty_database_prints_a_hint_and_empty_arrays(empty: Eventstore) -> None:
    result = empty("conversations")
    assert (result.code, result.out) == (0, "")
    assert "eventstore seed or eventstore import" in result.err
    assert rows_of(empty, "conversations") == []
    assert rows_of(empty, "tail") == []
    assert "the log is empty" in empty("tail").err
    assert "no projection has run yet" in empty("status").err


def test_empty_results_are_reported(library: Eventstore) -> None:
    assert "no such messages" in library("messages", EVERYTHING, "--role", "system").err
    assert "no such tasks" in library("tasks", EVERYTHING, "--status", "failed").err


async def append_to(settings: Settings, conversation: UUID, *texts: str, applied: bool = True) -> None:
    async with EventStore(settings) as store:
        await store.append(conversation, [MessageAdded(role="user", content=text) for text in texts])
        if applied:
            await catch_up(store)


def test_read_tables_behind_the_log_are_mentioned(empty: Eventstore, settings: Settings) -> None:
    asyncio.run(append_to(settings, uuid4(), "x", applied=False))
    result = empty("conversations", "--json")
    assert json.loads(result.out)["items"] == []
    assert result.err == (
        "read tables are behind the log (conversations by 1 event(s)): "
        "no worker is running: eventstore up or eventstore project starts one\n"
    )
    assert "(statistics by 1 event(s)): no worker is running" in empty("stats").err
    assert "(search by 1 event(s)): no worker is running" in empty("search", "x").err
    assert empty("pending").err == "nothing is pending\n"  # it reads the latest events from the log itself


def test_a_long_message_is_not_cut_and_does_not_pad_others(empty: Eventstore, settings: Settings) -> None:
    conversation, long = uuid4(), "long " * 30_000
    asyncio.run(append_to(settings, conversation, long, *["short"] * 50))
    result = empty("messages", str(conversation))
    assert result.code == 0
    assert long.rstrip() in result.out
    assert len(result.out) < 2 * len(long)
