"""The plan's criteria for the way back: lost data, and operations that take more than half as long again."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from support.commandline import Eventstore
from support.demoapp import Manager

from agent_manager.migrating.baseline import Baseline, baseline_path, compared, measured, write_baseline


@pytest.mark.any_server
@pytest.mark.parametrize(("now", "met"), [(15.0, False), (15.1, True), (9.0, False)])
def test_half_as_long_again_is_the_limit(now: float, met: bool) -> None:
    before = Baseline("u", "t", {"conversation/list": 10.0, "gone": 1.0})
    (one,) = compared(before, Baseline("u", "t", {"conversation/list": now, "new": 1.0}))
    assert (one.operation, one.is_met) == ("conversation/list", met)


@pytest.mark.any_server
async def test_measuring_takes_no_file_out_of_a_message(manager: Manager, url: str) -> None:
    before = [one.model_copy(deep=True) for one in manager.conversations]
    assert "message/list" not in (await measured(url)).milliseconds
    assert manager.conversations == before
    manager.create_conversation("plain")
    manager.say({"role": "user", "messageId": "p", "contextId": "plain", "parts": [{"kind": "text", "text": "hi"}]})
    assert "message/list" in (await measured(url)).milliseconds


def test_nothing_lost_and_nothing_slower_is_no_reason(empty: Eventstore, url: str, backups: Path) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    slow = dict.fromkeys(("conversation/list", "task/list", "message/pending"), 60_000.0)
    write_baseline(Baseline(url, "then", slow), backups)
    result = empty("rollback", "--check", "--url", url, "--backups", str(backups))
    assert result.code == 0, result.out + result.err
    assert "Stay" in result.out
    assert "24 hours" in result.out


def test_what_takes_longer_than_the_baseline_is_a_reason(empty: Eventstore, url: str, backups: Path) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    assert set(json.loads(baseline_path(backups).read_text(encoding="utf-8"))["milliseconds"]) == {
        "conversation/list", "task/list", "message/pending",
    }  # fmt: skip
    write_baseline(Baseline(url, "then", {"conversation/list": 0.000001}), backups)
    result = empty("rollback", "--check", "--url", url, "--backups", str(backups), "--json")
    assert result.code == 1
    found = json.loads(result.out)
    assert (found["roll_back"], found["too_slow"], found["data_lost"]) == (True, True, False)


def test_lost_data_is_a_reason(empty: Eventstore, url: str, backups: Path, superuser_url: str) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    with psycopg.connect(superuser_url) as connection:
        connection.execute("DELETE FROM messages WHERE given_id = 'm1'")
    result = empty("rollback", "--check", "--backups", str(backups))
    assert result.code == 1
    assert "ROLL BACK   data is lost" in result.out
    assert "'first'" in result.out


def test_what_is_no_longer_served_is_lost(empty: Eventstore, url: str, backups: Path, manager: Manager) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    del manager.conversations[0].messages[2]
    result = empty("rollback", "--check", "--url", url, "--backups", str(backups))
    assert result.code == 1
    assert "NOT SERVED  1 conversations" in result.out


def test_without_a_url_the_speed_is_said_not_to_be_compared(empty: Eventstore, url: str, backups: Path) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    result = empty("rollback", "--check", "--backups", str(backups))
    assert result.code == 0
    assert "not compared: give the application's --url" in result.out


def test_without_a_backup_there_is_no_way_back(empty: Eventstore, backups: Path) -> None:
    result = empty("rollback", "--backups", str(backups))
    assert (result.code, result.out) == (1, "")
    assert "no backup is there" in result.err
