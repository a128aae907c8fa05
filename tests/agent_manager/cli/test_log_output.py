"""The log of a service: a line for each request and for what operators look for, and no secret in any of them."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from support.endpoints import endpoints
from support.environment import child_environment
from support.processes import EVENTSTORE, Commands, Running, run
from support.servers import DatabaseServer
from support.waiting import SECONDS, until

from agent_manager.logs import MAX_LINES, JsonFormatter, TextFormatter, request_id

HIDDEN = "S3cret"
"""A part of every content, token, key and query of these tests."""


def lines(running: Running) -> list[dict[str, Any]]:
    """Return the records that a process has logged as JSON: every whole line must be one."""
    return [json.loads(line) for line in running.err.splitlines(keepends=True) if line.endswith("\n")]


def events(running: Running, event: str) -> list[dict[str, Any]]:
    return [line for line in lines(running) if line.get("event") == event]


def logged(running: Running, event: str) -> list[dict[str, Any]]:
    """Return the records of an event once there are any: a thread writes them, after what they record."""
    return until(lambda: events(running, event), f"{event} is logged")


def start(started: Commands, url: str, *arguments: str, **environment: str) -> tuple[Running, str]:
    """Start a service that logs everything as JSON, and return it with its address."""
    up = started.start("up", "--port", "0", "--log-format", "json", *arguments, DATABASE_URL=url, **environment)
    up.until_printed("Ctrl-C")
    found = re.search(r"^HTTP +(http://[^;]+);", up.out, re.MULTILINE)
    assert found is not None, up.out
    return up, found[1]


# A session with a service


AGENT = f"""
async def answer(message):
    raise ValueError("the agent quotes: " + str(message) + "{HIDDEN}")
