"""The commands import and rollback, as they are typed."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support.commandline import Eventstore
from support.demoapp import Manager
from support.ports import free_port

pytestmark = pytest.mark.shared_database


def test_the_report_is_printed_and_written_as_json(empty: Eventstore, url: str, backups: Path) -> None:
    file = backups.parent / "report.json"
    result = empty("import", "--from-url", url, "--backups", str(backups), "--report", str(file))
    assert result.code == 0
    assert "2 conversations, 10 messages, 4 tasks: all are in the store as they were" in result.out
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["clean"] is True
    assert (report["conversations"], report["messages"], report["tasks"]) == (2, 10, 4)
    assert Path(report["backup"]["file"]).is_file()
    again = empty("import", "--from-backup", report["backup"]["file"], "--json")
    assert (again.code, json.loads(again.out)["new_events"]) == (0, 0)


def test_conversations_that_differ_are_listed(empty: Eventstore, url: str, backups: Path, manager: Manager) -> None:
    manager.add_message({"role": "user", "messageId": "x", "contextId": "first", "parts": [{"text": "a\0b"}]})
    result = empty("import", "--from-url", url, "--backups", str(backups), "--json")
    assert result.code == 1
    report = json.loads(result.out)
    assert report["conversations_that_differ"] == ["first"]
    assert [problem["conversation"] for problem in report["problems"]] == ["first"]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["import"], 2, "give FILEs, or one of"),
        (["import", "x.jsonl", "--from-url", "http://a"], 2, "give FILEs, or one of"),
        (["import", "x.jsonl", "--report", "x.json"], 2, "is for --from-url"),
        (
            ["import", "--from-adk", "nothing.db", "--time-zone", "Nowhere/City"],
            1,
            "'Nowhere/City' is not a time zone",
        ),
        (["import", "x.jsonl", "--time-zone", ".."], 1, "'..' is not a time zone"),
        (["import", "--from-backup", "x.jsonl.gz", "--time-zone", "UTC"], 2, "keeps the zone"),
        (["rollback", "--baseline"], 2, "give the application's --url"),
        (["import", "--from-url", "localhost"], 1, "is not a URL"),
        (["import", "--from-url", "http://127.0.0.1:{port}"], 1, "cannot be reached"),
        (["import", "--from-adk", "nothing.db"], 1, "is not a file"),
        (["import", "--from-backup", "nothing.jsonl.gz"], 1, "nothing.jsonl.gz"),
        (["rollback", "--baseline", "--url", "http://127.0.0.1:{port}"], 1, "cannot be reached"),
    ],
)
def test_mistakes_are_named(empty: Eventstore, arguments: list[str], code: int, reason: str) -> None:
    result = empty(*(argument.format(port=free_port()) for argument in arguments))
    assert (result.code, result.out) == (code, "")
    assert reason in result.err
    assert "Traceback" not in result.err


def test_an_application_without_the_demos_endpoints_is_an_error(empty: Eventstore, url: str) -> None:
    result = empty("import", "--from-url", f"{url}/elsewhere")
    assert result.code == 1
    assert "answered 500" in result.err


@pytest.mark.slow
def test_a_rollback_without_commands_prints_the_next_step(empty: Eventstore, url: str, backups: Path) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    result = empty("rollback", "--backups", str(backups))
    assert result.code == 0
    assert f"EVENTSTORE_RESTORE={backups / 'restore.jsonl.gz'}" in result.out


def test_the_baseline_can_be_recorded_alone(empty: Eventstore, url: str, backups: Path) -> None:
    result = empty("rollback", "--baseline", "--url", url, "--backups", str(backups))
    assert result.code == 0
    assert (backups / "baseline.json").is_file()


@pytest.mark.slow
def test_if_the_source_contradicts_the_store_nothing_is_written(
    empty: Eventstore, url: str, backups: Path, manager: Manager
) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    before = empty("tail", "--json", "--limit", "1000").out
    assert '"conversation.created"' in before
    manager.create_conversation("third")
    for message in manager.conversations[0].messages:
        message.message_id = f"again-{message.message_id}"
    result = empty("import", "--from-url", url, "--backups", str(backups))
    assert (result.code, result.out) == (1, "")
    assert "nothing was written: conversation 'first' is another in the store" in result.err
    assert "import into another tenant" in result.err
    assert empty("tail", "--json", "--limit", "1000").out == before


def test_only_the_owner_can_read_the_report(empty: Eventstore, url: str, backups: Path) -> None:
    file = backups.parent / "report.json"
    assert empty("import", "--from-url", url, "--backups", str(backups), "--report", str(file)).code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
