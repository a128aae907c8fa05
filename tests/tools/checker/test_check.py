"""The checker as a whole: it lets the store pass, and finds out stores and readers that are wrong."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from eventstore import Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.errors import InputError, PermissionDenied, ServerUnreachable
from tools.checker.check import Check, Progress
from tools.checker.report import Kind, Report
from tools.checker.settings import CheckSettings, Fault

pytestmark = pytest.mark.timeout(180)

NAIVE = "tools.checker.eventstore_adapter:NaiveReader"


async def checked(settings: Settings, folder: Path | None = None, **how: Any) -> Report:
    quick = {"writers": 1, "readers": 1, "seconds": 0.5, "faults": frozenset(), "seed": 3} | how
    return await Check(settings, CheckSettings(folder=folder, **quick)).run()


def schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'eventstore_check_%'")
        return [name for (name,) in rows]


@pytest.mark.any_server
async def test_the_store_keeps_its_promises_under_all_faults(clean_environment: None, tmp_path: Path) -> None:
    shown: list[Progress] = []
    folder = tmp_path / "journals"
    report = await Check(Settings(), CheckSettings(seconds=8, seed=1, folder=folder), shown.append).run()
    text = "\n".join(report.lines())
    assert report.is_clean, text
    assert set(report.faults) == set(Fault), text
    appends = report.findings.appends
    assert min(appends.acknowledged, appends.refused, appends.aborted) > 10, text
    assert appends.unknown_and_found > 0, text
    assert appends.unknown_and_absent > 0, text
    assert report.findings.events > appends.acknowledged
    assert report.findings.reading.incarnations > report.findings.reading.readers == 5
    assert report.findings.reading.deliveries > 3 * report.findings.events
    assert report.not_possible == ()
    assert report.remarks == ()
    assert shown[-1].seconds == 8
    assert max(progress.faults for progress in shown) > 7
    json.dumps(report.values())
    assert [path.name for path in folder.iterdir() if not path.name.endswith((".journal", ".checkpoint"))] == []


async def test_a_reader_without_the_gate_is_detected(settings: Settings, database_url: str) -> None:
    found: set[Kind] = set()
    begun = monotonic()
    while found != {Kind.MISSED, Kind.PASSED}:
        assert monotonic() - begun < 60, f"within a minute only this was found: {found}"
        how = CheckSettings(
            seconds=3, writers=2, readers=4, seed=1, reader="tools.checker.eventstore_adapter:NaiveReader"
        )
        report = await Check(settings, how).run()
        found = {kind for kind, count in report.findings.counts.items() if count}
        assert found <= {Kind.MISSED, Kind.PASSED}
    for violation in report.findings.shortest():
        assert 3 <= len(violation.history) <= 6
        for begins in ("tries append", "sees position"):
            assert any(line.what.startswith(begins) for line in violation.history)
    lines = list(report.lines())
    assert f"              {report.findings.counts[Kind.MISSED]:,}: a reader never saw an event" in lines
    assert [line for line in lines if "  tries append " in line]
    assert any("kill-server" in reason for reason in report.not_possible)
    assert schemas(database_url) == []


@pytest.mark.any_server
async def test_a_store_that_loses_events_is_detected_and_its_journals_are_kept(
    settings: Settings, database_url: str, tmp_path: Path
) -> None:
    report = await checked(settings, tmp_path / "journals", store="support.adapters:Forgetful", keep=True)
    assert report.findings.counts[Kind.LOST] > 0
    (lost,) = [violation for violation in report.findings.shortest() if violation.kind is Kind.LOST]
    tried, acknowledged, log = lost.history
    assert tried.what.startswith("tries append")
    assert " is acknowledged: event " in acknowledged.what
    assert (log.time, log.who, log.what[:16]) == (None, "log", "has no event " + log.what[13:16])
    assert (
        report.findings.appends.refused == report.findings.appends.aborted == 0
    )  # it is not asked for what it cannot do
    assert report.check.keep
    assert report.journals == str(tmp_path / "journals")
    assert f"journals      {report.journals}" in report.lines()
    assert sorted((tmp_path / "journals").glob("writer-1.0001.journal"))
    assert report.schema in schemas(database_url)


@pytest.mark.any_server
async def test_errors_without_a_message_are_violations(settings: Settings) -> None:
    report = await checked(settings, store="support.adapters:Raising", reader="support.adapters:Bare", readers=3)
    assert set(report.findings.counts) == {Kind.ERROR}
    shown = {line.what for violation in report.findings.shortest() for line in violation.history}
    assert any("KeyError" in what or "ValueError: boo" in what or "ended by itself" in what for what in shown)
    assert report.remarks == tuple(f"reader-{name}: a remark" for name in ("1-file", "2-start", "3-file"))
    assert "remark        reader-1-file: a remark" in report.lines()


@pytest.mark.any_server
async def test_a_reader_that_never_reaches_the_end_is_reported(settings: Settings) -> None:
    report = await checked(settings, reader="support.adapters:Lazy", patience=3.0)
    assert report.findings.counts[Kind.STUCK] == 1
    assert "reader-1-file stopped after position 0" in [violation.what for violation in report.findings.shortest()]


@pytest.mark.any_server
async def test_an_append_that_does_not_return_is_a_violation(settings: Settings) -> None:
    report = await checked(settings, store="support.adapters:Hanging", patience=2.0)
    assert report.findings.counts[Kind.HUNG] == 1
    (hung,) = [violation for violation in report.findings.shortest() if violation.kind is Kind.HUNG]
    assert [line.what.split(",")[0] for line in hung.history] == ["tries append 5"]


@pytest.mark.any_server
async def test_an_unhandled_error_is_a_violation(settings: Settings) -> None:
    report = await checked(settings, reader="support.adapters:Careless")
    assert report.findings.counts == {Kind.UNHANDLED: 1}
    (violation,) = report.findings.shortest()
    assert violation.what == "reader-1-file: ZeroDivisionError: integer division or modulo by zero"
    assert "adapters.py" in violation.history[0].what


@pytest.mark.any_server
async def test_a_process_that_ends_by_itself_is_a_violation(settings: Settings) -> None:
    report = await checked(settings, reader="support.adapters:Broken", patience=10.0)
    assert report.findings.counts[Kind.CRASH] >= 1
    (crash,) = [violation for violation in report.findings.shortest() if violation.kind is Kind.CRASH]
    assert "RuntimeError: cannot be opened" in crash.what


async def test_a_named_server_is_checked_under_all_faults_where_a_command_kills_it(
    clean_environment: None, own_server: EmbeddedServer
) -> None:
    program = (
        "import os, sys; from pathlib import Path; "
        "from eventstore.database.embedded.embedded_server import EmbeddedServer;"
        "server = EmbeddedServer(Path(sys.argv[1]), bin_dir=Path(sys.argv[2])); server.acquire();"
        "os.kill(server.pid, 9); server.ensure_running(); server.release()"
    )
    path = os.pathsep.join(filter(None, sys.path))
    command = f"PYTHONPATH={path} {sys.executable} -c '{program}' {own_server.data_dir} {own_server.bin_dir}"
    report = await checked(
        Settings(database_url=own_server.url()),
        seconds=8,
        writers=2,
        readers=3,
        faults=None,
        restart_command=command,
    )
    text = "\n".join(report.lines())
    assert report.is_clean, text
    assert set(report.faults) == set(Fault), text
    assert report.findings.appends.acknowledged > 0, text


@pytest.mark.any_server
async def test_a_command_that_fails_ends_the_check(settings: Settings, database_url: str) -> None:
    with pytest.raises(InputError, match="--restart-command ended with 3"):
        await checked(settings, faults=frozenset({Fault.KILL_SERVER}), restart_command="exit 3")
    assert schemas(database_url) == []


@pytest.mark.any_server
async def test_a_command_that_does_not_restart_the_server_is_reported_at_once(
    clean_environment: None, own_server: EmbeddedServer
) -> None:
    begun = monotonic()
    with pytest.raises(InputError, match="--restart-command ended with 3"):
        await checked(
            Settings(database_url=own_server.url()),
            faults=frozenset({Fault.KILL_SERVER}),
            restart_command=f"kill -9 {own_server.pid}; exit 3",
        )
    assert monotonic() - begun < 60  # it is waited for twice as long where it is thought to come back


@pytest.mark.any_server
async def test_a_fault_that_is_not_possible_is_refused(settings: Settings) -> None:
    with pytest.raises(InputError, match="--restart-command"):
        await checked(settings, faults=frozenset({Fault.KILL_SERVER}))


@pytest.mark.any_server
@pytest.mark.parametrize("name", ["nowhere:Class", "support.adapters:Nothing", "support.adapters", ":", ""])
async def test_a_missing_adapter_is_refused(settings: Settings, name: str) -> None:
    with pytest.raises(InputError, match="expected module:Class"):
        await checked(settings, reader=name)
    with pytest.raises(InputError, match="expected module:Class"):
        await checked(settings, store=name)


@pytest.mark.any_server
async def test_an_unreachable_server_is_reported(clean_environment: None) -> None:
    with pytest.raises(ServerUnreachable):
        await checked(Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing"))


async def test_a_login_that_may_not_create_a_schema_gets_an_error(
    settings: Settings, superuser_url: str, database: str
) -> None:
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        superuser.execute(f"ALTER DATABASE {database} OWNER TO CURRENT_USER".encode())
    with pytest.raises(PermissionDenied, match="may not create a schema"):
        await checked(settings)


@pytest.mark.any_server
async def test_a_folder_that_is_not_empty_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(InputError, match="is not empty"):
        await checked(settings, tmp_path)
