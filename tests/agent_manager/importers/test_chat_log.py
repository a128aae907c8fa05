"""Files are imported once, whatever is repeated or interrupted, and what cannot be imported is reported."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.environment import child_environment

from agent_manager.importers import FileUnreadable, ImportReport, ImportStopped, chat_events, chat_log, import_files
from eventstore import (
    ConversationDeleted,
    EventStore,
    MessageAdded,
    NewEvent,
    Role,
    Settings,
    conversation_uuid,
    sent_message,
)
from eventstore.errors import InputError, InvalidEvent, ServerError

pytestmark = pytest.mark.shared_database

WriteLog = Callable[..., Path]


@pytest.fixture
def log(tmp_path: Path) -> WriteLog:
    """Writes a chat log of lines, each given as its bytes or as its value."""

    def write(*lines: Any, name: str = "chat.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines) + b"\n")
        return path

    return write


def conversation(given_id: Any, *texts: str, **members: Any) -> dict[str, Any]:
    return {
        "id": given_id, "title": f"about {given_id}", **members,
        "messages": [{"role": "user", "content": text} for text in texts],
    }  # fmt: skip


async def messages(store: EventStore, given_id: str, tenant: str | None = None) -> list[dict[str, Any]]:
    who = tenant or store.tenant
    events = store.read(conversation_uuid(who, given_id), tenant=who)
    return [sent_message(event.data) async for event in events if isinstance(event.data, MessageAdded)]


async def ids(store: EventStore) -> list[str]:
    """The ids of the conversations in the log, as they were given."""
    return [str(event.content["given_id"]) async for event in store.read_log(types=["conversation.created"])]


async def test_importing_twice_adds_nothing(store: EventStore, log: WriteLog) -> None:
    path = log(*(conversation(n, "hello", "bye") for n in range(120)))
    first = await import_files(store, [path])
    assert (first.conversations, first.messages, first.new_events, first.known_events) == (120, 240, 360, 0)
    second = await import_files(store, [path])
    assert (second.conversations, second.messages, second.new_events, second.known_events) == (120, 240, 0, 360)
    assert first.position == second.position == 360


async def test_a_grown_conversation_gets_only_its_new_messages(store: EventStore, log: WriteLog) -> None:
    call = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}]}
    answer = {"role": "tool", "tool_call_id": "a", "content": "done"}
    before, after = conversation("c", "hello"), conversation("c", "hello")
    before["messages"].append(call)
    after["messages"].extend([call, answer, {"role": "user", "content": "thanks"}])
    await import_files(store, [log(before)])
    report = await import_files(store, [log(after)])
    assert (report.new_events, report.known_events) == (4, 4)
    assert await messages(store, "c") == after["messages"]


async def test_other_content_under_a_known_id_is_reported(store: EventStore, log: WriteLog) -> None:
    path = log(conversation("a", "hello"), conversation("b", "hello"), conversation("a", "good bye"))
    report = await import_files(store, [path])
    assert [(problem.file, problem.line) for problem in report.problems] == [(str(path), 3)]
    assert "already holds another event" in report.problems[0].reason
    assert await ids(store) == ["a", "b"]
    assert await messages(store, "a") == [{"role": "user", "content": "hello"}]


async def test_a_conflict_does_not_prevent_the_import_of_its_group(store: EventStore, log: WriteLog) -> None:
    await import_files(store, [log(conversation("b", "hello"))])
    report = await import_files(store, [log(*(conversation(x, "other") for x in "abc"))])
    assert [problem.line for problem in report.problems] == [2]
    assert (report.conversations, report.messages) == (2, 2)
    assert await ids(store) == ["b", "a", "c"]


def with_message(members: bytes) -> bytes:
    return b'{"id": "x", "messages": [{"role": "user", %s}]}' % members


BAD = {
    "no JSON": (b"{", "is not JSON"),
    "no UTF-8": (b'{"id": "\xff", "messages": []}', "is not UTF-8"),
    "NaN": (with_message(b'"score": NaN'), "NaN is not a JSON number"),
    "infinity": (with_message(b'"n": 1e999'), "messages[0].n: is inf"),
    "NUL": (with_message(b'"content": "a\\u0000"'), "messages[0].content: has a NUL"),
    "NUL in a key": (with_message(b'"a\\u0000": 1'), "a key of messages[0]: has a NUL"),
    "NUL in the id": (b'{"id": "x\\u0000", "messages": []}', "conversation.given_id: has a NUL"),
    "NUL in the title": (b'{"id": "x", "title": "\\u0000", "messages": []}', "conversation.name: has a NUL"),
    "NUL in a member": (b'{"id": "x", "m": ["\\u0000"], "messages": []}', "conversation.metadata.m[0]: has a NUL"),
    "surrogate": (with_message(b'"content": "\\ud800"'), "messages[0].content: has a lone surrogate"),
    "surrogate in a message's id": (with_message(b'"id": "\\ud800"'), "lone surrogate"),
    "surrogate in a call's id": (with_message(b'"tool_calls": [{"id": "\\ud800"}]'), "lone surrogate"),
    "role": (with_message(b'"role": "cat"'), "messages[0].role: 'cat' is not a known role"),
    "a text for a message": (b'{"id": "x", "messages": ["hello"]}', "messages[0]: is a text"),
    "too large": (with_message(b'"content": "%s"' % (b"x" * 12 * 2**20)), "messages[0] takes"),
    "too deep": (with_message(b'"n": %s' % (b"[" * 300 + b"]" * 300)), "nested deeper"),
    "much too deep": (b"[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_malformed_line_is_reported_and_the_others_are_imported(
    kind: str, store: EventStore, log: WriteLog
) -> None:
    line, reason = BAD[kind]
    path = log(conversation("a"), b"", line, b" \t\r", conversation("b"))
    report = await import_files(store, [path])
    assert [(problem.file, problem.line) for problem in report.problems] == [(str(path), 3)]
    assert reason in report.problems[0].reason
    assert await ids(store) == ["a", "b"]


@pytest.mark.parametrize("kind", BAD)
async def test_a_strict_import_stops_at_a_bad_line(kind: str, store: EventStore, log: WriteLog) -> None:
    path = log(conversation("a"), BAD[kind][0], conversation("b"))
    with pytest.raises(ImportStopped) as stopped:
        await import_files(store, [path], strict=True)
    assert isinstance(stopped.value, InputError)
    assert str(stopped.value).startswith(f"{path}:2: ")
    assert stopped.value.report.problems == [stopped.value.problem]
    assert await ids(store) == ["a"]


async def test_a_strict_import_stops_at_a_conflict(store: EventStore, log: WriteLog) -> None:
    await import_files(store, [log(conversation("b", "hello"))])
    with pytest.raises(ImportStopped, match=r"chat\.jsonl:2: conversation 'b' already holds .* messages\[0\]"):
        await import_files(store, [log(*(conversation(x, "other") for x in "abc"))], strict=True)
    assert await ids(store) == ["b", "a"]


async def test_problems_are_in_the_order_of_the_files(store: EventStore, log: WriteLog) -> None:
    await import_files(store, [log(conversation("a", "hello"))])
    first = log(conversation("a", "other"), b"{", name="first")
    second = log(b"{", conversation("b"), conversation("a", "other"), b"{", name="second")
    report = await import_files(store, [first, str(second)])
    places = [(Path(problem.file).name, problem.line) for problem in report.problems]
    assert places == [("first", 1), ("first", 2), ("second", 1), ("second", 3), ("second", 4)]


async def test_a_problem_fits_on_one_line_of_a_terminal(store: EventStore, log: WriteLog) -> None:
    sent = {"role": "user", "\x1b[2J\n\ud800" + "k" * 10_000: 1e400}
    report = await import_files(store, [log({"id": "c", "messages": [sent]})])
    assert str(report.problems[0]).isprintable()
    assert len(report.problems[0].reason) < 1000


async def test_a_byte_order_mark_is_ignored(store: EventStore, log: WriteLog) -> None:
    report = await import_files(store, [log(b"\xef\xbb\xbf" + json.dumps(conversation("a")).encode())] * 2)
    assert (report.conversations, report.problems) == (2, [])


async def test_a_line_beyond_the_limit_is_reported(
    store: EventStore, log: WriteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_manager.importers.json_values.MAX_VALUE_BYTES", 100)
    report = await import_files(store, [log(conversation("a"), conversation("b", "x" * 100), conversation("c"))])
    assert [problem.line for problem in report.problems] == [2]
    assert "is longer than" in report.problems[0].reason
    assert await ids(store) == ["a", "c"]


async def test_a_file_that_cannot_be_read_stops_everything_before_it_begins(store: EventStore, log: WriteLog) -> None:
    with pytest.raises(FileUnreadable, match=r"missing\.jsonl"):
        await import_files(store, [log(conversation("a")), "missing.jsonl"])
    assert await ids(store) == []


async def test_a_store_that_is_not_open_is_an_error_of_its_own(log: WriteLog, settings: Settings) -> None:
    with pytest.raises(InputError, match="not open"):
        await import_files(EventStore(settings), [log(conversation("a"))])


async def test_an_invalid_tenant_is_rejected(store: EventStore, log: WriteLog) -> None:
    with pytest.raises(InvalidEvent, match="tenant"):
        await import_files(store, [log(conversation("a"))], tenant="\0")


async def test_several_tenants_can_import_the_same_file(store: EventStore, log: WriteLog) -> None:
    path = log(conversation("a", "hello"))
    for tenant in ("here", "there"):
        report = await import_files(store, [path], tenant=tenant)
        assert report.new_events == 2
        assert await messages(store, "a", tenant) == [{"role": "user", "content": "hello"}]


async def test_standard_input_is_read_like_a_file(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = json.dumps(conversation("a")).encode() + b"\n{"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    report = await import_files(store, ["-"])
    assert [(problem.file, problem.line) for problem in report.problems] == [("-", 2)]
    assert (report.bytes_read, report.total_bytes) == (len(lines), None)


async def test_progress_is_reported_once_per_group(store: EventStore, log: WriteLog) -> None:
    path = log(*(conversation(n, "hello") for n in range(120)))
    progress: list[ImportReport] = []
    await import_files(store, [path, log(b"{", name="other")], progress=lambda report: progress.append(replace(report)))
    total = path.stat().st_size + 2
    assert [report.conversations for report in progress] == [50, 100, 120, 120]
    assert (progress[-1].bytes_read, progress[-1].total_bytes) == (total, total)
    assert (progress[-1].messages, len(progress[-1].problems)) == (120, 1)


async def test_a_conversation_larger_than_an_append_takes_several(
    store: EventStore, log: WriteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_events, "MAX_EVENTS", 10)
    texts = [f"number {n}" for n in range(25)]
    path = log(conversation("a"), conversation("b", *texts), conversation("c"))
    report = await import_files(store, [path])
    assert (report.conversations, report.messages, report.new_events, report.problems) == (3, 25, 28, [])
    assert [sent["content"] for sent in await messages(store, "b")] == texts
    assert await ids(store) == ["a", "b", "c"]


async def test_a_large_conversation_with_a_malformed_end_is_not_imported(
    store: EventStore, log: WriteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_events, "PART_BYTES", 500)
    report = await import_files(store, [log(conversation("b", *("x" * 100 for _ in range(20)), "\0"))])
    assert [problem.reason.split(":")[0] for problem in report.problems] == ["messages[20].content"]
    assert await ids(store) == []


async def test_a_cancelled_import_continues(store: EventStore, log: WriteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_log, "GROUP_CONVERSATIONS", 3)
    path = log(*(conversation(n, "hello", "bye") for n in range(30)))

    def cancel(report: ImportReport) -> None:
        if report.conversations == 12:
            running.cancel()

    running = asyncio.ensure_future(import_files(store, [path], progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await running
    there = len(await ids(store))
    assert 12 <= there < 30
    report = await import_files(store, [path])
    assert (report.conversations, report.known_events) == (30, 3 * there)
    assert await ids(store) == [str(n) for n in range(30)]


_IMPORT = """
import asyncio, sys
from agent_manager.importers import import_files
from eventstore import EventStore, Settings

