"""The smaller parts of the checker."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from support.environment import child_environment

from eventstore import Settings
from eventstore.errors import (
    ConnectionLost,
    EventIdConflict,
    EventStoreError,
    InputError,
    RetryableError,
    SchemaMissing,
    ServerUnreachable,
    WrongExpectedVersion,
)
from tools.checker.adapter import CheckEvent, OutcomeUnknown, Refused, Write, WrongVersion, content_of
from tools.checker.eventstore_adapter import EventStoreLog, adapter_errors
from tools.checker.journal import Journal, read_lines
from tools.checker.proxy import Proxy
from tools.checker.server import url_via_proxy, url_with_name
from tools.checker.settings import READER, CheckSettings, Fault, ProcessTask, parse_faults


@pytest.mark.parametrize("what", ["seconds", "writers", "readers", "patience"])
def test_values_below_the_minimum_are_refused(what: str) -> None:
    with pytest.raises(InputError, match=f"{what}: 0 is too little"):
        CheckSettings(**{what: 0})  # type: ignore[arg-type]


def test_seconds_that_are_not_a_number_are_refused() -> None:
    with pytest.raises(InputError, match="seconds: nan is too little"):
        CheckSettings(seconds=float("nan"))


def test_faults_are_chosen_by_name() -> None:
    assert parse_faults(["cut", "kill-server"]) == {Fault.CUT, Fault.KILL_SERVER}
    assert parse_faults([]) == set()
    with pytest.raises(InputError, match="'earthquake' is not a valid Fault: choose among kill-writer, kill-reader"):
        parse_faults(["earthquake"])


URLS = {
    "tcp": "postgresql://ana:s%40crat%2F@db.example:6000/my%20db?sslmode=verify-full&application_name=mine",
    "socket": "postgresql://ana@/mine?host=%2Ftmp%2Fhere&port=6000",
    "short": "postgresql:///mine",
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_a_name_changes_nothing_else_about_a_url(url: str) -> None:
    assert conninfo_to_dict(url_with_name(url, "check_writer")) == conninfo_to_dict(url) | {
        "application_name": "check_writer"
    }


def test_through_the_proxy_a_certificate_is_still_checked_against_the_server_s_name() -> None:
    proxy = Proxy("db.example", 6000)
    proxy.port = 7000
    parts = conninfo_to_dict(url_via_proxy(URLS["tcp"], proxy, "db.example"))
    assert parts == conninfo_to_dict(URLS["tcp"]) | {"host": "db.example", "hostaddr": "127.0.0.1", "port": "7000"}
    proxy.host = "/tmp/proxy"
    parts = conninfo_to_dict(url_via_proxy(URLS["socket"], proxy, "/tmp/here"))
    assert parts == conninfo_to_dict(URLS["socket"]) | {"host": "/tmp/proxy", "port": "7000"}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (WrongExpectedVersion("c", 1, 2), WrongVersion),
        (EventIdConflict("c", "e"), Refused),
        (RetryableError(), Refused),
        (InputError(), Refused),
        (ConnectionLost(), OutcomeUnknown),
        (ServerUnreachable(), OutcomeUnknown),
        (SchemaMissing(), SchemaMissing),
        (psycopg.errors.AdminShutdown(), OutcomeUnknown),
        (psycopg.errors.DeadlockDetected(), Refused),
        (psycopg.errors.SyntaxError(), EventStoreError),
        (KeyError(), KeyError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_errors_become_those_of_the_adapter(error: Exception, outcome: type[Exception]) -> None:
    with pytest.raises(outcome), adapter_errors():
        raise error


def test_contents_follow_from_ids_and_differ_in_size() -> None:
    assert content_of(UUID(int=5)) == content_of(UUID(int=5)) != content_of(UUID(int=6))
    sizes = {len(json.dumps(content_of(uuid4()))) for _ in range(2000)}
    assert min(sizes) < 100
    assert max(sizes) > 15_000


def test_a_journal_holds_every_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.write(k="try", op=1)
    journal.buffer("start 0")
    assert [line.split(",")[1:] for line in read_lines(tmp_path / "journal")] == [['"k":"try"', '"op":1}']]
    journal.buffer("+ 1")
    journal.flush()
    assert [line for line in read_lines(tmp_path / "journal") if line[0] not in "{@"] == ["start 0", "+ 1"]
    for number in range(20_000):
        journal.buffer(f"+ {number}")
    assert len(list(read_lines(tmp_path / "journal"))) > 10_000  # it does not wait for ever
    journal.close()
    assert [line for line in read_lines(tmp_path / "journal") if line[0] == "+"][-1] == "+ 19999"
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "journal")


async def test_a_transaction_that_has_failed_says_that_it_was_not_committed(settings: Settings) -> None:
    log = EventStoreLog(settings.server_url() or "", settings.db_schema)
    await log.open()
    given = CheckEvent(uuid4(), content_of(uuid4()))
    write = Write("check-1", uuid4(), (given,), "ANY")
    async with log.transaction() as transaction:
        await transaction.append(write)
        with pytest.raises(Refused):
            await transaction.append(write._replace(expected="NO_STREAM", events=(CheckEvent(uuid4(), {}),)))
        with pytest.raises(Refused, match="answered ROLLBACK"):
            await transaction.commit()
    async with log.transaction() as transaction:
        await transaction.append(write)
    assert [event async for event in log.log()] == []
    async with log.transaction() as transaction:
        await transaction.append(write)
        await transaction.commit()
    assert [(event.id, event.intact) async for event in log.log()] == [(given.id, False)]
    await log.close()


async def test_a_process_ends_when_its_checker_has_gone(settings: Settings, tmp_path: Path) -> None:
    task = ProcessTask(
        role="reader", name="reader-1-start", incarnation=1, url=settings.server_url() or "", schema="public",
        adapter=READER, folder=str(tmp_path), seed="1", tenants=["check-1"], hot=[],
        last=uuid4().hex, kind="start",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.checker.child",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=child_environment(),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
    assert json.loads(await process.stdout.readline())["deliveries"] == 0
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 30) == 0
    assert list(read_lines(task.journal))[1:] == ["kind start", "start 0"]
