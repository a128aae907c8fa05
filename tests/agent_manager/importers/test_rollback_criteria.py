"""Lost data, and operations that take 50 % longer, are reasons for a rollback."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.commandline import Eventstore
from support.demoapp import Application, Manager, serving
from support.ports import free_port

from agent_manager.importers.backup import SourceBackupDamaged
from agent_manager.importers.rollback_criteria import (
    MAX_SLOWDOWN_MS,
    Baseline,
    baseline_path,
    compare_latency,
    measure,
    measure_again,
    read_baseline,
    write_baseline,
)

pytestmark = pytest.mark.shared_database

SLOW_SECONDS = 2 * MAX_SLOWDOWN_MS / 1000


@pytest.fixture
def slow_url(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an application with the same conversations that answers slowly."""

    class Slow(Application):
        def result(self, method: str, params: Any) -> Any:
            if method == "conversation/list":
                time.sleep(SLOW_SECONDS)
            return super().result(method, params)

    with serving(manager, Slow) as url:
        yield url


@pytest.mark.any_server
@pytest.mark.parametrize(
    ("before", "now", "is_too_slow"), [(200.0, 300.0, False), (200.0, 301.0, True), (7.0, 15.0, False)]
)
def test_an_operation_is_too_slow_above_both_limits(before: float, now: float, is_too_slow: bool) -> None:
    earlier = Baseline("t", "u", "then", {"conversation/list": before, "gone": 1.0})
    [change] = compare_latency(earlier, Baseline("t", "u", "now", {"conversation/list": now, "new": 1.0}))
    assert (change.operation, change.is_too_slow) == ("conversation/list", is_too_slow)


@pytest.mark.any_server
@pytest.mark.slow
async def test_delays_of_reused_connections_are_not_measured(manager: Manager) -> None:
    class Delayed(Application):
        def result(self, method: str, params: Any) -> Any:
            time.sleep(0.015)
            return super().result(method, params)

    with serving(manager, Delayed) as url:  # it sends head and body in two packets
        latency = (await measure(url, "t")).milliseconds
    assert all(15 <= milliseconds < 40 for milliseconds in latency.values()), latency


@pytest.mark.any_server
async def test_measuring_lists_no_messages_with_files(manager: Manager, url: str) -> None:
    before = [conversation.model_copy(deep=True) for conversation in manager.conversations]
    assert "message/list" not in (await measure(url, "t")).milliseconds
    assert manager.conversations == before
    manager.create_conversation("plain")
    manager.add_message(
        {"role": "user", "messageId": "p", "contextId": "plain", "parts": [{"kind": "text", "text": "hi"}]}
    )
    assert (await measure(url, "t")).conversation == "plain"
    assert "message/list" in (await measure(url, "t")).milliseconds


@pytest.mark.any_server
@pytest.mark.slow
async def test_an_old_application_that_still_runs_is_measured_alternately(url: str, slow_url: str) -> None:
    recorded = Baseline("t", slow_url, "then", {"conversation/list": 1.0})
    before, now = await measure_again(recorded, url)
    assert (before.url, now.url) == (slow_url, url)
    assert before.milliseconds["conversation/list"] > SLOW_SECONDS * 1000 > now.milliseconds["conversation/list"]
    gone = Baseline("t", f"http://127.0.0.1:{free_port()}", "then", {"conversation/list": 1.0})
    assert (await measure_again(gone, url))[0] == gone
    assert (await measure_again(recorded, slow_url.replace("127.0.0.1", "localhost")))[0] == recorded


@pytest.mark.any_server
def test_a_baseline_belongs_to_its_tenant_and_application(backups: Path) -> None:
    own, others = (Baseline(tenant, "http://a:1", "then", {"task/list": 1.0}) for tenant in ("own", "other"))
    assert write_baseline(others, backups) == baseline_path(backups)
    assert read_baseline(backups, "own", "http://a:1") is None
    assert write_baseline(own, backups) != baseline_path(backups)
    assert read_baseline(backups, "own", "http://a:1") == own
    assert read_baseline(backups, "own", "google-adk") == own
    assert read_baseline(backups, "own", "http://a:2") is None
    newer = replace(own, milliseconds={"task/list": 2.0})
    write_baseline(newer, backups)
    assert read_baseline(backups, "own", "http://a:1") == newer
    assert {stat.S_IMODE(path.stat().st_mode) for path in backups.iterdir()} == {0o600}
    assert stat.S_IMODE(backups.stat().st_mode) == 0o700