async def main():
    async with EventStore(Settings(database_url=sys.argv[1])) as store:
        await import_files(store, [sys.argv[2]], progress=lambda report: print(report.conversations, flush=True))

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_killed_import_continues(store: EventStore, database_url: str, log: WriteLog) -> None:
    path = log(*(conversation(n, "hello", "bye") for n in range(500)))
    child = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", _IMPORT, database_url, path],
        stdout=subprocess.PIPE,
        env=child_environment(EVENTSTORE_TENANT=store.tenant),
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"50"
        os.kill(child.pid, signal.SIGKILL)
    report = await import_files(store, [path])
    assert report.known_events >= 150
    assert report.new_events + report.known_events == 1500
    assert [event.version async for event in store.read_log()] == [1, 2, 3] * 500


async def test_a_failing_server_ends_the_import(
    store: EventStore, log: WriteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ServerError("the server is on fire")

    monkeypatch.setattr(store, "append_all", fail)
    with pytest.raises(ServerError, match="on fire"):
        await import_files(store, [log(conversation("a"))])


async def test_an_import_continues_after_others_appended_to_its_conversation(store: EventStore, log: WriteLog) -> None:
    await import_files(store, [log(conversation("a", "hello"))])
    await store.append(conversation_uuid(store.tenant, "a"), [NewEvent(MessageAdded(role=Role.USER, content="live"))])
    report = await import_files(store, [log(conversation("a", "hello", "bye"))])
    assert (report.new_events, report.problems) == (1, [])
    assert [sent["content"] for sent in await messages(store, "a")] == ["hello", "live", "bye"]


async def test_a_deleted_conversation_is_rejected_and_the_others_are_imported(store: EventStore, log: WriteLog) -> None:
    await import_files(store, [log(conversation("a", "hello"), conversation("b", "hello"))])
    await store.append(conversation_uuid(store.tenant, "a"), [ConversationDeleted()])
    unchanged = await import_files(store, [log(conversation("a", "hello"), conversation("b", "hello"))])
    assert (unchanged.new_events, unchanged.problems) == (0, [])
    report = await import_files(
        store,
        [log(conversation("a", "hello", "bye"), conversation("b", "hello", "bye"), conversation("c", "hello"))],
    )
    [problem] = report.problems
    assert (problem.line, "is deleted" in problem.reason, "reactivate" in problem.reason) == (1, True, True)
    assert [len(await messages(store, name)) for name in "abc"] == [1, 2, 1]


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=8,
)
sent_messages = st.builds(
    lambda further, known: {**further, **known, "role": "assistant"},
    st.dictionaries(texts, json_values, max_size=3),
    st.dictionaries(st.sampled_from(["content", "parts", "metadata", "id", "time"]), json_values, max_size=3),
).filter(lambda sent: not {"tool_calls", "function_call"} & sent.keys())


async def test_every_message_is_read_from_the_log_as_it_was_sent(store: EventStore, tmp_path: Path) -> None:
    runs = count()
    loop = asyncio.get_running_loop()

    async def import_and_read(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
        given_id, path = f"run {next(runs)}", tmp_path / "log"
        path.write_text(json.dumps({"id": given_id, "messages": sent}))
        report = await import_files(store, [path])
        assert report.problems == []
        return await messages(store, given_id)

    @given(st.lists(sent_messages, max_size=4))
    def comes_back(sent: list[dict[str, Any]]) -> None:
        assert asyncio.run_coroutine_threadsafe(import_and_read(sent), loop).result() == sent

    await asyncio.to_thread(comes_back)
