"""Lists on the command line: filters, pages, waiting, and earlier states of a conversation."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from support.commandline import EVERYTHING, STRANGE, TASK, Eventstore, page_of, rows_of

from eventstore import (
    ConversationCreated,
    ConversationDeleted,
    EventStore,
    MessageAdded,
    Settings,
    TaskCreated,
    conversation_uuid,
)
from projections import catch_up

ACTOR = f"ana {STRANGE}"
ID = str(conversation_uuid("default", EVERYTHING))

LISTS = {
    "conversations": ("conversations",),
    "messages": ("messages", EVERYTHING),
    "all messages": ("messages",),
    "tasks": ("tasks", EVERYTHING),
    "all tasks": ("tasks",),
    "history": ("history", EVERYTHING),
    "all history": ("history",),
}
every_list = pytest.mark.parametrize("arguments", LISTS.values(), ids=list(LISTS))


@every_list
@pytest.mark.parametrize("order", ["--newest", "--oldest"])
def test_pages_together_are_the_whole_list(library: Eventstore, arguments: tuple[str, ...], order: str) -> None:
    whole = rows_of(library, *arguments, order)
    rows: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        page, after = page_of(library, *arguments, order, "--limit", "3", *(("--after", after) if after else ()))
        rows += page
        if after is None:
            break
        assert len(page) == 3
    assert rows == whole
    assert rows_of(library, *arguments, "--oldest" if order == "--newest" else "--newest") == whole[::-1]


def test_a_table_prints_the_cursor_of_the_next_page(library: Eventstore) -> None:
    first = library("messages", EVERYTHING, "--limit", "3")
    assert len(first.lines) >= 4
    words = first.err.split()
    assert words[:-1] == ["there", "is", "more:", "--after"]
    rest = library("messages", EVERYTHING, "--after", words[-1])
    assert "one" in rest.out
    assert "Olá" not in rest.out
    assert rest.err == ""


@every_list
def test_a_cursor_of_another_list_is_rejected(library: Eventstore, arguments: tuple[str, ...]) -> None:
    for form in ("--json", "--newest"):
        result = library(*arguments, "--after", "nonsense", form)
        assert (result.code, result.out) == (1, "")
        assert "is damaged" in result.err
    _, other = page_of(library, "history", EVERYTHING, "--type", "message.added", "--limit", "1")
    assert other is not None
    result = library(*arguments, "--after", other)
    assert result.code == 1
    assert "the cursor is" in result.err


def test_conversations_are_filtered(library: Eventstore) -> None:
    def names(*options: str) -> set[str]:
        return {row["name"].split()[0] for row in rows_of(library, "conversations", *options)}

    assert names() == {"Journey", "Other"}
    assert names("--active") == {"Journey"}
    assert names("--archived") == {"Other"}
    assert names("--deleted") == {"Journey", "Other", "Hidden"}
    assert len(names("--limit", "1")) == 1
    assert names("--tenant", "another") == {"Theirs"}
    assert names("--actor", ACTOR) == {"Journey"}
    assert names("--actor", "nobody") == set()
    assert names("--since", "2100-01-01") == set()
    assert names("--until", "2100-01-01", "--by", "created") == {"Journey", "Other"}
    assert "no such conversations" in library("conversations", "--actor", "nobody").err


def test_messages_tasks_and_events_are_filtered(library: Eventstore) -> None:
    def number(*arguments: str) -> int:
        return len(rows_of(library, *arguments))

    assert number("messages", "--role", "assistant") == 2
    assert number("messages", "--actor", ACTOR) == 4
    assert number("messages", EVERYTHING, "--role", "assistant") == 2
    assert number("messages", EVERYTHING, "-n", "3") == 3
    assert number("messages", ID, "--tenant", "another") == 0
    assert number("messages", EVERYTHING, "--until", "2020-01-01T00:00:00Z") == 0
    assert [row["id"] for row in rows_of(library, "tasks", "--status", "completed")] == [str(TASK)]
    assert number("tasks", "--status", "failed") == number("tasks", EVERYTHING, "--status", "pending") == 0
    assert number("history", "--type", "message.added", "--type", "task.created") == 5
    assert number("history", EVERYTHING, "--actor", "nobody") == 0
    assert number("history", "--tenant", "another") == 1
    assert number("history", "--since", "2100-01-01") == 0


@pytest.mark.parametrize("command", ["messages", "tasks", "history"])
def test_a_list_of_all_shows_the_conversation_of_each_row(library: Eventstore, command: str) -> None:
    result = library(command)
    assert "conversation" in result.lines[0]
    assert any(EVERYTHING in line.split() for line in result.lines)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("messages", "--since", "yesterday"), "--since: 'yesterday' is not a time"),
        (("conversations", "--by", "name"), "by: 'name' is unknown"),
        (("messages", "--role", "agent"), "role: 'agent' is unknown"),
        (("conversation", "nonsense"), "no conversation has the id 'nonsense'"),
        (("conversation", EVERYTHING, "--version", "99"), "is at version 16: it has no version 99 yet"),
        (("conversation", EVERYTHING, "--version", "1", "--position", "1"), "give exactly one"),
        (("conversation", EVERYTHING, "--time", "2000-01-01"), "had not begun at time 2000-01-01"),
        (("messages", "--at-least", "1000", "--timeout", "0"), "not applied position 1000"),
    ],
)
def test_errors_name_the_wrong_argument(library: Eventstore, arguments: tuple[str, ...], expected: str) -> None:
    result = library(*arguments)
    assert (result.code, result.out) == (1, "")
    assert expected in result.err
    assert "Traceback" not in result.err


def test_a_conversation_as_it_is_and_as_it_was(library: Eventstore) -> None:
    now = json.loads(library("conversation", EVERYTHING, "--json").out)
    assert set(now) == {"conversation", "messages", "tasks"}
    assert (now["conversation"]["id"], now["conversation"]["version"]) == (ID, 16)
    assert now["messages"] == rows_of(library, "messages", EVERYTHING)
    assert now["tasks"] == rows_of(library, "tasks", EVERYTHING)
    before = json.loads(library("conversation", EVERYTHING, "--version", "3", "--json").out)
    assert (before["conversation"]["name"], len(before["messages"]), before["tasks"]) == ("Trip", 2, [])
    table = library("conversation", ID, "--version", "8")
    assert (table.code, table.err) == (0, "")
    assert "completed" in table.out
    assert "looked it up" not in table.out


def test_a_read_waits_until_the_workers_have_applied_a_position(empty: Eventstore, settings: Settings) -> None:
    asyncio.run(_append(settings))
    behind = empty("messages", "--at-least", "1", "--timeout", "0.1")
    assert behind.code == 1
    assert "not applied position" in behind.err
    asyncio.run(_catch_up(settings))
    for command in ("conversations", "messages", "tasks"):
        assert len(rows_of(empty, command, "--at-least", "1")) == 1


def test_a_list_of_all_has_a_default_limit(empty: Eventstore, settings: Settings) -> None:
    asyncio.run(_append(settings, 60))
    asyncio.run(_catch_up(settings))
    result = empty("messages")
    assert len(result.lines) == 51
    assert "there is more" in result.err
    assert len(rows_of(empty, "messages", "--limit", "100")) == 60


async def _append(settings: Settings, number: int = 1) -> None:
    async with EventStore(settings) as store:
        messages = [MessageAdded(role="user", content="x") for _ in range(number)]
        await store.append(UUID(int=1), [*messages, TaskCreated(task_id=UUID(int=2), description="x")])


async def _catch_up(settings: Settings) -> None:
    async with EventStore(settings) as store:
        await catch_up(store)


@pytest.mark.slow
def test_rows_of_deleted_conversations_are_listed_on_request_only(empty: Eventstore, settings: Settings) -> None:
    async def fill() -> None:
        async with EventStore(settings) as store:
            trip = conversation_uuid(store.tenant, "trip")
            message, task = MessageAdded(role="user", content="hello", awaits_answer=True), TaskCreated(task_id=TASK)
            await store.append(trip, [ConversationCreated(given_id="trip"), message, task, ConversationDeleted()])
            await catch_up(store)

    asyncio.run(fill())
    for command in ("conversations", "messages", "tasks"):
        assert rows_of(empty, command) == []
        assert len(rows_of(empty, command, "--deleted")) == 1
    assert len(rows_of(empty, "messages", "trip")) == len(rows_of(empty, "tasks", "trip")) == 1
    assert len(rows_of(empty, "history")) == 4
    assert rows_of(empty, "pending") == []
    assert "hello" not in empty("search", "hello").out