@pytest.mark.any_server
def test_a_baseline_without_a_tenant_is_rejected(tmp_path: Path) -> None:
    baseline_path(tmp_path).write_text('{"url": "http://a", "taken_at": "then", "milliseconds": {}}', encoding="utf-8")
    with pytest.raises(SourceBackupDamaged, match="does not name its tenant"):
        read_baseline(tmp_path, "t", "http://a")
    own = Baseline("t", "http://a", "then", {})
    write_baseline(own, tmp_path)
    assert read_baseline(tmp_path, "t", "http://a") == own


@pytest.mark.slow
def test_without_loss_and_slowdown_there_is_no_reason_to_roll_back(
    empty: Eventstore, own_tenant: str, url: str, backups: Path
) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    slow = dict.fromkeys(("conversation/list", "task/list", "message/pending"), 60_000.0)
    write_baseline(Baseline(own_tenant, url, "then", slow), backups)
    result = empty("rollback", "--check", "--url", url, "--backups", str(backups))
    assert result.code == 0, result.out + result.err
    assert "Stay" in result.out
    assert "24 hours" in result.out


@pytest.mark.slow
def test_a_slow_operation_is_a_reason_to_roll_back(
    empty: Eventstore, own_tenant: str, url: str, slow_url: str, backups: Path
) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    recorded = json.loads(baseline_path(backups).read_text(encoding="utf-8"))
    assert (recorded["tenant"], recorded["url"]) == (own_tenant, url)
    assert set(recorded["milliseconds"]) == {"conversation/list", "task/list", "message/pending"}
    result = empty("rollback", "--check", "--url", slow_url, "--backups", str(backups), "--json")
    assert result.code == 1
    found = json.loads(result.out)
    assert (found["roll_back"], found["too_slow"], found["data_lost"]) == (True, True, False)


@pytest.mark.slow
def test_a_few_milliseconds_are_no_reason_to_roll_back(
    empty: Eventstore, own_tenant: str, url: str, backups: Path
) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    write_baseline(Baseline(own_tenant, url, "then", {"conversation/list": 0.000001}), backups)
    result = empty("rollback", "--check", "--url", url, "--backups", str(backups))
    assert result.code == 0, result.out + result.err


def test_a_baseline_of_another_tenant_does_not_count(
    empty: Eventstore, own_tenant: str, url: str, backups: Path
) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    recorded = json.loads(baseline_path(backups).read_text(encoding="utf-8"))
    baseline_path(backups).write_text(json.dumps(recorded | {"tenant": "another"}), encoding="utf-8")
    result = empty("rollback", "--check", "--url", url, "--backups", str(backups))
    assert (result.code, result.err) == (0, "")
    assert f"of tenant {own_tenant!r} is missing" in result.out


def test_lost_data_is_a_reason_to_roll_back(empty: Eventstore, url: str, backups: Path, superuser_url: str) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    with psycopg.connect(superuser_url) as connection:
        connection.execute("DELETE FROM messages WHERE given_id = 'm1'")
    result = empty("rollback", "--check", "--backups", str(backups))
    assert result.code == 1
    assert "ROLL BACK   data is lost" in result.out
    assert "'first'" in result.out


@pytest.mark.slow
def test_data_that_is_not_served_counts_as_lost(empty: Eventstore, url: str, backups: Path, manager: Manager) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    del manager.conversations[0].messages[2]
    result = empty("rollback", "--check", "--url", url, "--backups", str(backups))
    assert result.code == 1
    assert "NOT SERVED  1 conversations" in result.out


def test_without_a_url_latency_is_reported_as_not_compared(empty: Eventstore, url: str, backups: Path) -> None:
    assert empty("import", "--from-url", url, "--backups", str(backups)).code == 0
    result = empty("rollback", "--check", "--backups", str(backups))
    assert result.code == 0
    assert "not compared: give the application's --url" in result.out


def test_a_rollback_without_a_backup_is_an_error(empty: Eventstore, backups: Path) -> None:
    result = empty("rollback", "--backups", str(backups))
    assert (result.code, result.out) == (1, "")
    assert "there is no backup" in result.err