"""
PROJECTION = """-- projection: numbers
-- tables: numbers
-- setup
CREATE TABLE numbers (tenant_id text, conversation_id uuid, number bigint);
-- batch
INSERT INTO numbers SELECT b.tenant_id, b.conversation_id, (b.content ->> 'number')::bigint FROM batch b;
"""


@pytest.mark.slow
def test_no_secret_is_logged_in_a_session_with_failures(started: Commands, database_url: str) -> None:
    Path("quotes.py").write_text(AGENT, encoding="utf-8")
    Path("numbers.sql").write_text(PROJECTION, encoding="utf-8")
    token = run("keys", "add", "x", "--scope", "admin", "--scope", "read", "--scope", "write", "--scope", "audit",
                DATABASE_URL=database_url).stdout.strip()  # fmt: skip
    up, url = start(
        started, database_url, "--require-tokens", "--log-level", "debug", EVENTSTORE_ANSWER="quotes:answer",
        EVENTSTORE_PROJECTIONS="numbers.sql", EVENTSTORE_JWT_KEY=f"{HIDDEN}{'k' * 40}",
    )  # fmt: skip
    message = {"messageId": "m1", "contextId": "holiday", "role": "user", "parts": [{"kind": "text", "text": HIDDEN}]}
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=SECONDS) as client:
        answers = [
            client.post("/message/send", json={"params": message}),
            client.post("/v1/conversations", json={"id": f"{HIDDEN}/{HIDDEN}", "name": HIDDEN}),
            client.post("/v1/conversations", json={"id": "n"}),
            client.post("/v1/conversations/n/events", json={
                "events": [{"event_type": "counted", "content": {"number": HIDDEN}}],
            }),
            client.get(f"/v1/conversations/{HIDDEN}%2F{HIDDEN}/messages"),
            client.get(f"/v1/conversations/absent{HIDDEN}/messages", params={"after": HIDDEN}),
            client.get("/v1/search", params={"q": f'"{HIDDEN}'}),
            client.get(f"/{HIDDEN}", params={"token": HIDDEN}),
            client.post(f"/v1/{HIDDEN}", content=HIDDEN),
            client.post("/v1/conversations", content=f'{{"name": "{HIDDEN}'),
            client.post("/v1/conversations", json={"name": {"a": HIDDEN}, HIDDEN: 1}),
            client.request(HIDDEN.upper(), "/v1/conversations"),
            *(client.get("/v1/conversations", headers={"Authorization": wrong}) for wrong in (
                f"Bearer {HIDDEN}", f"Basic {HIDDEN}", f"Bearer es_{'a' * 12}_{HIDDEN * 7}x", f"Bearer a.{HIDDEN}.c",
            )),
            client.get("/v1/conversations", headers={"X-Request-ID": f"{HIDDEN} \tforged"}),
        ]  # fmt: skip
        answers += [each.request(client, "holiday") for each in endpoints() if not each.is_endless]
    statuses = {answer.status_code for answer in answers}
    assert {200, 201, 401, 404, 405, 422} <= statuses
    until(lambda: events(up, "answer_failed") and events(up, "conversation_parked"), "the failures are logged")
    assert up.interrupt() == 0
    for hidden in (HIDDEN, token, token.rpartition("_")[2], "let me in", "holiday"):
        assert hidden not in up.err, next(line for line in up.err.splitlines() if hidden in line)
    logged = events(up, "request")
    # A line is written when the response has been sent: the line of the next request may come first.
    assert len(logged) == len(answers)
    assert {line["request_id"]: line["status"] for line in logged} == {
        answer.headers["X-Request-ID"]: answer.status_code for answer in answers
    }
    assert all({"method", "route", "milliseconds", "bytes"} <= line.keys() for line in logged)
    assert {line.get("tenant") for line in logged} == {"default", None}
    assert {line["route"] for line in logged} >= {"unmatched", "/v1/conversations/{conversation}/messages"}
    failed = events(up, "answer_failed")[0]
    assert (failed["error"], failed["request_id"]) == ("ValueError", answers[0].headers["X-Request-ID"])
    assert any(frame.endswith("answer") for frame in failed["stack"])
    parked = events(up, "conversation_parked")[0]
    assert (parked["projection"], parked["tenant"], parked["sqlstate"]) == ("numbers", "default", "22P02")


# What operators look for


@pytest.mark.slow
def test_start_stop_and_takeover_are_logged(started: Commands, database_url: str) -> None:
    first, _ = start(started, database_url)
    [began] = logged(first, "service_started")
    assert (began["pid"], began["schema"]) == (first.pid, "public")
    [taken] = logged(first, "partitions_taken")
    assert (taken["partitions"], taken["workers"]) == (list(range(16)), 1)
    second = started.start("project", "--log-format", "json", DATABASE_URL=database_url)
    logged(second, "partitions_taken")
    [released] = logged(first, "partitions_released")
    assert released["workers"] == 2
    first.kill()
    until(lambda: len(events(second, "partitions_taken")) == 2, "the second worker takes over")
    shares = [line["partitions"] for line in events(second, "partitions_taken")]
    assert sorted(chain(*shares)) == list(range(16))
    assert second.interrupt() == 0
    assert [line["event"] for line in lines(second)][-2:] == ["service_stopping", "service_stopped"]


@pytest.mark.slow
def test_migrations_are_logged(started: Commands, empty_database_url: str) -> None:
    up, _ = start(started, empty_database_url)
    [applied] = logged(up, "migrations_applied")
    assert applied["migrations"][0] == "20261129000100"
    assert up.interrupt() == 0


@pytest.mark.slow
def test_slow_statements_are_logged_by_name(started: Commands, database_url: str) -> None:
    up, url = start(started, database_url, EVENTSTORE_SLOW_STATEMENT_SECONDS="0.000001")
    made = httpx.post(f"{url}/v1/conversations", json={"id": HIDDEN}, timeout=SECONDS)
    listed = httpx.get(f"{url}/v1/conversations/{HIDDEN}/messages", timeout=SECONDS)
    until(lambda: "small_batches" in {line["statement"] for line in events(up, "statement_slow")}, "a batch")
    assert up.interrupt() == 0
    slow = events(up, "statement_slow")
    assert all(line["milliseconds"] >= 0 for line in slow)
    named = {(line.get("request_id"), line["statement"]) for line in slow}
    assert (made.headers["X-Request-ID"], "append") in named
    assert (listed.headers["X-Request-ID"], "resolve") in named
    assert HIDDEN not in up.err


@pytest.mark.slow
def test_a_lost_database_and_its_return_are_logged(
    started: Commands, database_url: str, server: DatabaseServer
) -> None:
    up, _ = start(started, database_url)
    name = conninfo_to_dict(database_url)["dbname"]
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(server.superuser_url_of("postgres"), autocommit=True) as connection:
        connection.execute(allow.format(sql.Identifier(str(name)), sql.Literal(False)))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        logged(up, "database_lost")
        connection.execute(allow.format(sql.Identifier(str(name)), sql.Literal(True)))
    [back] = logged(up, "database_back")
    assert back["seconds"] >= 0
    assert up.interrupt() == 0


@pytest.mark.slow
def test_backups_are_logged(started: Commands, database_url: str, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    up, _ = start(started, database_url, EVENTSTORE_BACKUP_DIR=str(target), EVENTSTORE_BACKUP_MINUTES="0.02")
    logged(up, "backup_done")
    for file in target.rglob("*.json"):
        file.unlink()
    target.rename(tmp_path / "away")
    target.write_text("a file", encoding="utf-8")
    failed = logged(up, "backup_failed")
    assert str(target) in failed[0]["message"]
    assert up.interrupt() == 0


# Options and standard error


@pytest.mark.slow
def test_the_format_and_the_level_are_set_by_options_or_variables(started: Commands, database_url: str) -> None:
    for arguments, environment in (
        (["--log-format", "json", "--log-level", "warning"], {}),
        ([], {"EVENTSTORE_LOG_FORMAT": "JSON", "EVENTSTORE_LOG_LEVEL": "WARNING"}),
    ):
        up = started.start("up", "--port", "0", *arguments, DATABASE_URL=database_url, **environment)
        up.until_printed("Ctrl-C")
        assert up.interrupt() == 0
        assert up.err == ""
    wrong = run("up", "--log-format", "xml", DATABASE_URL=database_url)
    assert wrong.returncode == 1
    assert "EVENTSTORE_LOG_FORMAT, --log-format: Input should be 'text' or 'json'" in wrong.stderr


@pytest.mark.slow
def test_an_error_that_ends_a_command_is_a_record_too(clean_environment: None) -> None:
    done = run("rebuild", "absent", "--log-format", "json")
    assert (done.returncode, json.loads(done.stderr)["event"]) == (1, "command_failed")
    assert "there is no projection 'absent'" in json.loads(done.stderr)["message"]


@pytest.mark.slow
@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "not read"])
def test_a_service_goes_on_if_nothing_reads_its_log(
    clean_environment: None, database_url: str, tmp_path: Path, is_closed: bool
) -> None:
    read, write = os.pipe()
    if not is_closed:  # the pipe is full
        os.set_blocking(write, False)
        with suppress(BlockingIOError):
            while True:
                os.write(write, b"x" * 4096)
        os.set_blocking(write, True)
    out = tmp_path / "out"
    with out.open("wb") as output:
        process = subprocess.Popen(
            [*EVENTSTORE, "up", "--port", "0"], stdin=subprocess.DEVNULL, stdout=output, stderr=write,
            env=child_environment(DATABASE_URL=database_url),
        )  # fmt: skip
    os.close(write)
    try:
        until(lambda: "Ctrl-C" in out.read_text(encoding="utf-8") or process.poll() is not None, "it runs")
        if is_closed:
            os.close(read)
        found = re.search(r"^HTTP +(http://[^;]+);", out.read_text(encoding="utf-8"), re.MULTILINE)
        assert found is not None
        for _ in range(3):
            assert httpx.get(f"{found[1]}/v1/conversations", timeout=SECONDS).status_code == 200
    finally:
        process.terminate()
        assert process.wait(30) == 0
        if not is_closed:
            os.close(read)


@pytest.mark.slow
def test_lines_that_nothing_reads_are_dropped_and_counted() -> None:
    script = """
import logging, os, time
from agent_manager.logs import MAX_LINES, configure
configure("json", "info")
for number in range(MAX_LINES * 2):
    logging.getLogger("eventstore").info("line")
print("logged", flush=True)
input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "logged\n"
    written, dropped = 0, 0
    while written + dropped < MAX_LINES * 2:
        line = json.loads(process.stderr.readline())
        if line.get("event") == "lines_dropped":
            dropped += line["lines"]
        else:
            written += 1
    assert (written + dropped, dropped > 0) == (MAX_LINES * 2, True)
    assert process.communicate("\n") == ("", "")


def test_what_was_logged_last_is_written_before_the_process_ends() -> None:
    script = """
import logging
from agent_manager.logs import configure
configure("json", "info")
for number in range(2000):
    logging.getLogger("eventstore").info("line %d", number)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=True)
    assert json.loads(done.stderr.splitlines()[-1])["message"] == "line 1999"


# Formats


@pytest.fixture
def record() -> logging.LogRecord:
    """A record whose values try to forge another line and another field."""
    forged = "a\n2026-11-30T00:00:00.000Z ERROR forged\r\x1b[2J\u2028\x85 tenant=other"
    made = logging.LogRecord("eventstore", logging.INFO, __file__, 1, "what happened: %s", (forged,), None)
    vars(made).update(event="forging", tenant=forged, route='a" tenant="other', absent=None, number=3)
    return made


@pytest.fixture
def current_request() -> Iterator[None]:
    token = request_id.set("r1")
    yield
    request_id.reset(token)


def test_a_value_cannot_forge_a_line_of_text(record: logging.LogRecord, current_request: None) -> None:
    line = TextFormatter().format(record)
    assert line.isprintable()
    assert re.fullmatch(
        r'\S+Z INFO forging: what happened: a\\n.* tenant="a\\\\n.*" route=".*" number=3 request_id=r1', line
    )
    assert r'route="a\" tenant=\"other"' in line


def test_a_value_cannot_forge_a_line_of_json(record: logging.LogRecord, current_request: None) -> None:
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    members = json.loads(line)
    assert members["event"] == "forging"
    assert members["number"] == 3
    assert "absent" not in members


def test_of_an_exception_the_types_and_the_places_are_shown() -> None:
    try:
        try:
            raise ValueError(f"{HIDDEN}\n2026-11-30T00:00:00.000Z ERROR forged")
        except ValueError as error:
            raise RuntimeError(HIDDEN) from error
    except RuntimeError:
        made = logging.LogRecord("asyncio", logging.ERROR, __file__, 1, f"failed\n{HIDDEN}", (), sys.exc_info())
    for formatter in (TextFormatter(), JsonFormatter()):
        shown = formatter.format(made)
        assert HIDDEN not in shown
        assert "RuntimeError from ValueError" in shown
        assert Path(__file__).name in shown
    [first, *frames] = TextFormatter().format(made).splitlines()
    assert " ERROR failed " in first
    assert frames
    assert all(frame.startswith("    ") for frame in frames)
